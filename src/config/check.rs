//! Checks a tree against the JSON Schema and notes every error, not just the first.
//!
//! It supports the part of JSON Schema that `schemars` writes for our types, and the formats of [`crate::notation`].
//! What passes here is accepted by serde.

use std::cell::Cell;

use serde_json::{Map, Value as Json};

use super::hints;
use super::trail::Trail;
use super::tree::{MapKey, Node, Value};
use super::wording::{allowed, describe_expected, is, join_words, kind_fits, unexpected, unknown_word};
use crate::notation::{
    Fact, FreeForm, HeaderText, Mistakes, check_format, expression_of, expression_size, fact_of, nearest, spelling,
};

/// Notes the errors of `tree`, whose values become those of the kinds that are expected where only one can be meant.
pub fn check(tree: &mut Node, schema: &Json, mistakes: &mut Mistakes) {
    let definitions = schema.get("$defs").and_then(Json::as_object).into_iter().flatten();
    let definitions = definitions.map(|(name, schema)| (name.as_str(), schema)).collect();
    let checker = Checker { definitions, expressions: Cell::new(0) };
    checker.node(tree, schema, &Trail::Root, mistakes);
}

/// The most bytes of all regular expressions together, compiled: one of ten letters can take a megabyte.
const MAX_EXPRESSIONS: u64 = 128 << 20;

/// The check of a tree.
pub struct Checker<'s> {
    definitions: ahash::AHashMap<&'s str, &'s Json>,
    /// The bytes of the regular expressions so far.
    expressions: Cell<u64>,
}

impl<'s> Checker<'s> {
    /// Returns the schema that a reference names.
    pub fn resolve(&self, mut schema: &'s Json) -> &'s Json {
        while let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            let name = reference.trim_start_matches("#/$defs/");
            schema = self.definitions.get(name).copied().unwrap_or(&Json::Null);
        }
        schema
    }

    fn node(&self, node: &mut Node, schema: &'s Json, place: &Trail<'_>, mistakes: &mut Mistakes) {
        let schema = self.resolve(schema);
        if schema.get(FreeForm::MARK).is_some() {
            return;
        }
        if let Value::Null = node.value {
            return mistakes.add(&place.place(), "has no value: give it one or leave the key out");
        }
        if let Some(branches) = self.branches(schema) {
            if branches.iter().any(|branch| branch.get(FreeForm::MARK).is_some()) {
                return;
            }
            self.coerce(node, &branches);
            return self.one_of(node, &branches, place, mistakes);
        }
        self.coerce(node, &[schema]);
        self.value(node, schema, place, mistakes);
    }

    /// Checks a value against a schema without alternatives.
    fn value(&self, node: &mut Node, schema: &'s Json, place: &Trail<'_>, mistakes: &mut Mistakes) {
        match &mut node.value {
            Value::Map(members) if is(schema, "object") => self.map(members, schema, place, mistakes),
            Value::List(items) if is(schema, "array") => self.list(items, schema, place, mistakes),
            Value::Text(_) if is(schema, "string") => self.text(node, schema, place, mistakes),
            Value::Integer(number) if is(schema, "integer") || is(schema, "number") => {
                Self::number(*number as f64, schema, place, mistakes);
            }
            Value::Float(decimal) if is(schema, "number") => Self::number(decimal.number, schema, place, mistakes),
            Value::Bool(_) if is(schema, "boolean") => {}
            _ => mistakes.add(&place.place(), unexpected(node, &[schema], place)),
        }
    }

    /// Returns the alternatives of a schema, with those within alternatives; `None` if it has none.
    pub fn branches(&self, schema: &'s Json) -> Option<Vec<&'s Json>> {
        let listed = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array)?;
        let resolved = listed.iter().map(|b| self.resolve(b)).filter(|b| !is(b, "null"));
        Some(resolved.flat_map(|b| self.branches(b).unwrap_or_else(|| vec![b])).collect())
    }

    fn map(&self, members: &mut [(MapKey, Node)], schema: &'s Json, place: &Trail<'_>, mistakes: &mut Mistakes) {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&none);
        let others = schema.get("additionalProperties").filter(|s| s.is_object());
        for (key, node) in &mut *members {
            let below = Trail::Key(place, &key.text);
            match (properties.get(&key.text), others) {
                (Some(schema), _) | (None, Some(schema)) => self.node(node, schema, &below, mistakes),
                (None, None) => {
                    let instead = self.instead_of_key(&key.text, properties, place);
                    mistakes.add(&place.place().name(key.text.clone()), format!("unknown key{instead}"));
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

    /// Returns what to write instead of an unknown key.
    fn instead_of_key(&self, key: &str, known: &Map<String, Json>, place: &Trail<'_>) -> String {
        if let Some(hint) = hints::for_key(place, key) {
            return format!("; {hint}");
        }
        let near = nearest(key, known.keys().map(String::as_str));
        if !near.is_empty() && strsim::damerau_levenshtein(key, near.split('"').nth(1).unwrap_or_default()) == 1 {
            return near;
        }
        let has = |schema: &Json| schema.get("properties").is_some_and(|all| all.get(key).is_some());
        let below = known.iter().find(|(_, schema)| {
            let schema = self.resolve(schema);
            has(schema) || self.branches(schema).is_some_and(|all| matches!(all.as_slice(), [only] if has(only)))
        });
        match below {
            Some((section, _)) => format!("; write it below {section}: `{section}: {{{key}: …}}`"),
            None if near.is_empty() => format!("; known here: {}", join_words(known.keys())),
            None => near,
        }
    }

    fn list(&self, items: &mut [Node], schema: &'s Json, place: &Trail<'_>, mistakes: &mut Mistakes) {
        if let Some(schema) = schema.get("items") {
            for (index, item) in items.iter_mut().enumerate() {
                self.node(item, schema, &Trail::Index(place, index), mistakes);
            }
        }
        let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            mistakes.add(&place.place(), format!("expected at least {least} in this list"));
        }
    }

    fn text(&self, node: &Node, schema: &Json, place: &Trail<'_>, mistakes: &mut Mistakes) {
        let Value::Text(text) = &node.value else { return };
        if let Some(allowed) = allowed(schema)
            && !allowed.iter().any(|a| a == text)
        {
            mistakes.add(&place.place(), unknown_word(node, text, &allowed, place));
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
            // An expectation may have a hint behind it.
            let (expected, hint) = expected.split_once("; ").unwrap_or((&expected, ""));
            let right = format.filter(|_| !secret).and_then(|format| spelling(format, text));
            let instead = match right {
                Some(right) => format!("; write {right}"),
                None if hint.is_empty() => String::new(),
                None => format!("; {hint}"),
            };
            mistakes.add(&place.place(), format!("expected {expected}{found}{instead}"));
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
    fn one_of(&self, node: &mut Node, branches: &[&'s Json], place: &Trail<'_>, mistakes: &mut Mistakes) {
        let fits = |b: &&&Json| b.get(FreeForm::MARK).is_some() || kind_fits(&node.value, b);
        let fitting: Vec<&'s Json> = branches.iter().filter(fits).copied().collect();
        match (&node.value, fitting.as_slice()) {
            (_, []) => mistakes.add(&place.place(), unexpected(node, branches, place)),
            (_, [only]) => self.node(node, only, place, mistakes),
            (Value::Map(_), several) => self.variant(node, several, place, mistakes),
            (Value::Text(text), several) => {
                let allowed: Vec<String> = several.iter().filter_map(|b| allowed(b)).flatten().collect();
                if !allowed.is_empty() && !allowed.contains(text) {
                    mistakes.add(&place.place(), unknown_word(node, text, &allowed, place));
                }
            }
            (_, [first, ..]) => self.node(node, first, place, mistakes),
        }
    }

    /// Checks an enum that is written as a mapping of one key: `- jwt: {…}`.
    fn variant(&self, node: &mut Node, branches: &[&'s Json], place: &Trail<'_>, mistakes: &mut Mistakes) {
        let Value::Map(members) = &node.value else { return };
        let tag = |b: &Json| b.get("required").and_then(|r| r.get(0)).and_then(Json::as_str).map(str::to_owned);
        let tags: Vec<String> = branches.iter().filter_map(|b| tag(b)).collect();
        // What may stand beside the key of every branch, such as `enforce`, does not choose one.
        let has = |branch: &&&Json, key: &str| branch.get("properties").is_some_and(|all| all.get(key).is_some());
        let is_beside = |key: &str| !tags.iter().any(|tag| tag == key) && branches.iter().any(|b| has(&b, key));
        let choosing: Vec<&(MapKey, Node)> = members.iter().filter(|(key, _)| !is_beside(&key.text)).collect();
        let [(key, _)] = choosing.as_slice() else {
            let instead = instead_of_several(members, &tags, place);
            let (all, count) = (join_words(tags.iter()), members.len());
            return mistakes.add(&place.place(), format!("expected exactly one of {all}, found {count} keys{instead}"));
        };
        match branches.iter().find(|b| tag(b).as_deref() == Some(&key.text)) {
            Some(branch) => self.node(node, branch, place, mistakes),
            None => {
                let instead = match hint_beside(&tags, place, &key.text) {
                    Some(hint) => format!("; {hint}"),
                    None => nearest(&key.text, tags.iter().map(String::as_str)),
                };
                mistakes.add(
                    &place.place().name(key.text.clone()),
                    format!("expected one of {}{instead}", join_words(tags.iter())),
                );
            }
        }
    }
}

/// Returns the hint for an unknown key in place of those with these tags. Filters are listed at several places.
fn hint_beside(tags: &[String], place: &Trail<'_>, key: &str) -> Option<&'static str> {
    let is_filter = tags.iter().any(|tag| tag == "rate_limit");
    let listed = Trail::Key(&Trail::Root, "filters");
    hints::for_key(if is_filter { &listed } else { place }, key)
}

/// Returns how several keys are written where one is expected.
fn instead_of_several(members: &[(MapKey, Node)], tags: &[String], place: &Trail<'_>) -> String {
    let is_known = |key: &&(MapKey, Node)| tags.contains(&key.0.text);
    let (known, others): (Vec<_>, Vec<_>) = members.iter().partition(is_known);
    match (known.as_slice(), others.as_slice()) {
        ([(tag, node)], [(first, _), ..]) if matches!(node.value, Value::Null) => {
            let (tag, first) = (&tag.text, &first.text);
            format!("; {first} belongs below {tag}, indented further: `{tag}: {{{first}: …}}`")
        }
        ([_], [(other, _)]) => {
            let hint = hint_beside(tags, place, &other.text).map(|hint| format!("; for {}, {hint}", other.text));
            hint.unwrap_or_default()
        }
        ([_, ..], []) => "; each is an entry of its own, with a - before it".to_owned(),
        _ => String::new(),
    }
}
