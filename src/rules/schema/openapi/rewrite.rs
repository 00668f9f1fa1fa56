//! Schemas of an OpenAPI document as JSON Schema 2020-12.
//!
//! All schemas that operations use become a set, each once, however many operations refer to it. Those of OpenAPI 3.0
//! are rewritten (OpenAPI 3.0.3, "Schema Object"): `nullable`, `exclusiveMinimum: true`, `$ref` without what stands
//! beside it. Members that are read-only are not required in requests, and those that are write-only not
//! in responses.

use std::borrow::Cow;
use std::collections::VecDeque;

use ahash::{AHashMap, AHashSet};
use serde_json::{Map, Value, json};

use super::super::compiled::{FORBIDDEN, SHARED};
use super::super::document::{DocumentReader, SchemaFault, Spot};

/// How far references are followed to find out whether a member is read-only.
const MAX_FOLLOWED: usize = 12;

/// The most errors of one document that are noted.
const MAX_FAULTS: usize = 50;

/// The direction of a message, on which it depends what `readOnly` and `writeOnly` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// A request.
    Request,
    /// A response.
    Response,
    /// None: what is read-only or write-only is not looked at.
    Neither,
}

impl Direction {
    /// Returns the keyword of members that are not for this direction.
    fn forbidden(self) -> &'static str {
        match self {
            Self::Request => "readOnly",
            Self::Response => "writeOnly",
            Self::Neither => "x-portcullis-of-no-direction",
        }
    }
}

/// Keywords whose values are copied as they are.
const COPIED: &[&str] = &[
    "type",
    "enum",
    "const",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "dependentRequired",
    "format",
];

/// Keywords whose value is a schema.
const WITH_SCHEMA: &[&str] = &[
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords whose value is a list of schemas.
const WITH_LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];

/// Keywords whose value is a mapping of schemas.
const WITH_MAPPING: &[&str] = &["properties", "patternProperties", "dependentSchemas"];

/// Gathers the schemas of a document.
#[derive(Debug)]
pub struct SchemaBuilder {
    /// The files of the document.
    pub reader: DocumentReader,
    /// The errors so far.
    pub faults: Vec<SchemaFault>,
    /// Whether the document has the schemas of OpenAPI 3.0.
    pub is_old: bool,
    /// Whether read-only members are rejected in requests, and not only not required.
    pub rejects_read_only: bool,
    definitions: Vec<Value>,
    known: AHashMap<(Spot, Direction), usize>,
    spots: Vec<Spot>,
    queue: VecDeque<(Spot, Direction)>,
}

impl SchemaBuilder {
    /// Returns a builder without schemas.
    pub fn new(reader: DocumentReader) -> Self {
        Self {
            reader,
            faults: Vec::new(),
            is_old: false,
            rejects_read_only: true,
            definitions: Vec::new(),
            known: AHashMap::new(),
            spots: Vec::new(),
            queue: VecDeque::new(),
        }
    }

    /// Notes an error at a spot.
    pub fn fault(&mut self, spot: &Spot, text: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            let fault = self.reader.fault(spot, text);
            self.faults.push(fault);
        }
    }

    /// Follows references from a value to one that is none.
    pub fn follow(&mut self, spot: &Spot) -> Option<Spot> {
        let mut at = spot.clone();
        for _ in 0..MAX_FOLLOWED {
            let file = self.reader.file(at.file);
            let value = file.value.pointer(&at.pointer)?;
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return Some(at) };
            at = self.resolve(&at, reference)?;
        }
        self.fault(spot, "references lead in a circle, or through too many others");
        None
    }

    fn resolve(&mut self, from: &Spot, reference: &str) -> Option<Spot> {
        match self.reader.resolve(from.file, reference) {
            Ok(spot) => Some(spot),
            Err(fault) => {
                // A file that cannot be parsed has a place of its own.
                let at = from.below("$ref");
                match fault.location {
                    Some(_) if !self.faults.contains(&fault) => self.faults.push(fault),
                    Some(_) => {}
                    None => self.fault(&at, fault.text),
                }
                None
            }
        }
    }

    /// Adds the schema at a spot, and returns its number.
    pub fn add(&mut self, spot: &Spot, direction: Direction) -> usize {
        if let Some(known) = self.known.get(&(spot.clone(), direction)) {
            return *known;
        }
        let number = self.known.len();
        self.known.insert((spot.clone(), direction), number);
        self.spots.push(spot.clone());
        self.queue.push_back((spot.clone(), direction));
        number
    }

    /// Rewrites all schemas that were added, and those to which they refer; returns them in the order of their numbers.
    pub fn finish(&mut self) -> Vec<Value> {
        while let Some((spot, direction)) = self.queue.pop_front() {
            let file = self.reader.file(spot.file);
            let value = file.value.pointer(&spot.pointer).unwrap_or(&Value::Bool(true));
            let schema = self.rewrite(&spot, value, direction, &AHashSet::new());
            self.definitions.push(schema);
        }
        std::mem::take(&mut self.definitions)
    }

    /// Notes an error of the compiler in the schema of a number.
    pub fn fault_in(&mut self, number: usize, pointer: &str, text: &str) {
        let spot = &self.spots[number];
        let spot = Spot { file: spot.file, pointer: format!("{}{pointer}", spot.pointer) };
        self.fault(&spot, text);
    }

    fn rewrite(&mut self, spot: &Spot, value: &Value, direction: Direction, optional: &AHashSet<String>) -> Value {
        let members = match value {
            Value::Bool(_) => return value.clone(),
            Value::Object(members) => members,
            _ => {
                self.fault(spot, "expected a schema, which is a mapping");
                return Value::Bool(true);
            }
        };
        let mut out = Map::new();
        if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
            if let Some(target) = self.resolve(spot, reference) {
                out.insert(SHARED.to_owned(), self.add(&target, direction).into());
            }
            if self.is_old {
                return Value::Object(out);
            }
        }
        if let Some(keyword) = ["$dynamicRef", "$recursiveRef"].iter().find(|key| members.contains_key(**key)) {
            self.fault(&spot.below(keyword), "is not supported in OpenAPI documents: write $ref");
        }
        let mut optional = optional.clone();
        self.forbidden_members(spot, value, direction, 0, &mut optional);
        for (key, below) in members {
            let at = spot.below(key);
            match key.as_str() {
                "required" => self.required(&at, below, &optional, &mut out),
                key if COPIED.contains(&key) => _ = out.insert(key.to_owned(), below.clone()),
                key if WITH_SCHEMA.contains(&key) => {
                    let none = AHashSet::new();
                    out.insert(key.to_owned(), self.rewrite(&at, below, direction, &none));
                }
                key if WITH_LIST.contains(&key) => {
                    let Some(items) = below.as_array() else {
                        self.fault(&at, "expected a list of schemas");
                        continue;
                    };
                    let none = AHashSet::new();
                    let context = if key == "prefixItems" { &none } else { &optional };
                    let all = items.iter().enumerate();
                    let all =
                        all.map(|(index, item)| self.rewrite(&at.below(&index.to_string()), item, direction, context));
                    out.insert(key.to_owned(), Value::Array(all.collect()));
                }
                key if WITH_MAPPING.contains(&key) => {
                    let Some(all) = below.as_object() else {
                        self.fault(&at, "expected a mapping of schemas");
                        continue;
                    };
                    let is_members = key == "properties";
                    let all = all.iter().map(|(name, item)| {
                        let at = at.below(name);
                        (name.clone(), self.member(&at, item, direction, is_members))
                    });
                    out.insert(key.to_owned(), Value::Object(all.collect()));
                }
                _ => {}
            }
        }
        if self.is_old { modernise(out, members) } else { Value::Object(out) }
    }

    fn required(&mut self, at: &Spot, value: &Value, optional: &AHashSet<String>, out: &mut Map<String, Value>) {
        let Some(names) = value.as_array() else {
            self.fault(at, "expected a list of names");
            return;
        };
        let kept = names.iter().filter(|name| name.as_str().is_none_or(|name| !optional.contains(name)));
        out.insert("required".to_owned(), Value::Array(kept.cloned().collect()));
    }

    /// Rewrites the schema of a member. One that is not for this direction is rejected, where that is wanted.
    fn member(&mut self, spot: &Spot, value: &Value, direction: Direction, is_member: bool) -> Value {
        let is_rejected = direction == Direction::Response || self.rejects_read_only;
        if is_member && is_rejected && self.is_forbidden(spot, value, direction, 0) {
            return json!({FORBIDDEN: direction.forbidden()});
        }
        self.rewrite(spot, value, direction, &AHashSet::new())
    }

    /// Returns whether a schema says that its member is not for this direction, also behind references.
    fn is_forbidden(&mut self, spot: &Spot, value: &Value, direction: Direction, depth: usize) -> bool {
        if value.get(direction.forbidden()) == Some(&Value::Bool(true)) {
            return true;
        }
        if depth >= MAX_FOLLOWED {
            return false;
        }
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let Ok(target) = self.reader.resolve(spot.file, reference) else { return false };
            let file = self.reader.file(target.file);
            let Some(value) = file.value.pointer(&target.pointer) else { return false };
            return self.is_forbidden(&target, value, direction, depth + 1);
        }
        let all = value.get("allOf").and_then(Value::as_array).into_iter().flatten();
        all.into_iter().any(|item| self.is_forbidden(spot, item, direction, depth + 1))
    }

    /// Adds the names of the members that are not for this direction, also of the schemas that are combined by `allOf`
    /// and `$ref`.
    fn forbidden_members(
        &mut self,
        spot: &Spot,
        value: &Value,
        direction: Direction,
        depth: usize,
        names: &mut AHashSet<String>,
    ) {
        if depth >= MAX_FOLLOWED {
            return;
        }
        for (name, member) in value.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if self.is_forbidden(spot, member, direction, 0) {
                names.insert(name.clone());
            }
        }
        for item in value.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.forbidden_members(spot, item, direction, depth + 1, names);
        }
        if let Some(reference) = value.get("$ref").and_then(Value::as_str)
            && let Ok(target) = self.reader.resolve(spot.file, reference)
        {
            let file = self.reader.file(target.file);
            if let Some(value) = file.value.pointer(&target.pointer) {
                self.forbidden_members(&target, value, direction, depth + 1, names);
            }
        }
    }
}

/// Rewrites what OpenAPI 3.0 says otherwise than JSON Schema 2020-12.
fn modernise(mut out: Map<String, Value>, members: &Map<String, Value>) -> Value {
    for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        match out.get(exclusive) {
            Some(Value::Bool(true)) => match out.remove(bound) {
                Some(limit) => _ = out.insert(exclusive.to_owned(), limit),
                None => _ = out.remove(exclusive),
            },
            Some(Value::Bool(false)) => _ = out.remove(exclusive),
            _ => {}
        }
    }
    if out.get("format").is_some_and(|format| format == "int32") {
        out.entry("minimum").or_insert(i32::MIN.into());
        out.entry("maximum").or_insert(i32::MAX.into());
    }
    if members.get("nullable") != Some(&Value::Bool(true)) {
        return Value::Object(out);
    }
    let is_simple = !["allOf", "anyOf", "oneOf", "not", SHARED].iter().any(|key| out.contains_key(*key));
    match (out.get("type").cloned(), is_simple) {
        (Some(kind), true) => {
            out.insert("type".to_owned(), json!([kind, "null"]));
            // Whether an enum has to name null itself was left open for long: it need not.
            if let Some(Value::Array(values)) = out.get_mut("enum")
                && !values.contains(&Value::Null)
            {
                values.push(Value::Null);
            }
            Value::Object(out)
        }
        _ => json!({"anyOf": [{"type": "null"}, out]}),
    }
}

/// Returns the schema to which a rewritten one refers.
pub fn shared_schema<'d>(definitions: &'d [Value], schema: &Value) -> Option<&'d Value> {
    definitions.get(shared_number(schema)?)
}

/// Returns the number of the schema to which a rewritten one refers.
pub fn shared_number(schema: &Value) -> Option<usize> {
    usize::try_from(schema.get(SHARED)?.as_u64()?).ok()
}

/// Returns the schema of a number as the compiler is to see it. One that says something of members or items that no
/// other schema evaluates has in it all to which it refers: the compiler has to see what those evaluate.
pub fn compilable(definitions: &[Value], number: usize) -> Cow<'_, Value> {
    let schema = &definitions[number];
    if !has_unevaluated(schema) {
        return Cow::Borrowed(schema);
    }
    let (mut embedded, mut open) = (Map::new(), Vec::new());
    let mut root = with_references(schema, &mut open);
    while let Some(number) = open.pop() {
        let key = number.to_string();
        if !embedded.contains_key(&key)
            && let Some(target) = definitions.get(number)
        {
            embedded.insert(key, with_references(target, &mut open));
        }
    }
    if let Some(members) = root.as_object_mut() {
        members.insert("$defs".to_owned(), Value::Object(embedded));
    }
    Cow::Owned(root)
}

fn has_unevaluated(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => {
            let is_named = |key: &str| matches!(key, "unevaluatedProperties" | "unevaluatedItems");
            members.iter().any(|(key, below)| is_named(key) || has_unevaluated(below))
        }
        Value::Array(items) => items.iter().any(has_unevaluated),
        _ => false,
    }
}

/// Returns a schema whose references are those of JSON Schema, and adds the numbers to which they lead.
fn with_references(schema: &Value, numbers: &mut Vec<usize>) -> Value {
    match schema {
        Value::Object(members) => {
            let all = members.iter().map(|(key, below)| match (key == SHARED, below.as_u64()) {
                (true, Some(number)) => {
                    numbers.extend(usize::try_from(number));
                    ("$ref".to_owned(), Value::String(format!("#/$defs/{number}")))
                }
                _ => (key.clone(), with_references(below, numbers)),
            });
            Value::Object(all.collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| with_references(item, numbers)).collect()),
        other => other.clone(),
    }
}
