//! The schema for editors and validators of others. It says in JSON Schema alone what the check does in code: formats
//! are patterns, a list of one value may be the value, a number may stand where a text belongs, and a reference
//! (`${env:NAME}`) anywhere.

use serde_json::{Map, Value as Json, json};

use super::wording::allowed;
use crate::notation::{FreeForm, check_format, pattern_of};

/// A text with a reference, whose value is not known.
const REFERENCE: &str = r"\$\{(env|file):";

/// Returns the schema as it is published.
pub fn published_schema() -> Json {
    let mut schema = super::schema();
    let definitions = schema.get_mut("$defs").and_then(Json::as_object_mut).map(std::mem::take).unwrap_or_default();
    let mut published = publish(&schema, &definitions);
    published["$defs"] =
        definitions.iter().map(|(name, schema)| (name.clone(), publish(schema, &definitions))).collect();
    published["patternProperties"] = json!({"^x-": {"description": "Ignored: a place for what anchors share."}});
    published
}

type Definitions = Map<String, Json>;

/// Returns a part of the schema as it is published.
fn publish(schema: &Json, definitions: &Definitions) -> Json {
    let Some(members) = schema.as_object() else { return schema.clone() };
    if members.contains_key(FreeForm::MARK) {
        // Validators take whatever is in it.
        return members.get("description").map_or_else(|| json!({}), |text| json!({"description": text}));
    }
    let mut out = Map::new();
    for (key, value) in members {
        match key.as_str() {
            "format" => {}
            key if key.starts_with("x-") => {}
            "default" if value.is_null() => {}
            "properties" => {
                let all = value.as_object().into_iter().flatten();
                let all = all.map(|(name, below)| (name.clone(), publish(below, definitions)));
                out.insert(key.clone(), all.collect());
            }
            "items" | "additionalProperties" => _ = out.insert(key.clone(), publish(value, definitions)),
            "type" => _ = out.insert(key.clone(), kind(value)),
            "oneOf" | "anyOf" => {}
            _ => _ = out.insert(key.clone(), value.clone()),
        }
    }
    if let Some((key, forms)) =
        ["oneOf", "anyOf"].into_iter().find_map(|key| Some((key, members.get(key)?.as_array()?)))
    {
        return alternatives(out, key, forms, definitions);
    }
    let kind = out.get("type").and_then(Json::as_str).unwrap_or_default().to_owned();
    match kind.as_str() {
        "string" => text(out, members.get("format").and_then(Json::as_str)),
        "integer" | "number" => {
            limit(&mut out, members.get("format").and_then(Json::as_str));
            with_forms(out, vec![reference()])
        }
        "boolean" => with_forms(out, vec![reference()]),
        "array" => {
            let item = out.get("items").cloned();
            with_forms(out, item.into_iter().collect())
        }
        _ => Json::Object(out),
    }
}

/// Returns a type without `null`: a key without a value is an error.
fn kind(kind: &Json) -> Json {
    let mut several = kind.as_array().into_iter().flatten();
    several.find(|one| *one != "null").unwrap_or(kind).clone()
}

fn reference() -> Json {
    json!({"type": "string", "pattern": REFERENCE})
}

/// Sets the bounds of an integer type.
fn limit(out: &mut Map<String, Json>, format: Option<&str>) {
    let most = match format {
        Some("uint8") => u64::from(u8::MAX),
        Some("uint16") => u64::from(u16::MAX),
        Some("uint32") => u64::from(u32::MAX),
        _ => return,
    };
    out.entry("maximum").or_insert(most.into());
}

/// Splits a schema into what describes it and what it allows.
fn split(out: Map<String, Json>) -> (Map<String, Json>, Map<String, Json>) {
    out.into_iter()
        .partition(|(key, _)| matches!(key.as_str(), "description" | "default" | "title" | "examples" | "$schema"))
}

/// Returns a schema that also allows other forms.
fn with_forms(out: Map<String, Json>, others: Vec<Json>) -> Json {
    let (mut about, allowed) = split(out);
    let forms = std::iter::once(Json::Object(allowed)).chain(others);
    about.insert("anyOf".to_owned(), forms.collect());
    Json::Object(about)
}

/// Returns the schema of a text: with its pattern, and the numbers and truth values that are texts of that format.
fn text(mut out: Map<String, Json>, format: Option<&str>) -> Json {
    let words = allowed(&Json::Object(out.clone()));
    let takes = |text: &str| match (&words, format) {
        (Some(words), _) => words.iter().any(|word| word == text),
        (None, Some(format)) => check_format(format, text).is_none_or(|checked| checked.is_ok()),
        (None, None) => true,
    };
    let mut forms = Vec::new();
    match &words {
        Some(words) => {
            forms.extend(
                words.iter().filter_map(|word| word.parse::<f64>().ok()).map(|number| json!({"const": number})),
            );
            forms.push(reference());
        }
        None => {
            forms.extend(match (takes("5"), takes("200")) {
                (true, _) => Some(json!({"type": "number"})),
                (false, true) => Some(json!({"type": "integer", "minimum": 100, "maximum": 599})),
                (false, false) => None,
            });
            forms.extend(takes("true").then(|| json!({"type": "boolean"})));
        }
    }
    if let Some(pattern) = format.and_then(pattern_of) {
        out.insert("pattern".to_owned(), format!("({pattern})|{REFERENCE}").into());
    }
    if forms.is_empty() { Json::Object(out) } else { with_forms(out, forms) }
}

/// Returns the schema of alternatives. Where one is a list and another its entry, nothing is added to the list; words
/// are one alternative of them.
fn alternatives(mut out: Map<String, Json>, key: &str, forms: &[Json], definitions: &Definitions) -> Json {
    let forms: Vec<&Json> = forms.iter().filter(|form| form["type"] != "null").collect();
    let mut all = Vec::new();
    for form in &forms {
        let is_word = form.get("const").is_some() || form.get("enum").is_some();
        let has_entry =
            || forms.iter().any(|other| other.get("$ref").is_some() && other["$ref"] == form["items"]["$ref"]);
        let published = publish(form, definitions);
        match published.get("anyOf").and_then(Json::as_array) {
            // Of a word the numbers and references that stand for it, and of a list the list alone.
            Some(nested) if is_word => all.extend(nested.iter().filter(|form| form.get("pattern").is_none()).cloned()),
            Some(nested) if form["type"] == "array" && has_entry() => all.extend(nested.first().cloned()),
            _ => all.push(published),
        }
        if is_word && let (Some(last), Some(text)) = (all.last_mut(), form.get("description")) {
            last["description"] = text.clone();
        }
    }
    if forms.iter().any(|form| form.get("const").is_some() || form.get("enum").is_some()) {
        all.push(reference());
    }
    // A text that names nothing else may be more than one of them.
    let key = if key == "oneOf" { "oneOf" } else { "anyOf" };
    if let [only] = all.as_slice()
        && let Some(only) = only.as_object()
    {
        only.iter().for_each(|(key, value)| _ = out.entry(key.clone()).or_insert_with(|| value.clone()));
        return Json::Object(out);
    }
    out.insert(key.to_owned(), all.into());
    Json::Object(out)
}
