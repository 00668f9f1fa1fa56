//! How values are written, by the form of the output.
//!
//! In JSON a value is written between two marks, and what it becomes is decided where the output is put together,
//! which knows whether it stands within a text. The marks are characters that no text may have (noncharacters of
//! Unicode); those of values are escaped.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::OutputForm;
use super::json::ExactNumber;

/// The marks around the content of a JSON text, and around a JSON list or object.
pub(super) const MARKS: [char; 4] = [TEXT, TEXT_END, JSON, JSON_END];
pub(super) const TEXT: char = '\u{fdd0}';
pub(super) const TEXT_END: char = '\u{fdd1}';
pub(super) const JSON: char = '\u{fdd2}';
pub(super) const JSON_END: char = '\u{fdd3}';

/// The deepest nesting of a list or object that is written.
const MAX_DEPTH: usize = 128;

/// The bytes of a part of a URL that are not encoded are the unreserved ones (RFC 3986, section 2.3).
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

type Formatter = fn(&mut Output<'_>, &mut State<'_, '_>, &Value) -> Result<(), Error>;

/// Returns the function that writes values in that form.
pub(super) fn formatter(form: OutputForm) -> Formatter {
    match form {
        OutputForm::Json => |out, _, value| write_marked(out, value),
        OutputForm::Xml => |out, _, value| write_text(out, value, escape_xml),
        OutputForm::Url => {
            |out, _, value| write_text(out, value, |text| utf8_percent_encode(text, COMPONENT).to_string())
        }
        OutputForm::Text => |out, _, value| write_text(out, value, str::to_owned),
    }
}

/// Returns whether the environment has a filter of that name.
pub(super) fn has_filter(environment: &Environment<'_>, name: &str) -> bool {
    let known = environment.empty_state().apply_filter(name, &[]);
    !known.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter)
}

/// The filter `tojson`: the value as JSON, in a template of any form.
pub(super) fn tojson(value: Value) -> Result<String, Error> {
    let mut out = String::new();
    write_json(&mut out, &value, 0)?;
    Ok(out)
}

fn write_text(out: &mut Output<'_>, value: &Value, escape: fn(&str) -> String) -> Result<(), Error> {
    reject_undefined(value)?;
    if let (Some(text), true) = (value.as_str(), value.is_safe()) {
        return out.write_str(text).map_err(Error::from);
    }
    match value.kind() {
        // Nothing is said by it.
        ValueKind::None => Ok(()),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            out.write_str(&escape(&tojson(value.clone())?)).map_err(Error::from)
        }
        _ => out.write_str(&escape(&value.to_string())).map_err(Error::from),
    }
}

fn write_marked(out: &mut Output<'_>, value: &Value) -> Result<(), Error> {
    reject_undefined(value)?;
    match value.as_str() {
        Some(text) if value.is_safe() => out.write_str(text).map_err(Error::from),
        Some(text) => {
            let mut escaped = String::with_capacity(text.len() + 8);
            escaped.push(TEXT);
            escape_json(text, &mut escaped);
            escaped.push(TEXT_END);
            out.write_str(&escaped).map_err(Error::from)
        }
        None => {
            let mut json = String::new();
            let is_nested = matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable);
            json.extend(is_nested.then_some(JSON));
            write_json(&mut json, value, 0)?;
            json.extend(is_nested.then_some(JSON_END));
            out.write_str(&json).map_err(Error::from)
        }
    }
}

fn reject_undefined(value: &Value) -> Result<(), Error> {
    if value.is_undefined() { Err(Error::from(ErrorKind::UndefinedError)) } else { Ok(()) }
}

/// Writes a value as JSON.
fn write_json(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    let wrong = |why: &'static str| Error::new(ErrorKind::BadSerialization, why);
    if depth > MAX_DEPTH {
        return Err(wrong("the value is nested too deep"));
    }
    reject_undefined(value)?;
    if let Some(number) = value.downcast_object_ref::<ExactNumber>() {
        out.push_str(&number.0);
        return Ok(());
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let text = value.to_string();
            // Infinity and not-a-number are no JSON.
            let is_json = text.ends_with(|c: char| c.is_ascii_digit());
            if !is_json {
                return Err(wrong("the number is not finite"));
            }
            out.push_str(&text);
        }
        ValueKind::Map => {
            out.push('{');
            for (place, name) in value.try_iter()?.checked().enumerate() {
                let name = name?;
                out.push_str(if place > 0 { "," } else { "" });
                let text = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
                out.push('"');
                escape_json(&text, out);
                out.push_str("\":");
                write_json(out, &value.get_item(&name)?, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (place, item) in value.try_iter()?.checked().enumerate() {
                out.push_str(if place > 0 { "," } else { "" });
                write_json(out, &item?, depth + 1)?;
            }
            out.push(']');
        }
        _ => match value.as_str() {
            Some(text) => {
                out.push('"');
                escape_json(text, out);
                out.push('"');
            }
            None => return Err(wrong("the value is neither text, number, list nor object")),
        },
    }
    Ok(())
}

/// Appends a text as it stands between the quotes of a JSON text (RFC 8259, section 7).
pub(super) fn escape_json(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || MARKS.contains(&c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

/// Returns a text with the characters of markup as entities; those that XML 1.0 forbids are left out (section 2.2).
fn escape_xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(c),
            '\r' => out.push_str("&#13;"),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}
