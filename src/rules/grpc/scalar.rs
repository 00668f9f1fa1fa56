//! Values from texts: those of paths and queries, and the texts and numbers of JSON (ProtoJSON, "Field
//! representation").

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::types::{EnumType, Form, Kind, Types};
use super::well_known::{parse_duration, parse_field_mask, parse_timestamp};
use super::wire::{put_record, put_tag, put_varint, zigzag};

/// What is expected in place of a value.
pub type Expected = Cow<'static, str>;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// Returns the bytes of a text in base64, of either alphabet, with or without padding.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let engine = if text.contains(['-', '_']) { &BASE64_URL } else { &BASE64 };
    engine.decode(text).ok()
}

/// Returns the integer that a decimal number is, exactly: `10`, `1e1`, `10.0`.
pub fn integer(text: &str) -> Option<i128> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix('+').unwrap_or(exponent).parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
        None => (mantissa, ""),
    };
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().all(|digit| digit == b'0') {
        return Some(0);
    }
    let shift = i64::from(exponent) - fraction.len() as i64;
    let kept = (whole.len() + fraction.len()) as i64 + shift.min(0);
    let kept = usize::try_from(kept).ok()?;
    if digits().skip(kept).any(|digit| digit != b'0') {
        return None;
    }
    let mut value = 0_i128;
    for digit in digits().take(kept).chain((0..shift.clamp(0, 40)).map(|_| b'0')) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0')).filter(|value| *value < 1 << 70)?;
    }
    Some(if negative { -value } else { value })
}

/// Returns the floating-point number of a text, if it is written as in JSON.
fn float(text: &str) -> Option<f64> {
    match text {
        "NaN" => return Some(f64::NAN),
        "Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let fine = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let begins = text.strip_prefix('-').unwrap_or(text).starts_with(|c: char| c.is_ascii_digit());
    if fine && begins { text.parse().ok().filter(|value: &f64| value.is_finite()) } else { None }
}

/// Appends the value of a number: what follows its tag.
fn put_number(kind: Kind, text: &str, out: &mut Vec<u8>) -> Result<(), Expected> {
    let number = || integer(text).ok_or("an integer");
    let within = |what: &'static str| move |_| what;
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            let value = i32::try_from(number()?).map_err(within("an integer of 32 bits"))?;
            match kind {
                Kind::Int32 => put_varint(i64::from(value) as u64, out),
                Kind::Sint32 => put_varint(zigzag(value.into()), out),
                _ => out.extend_from_slice(&value.to_le_bytes()),
            }
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            let value = i64::try_from(number()?).map_err(within("an integer of 64 bits"))?;
            match kind {
                Kind::Int64 => put_varint(value as u64, out),
                Kind::Sint64 => put_varint(zigzag(value), out),
                _ => out.extend_from_slice(&value.to_le_bytes()),
            }
        }
        Kind::Uint32 | Kind::Fixed32 => {
            let value = u32::try_from(number()?).map_err(within("an integer of 32 bits that is not negative"))?;
            if kind == Kind::Uint32 {
                put_varint(value.into(), out);
            } else {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        Kind::Uint64 | Kind::Fixed64 => {
            let value = u64::try_from(number()?).map_err(within("an integer of 64 bits that is not negative"))?;
            if kind == Kind::Uint64 {
                put_varint(value, out);
            } else {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        Kind::Double => out.extend_from_slice(&float(text).ok_or("a number")?.to_le_bytes()),
        Kind::Float => {
            let wide = float(text).ok_or("a number")?;
            let value = if wide.is_finite() { text.parse().unwrap_or(f32::INFINITY) } else { wide as f32 };
            if wide.is_finite() && value.is_infinite() {
                return Err("a number of 32 bits".into());
            }
            out.extend_from_slice(&value.to_le_bytes());
        }
        _ => return Err("another kind of value".into()),
    }
    Ok(())
}

/// Appends the value of a text: what follows its tag, records with their length. `names_only` says that an enum may not
/// be a number in a text.
///
/// # Errors
/// Returns what is expected.
pub fn put_text(types: &Types, kind: Kind, text: &str, names_only: bool, out: &mut Vec<u8>) -> Result<(), Expected> {
    match kind {
        Kind::String => put_bytes(text.as_bytes(), out),
        Kind::Bytes => put_bytes(&decode_base64(text).ok_or("base64")?, out),
        Kind::Bool => match text {
            "true" => out.push(1),
            "false" => out.push(0),
            _ => return Err("true or false".into()),
        },
        Kind::Enum(number) => {
            let of = types.enum_type(number);
            let number = of.number(text).or_else(|| if names_only { None } else { enum_number(of, text) });
            put_varint(i64::from(number.ok_or_else(|| expected_name(of))?) as u64, out);
        }
        Kind::Message(id) | Kind::Group(id) => {
            return put_record(out, |out| put_well_known(types, id, text, names_only, out));
        }
        _ => return put_number(kind, text, out),
    }
    Ok(())
}

/// Appends the value of an unquoted number of JSON.
///
/// # Errors
/// Returns what is expected.
pub fn put_json_number(types: &Types, kind: Kind, text: &str, out: &mut Vec<u8>) -> Result<(), Expected> {
    match kind {
        Kind::Enum(number) => {
            let of = types.enum_type(number);
            put_varint(i64::from(enum_number(of, text).ok_or_else(|| expected_name(of))?) as u64, out);
            Ok(())
        }
        Kind::String => Err("a text".into()),
        Kind::Bytes => Err("a text in base64".into()),
        Kind::Bool => Err("true or false".into()),
        Kind::Message(_) | Kind::Group(_) => Err("an object".into()),
        _ => put_number(kind, text, out),
    }
}

/// Appends octets with their length.
pub fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn enum_number(of: &EnumType, text: &str) -> Option<i32> {
    let number = integer(text).and_then(|number| i32::try_from(number).ok())?;
    (!of.is_closed || of.name_of(number).is_some()).then_some(number)
}

/// Returns the first names of an enum.
fn expected_name(of: &EnumType) -> Expected {
    let names: Vec<&str> = of.values.iter().take(8).map(|(name, _)| &**name).collect();
    let more = if of.values.len() > names.len() { ", …" } else { "" };
    format!("one of {}{more}", names.join(", ")).into()
}

/// Appends the content of a message that is a text.
fn put_well_known(types: &Types, id: u32, text: &str, strict: bool, out: &mut Vec<u8>) -> Result<(), Expected> {
    let message = types.message(id);
    match message.form {
        Form::Timestamp => {
            let (seconds, nanos) = parse_timestamp(text).ok_or("a time such as 2026-01-31T12:00:00Z")?;
            put_seconds(seconds, nanos, out);
        }
        Form::Duration => {
            let (seconds, nanos) = parse_duration(text).ok_or("a duration such as 1.5s")?;
            put_seconds(seconds, nanos, out);
        }
        Form::FieldMask => {
            let paths =
                parse_field_mask(text, !strict).ok_or("names of fields with commas, such as displayName,a.b")?;
            for path in paths {
                put_tag(1, 2, out);
                put_bytes(path.as_bytes(), out);
            }
        }
        Form::Wrapper => {
            let Some(field) = message.fields.first() else { return Ok(()) };
            put_tag(field.number, field.kind.wire_type(), out);
            put_text(types, field.kind, text, strict, out)?;
        }
        _ => return Err("an object".into()),
    }
    Ok(())
}

fn put_seconds(seconds: i64, nanos: i32, out: &mut Vec<u8>) {
    for (number, value) in [(1, seconds), (2, i64::from(nanos))] {
        if value != 0 {
            put_tag(number, 0, out);
            put_varint(value as u64, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_exact() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("9007199254740993", Some(9_007_199_254_740_993)),
            ("9007199254740993.0", Some(9_007_199_254_740_993)),
            ("18446744073709551615", Some(u64::MAX.into())),
            ("1e3", Some(1000)),
            ("1.5e1", Some(15)),
            ("100e-2", Some(1)),
            ("0e999999", Some(0)),
            ("007", Some(7)),
            ("1.5", None),
            ("1e-1", None),
            ("1e30", None),
            ("1e999999999", None),
            ("1e99999999999", None),
            ("", None),
            ("-", None),
            ("+1", None),
            (" 1", None),
            ("1.", None),
            (".5", None),
            ("0x10", None),
            ("1_000", None),
            ("١", None),
        ] {
            assert_eq!(integer(text), value, "{text}");
        }
    }

    #[test]
    fn floats_are_those_of_json() {
        for wrong in ["inf", "nan", "+1", "1e999", "infinity", "", ".5", "-", "1_0"] {
            assert_eq!(float(wrong), None, "{wrong}");
        }
        assert_eq!(float("-1.5e3"), Some(-1500.0));
        assert_eq!(float("-Infinity"), Some(f64::NEG_INFINITY));
    }

    #[test]
    fn base64_is_of_either_alphabet() {
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            assert_eq!(decode_base64(text), Some(vec![0xfb, 0xff]), "{text}");
        }
        for wrong in ["+_8", "a", "?", "ab c"] {
            assert_eq!(decode_base64(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn integers_come_back(value: i64) {
            prop_assert_eq!(integer(&value.to_string()), Some(value.into()));
            prop_assert_eq!(integer(&format!("{value}.00e0")), Some(value.into()));
        }

        #[test]
        fn no_text_is_a_panic(text in "[-+0-9.eE]{0,24}") {
            let _ = (integer(&text), float(&text));
        }
    }
}
