//! Values of variables, by the types that an operation declares for them.

use std::borrow::Cow;

use apollo_compiler::Schema;
use apollo_compiler::ast::Type;
use apollo_compiler::schema::ExtendedType;
use serde_json::Value;

/// The type of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableType {
    kind: Kind,
    non_null: bool,
    /// The type as it is written.
    written: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Float,
    Boolean,
    /// A text. An `ID` in JSON may be a number, too.
    Text {
        is_id: bool,
    },
    /// One of these names, where the schema is known.
    Enum(Vec<String>),
    /// An input object of the schema.
    Input,
    /// A scalar of the target's own, or a type that is not known.
    Other,
    List(Box<VariableType>),
}

impl VariableType {
    /// Returns a declared type.
    pub fn of(declared: &Type, schema: Option<&Schema>) -> Self {
        let (kind, non_null) = match declared {
            Type::Named(name) => (Kind::of(name, schema), false),
            Type::NonNullNamed(name) => (Kind::of(name, schema), true),
            Type::List(item) => (Kind::List(Box::new(Self::of(item, schema))), false),
            Type::NonNullList(item) => (Kind::List(Box::new(Self::of(item, schema))), true),
        };
        Self { kind, non_null, written: declared.to_string() }
    }

    /// Returns whether it has no null.
    pub fn is_non_null(&self) -> bool {
        self.non_null
    }

    /// Returns whether a text, or several for a list, can be a value of it.
    pub fn is_of_texts(&self) -> bool {
        match &self.kind {
            Kind::Input => false,
            Kind::List(item) => !matches!(item.kind, Kind::List(_)) && item.is_of_texts(),
            _ => true,
        }
    }

    /// Returns the value of texts: one, or those of a list.
    ///
    /// # Errors
    /// Returns what was expected.
    pub fn of_texts(&self, texts: &[Cow<'_, str>]) -> Result<Value, String> {
        match (&self.kind, texts) {
            (Kind::List(item), texts) => texts.iter().map(|text| item.of_text(text)).collect(),
            (_, [text]) => self.of_text(text),
            _ => Err("is there more than once".to_owned()),
        }
    }

    fn of_text(&self, text: &str) -> Result<Value, String> {
        let wrong = || format!("has to be of the type {}", self.written);
        match &self.kind {
            Kind::Int => Ok(text.parse::<i32>().ok().filter(|_| !text.starts_with('+')).ok_or_else(wrong)?.into()),
            Kind::Float => {
                let is_number =
                    text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'e' | b'E' | b'+'));
                let number = text.parse::<f64>().ok().filter(|_| is_number && !text.starts_with('+'));
                number.and_then(serde_json::Number::from_f64).map(Value::Number).ok_or_else(wrong)
            }
            Kind::Boolean => match text {
                "true" => Ok(true.into()),
                "false" => Ok(false.into()),
                _ => Err(wrong()),
            },
            Kind::Enum(names) if !names.iter().any(|name| name == text) => {
                Err(format!("has to be one of {}", names.join(", ")))
            }
            Kind::Text { .. } | Kind::Enum(_) | Kind::Other => Ok(text.into()),
            Kind::Input | Kind::List(_) => Err(wrong()),
        }
    }

    /// Returns a value of a JSON document as a value of this type ("Input Coercion").
    ///
    /// # Errors
    /// Returns what was expected.
    pub fn of_json(&self, value: Value) -> Result<Value, String> {
        let wrong = || Err(format!("has to be of the type {}", self.written));
        match (&self.kind, value) {
            (_, Value::Null) => {
                if self.non_null {
                    wrong()
                } else {
                    Ok(Value::Null)
                }
            }
            (Kind::List(item), Value::Array(items)) => items.into_iter().map(|value| item.of_json(value)).collect(),
            // A single value is a list of one.
            (Kind::List(item), value) => Ok(Value::Array(vec![item.of_json(value)?])),
            (Kind::Int, Value::Number(number)) => match number.as_i64().and_then(|number| i32::try_from(number).ok()) {
                Some(number) => Ok(number.into()),
                None => wrong(),
            },
            (Kind::Float, value @ Value::Number(_)) | (Kind::Boolean, value @ Value::Bool(_)) => Ok(value),
            (Kind::Text { .. } | Kind::Enum(_), Value::String(text)) => self.of_text(&text),
            (Kind::Text { is_id: true }, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                Ok(number.to_string().into())
            }
            (Kind::Input, value @ Value::Object(_)) | (Kind::Other, value) => Ok(value),
            _ => wrong(),
        }
    }
}

impl Kind {
    fn of(name: &str, schema: Option<&Schema>) -> Self {
        match (name, schema.and_then(|schema| schema.types.get(name))) {
            ("Int", _) => Self::Int,
            ("Float", _) => Self::Float,
            ("Boolean", _) => Self::Boolean,
            ("String", _) => Self::Text { is_id: false },
            ("ID", _) => Self::Text { is_id: true },
            (_, Some(ExtendedType::Enum(known))) => {
                Self::Enum(known.values.keys().map(|name| name.as_str().to_owned()).collect())
            }
            (_, Some(ExtendedType::InputObject(_))) => Self::Input,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SCHEMA: &str = "type Query { a: Int } enum Color { RED GREEN } input Point { x: Int! } scalar Date";

    fn of(text: &str) -> VariableType {
        let schema = Schema::parse(SCHEMA, "schema").expect("a schema");
        VariableType::of(&Type::parse(text, "type").expect("a type"), Some(&schema))
    }

    #[test]
    fn texts_have_the_declared_type() {
        for (declared, text, value) in [
            ("Int", "-7", Some(json!(-7))),
            ("Int", "2147483648", None),
            ("Int", "+1", None),
            ("Int", "1.0", None),
            ("Int", "", None),
            ("Float", "1e3", Some(json!(1000.0))),
            ("Float", "inf", None),
            ("Float", "1e999", None),
            ("Boolean", "true", Some(json!(true))),
            ("Boolean", "1", None),
            ("String!", "1\" } evil", Some(json!("1\" } evil"))),
            ("ID", "7", Some(json!("7"))),
            ("Color", "RED", Some(json!("RED"))),
            ("Color", "red", None),
            ("Date", "2026-01-01", Some(json!("2026-01-01"))),
            ("Unknown", "x", Some(json!("x"))),
            ("Point", "{}", None),
            ("[Int!]", "1", Some(json!([1]))),
        ] {
            assert_eq!(of(declared).of_texts(&[text.into()]).ok(), value, "{declared} {text}");
        }
        assert_eq!(of("[Int]!").of_texts(&["1".into(), "2".into()]), Ok(json!([1, 2])));
        assert_eq!(of("[Int]").of_texts(&["1".into(), "x".into()]), Err("has to be of the type Int".to_owned()));
        assert_eq!(of("Int").of_texts(&["1".into(), "2".into()]), Err("is there more than once".to_owned()));
        assert!(of("[Color!]!").is_of_texts() && !of("[[Int]]").is_of_texts() && !of("[Point]").is_of_texts());
    }

    #[test]
    fn json_has_the_declared_type() {
        for (declared, value, wanted) in [
            ("Int", json!(7), Some(json!(7))),
            ("Int", json!(7.5), None),
            ("Int", json!("7"), None),
            ("Int", json!(2_147_483_648_u64), None),
            ("Float", json!(7), Some(json!(7))),
            ("ID", json!(7), Some(json!("7"))),
            ("String", json!(7), None),
            ("Boolean", json!(0), None),
            ("Int!", json!(null), None),
            ("Int", json!(null), Some(json!(null))),
            ("[Int]", json!([1, null]), Some(json!([1, null]))),
            ("[Int!]", json!([1, null]), None),
            ("[Int]", json!(1), Some(json!([1]))),
            ("Color", json!("BLUE"), None),
            ("Point", json!({"x": 1}), Some(json!({"x": 1}))),
            ("Point", json!([1]), None),
            ("Date", json!({"any": 1}), Some(json!({"any": 1}))),
        ] {
            assert_eq!(of(declared).of_json(value.clone()).ok(), wanted, "{declared} {value}");
        }
    }
}
