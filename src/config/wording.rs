//! The words in which the errors of a value are described.

use serde_json::Value as Json;

use super::hints;
use super::trail::Trail;
use super::tree::{Node, Value};
use crate::notation::{Fact, fact_of, nearest};

/// Returns the message for a text that is none of the allowed ones.
pub fn unknown_word(node: &Node, text: &str, allowed: &[String], place: &Trail<'_>) -> String {
    let (known, near) = (join_words(allowed.iter()), || nearest(text, allowed.iter().map(String::as_str)));
    let hint = hints::for_word(place, text).map(|hint| format!("; {hint}"));
    match &node.written {
        Some(written) => format!("expected one of {known}, found what {written} stands for"),
        None => format!("expected one of {known}, found \"{text}\"{}", hint.unwrap_or_else(near)),
    }
}

/// Returns the message for a value of another kind than all that are wanted.
pub fn unexpected(node: &Node, wanted: &[&Json], place: &Trail<'_>) -> String {
    let words: Vec<String> =
        wanted.iter().filter_map(|schema| schema.get("const")?.as_str()).map(str::to_owned).collect();
    let mut all: Vec<String> = wanted
        .iter()
        .filter(|schema| schema.get("const").is_none())
        .map(|schema| describe_expected(schema))
        .filter(|text| !text.is_empty())
        .collect();
    all.dedup();
    if !words.is_empty() {
        all.insert(0, format!("one of {}", join_words(words.iter())));
    }
    let instead = instead_of(node, wanted, place).map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("expected {}, found {}{instead}", all.join(" or "), describe_found(node, wanted))
}

/// Returns what to write instead of a value of another kind.
fn instead_of(node: &Node, wanted: &[&Json], place: &Trail<'_>) -> Option<String> {
    let is_any = |kind: &str| wanted.iter().any(|schema| is(schema, kind));
    let format = || wanted.iter().find_map(|schema| schema.get("format")?.as_str());
    match &node.value {
        _ if node.written.is_some() => None,
        Value::Integer(_) | Value::Float(_) => match format() {
            Some(format) => hints::for_number(format, &node.value.plain()?),
            None => hints::for_word(place, "0").map(str::to_owned),
        },
        Value::Bool(word) => hints::for_word(place, &word.to_ascii_lowercase()).map(str::to_owned),
        Value::Text(text) => {
            let is_number = is_any("integer") || is_any("number");
            let is_pair = is_any("object") && text.contains(':') && !text.contains("://");
            let space = || "a key has a colon and a space behind it: `KEY: VALUE`".to_owned();
            let of_place = || hints::for_word(place, "\"").map(str::to_owned);
            hints::for_text(text, is_any("boolean"), is_number).or_else(of_place).or_else(|| is_pair.then(space))
        }
        Value::Map(_) if hints::for_word(place, "{").is_some() => hints::for_word(place, "{").map(str::to_owned),
        Value::List(_) if hints::for_word(place, "[").is_some() => hints::for_word(place, "[").map(str::to_owned),
        Value::Map(_) if is_any("array") => Some("each entry is written with a - before it".to_owned()),
        Value::List(_)
            if wanted.iter().any(|schema| schema.get("additionalProperties").is_some_and(Json::is_object)) =>
        {
            Some("write `NAME: …` for each entry, without a -".to_owned())
        }
        _ => None,
    }
}

/// Returns what stands there.
fn describe_found(node: &Node, wanted: &[&Json]) -> String {
    if let Some(written) = &node.written {
        return format!("the text that {written} stands for");
    }
    let value = &node.value;
    // A secret is not repeated.
    fn format<'s>(schema: &&'s Json) -> Option<&'s str> {
        schema.get("format").and_then(Json::as_str)
    }
    let secret = wanted.iter().filter_map(format).any(|format| fact_of(format, "") == Some(Fact::Secret));
    match value {
        Value::Integer(_) | Value::Float(_) if secret => "a number; as a text it needs quotes".to_owned(),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(decimal) => format!("the number {}", decimal.text),
        Value::Bool(word) => (*word).to_owned(),
        other => other.kind().to_owned(),
    }
}

/// Returns whether a schema is for values of that kind.
pub fn is(schema: &Json, kind: &str) -> bool {
    match schema.get("type") {
        Some(Json::String(one)) => one == kind,
        Some(Json::Array(several)) => several.iter().any(|k| k == kind),
        _ => kind == "string" && allowed(schema).is_some(),
    }
}

/// Returns whether a schema is for values of the kind of this one.
pub fn kind_fits(value: &Value, schema: &Json) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) => is(schema, "boolean"),
        Value::Integer(_) => is(schema, "integer") || is(schema, "number"),
        Value::Float(_) => is(schema, "number"),
        Value::Text(_) => is(schema, "string"),
        Value::List(_) => is(schema, "array"),
        Value::Map(_) => is(schema, "object"),
    }
}

/// Returns the texts that an enumeration allows.
pub fn allowed(schema: &Json) -> Option<Vec<String>> {
    let texts = |list: &[Json]| list.iter().filter_map(Json::as_str).map(str::to_owned).collect();
    match (schema.get("enum"), schema.get("const")) {
        (Some(Json::Array(list)), _) => Some(texts(list)),
        (_, Some(Json::String(one))) => Some(vec![one.clone()]),
        _ => None,
    }
}

/// Returns in words what a schema expects.
pub fn describe_expected(schema: &Json) -> String {
    if let Some(example) = schema.get("examples").and_then(|e| e.get(0)).and_then(Json::as_str) {
        let format = schema.get("format").and_then(Json::as_str).unwrap_or("text").replace('-', " ");
        let article = if format.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        return format!("{article} {format} such as {example}");
    }
    if let Some(allowed) = allowed(schema) {
        return format!("one of {}", join_words(allowed.iter()));
    }
    for (kind, text) in [
        ("object", "a mapping"),
        ("array", "a list"),
        ("string", "a text"),
        ("integer", "a whole number"),
        ("number", "a number"),
        ("boolean", "true or false"),
    ] {
        if is(schema, kind) {
            return text.to_owned();
        }
    }
    String::new()
}

/// Returns the words with commas between them.
pub fn join_words<S: AsRef<str>>(words: impl Iterator<Item = S>) -> String {
    let mut out = String::new();
    for word in words {
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(word.as_ref());
    }
    out
}
