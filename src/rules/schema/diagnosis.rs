//! The list of violations of a value that is not valid, in bounded memory.
//!
//! An error of `anyOf` or `oneOf` would have in it the errors of every alternative, and those of alternatives within
//! them: several times as many with each level. The schemas by which violations are listed say of alternatives only
//! whether one matches.

use serde_json::{Map, Value, json};

/// The keyword of a value that no alternative matches, or more than one; its value is the word for that.
pub const UNMATCHED: &str = "x-portcullis-unmatched";

/// The words for alternatives that do not match: none of `anyOf`, none of `oneOf`, and more than one of it.
pub const UNMATCHED_WORDS: [&str; 3] = ["anyOf", "oneOf", "oneOf several"];

/// The most bytes of the errors of a value of which all are listed.
const MAX_COST: usize = 1 << 20;

/// The bytes of an error besides its path.
const ERROR_COST: usize = 64;

/// Returns whether the errors of a value take little memory, even if each of its parts has one: each has a path of its
/// own.
pub fn is_cheap(value: &Value) -> bool {
    fn spend(value: &Value, path: usize, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(path + ERROR_COST) else { return false };
        *left = rest;
        match value {
            Value::Array(items) => items.iter().all(|item| spend(item, path + 4, left)),
            Value::Object(members) => members.iter().all(|(name, below)| spend(below, path + name.len() + 1, left)),
            _ => true,
        }
    }
    spend(value, 0, &mut MAX_COST.clone())
}

/// Returns a schema that accepts the same, and whose errors have none of alternatives in them; `None` if it has none.
pub fn with_silent_alternatives(schema: &Value) -> Option<Value> {
    has_alternatives(schema).then(|| silent(schema))
}

/// Returns whether a schema may have alternatives. What has the name of a keyword may be something else.
pub fn has_alternatives(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => {
            members.iter().any(|(key, below)| matches!(key.as_str(), "anyOf" | "oneOf") || has_alternatives(below))
        }
        Value::Array(items) => items.iter().any(has_alternatives),
        _ => false,
    }
}

fn silent(schema: &Value) -> Value {
    let Some(members) = schema.as_object() else { return schema.clone() };
    let mut out = Map::new();
    let mut all_of = Vec::new();
    for (key, below) in members {
        let changed = match (key.as_str(), below) {
            ("anyOf", Value::Array(_)) => {
                all_of.push(json!({"if": {"anyOf": below}, "else": {UNMATCHED: UNMATCHED_WORDS[0]}}));
                continue;
            }
            ("oneOf", Value::Array(_)) => {
                all_of.push(json!({
                    "if": {"oneOf": below},
                    "else": {
                        "if": {"anyOf": below},
                        "then": {UNMATCHED: UNMATCHED_WORDS[2]},
                        "else": {UNMATCHED: UNMATCHED_WORDS[1]},
                    },
                }));
                continue;
            }
            ("allOf", Value::Array(items)) => {
                all_of.extend(items.iter().map(silent));
                continue;
            }
            ("prefixItems", Value::Array(items)) => Value::Array(items.iter().map(silent).collect()),
            ("properties" | "patternProperties" | "dependentSchemas" | "$defs", Value::Object(all)) => {
                Value::Object(all.iter().map(|(name, below)| (name.clone(), silent(below))).collect())
            }
            (
                "items"
                | "additionalProperties"
                | "then"
                | "else"
                | "contains"
                | "propertyNames"
                | "unevaluatedItems"
                | "unevaluatedProperties",
                _,
            ) => silent(below),
            _ => below.clone(),
        };
        out.insert(key.clone(), changed);
    }
    if !all_of.is_empty() {
        out.insert("allOf".to_owned(), Value::Array(all_of));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_silent_and_names_stay() {
        assert_eq!(with_silent_alternatives(&json!({"type": "string", "allOf": [true]})), None);
        let schema = json!({"properties": {"anyOf": {"enum": [{"oneOf": 1}]}, "a": {"anyOf": [true]}}, "allOf": [{}]});
        let silent = with_silent_alternatives(&schema).expect("it has alternatives");
        let test = json!({"allOf": [{"if": {"anyOf": [true]}, "else": {UNMATCHED: "anyOf"}}]});
        assert_eq!(silent, json!({"properties": {"anyOf": {"enum": [{"oneOf": 1}]}, "a": test}, "allOf": [{}]}));
    }

    #[test]
    fn costs_count_paths() {
        assert!(is_cheap(&json!({"a": vec![1; 1000]})));
        assert!(!is_cheap(&json!(vec![1; 100_000])));
        assert!(!is_cheap(&json!({("a".repeat(10_000)): vec![1; 1000]})));
    }
}
