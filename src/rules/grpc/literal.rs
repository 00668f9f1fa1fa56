//! Literals of JSON: texts, numbers, and what is no number of JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Appends a text in quotes.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    // Writing into memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends bytes in base64, in quotes.
pub fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The room is that of the text with its padding.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or_default();
    out.truncate(start + written);
    out.push(b'"');
}

/// Appends an integer.
pub fn write_integer(value: impl Into<i64>, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, &value.into());
}

/// Appends an integer in quotes.
pub fn write_quoted(value: impl serde::Serialize, out: &mut Vec<u8>) {
    out.push(b'"');
    let _ = serde_json::to_writer(&mut *out, &value);
    out.push(b'"');
}

/// Appends a floating-point number of 64 bits.
pub fn write_double(value: f64, out: &mut Vec<u8>) {
    not_a_number(value, out);
    if value.is_finite() {
        let _ = serde_json::to_writer(&mut *out, &value);
        shorten(out);
    }
}

/// Appends a floating-point number of 32 bits.
pub fn write_float(value: f32, out: &mut Vec<u8>) {
    not_a_number(value.into(), out);
    if value.is_finite() {
        let _ = serde_json::to_writer(&mut *out, &value);
        shorten(out);
    }
}

/// Appends the text for what is no number of JSON.
fn not_a_number(value: f64, out: &mut Vec<u8>) {
    let text: &[u8] = match value {
        _ if value.is_nan() => b"\"NaN\"",
        f64::INFINITY => b"\"Infinity\"",
        f64::NEG_INFINITY => b"\"-Infinity\"",
        _ => b"",
    };
    out.extend_from_slice(text);
}

/// Removes a fraction of zero.
fn shorten(out: &mut Vec<u8>) {
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}
