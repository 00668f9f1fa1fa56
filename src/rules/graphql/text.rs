//! Texts of resolvers: `{args.NAME.PATH}` is a value of an argument, `{parent.PATH}` one of the object around the
//! field.

use std::str::FromStr;

use apollo_compiler::response::{JsonMap, JsonValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands as it is in a segment of a path (RFC 3986, section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text with values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverText(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value { from: ValueFrom, path: Vec<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueFrom {
    Args,
    Parent,
}

/// What a text becomes, which decides how values stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextUse {
    /// A part of a path: values are percent-encoded.
    Path,
    /// A value by itself.
    Plain,
    /// JSON: values stand as JSON.
    Json,
}

impl FromStr for ResolverText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find('{') {
            let value = rest[at + 1..].split_once('}').map(|(name, _)| name);
            let parsed = value.and_then(|name| {
                let (from, path) = name.split_once('.').map_or((name, ""), |(from, path)| (from, path));
                let from = match from {
                    "args" => ValueFrom::Args,
                    "parent" => ValueFrom::Parent,
                    _ => return None,
                };
                Some((name.len(), from, path.split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect()))
            });
            match parsed {
                Some((length, from, path)) => {
                    pieces.push(Piece::Text(rest[..at].to_owned()));
                    pieces.push(Piece::Value { from, path });
                    rest = &rest[at + length + 2..];
                }
                // A brace of JSON.
                None if rest[at + 1..].trim_start().starts_with(['"', '}']) || rest[at + 1..].trim().is_empty() => {
                    pieces.push(Piece::Text(rest[..=at].to_owned()));
                    rest = &rest[at + 1..];
                }
                None => {
                    let name = value.unwrap_or(&rest[at + 1..]);
                    return Err(format!("expected {{args.NAME}} or {{parent.NAME}}, found {{{name}}}"));
                }
            }
        }
        pieces.push(Piece::Text(rest.to_owned()));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Ok(Self(pieces))
    }
}

impl ResolverText {
    /// Returns the arguments that the text names.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Value { from: ValueFrom::Args, path } => path.first().map(String::as_str),
            _ => None,
        })
    }

    /// Returns whether the text names a value of the object around the field.
    pub fn names_parent(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Value { from: ValueFrom::Parent, .. }))
    }

    /// Returns the text with its values; `None` where one of a path is missing, or where nothing is left of a text that
    /// is one value alone.
    pub fn fill(&self, args: &JsonMap, parent: Option<&JsonValue>, is_for: TextUse) -> Option<String> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value { from, path } => {
                    let value = match from {
                        ValueFrom::Args => find_in(args, path),
                        ValueFrom::Parent => parent.and_then(|parent| follow(parent, path)),
                    };
                    match (value.filter(|value| !value.is_null()), is_for) {
                        (None, TextUse::Json) => out.push_str("null"),
                        (None, TextUse::Path) => return None,
                        (None, TextUse::Plain) if self.0.len() == 1 => return None,
                        (None, TextUse::Plain) => {}
                        (Some(value), TextUse::Json) => out.push_str(&value.to_string()),
                        (Some(value), TextUse::Plain) => out.push_str(&plain(value)),
                        (Some(value), TextUse::Path) => {
                            let text = plain(value);
                            // A dot segment would lead to another path.
                            if matches!(text.as_str(), "" | "." | "..") {
                                return None;
                            }
                            out.extend(utf8_percent_encode(&text, UNRESERVED));
                        }
                    }
                }
            }
        }
        Some(out)
    }
}

fn find_in<'v>(args: &'v JsonMap, path: &[String]) -> Option<&'v JsonValue> {
    let (first, rest) = path.split_first()?;
    follow(args.get(first.as_str())?, rest)
}

fn follow<'v>(value: &'v JsonValue, path: &[String]) -> Option<&'v JsonValue> {
    path.iter().try_fold(value, |value, step| match value {
        JsonValue::Array(items) => items.get(step.parse::<usize>().ok()?),
        value => value.get(step.as_str()),
    })
}

fn plain(value: &JsonValue) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> JsonValue {
        serde_json::from_str(text).expect("JSON")
    }

    fn fill(text: &str, is_for: TextUse) -> Option<String> {
        let args = json(r#"{"id": "a/b", "n": 7, "input": {"x": ["y"]}, "dots": ".."}"#);
        let parent = json(r#"{"id": 3, "none": null}"#);
        let text: ResolverText = text.parse().expect("a text");
        text.fill(args.as_object().expect("an object"), Some(&parent), is_for)
    }

    #[test]
    fn values_stand_as_the_use_wants_it() {
        assert_eq!(fill("/u/{args.id}/{parent.id}", TextUse::Path).as_deref(), Some("/u/a%2Fb/3"));
        for missing in ["/u/{args.dots}", "/u/{args.none}", "/u/{parent.none}", "/{args.input.z}"] {
            assert_eq!(fill(missing, TextUse::Path), None, "{missing}");
        }
        assert_eq!(fill("{args.n}", TextUse::Plain).as_deref(), Some("7"));
        assert_eq!(fill("{args.input.x.0}", TextUse::Plain).as_deref(), Some("y"));
        assert_eq!(fill("{args.none}", TextUse::Plain), None);
        let body = r#"{"name": {args.id}, "of": {parent.none}, "all": {args.input}}"#;
        let filled = fill(body, TextUse::Json).expect("a text");
        assert_eq!(filled, r#"{"name": "a/b", "of": null, "all": {"x":["y"]}}"#);
        assert_eq!(fill("{args.input}", TextUse::Json).as_deref(), Some(r#"{"x":["y"]}"#));
        assert!("/x/{id}".parse::<ResolverText>().is_err());
    }
}
