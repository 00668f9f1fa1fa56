//! The kind of a value where only one can be meant: a number where a text belongs, and one value where a list does.

use serde_json::Value as Json;

use super::check::Checker;
use super::tree::{Node, Value, plain_scalar};
use super::wording::{allowed, is, kind_fits};
use crate::notation::check_format;

impl<'s> Checker<'s> {
    /// Turns a value into one of a kind that is wanted, if it can be nothing else.
    pub fn coerce(&self, node: &mut Node, wanted: &[&'s Json]) {
        if matches!(node.value, Value::Null) || wanted.iter().any(|schema| kind_fits(&node.value, schema)) {
            return;
        }
        if let Some(text) = node.value.plain()
            && wanted.iter().any(|schema| takes_text(schema, &text))
        {
            node.value = Value::Text(text);
            return;
        }
        if let (Value::Text(text), Some(written)) = (&node.value, &node.written) {
            let value = plain_scalar(text);
            let is_whole = written.starts_with("${") && written.find('}') == Some(written.len() - 1);
            if is_whole && wanted.iter().any(|schema| kind_fits(&value, schema)) {
                node.value = value;
                return;
            }
        }
        let list = wanted.iter().find(|schema| is(schema, "array")).and_then(|schema| schema.get("items"));
        if let Some(items) = list
            && self.may_be_item(&node.value, items)
        {
            let spot = node.spot;
            let item = std::mem::replace(node, Node::new(spot, Value::Null));
            node.value = Value::List(vec![item]);
        }
    }

    /// Returns whether a value is evidently one entry of a list: a text, a number, or a mapping with a key of an
    /// entry.
    fn may_be_item(&self, value: &Value, items: &'s Json) -> bool {
        let Value::Map(members) = value else { return !matches!(value, Value::List(_) | Value::Null) };
        let items = self.resolve(items);
        let forms = self.branches(items).unwrap_or_else(|| vec![items]);
        let has = |form: &Json, key: &str| form.get("properties").is_some_and(|all| all.get(key).is_some());
        members.iter().any(|(key, _)| forms.iter().any(|form| has(form, &key.text)))
    }
}

/// Returns whether a text is a value of a schema.
pub fn takes_text(schema: &Json, text: &str) -> bool {
    if !is(schema, "string") {
        return false;
    }
    if let Some(allowed) = allowed(schema) {
        return allowed.iter().any(|word| word == text);
    }
    let format = schema.get("format").and_then(Json::as_str);
    format.and_then(|format| check_format(format, text)).is_none_or(|checked| checked.is_ok())
}
