//! Parameters of an operation: their styles (OpenAPI 3.1.1, "Style Values"), types and schemas.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::super::compiled::CompiledSchema;
use super::super::violation::{MAX_VIOLATIONS, Violation, ViolationPlace, pointer_step};
use super::coercion::TextTypes;
use super::template::decode;
use crate::rules::routing::{cookies, form_decode};

/// The place of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterPlace {
    /// A part of the path: the number of the template's parameter.
    Path(usize),
    /// The query.
    Query,
    /// A header.
    Header(HeaderName),
    /// A cookie.
    Cookie,
}

/// The style in which a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `a,b`, in paths and headers.
    Simple,
    /// `.a.b`, in paths.
    Label,
    /// `;name=a`, in paths.
    Matrix,
    /// `name=a`, in the query and in cookies.
    Form,
    /// `name=a%20b`.
    Space,
    /// `name=a|b`.
    Pipe,
    /// `name[member]=a`.
    DeepObject,
    /// JSON, or another media type.
    Content,
}

/// A parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The name.
    pub name: String,
    /// The place.
    pub place: ParameterPlace,
    /// Whether it has to be there.
    pub required: bool,
    /// Whether it may be empty, whatever its schema says.
    pub allow_empty: bool,
    /// The style.
    pub style: Style,
    /// Whether each item or member of the value is written by itself.
    pub explode: bool,
    /// The types of its texts.
    pub types: TextTypes,
    /// The number of its schema.
    pub number: Option<usize>,
    /// The schema.
    pub schema: Option<CompiledSchema>,
}

/// The parts of a request that have parameters.
#[derive(Clone, Copy, Debug)]
pub struct ParameterSource<'r> {
    /// The undecoded values of the template's parameters.
    pub path: &'r [Option<&'r str>],
    /// The query.
    pub query: &'r [(Cow<'r, str>, &'r str)],
    /// The headers.
    pub headers: &'r HeaderMap,
}

/// Returns the names of a query, decoded, and the undecoded values.
pub fn query_pairs(query: Option<&str>) -> Vec<(Cow<'_, str>, &str)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = match form_decode(name.as_bytes()) {
                Cow::Borrowed(_) => Cow::Borrowed(name),
                Cow::Owned(name) => Cow::Owned(String::from_utf8_lossy(&name).into_owned()),
            };
            (name, value)
        })
        .collect()
}

/// The value of a parameter, or why there is none.
enum Found {
    Missing,
    Empty,
    Value(Value),
    /// The text breaks its style; what is expected.
    Broken(&'static str),
}

fn decode_form(text: &str) -> Option<String> {
    String::from_utf8(form_decode(text.as_bytes()).into_owned()).ok()
}

const NOT_UTF8: Found = Found::Broken("expected UTF-8");

impl Parameter {
    fn violation_place(&self) -> ViolationPlace {
        match self.place {
            ParameterPlace::Path(_) => ViolationPlace::Path,
            ParameterPlace::Query => ViolationPlace::Query,
            ParameterPlace::Header(_) => ViolationPlace::Header,
            ParameterPlace::Cookie => ViolationPlace::Cookie,
        }
    }

    /// Adds the violations of the parameter in a request.
    pub fn check(&self, source: &ParameterSource<'_>, all: &mut Vec<Violation>) {
        if all.len() >= MAX_VIOLATIONS {
            return;
        }
        let place = self.violation_place();
        let pointer = pointer_step(&self.name);
        match self.find(source) {
            Found::Missing if self.required => {
                all.push(Violation::new(place, pointer, "required", "is missing"));
            }
            Found::Missing | Found::Empty => {}
            Found::Broken(expected) => all.push(Violation::new(place, pointer, "style", expected)),
            Found::Value(value) => {
                if let Some(schema) = &self.schema
                    && !schema.is_valid(&value)
                {
                    schema.collect(&value, place, &pointer, all);
                }
            }
        }
    }

    /// Returns the name of the header, if it is one.
    pub fn header(&self) -> Option<&HeaderName> {
        match &self.place {
            ParameterPlace::Header(name) => Some(name),
            ParameterPlace::Path(_) | ParameterPlace::Query | ParameterPlace::Cookie => None,
        }
    }

    /// Returns whether a name of the query belongs to the parameter.
    pub fn has_query_name(&self, name: &str) -> bool {
        if self.place != ParameterPlace::Query {
            return false;
        }
        match self.style {
            Style::DeepObject => deep_member(name, &self.name).is_some(),
            Style::Form if self.explode && self.types.is_object() => {
                self.types.member(name).is_some() || name == self.name
            }
            _ => name == self.name || name.strip_suffix("[]") == Some(&self.name),
        }
    }

    fn find(&self, source: &ParameterSource<'_>) -> Found {
        match &self.place {
            ParameterPlace::Path(number) => match source.path.get(*number).copied().flatten() {
                Some(text) => self.read_path(text),
                None => Found::Missing,
            },
            ParameterPlace::Query => self.read_query(source.query),
            ParameterPlace::Header(name) => {
                let mut values = source.headers.get_all(name).iter();
                let Some(first) = values.next() else { return Found::Missing };
                let Ok(first) = first.to_str() else { return Found::Broken("expected visible ASCII") };
                let more: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
                if more.is_empty() {
                    return self.read_separated(first, ',', &|text| Some(text.trim().to_owned()));
                }
                // Fields of one name are one list (RFC 9110, section 5.3).
                let joined = [&[first], more.as_slice()].concat().join(",");
                self.read_separated(&joined, ',', &|text| Some(text.trim().to_owned()))
            }
            ParameterPlace::Cookie => {
                let mut values = cookies(source.headers, &self.name);
                let Some(value) = values.next() else { return Found::Missing };
                if values.next().is_some() {
                    return Found::Broken(super::REPEATED);
                }
                match std::str::from_utf8(value) {
                    Ok(text) => self.read_separated(text, ',', &|text| decode(text).ok()),
                    Err(_) => NOT_UTF8,
                }
            }
        }
    }

    fn read_path(&self, text: &str) -> Found {
        let decoded = |text: &str| decode(text).ok();
        match self.style {
            Style::Label => match text.strip_prefix('.') {
                Some(text) => self.read_separated(text, if self.explode { '.' } else { ',' }, &decoded),
                None => Found::Broken("expected a . before the value"),
            },
            Style::Matrix => self.read_matrix(text),
            _ => self.read_separated(text, ',', &decoded),
        }
    }

    fn read_matrix(&self, text: &str) -> Found {
        let Some(text) = text.strip_prefix(';') else { return Found::Broken("expected ;name=value") };
        let own = |part: &str| part.strip_prefix(self.name.as_str())?.strip_prefix('=').map(str::to_owned);
        if self.explode && self.types.is_list() {
            let values = text.split(';').map(|part| own(part).and_then(|value| decode(&value).ok()));
            return match values.collect::<Option<Vec<String>>>() {
                Some(values) => Found::Value(self.types.list(values.into_iter())),
                None => Found::Broken("expected ;name=value"),
            };
        }
        match own(text) {
            Some(value) => self.read_separated(&value, ',', &|text| decode(text).ok()),
            None => Found::Broken("expected ;name=value"),
        }
    }

    /// Reads a value whose items are separated before they are decoded.
    fn read_separated(&self, text: &str, separator: char, decoded: &dyn Fn(&str) -> Option<String>) -> Found {
        if self.style == Style::Content {
            let Some(text) = decoded(text) else { return NOT_UTF8 };
            return from_json(&text);
        }
        if text.is_empty() && self.allow_empty {
            return Found::Empty;
        }
        if self.types.is_list() {
            let parts = text.split(separator).filter(|_| !text.is_empty());
            return match parts.map(decoded).collect::<Option<Vec<String>>>() {
                Some(parts) => Found::Value(self.types.list(parts.into_iter())),
                None => NOT_UTF8,
            };
        }
        if self.types.is_object() {
            let parts: Vec<&str> = text.split(separator).collect();
            let pairs: Option<Vec<(String, String)>> = if self.explode && self.style != Style::Form {
                let split = |part: &&str| part.split_once('=').and_then(|(k, v)| Some((decoded(k)?, decoded(v)?)));
                parts.iter().map(split).collect()
            } else if parts.len().is_multiple_of(2) {
                parts.chunks(2).map(|pair| Some((decoded(pair[0])?, decoded(pair[1])?))).collect()
            } else {
                None
            };
            return match pairs {
                Some(pairs) if self.has_repeated(&pairs) => Found::Broken(super::REPEATED),
                Some(pairs) => Found::Value(self.types.object(pairs.into_iter())),
                None => Found::Broken("expected names and values"),
            };
        }
        decoded(text).map_or(NOT_UTF8, |text| Found::Value(self.types.value(&text)))
    }

    /// Returns whether a member that is no list is given several times.
    fn has_repeated(&self, pairs: &[(String, String)]) -> bool {
        self.types.repeated(pairs.iter().map(|(name, _)| name.as_str())).is_some()
    }

    fn read_query(&self, query: &[(Cow<'_, str>, &str)]) -> Found {
        let decoded = |text: &str| decode_form(text);
        if self.style == Style::DeepObject {
            let pairs = query.iter().filter_map(|(name, value)| Some((deep_member(name, &self.name)?, *value)));
            let pairs: Option<Vec<(String, String)>> =
                pairs.map(|(name, value)| Some((name.to_owned(), decode_form(value)?))).collect();
            return match pairs {
                None => NOT_UTF8,
                Some(pairs) if pairs.is_empty() => Found::Missing,
                Some(pairs) if self.has_repeated(&pairs) => Found::Broken(super::REPEATED),
                Some(pairs) => Found::Value(self.types.object(pairs.into_iter())),
            };
        }
        if self.style == Style::Form && self.explode && self.types.is_object() {
            let pairs = query.iter().filter(|(name, _)| self.types.member(name).is_some());
            let pairs: Option<Vec<(String, String)>> =
                pairs.map(|(name, value)| Some((name.clone().into_owned(), decode_form(value)?))).collect();
            return match pairs {
                None => NOT_UTF8,
                Some(pairs) if pairs.is_empty() => Found::Missing,
                Some(pairs) if self.has_repeated(&pairs) => Found::Broken(super::REPEATED),
                Some(pairs) => Found::Value(self.types.object(pairs.into_iter())),
            };
        }
        let is_own = |name: &str| name == self.name || name.strip_suffix("[]") == Some(&self.name);
        let mut values = query.iter().filter(|(name, _)| is_own(name)).map(|(_, value)| *value);
        let Some(first) = values.next() else { return Found::Missing };
        if self.style == Style::Form && self.explode && self.types.is_list() {
            let all = std::iter::once(first).chain(values).map(decode_form).collect::<Option<Vec<String>>>();
            return all.map_or(NOT_UTF8, |all| Found::Value(self.types.list(all.into_iter())));
        }
        if values.next().is_some() {
            // Which of them counts differs between targets.
            return Found::Broken(super::REPEATED);
        }
        match self.style {
            Style::Space | Style::Pipe => {
                let separators: &[char] = if self.style == Style::Pipe { &['|'] } else { &[' '] };
                let Some(text) = decode_form(first) else { return NOT_UTF8 };
                let parts = text.split(separators).map(str::to_owned);
                Found::Value(self.types.list(parts))
            }
            _ => self.read_separated(first, ',', &decoded),
        }
    }
}

/// Returns the member that a name such as `filter[size]` names of a parameter.
fn deep_member<'n>(name: &'n str, parameter: &str) -> Option<&'n str> {
    let inner = name.strip_prefix(parameter)?.strip_prefix('[')?;
    let (member, rest) = inner.split_once(']')?;
    (rest.is_empty() || rest == "[]").then_some(member)
}

fn from_json(text: &str) -> Found {
    match super::super::parse_json(text.as_bytes()) {
        Ok(value) => Found::Value(value),
        Err(_) => Found::Broken("expected JSON"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parameter(style: Style, explode: bool, schema: &Value) -> Parameter {
        let place = match style {
            Style::Simple | Style::Label | Style::Matrix => ParameterPlace::Path(0),
            _ => ParameterPlace::Query,
        };
        Parameter {
            name: "p".to_owned(),
            place,
            required: true,
            allow_empty: false,
            style,
            explode,
            types: TextTypes::of(schema, &|_| None),
            number: None,
            schema: None,
        }
    }

    fn found(parameter: &Parameter, text: &str) -> Value {
        let query = query_pairs(Some(text));
        let source = ParameterSource { path: &[Some(text)], query: &query, headers: &HeaderMap::new() };
        match parameter.find(&source) {
            Found::Value(value) => value,
            Found::Missing => json!("(missing)"),
            Found::Empty => json!("(empty)"),
            Found::Broken(_) => json!("(broken)"),
        }
    }

    #[test]
    fn styles_are_those_of_the_specification() {
        let (list, number) = (json!({"type": "array", "items": {"type": "integer"}}), json!({"type": "integer"}));
        let object = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}});
        for (style, explode, schema, text, value) in [
            (Style::Form, true, &number, "p=1", json!(1)),
            (Style::Form, true, &number, "x=1", json!("(missing)")),
            (Style::Form, true, &number, "p=1&p=2", json!("(broken)")),
            (Style::Form, true, &list, "p=1&q=7&p=2", json!([1, 2])),
            (Style::Form, true, &list, "p[]=1&p%5B%5D=2", json!([1, 2])),
            (Style::Form, false, &list, "p=1,2", json!([1, 2])),
            (Style::Form, false, &list, "p=1%2C2", json!(["1,2"])),
            (Style::Form, false, &object, "p=a,1,b,x", json!({"a": 1, "b": "x"})),
            (Style::Form, true, &object, "a=1&b=x&c=2", json!({"a": 1, "b": "x"})),
            (Style::Space, false, &list, "p=1%202", json!([1, 2])),
            (Style::Pipe, false, &list, "p=1|2", json!([1, 2])),
            (Style::DeepObject, true, &object, "p[a]=1&p[b]=x+y", json!({"a": 1, "b": "x y"})),
            (Style::DeepObject, true, &object, "p[a]=1&p[a]=99", json!("(broken)")),
            (Style::Form, true, &object, "a=1&a=99", json!("(broken)")),
            (Style::Simple, true, &object, "a=1,a=99", json!("(broken)")),
            (Style::Content, false, &object, "p=%7B%22a%22%3A1%7D", json!({"a": 1})),
            (Style::Content, false, &object, "p=%7B", json!("(broken)")),
            (Style::Simple, false, &number, "1", json!(1)),
            (Style::Simple, false, &list, "1,2", json!([1, 2])),
            (Style::Simple, true, &object, "a=1,b=x", json!({"a": 1, "b": "x"})),
            (Style::Simple, false, &object, "a,1,b,x", json!({"a": 1, "b": "x"})),
            (Style::Label, true, &list, ".1.2", json!([1, 2])),
            (Style::Matrix, true, &list, ";p=1;p=2", json!([1, 2])),
            (Style::Matrix, false, &number, ";p=1", json!(1)),
        ] {
            assert_eq!(found(&parameter(style, explode, schema), text), value, "{style:?} {explode} {text}");
        }
        let text = parameter(Style::Simple, false, &json!({"type": "string"}));
        assert_eq!(found(&text, "a%2Fb%20c"), json!("a/b c"));
        assert_eq!(found(&text, "%ff"), json!("(broken)"));
    }

    #[test]
    fn names_of_a_query_belong_to_parameters() {
        let object = json!({"type": "object", "properties": {"a": {}}});
        let deep = parameter(Style::DeepObject, true, &object);
        assert!(deep.has_query_name("p[x]") && !deep.has_query_name("p") && !deep.has_query_name("q[x]"));
        let form = parameter(Style::Form, true, &object);
        assert!(form.has_query_name("a") && !form.has_query_name("z"));
        assert!(parameter(Style::Form, true, &json!({})).has_query_name("p"));
    }
}
