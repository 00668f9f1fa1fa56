//! Checks a tree against the JSON Schema and notes every error, not just the first.
//!
//! It supports the part of JSON Schema that `schemars` writes for our types, and the formats of [`crate::notation`].
//! What passes here is accepted by serde.

use std::cell::Cell;

use serde_json::{Map, Value as Json};

use super::trail::Trail;
use super::tree::{Node, Value};
use crate::notation::{Fact, HeaderText, Mistakes, check_format, expression_of, expression_size, fact_of, nearest};

/// Notes the errors of `tree`.
pub fn check(tree: &Node, schema: &Json, mistakes: &mut Mistakes) {
    let definitions = schema.get("$defs").and_then(Json::as_object).into_iter().flatten();
    let definitions = definitions.map(|(name, schema)| (name.as_str(), schema)).collect();
    let checker = Checker { definitions, expressions: Cell::new(0) };
    checker.node(tree, schema, &Trail::Root, mistakes);
}

/// The most bytes of all regular expressions together, compiled: one of ten letters can take a megabyte.
const MAX_EXPRESSIONS: u64 = 128 << 20;

struct Checker<'s> {
    definitions: ahash::AHashMap<&'s str, &'s Json>,
    /// The bytes of the regular expressions so far.
    expressions: Cell<u64>,
}

impl<'s> Checker<'s> {
    fn resolve(&self, mut schema: &'s Json) -> &'s Json {
        while let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            let name = reference.trim_start_matches("#/$defs/");
            schema = self.definitions.get(name).copied().unwrap_or(&Json::Null);
        }
        schema
    }

    fn node(&self, node: &Node, schema: &'s Json, place: &Trail<'_>, mistakes: &mut Mistakes) {
        let schema = self.resolve(schema);
        if let Value::Null = node.value {
            return mistakes.add(&place.place(), "has no value: give it one or leave the key out");
        }
        if let Some(branches) = self.branches(schema) {
            return self.one_of(node, &branches, place, mistakes);
        }
        match &node.value {
            Value::Map(members) if is(schema, "object") => self.map(members, schema, place, mistakes),
            Value::List(items) if is(schema, "array") => self.list(items, schema, place, mistakes),
            Value::Text(text) if is(schema, "string") => self.text((node, text), schema, place, mistakes),
            Value::Integer(number) if is(schema, "integer") || is(schema, "number") => {
                Self::number(*number as f64, schema, place, mistakes);
            }
            Value::Float(number) if is(schema, "number") => Self::number(*number, schema, place, mistakes),
            Value::Bool(_) if is(schema, "boolean") => {}
            _ => mistakes.add(
                &place.place(),
                format!("expected {}, found {}", describe_expected(schema), describe_found(node, &[schema])),
            ),
        }
    }

    /// Returns the alternatives of a schema, with those within alternatives; `None` if it has none.
    fn branches(&self, schema: &'s Json) -> Option<Vec<&'s Json>> {
        let listed = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array)?;
        let resolved = listed.iter().map(|b| self.resolve(b)).filter(|b| !is(b, "null"));
        Some(resolved.flat_map(|b| self.branches(b).unwrap_or_else(|| vec![b])).collect())
    }

    fn map(
        &self,
        members: &[(super::tree::MapKey, Node)],
        schema: &'s Json,
        place: &Trail<'_>,
        mistakes: &mut Mistakes,
    ) {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&none);
        let others = schema.get("additionalProperties").filter(|s| s.is_object());
        for (key, node) in members {
            let below = Trail::Key(place, &key.text);
            match (properties.get(&key.text), others) {
                (Some(schema), _) | (None, Some(schema)) => self.node(node, schema, &below, mistakes),
                (None, None) if key.text == "<<" => {
                    mistakes
                        .add(&place.place().name("<<"), "mappings are not merged: an alias stands for a whole value");
                }
                (None, None) => {
                    let near = nearest(&key.text, properties.keys().map(String::as_str));
                    let known =
                        if near.is_empty() { format!("; known here: {}", join_words(properties.keys())) } else { near };
                    mistakes.add(&place.place().name(key.text.clone()), format!("unknown key{known}"));
                }
            }
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for key in required.filter(|r| !members.iter().any(|(k, _)| k.text == *r)) {
            let schema = properties.get(key).map_or(&Json::Null, |s| self.resolve(s));
            let all = self.branches(schema).unwrap_or_else(|| vec![schema]);
            let mut all: Vec<String> = all.into_iter().map(describe_expected).collect();
            all.dedup();
            mistakes.add(&place.place(), format!("the key \"{key}\" is missing: {}", all.join(" or ")));
        }
    }

    fn list(&self, items: &[Node], schema: &'s Json, place: &Trail<'_>, mistakes: &mut Mistakes) {
        if let Some(schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.node(item, schema, &Trail::Index(place, index), mistakes);
            }
        }
        let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            mistakes.add(&place.place(), format!("expected at least {least} in this list"));
        }
    }

    fn text(&self, (node, text): (&Node, &str), schema: &Json, place: &Trail<'_>, mistakes: &mut Mistakes) {
        if let Some(allowed) = allowed(schema)
            && !allowed.iter().any(|a| a == text)
        {
            mistakes.add(&place.place(), unknown_word(node, text, &allowed));
        }
        let format = schema.get("format").and_then(Json::as_str);
        let expression = format.and_then(|format| expression_of(format, text));
        if let Some(expression) = expression {
            // Counted before it is compiled, and once more when it is read.
            if self.expressions.get() <= MAX_EXPRESSIONS {
                self.expressions.set(self.expressions.get() + expression_size(expression));
            }
            if self.expressions.get() > MAX_EXPRESSIONS {
                let most = MAX_EXPRESSIONS >> 20;
                return mistakes.add(
                    &place.place(),
                    format!("with this one, all regular expressions together take more than {most} MiB"),
                );
            }
        }
        if let Some(Err(expected)) = format.and_then(|f| check_format(f, text)) {
            if let Some(written) = &node.written {
                // What a format expects instead may contain a part of the value.
                return mistakes.add(
                    &place.place(),
                    format!("expected {}, found what {written} stands for", describe_expected(schema)),
                );
            }
            // A secret that does not parse is not repeated.
            let is_secret = |format| fact_of(format, text) == Some(Fact::Secret) || format == HeaderText::FORMAT;
            let secret = format.is_some_and(is_secret);
            let found = if secret { String::new() } else { format!(", found \"{text}\"") };
            mistakes.add(&place.place(), format!("expected {expected}{found}"));
        }
    }

    fn number(number: f64, schema: &Json, place: &Trail<'_>, mistakes: &mut Mistakes) {
        let bound = |key: &str| schema.get(key).and_then(Json::as_f64);
        let width = match schema.get("format").and_then(Json::as_str) {
            Some("uint8") => Some(f64::from(u8::MAX)),
            Some("uint16") => Some(f64::from(u16::MAX)),
            Some("uint32") => Some(f64::from(u32::MAX)),
            _ => None,
        };
        let (least, most) = (bound("minimum"), bound("maximum").or(width.filter(|width| number > *width)));
        if !number.is_finite() {
            mistakes.add(&place.place(), "expected a number that is finite");
        } else if least.is_some_and(|l| number < l) || most.is_some_and(|m| number > m) {
            let range = match (least, most) {
                (Some(l), Some(m)) => format!("from {l} to {m}"),
                (Some(l), None) => format!("of at least {l}"),
                (_, m) => format!("of at most {}", m.unwrap_or_default()),
            };
            mistakes.add(&place.place(), format!("expected a number {range}, found {number}"));
        }
    }

    /// Checks the branch that the author evidently meant, by the value's kind and then by its key.
    fn one_of(&self, node: &Node, branches: &[&'s Json], place: &Trail<'_>, mistakes: &mut Mistakes) {
        let fits = |b: &&&Json| kind_fits(&node.value, b);
        let fitting: Vec<&'s Json> = branches.iter().filter(fits).copied().collect();
        match (&node.value, fitting.as_slice()) {
            (_, []) => {
                let mut all: Vec<String> =
                    branches.iter().map(|b| describe_expected(b)).filter(|w| !w.is_empty()).collect();
                all.dedup();
                mistakes.add(
                    &place.place(),
                    format!("expected {}, found {}", all.join(" or "), describe_found(node, branches)),
                );
            }
            (_, [only]) => self.node(node, only, place, mistakes),
            (Value::Map(members), several) => self.variant(node, members, several, place, mistakes),
            (Value::Text(text), several) => {
                let allowed: Vec<String> = several.iter().filter_map(|b| allowed(b)).flatten().collect();
                if !allowed.is_empty() && !allowed.contains(text) {
                    mistakes.add(&place.place(), unknown_word(node, text, &allowed));
                }
            }
            (_, [first, ..]) => self.node(node, first, place, mistakes),
        }
    }

    /// Checks an enum that is written as a mapping of one key: `- jwt: {…}`.
    fn variant(
        &self,
        node: &Node,
        members: &[(super::tree::MapKey, Node)],
        branches: &[&'s Json],
        place: &Trail<'_>,
        mistakes: &mut Mistakes,
    ) {
        let tag = |b: &Json| b.get("required").and_then(|r| r.get(0)).and_then(Json::as_str).map(str::to_owned);
        let tags: Vec<String> = branches.iter().filter_map(|b| tag(b)).collect();
        let [(key, _)] = members else {
            return mistakes.add(
                &place.place(),
                format!("expected exactly one of {}, found {} keys", join_words(tags.iter()), members.len()),
            );
        };
        match branches.iter().find(|b| tag(b).as_deref() == Some(&key.text)) {
            Some(branch) => self.node(node, branch, place, mistakes),
            None => {
                let near = nearest(&key.text, tags.iter().map(String::as_str));
                mistakes.add(
                    &place.place().name(key.text.clone()),
                    format!("expected one of {}{near}", join_words(tags.iter())),
                );
            }
        }
    }
}

/// Returns the message for a text that is none of the allowed ones.
fn unknown_word(node: &Node, text: &str, allowed: &[String]) -> String {
    let (known, near) = (join_words(allowed.iter()), || nearest(text, allowed.iter().map(String::as_str)));
    match &node.written {
        Some(written) => format!("expected one of {known}, found what {written} stands for"),
        None => format!("expected one of {known}, found \"{text}\"{}", near()),
    }
}

/// Returns what stands there; for a number also how it is written as a text, if it could be one here.
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
    let takes = |text: &str| {
        let checked = |schema: &&Json| format(schema).and_then(|format| check_format(format, text));
        wanted
            .iter()
            .filter(|schema| is(schema, "string"))
            .any(|schema| checked(schema).is_none_or(|checked| checked.is_ok()))
    };
    match value {
        Value::Integer(_) | Value::Float(_) if secret => "a number; as a text it needs quotes".to_owned(),
        Value::Integer(number) if takes(&number.to_string()) => {
            format!("the number {number}; as a text it is \"{number}\"")
        }
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) if takes(&number.to_string()) => {
            format!("the number {number}; as a text it is \"{number}\"")
        }
        other => other.kind().to_owned(),
    }
}

fn is(schema: &Json, kind: &str) -> bool {
    match schema.get("type") {
        Some(Json::String(one)) => one == kind,
        Some(Json::Array(several)) => several.iter().any(|k| k == kind),
        _ => kind == "string" && allowed(schema).is_some(),
    }
}

fn kind_fits(value: &Value, schema: &Json) -> bool {
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
fn allowed(schema: &Json) -> Option<Vec<String>> {
    let texts = |list: &[Json]| list.iter().filter_map(Json::as_str).map(str::to_owned).collect();
    match (schema.get("enum"), schema.get("const")) {
        (Some(Json::Array(list)), _) => Some(texts(list)),
        (_, Some(Json::String(one))) => Some(vec![one.clone()]),
        _ => None,
    }
}

/// Returns in words what a schema expects.
fn describe_expected(schema: &Json) -> String {
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

fn join_words<S: AsRef<str>>(words: impl Iterator<Item = S>) -> String {
    let mut out = String::new();
    for word in words {
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(word.as_ref());
    }
    out
}
