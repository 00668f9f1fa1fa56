//! Paths to values within a JSON document: `data.items.0.id`.

use std::borrow::Cow;
use std::str::FromStr;

use super::children::{Child, Children};

/// A path of names and places in lists; an empty one is the whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonPath(Vec<Box<str>>);

/// The most steps of a path.
const MAX_STEPS: usize = 32;

impl FromStr for JsonPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let steps: Vec<Box<str>> = text.split('.').map(Into::into).collect();
        let fine = |step: &str| !step.is_empty() && !step.contains(['*', '[', ']', '$', '/', '{', '}']);
        if steps.len() > MAX_STEPS || !steps.iter().all(|step| fine(step)) {
            return Err("expected a path of names and places such as data.items.0.id".to_owned());
        }
        Ok(Self(steps))
    }
}

impl JsonPath {
    /// Returns the value at the path in a valid document, as it is written. Of members of one name the last counts.
    pub fn find<'j>(&self, json: &'j str) -> Option<&'j str> {
        self.0.iter().try_fold(json, |json, step| {
            if let Some(members) = Children::of_object(json) {
                members.filter(|child| is_named(child, step)).last().map(|child| child.value)
            } else {
                Children::of_array(json)?.nth(step.parse().ok()?).map(|child| child.value)
            }
        })
    }
}

fn is_named(child: &Child<'_>, name: &str) -> bool {
    child.name == name || (child.name.contains('\\') && unescaped(child.name) == name)
}

/// Returns the text of a JSON string that stands between quotes.
pub(super) fn unescaped(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    serde_json::from_str(&format!("\"{raw}\"")).map_or(Cow::Borrowed(raw), Cow::Owned)
}

/// Returns a value as text: a string without quotes and escapes, a number or truth value as it is written. `null`,
/// objects and arrays have none.
pub fn json_text(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => Some(unescaped(value.get(1..value.len() - 1)?)),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_as_they_are_written() {
        let json = r#"{ "a" : {"b":[1.00,{"c\"":"x\u0041\n"}]},"a.b":1,"n":null,"d":1,"d":2,"\u0065":true}"#;
        let find = |path: &str| path.parse::<JsonPath>().expect("a path").find(json);
        assert_eq!(find("a.b.0"), Some("1.00"));
        assert_eq!(find("a.b.1.c\""), Some(r#""x\u0041\n""#));
        assert_eq!(find("d"), Some("2"));
        assert_eq!(find("e"), Some("true"));
        assert_eq!(JsonPath::default().find(json), Some(json));
        for path in ["b", "a.c", "a.b.2", "a.b.x", "n.a", "d.e", "a.b.-1"] {
            assert_eq!(find(path), None, "{path}");
        }
        for path in ["", "a..b", ".a", "$.a", "a[0]", "a.*"] {
            assert!(path.parse::<JsonPath>().is_err(), "{path}");
        }
    }

    #[test]
    fn values_as_text() {
        for (value, text) in [
            (r#""x\u0041\n""#, Some("xA\n")),
            ("1.00", Some("1.00")),
            ("true", Some("true")),
            ("null", None),
            ("{}", None),
        ] {
            assert_eq!(json_text(value).as_deref(), text, "{value}");
        }
    }
}
