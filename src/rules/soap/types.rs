//! Values of XML, which are texts, as numbers and truth values of JSON.

use std::str::FromStr;

use serde_json::Value;

/// Paths of values, with the steps between dots; lists are passed through.
#[derive(Clone, Debug, Default)]
pub struct TypedPaths {
    /// Those of numbers.
    pub numbers: Vec<Vec<String>>,
    /// Those of truth values.
    pub booleans: Vec<Vec<String>>,
}

impl TypedPaths {
    /// Returns the paths of these texts.
    pub fn new(numbers: &[String], booleans: &[String]) -> Self {
        let steps = |list: &[String]| list.iter().map(|path| path.split('.').map(str::to_owned).collect()).collect();
        Self { numbers: steps(numbers), booleans: steps(booleans) }
    }

    /// Converts the texts at the paths; what is no such value stays a text.
    pub fn apply(&self, value: &mut Value) {
        self.numbers.iter().for_each(|path| at_path(value, path, &as_number));
        self.booleans.iter().for_each(|path| at_path(value, path, &as_boolean));
    }
}

fn at_path(value: &mut Value, path: &[String], edit: &dyn Fn(&mut Value)) {
    match (value, path) {
        (Value::Array(items), _) => items.iter_mut().for_each(|item| at_path(item, path, edit)),
        (value, []) => edit(value),
        (Value::Object(members), [step, rest @ ..]) => {
            if let Some(below) = members.get_mut(step) {
                at_path(below, rest, edit);
            }
        }
        _ => {}
    }
}

fn as_number(value: &mut Value) {
    if let Some(number) = value.as_str().and_then(|text| serde_json::Number::from_str(text.trim()).ok()) {
        *value = number.into();
    }
}

fn as_boolean(value: &mut Value) {
    let flag = match value.as_str().map(str::trim) {
        Some("true" | "1") => true,
        Some("false" | "0") => false,
        _ => return,
    };
    *value = flag.into();
}

/// Returns the value at a path, with the steps between dots.
pub fn value_at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, step| value.get(step))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_at_paths_get_their_types() {
        let paths = TypedPaths::new(&["a.n".to_owned(), "list.n".to_owned()], &["ok".to_owned(), "a.x".to_owned()]);
        let mut value = json!({"a": {"n": "1.5", "x": "maybe"}, "list": [{"n": "2"}, {"n": ""}], "ok": "1", "n": "3"});
        paths.apply(&mut value);
        let expected = json!({"a": {"n": 1.5, "x": "maybe"}, "list": [{"n": 2}, {"n": ""}], "ok": true, "n": "3"});
        assert_eq!(value, expected);
        assert_eq!(value_at(&value, "a.n"), Some(&json!(1.5)));
    }
}
