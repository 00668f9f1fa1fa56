//! Forms as JSON and back (`application/x-www-form-urlencoded`, URL Standard, section 5).

use form_urlencoded::{Serializer, parse};
use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::RawMembers;

/// The most fields of a form.
const MAX_FIELDS: usize = 10_000;

/// Converts a form: each field becomes a member with a text, and one that is there several times an array of texts.
///
/// # Errors
/// Returns why it cannot be converted.
pub fn form_to_json(form: &[u8]) -> Result<String, String> {
    let mut members: serde_json::Map<String, Value> = serde_json::Map::new();
    for (count, (name, value)) in parse(form).enumerate() {
        if count == MAX_FIELDS {
            return Err(format!("the form has more than {MAX_FIELDS} fields"));
        }
        let value = Value::from(value);
        match members.get_mut(&*name) {
            None => _ = members.insert(name.into_owned(), value),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Ok(Value::Object(members).to_string())
}

/// Converts an object whose members are texts, numbers, truth values, `null` (an empty field), or arrays of these.
///
/// # Errors
/// Returns why it cannot be converted.
pub fn json_to_form(document: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(document).map_err(|_| "the document is not UTF-8".to_owned())?;
    let members: RawMembers<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut form = Serializer::new(String::new());
    for (name, value) in members.0 {
        let values: Vec<&RawValue> = match value.get().starts_with('[') {
            true => serde_json::from_str(value.get()).map_err(|error| error.to_string())?,
            false => vec![value],
        };
        for value in values {
            match value.get() {
                "null" => form.append_pair(&name, ""),
                text if text.starts_with(['{', '[']) => {
                    return Err("a value within a value has no form".to_owned());
                }
                text if text.starts_with('"') => {
                    let text: String = serde_json::from_str(text).map_err(|error| error.to_string())?;
                    form.append_pair(&name, &text)
                }
                other => form.append_pair(&name, other),
            };
        }
    }
    Ok(form.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_and_members() {
        for (form, json) in [
            ("a=1&b=x+y%26z&c", r#"{"a":"1","b":"x y&z","c":""}"#),
            ("a=1&b=2&a=3&a=4", r#"{"a":["1","3","4"],"b":"2"}"#),
            ("", "{}"),
        ] {
            assert_eq!(form_to_json(form.as_bytes()).expect("a form"), json);
        }
        let json = r#"{"a":1.10,"b":[true,"x y",null],"c":[]}"#;
        assert_eq!(json_to_form(json.as_bytes()).expect("a form"), "a=1.10&b=true&b=x+y&b=");
        for wrong in ["[]", r#"{"a":{}}"#, r#"{"a":[[1]]}"#, "{", "\"a\""] {
            assert!(json_to_form(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(form_to_json("a=1&".repeat(MAX_FIELDS + 1).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn there_and_back(fields in proptest::collection::vec(("[ab\u{e9}&=+% ]{0,3}", any::<String>()), 0..9)) {
            let mut form = Serializer::new(String::new());
            // Fields of one name come together.
            let mut fields = fields;
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            form.extend_pairs(&fields);
            let form = form.finish();
            let json = form_to_json(form.as_bytes()).expect("a form");
            prop_assert_eq!(json_to_form(json.as_bytes()).expect("a form"), form);
        }
    }
}
