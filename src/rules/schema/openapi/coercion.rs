//! Values from text: parameters and fields of forms have no types of their own.

use ahash::AHashSet;
use serde_json::{Map, Number, Value};

/// How deep a schema is followed for the types that a text may have.
const MAX_TYPE_DEPTH: usize = 8;

/// The types that a text may have by its schema.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextTypes {
    null: bool,
    boolean: bool,
    integer: bool,
    number: bool,
    string: bool,
    /// The types of items, where a list is allowed.
    pub items: Option<Box<Self>>,
    /// The types of members, where an object is allowed.
    pub members: Option<Vec<(String, Self)>>,
}

impl TextTypes {
    /// Returns the types of a schema; `resolve` returns what a schema refers to.
    pub fn of<'s>(schema: &'s Value, resolve: &dyn Fn(&'s Value) -> Option<&'s Value>) -> Self {
        Self::at(schema, resolve, 0)
    }

    fn at<'s>(schema: &'s Value, resolve: &dyn Fn(&'s Value) -> Option<&'s Value>, depth: usize) -> Self {
        let mut types = Self::default();
        types.add(schema, resolve, depth);
        let is_any = !(types.null || types.boolean || types.integer || types.number || types.string);
        // A schema that says nothing takes the text.
        types.string |= is_any && types.items.is_none() && types.members.is_none();
        types
    }

    fn add<'s>(&mut self, schema: &'s Value, resolve: &dyn Fn(&'s Value) -> Option<&'s Value>, depth: usize) {
        if depth > MAX_TYPE_DEPTH {
            self.string = true;
            return;
        }
        if let Some(target) = resolve(schema) {
            self.add(target, resolve, depth + 1);
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for item in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.add(item, resolve, depth + 1);
            }
        }
        match schema.get("type") {
            Some(Value::String(one)) => self.add_type(one, schema, resolve, depth),
            Some(Value::Array(several)) => {
                several.iter().filter_map(Value::as_str).for_each(|one| self.add_type(one, schema, resolve, depth));
            }
            _ => {
                let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
                listed.chain(schema.get("const")).for_each(|value| self.add_value(value));
                if schema.get("properties").is_some() {
                    self.add_type("object", schema, resolve, depth);
                } else if schema.get("items").is_some() {
                    self.add_type("array", schema, resolve, depth);
                }
            }
        }
    }

    fn add_value(&mut self, value: &Value) {
        match value {
            Value::Null => self.null = true,
            Value::Bool(_) => self.boolean = true,
            Value::Number(_) => self.number = true,
            Value::String(_) => self.string = true,
            Value::Array(_) | Value::Object(_) => {}
        }
    }

    fn add_type<'s>(
        &mut self,
        name: &str,
        schema: &'s Value,
        resolve: &dyn Fn(&'s Value) -> Option<&'s Value>,
        depth: usize,
    ) {
        match name {
            "null" => self.null = true,
            "boolean" => self.boolean = true,
            "integer" => self.integer = true,
            "number" => self.number = true,
            "array" => {
                let items = schema.get("items").map(|items| Self::at(items, resolve, depth + 1));
                self.items = Some(Box::new(items.unwrap_or(Self { string: true, ..Self::default() })));
            }
            "object" => {
                let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
                let members = properties.map(|(name, below)| (name.clone(), Self::shallow(below, resolve, depth + 1)));
                self.members.get_or_insert_default().extend(members);
            }
            _ => self.string = true,
        }
    }

    /// Returns the types of a member, whose own members are not followed: a schema may contain itself.
    fn shallow<'s>(schema: &'s Value, resolve: &dyn Fn(&'s Value) -> Option<&'s Value>, depth: usize) -> Self {
        let schema = match resolve(schema) {
            Some(target) if target.get("properties").is_none() => target,
            Some(_) => &Value::Null,
            None => schema,
        };
        if schema.get("properties").is_some() {
            return Self { members: Some(Vec::new()), ..Self::default() };
        }
        Self::at(schema, resolve, depth)
    }

    /// Returns whether a list is meant: one is allowed, and no single value.
    pub fn is_list(&self) -> bool {
        self.items.is_some()
    }

    /// Returns whether an object is meant.
    pub fn is_object(&self) -> bool {
        self.members.is_some() && self.items.is_none()
    }

    /// Returns the types of a member.
    pub fn member(&self, name: &str) -> Option<&Self> {
        self.members.as_ref()?.iter().find(|(known, _)| known == name).map(|(_, types)| types)
    }

    /// Returns the value of a text: the first type that it fits.
    pub fn value(&self, text: &str) -> Value {
        if self.boolean && matches!(text, "true" | "false") {
            return Value::Bool(text == "true");
        }
        if (self.integer || self.number)
            && let Some(number) = number(text)
        {
            return Value::Number(number);
        }
        if self.null && !self.string && (text.is_empty() || text == "null") {
            return Value::Null;
        }
        Value::String(text.to_owned())
    }

    /// Returns the list of texts.
    pub fn list(&self, texts: impl Iterator<Item = String>) -> Value {
        let other = Self { string: true, ..Self::default() };
        let items = self.items.as_deref().unwrap_or(&other);
        Value::Array(texts.map(|text| items.value(&text)).collect())
    }

    /// Returns the first name that is given more than once although its value is no list: which of them counts differs
    /// between targets.
    pub fn repeated<'n>(&self, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
        let mut seen = AHashSet::new();
        let is_single = |name: &str| self.member(name).is_some_and(|types| types.items.is_none());
        let mut names = names;
        names.find(|name| !seen.insert(*name) && is_single(name))
    }

    /// Returns the object of names and texts. Of a list all values are taken, of anything else that is declared the
    /// first; see [`Self::repeated`]. What is not declared is a list if it is given several times.
    pub fn object(&self, pairs: impl Iterator<Item = (String, String)>) -> Value {
        let mut members = Map::new();
        let other = Self { string: true, ..Self::default() };
        for (name, text) in pairs {
            let Some(types) = self.member(&name) else {
                match (members.get_mut(&name), other.value(&text)) {
                    (None, value) => _ = members.insert(name, value),
                    (Some(Value::Array(list)), value) => list.push(value),
                    (Some(one), value) => *one = Value::Array(vec![one.take(), value]),
                }
                continue;
            };
            match (&types.items, members.get_mut(&name)) {
                (Some(items), Some(Value::Array(list))) => list.push(items.value(&text)),
                (Some(items), _) => _ = members.insert(name, Value::Array(vec![items.value(&text)])),
                (None, _) => _ = members.entry(name).or_insert_with(|| types.value(&text)),
            }
        }
        Value::Object(members)
    }
}

/// Returns the number that a text is in JSON.
fn number(text: &str) -> Option<Number> {
    let is_json = text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    is_json.then(|| serde_json::from_str(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn types(schema: &Value) -> TextTypes {
        TextTypes::of(schema, &|_| None)
    }

    #[test]
    fn texts_get_the_types_of_their_schemas() {
        for (schema, text, value) in [
            (json!({"type": "integer"}), "12", json!(12)),
            (json!({"type": "integer"}), "1.5", json!(1.5)),
            (json!({"type": "integer"}), "x", json!("x")),
            (json!({"type": "integer"}), "0x1", json!("0x1")),
            (json!({"type": "integer"}), "", json!("")),
            (json!({"type": "string"}), "12", json!("12")),
            (json!({"type": "boolean"}), "true", json!(true)),
            (json!({"type": "boolean"}), "1", json!("1")),
            (json!({"type": ["integer", "null"]}), "", json!(null)),
            (json!({"enum": [1, 2]}), "2", json!(2)),
            (json!({"enum": ["1"]}), "1", json!("1")),
            (json!({"anyOf": [{"type": "boolean"}, {"type": "string"}]}), "true", json!(true)),
            (json!({}), "5", json!("5")),
            (json!(true), "5", json!("5")),
        ] {
            assert_eq!(types(&schema).value(text), value, "{schema} {text}");
        }
        let list = types(&json!({"type": "array", "items": {"type": "number"}}));
        assert_eq!(list.list(["1", "b"].map(str::to_owned).into_iter()), json!([1, "b"]));
        let object = types(&json!({"properties": {"a": {"type": "integer"}, "b": {"type": "array"}}}));
        let pairs = [("a", "1"), ("b", "x"), ("b", "y"), ("c", "2")];
        let pairs = pairs.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(object.object(pairs), json!({"a": 1, "b": ["x", "y"], "c": "2"}));
        let pairs = ["1", "2", "3"].into_iter().map(|text| ("c".to_owned(), text.to_owned()));
        assert_eq!(object.object(pairs), json!({"c": ["1", "2", "3"]}));
        assert_eq!(object.repeated(["b", "b", "c", "c", "a"].into_iter()), None);
        assert_eq!(object.repeated(["b", "a", "b", "a"].into_iter()), Some("a"));
    }
}
