//! Texts of calls, with values of the request and of other calls: `/users/{id}/orders/{calls.user.body.last_order}`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::exchange::{RequestValue, RequestView, Template, TextForm, TextScope};
use crate::notation::nearest;
use crate::rules::aggregation::{JsonPath, json_text};

/// Bytes that a component of a request target may hold as they are (RFC 3986, section 2.3).
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value of another call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallValue {
    /// The place of the call.
    pub call: usize,
    kind: CallValueKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum CallValueKind {
    Status,
    Header(HeaderName),
    Body(JsonPath),
}

/// The result of a call, as other calls see it.
#[derive(Clone, Copy, Debug)]
pub struct CallResult<'r> {
    /// The status; 0 where there was no response.
    pub status: u16,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// The document.
    pub json: &'r str,
}

/// The values that a text may name.
pub struct CallInputs<'i> {
    /// The client's request.
    pub view: RequestView<'i>,
    /// Returns the result of a call, once it has one.
    pub result: &'i dyn Fn(usize) -> Option<CallResult<'i>>,
    /// The element of the list that the call is made for.
    pub item: Option<&'i str>,
}

/// A value that a text names is missing; with the call that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingValue(pub Option<usize>);

/// What may be named in the texts of one call.
pub struct CallScope<'s> {
    /// The names of all calls.
    pub calls: &'s [&'s str],
    /// Whether the call is made for the elements of a list.
    pub has_items: bool,
    /// Returns the names of the parameters that the path always has.
    pub params: &'s dyn Fn() -> Vec<String>,
}

/// A compiled text.
#[derive(Clone, Debug)]
pub struct CallText {
    form: TextForm,
    parts: Vec<CallTextPart>,
}

#[derive(Clone, Debug)]
enum CallTextPart {
    /// A text, perhaps with values of the request.
    Text(Template),
    /// A value of a call or of the element, with what stands for it where it is missing. In JSON it may stand between
    /// quotes.
    Value { value: NamedValue, default: Option<String>, is_quoted: bool },
}

#[derive(Clone, Debug)]
enum NamedValue {
    Call(CallValue),
    Item(JsonPath),
}

impl CallValue {
    /// Parses `calls.NAME.body.PATH`, `calls.NAME.status` or `calls.NAME.header.NAME`.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse(text: &str, calls: &[&str]) -> Result<Self, String> {
        let wanted =
            || format!("expected calls.NAME.body.PATH, calls.NAME.status or calls.NAME.header.NAME, found {text}");
        let (name, rest) = text.strip_prefix("calls.").and_then(|text| text.split_once('.')).ok_or_else(wanted)?;
        let call = calls.iter().position(|known| *known == name);
        let near = || format!("no call has the name \"{name}\"{}", nearest(name, calls.iter().copied()));
        let kind = match rest.split_once('.') {
            None if rest == "status" => CallValueKind::Status,
            None if rest == "body" => CallValueKind::Body(JsonPath::default()),
            Some(("body", path)) => CallValueKind::Body(path.parse()?),
            Some(("header", name)) => CallValueKind::Header(name.parse().map_err(|_| wanted())?),
            _ => return Err(wanted()),
        };
        Ok(Self { call: call.ok_or_else(near)?, kind })
    }

    /// Returns the value as JSON, if it is there.
    pub fn read<'r>(&self, inputs: &CallInputs<'r>) -> Option<Cow<'r, str>> {
        let result = (inputs.result)(self.call)?;
        match &self.kind {
            CallValueKind::Status => Some(Cow::Owned(result.status.to_string())),
            CallValueKind::Header(name) => {
                let text = String::from_utf8_lossy(result.headers.get(name)?.as_bytes());
                Some(Cow::Owned(serde_json::Value::from(text).to_string()))
            }
            CallValueKind::Body(path) => path.find(result.json).map(Cow::Borrowed),
        }
    }

    /// Returns whether a header of the response is read.
    fn header(&self) -> Option<&HeaderName> {
        match &self.kind {
            CallValueKind::Header(name) => Some(name),
            _ => None,
        }
    }
}

impl CallText {
    /// Compiles a text.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn new(text: &str, form: TextForm, scope: &CallScope<'_>) -> Result<Self, String> {
        let (mut parts, mut rest, mut quotes) = (Vec::new(), text, QuoteState::default());
        while let Some((before, name, default, after)) = next_value(rest) {
            let is_quoted = quotes.read(before);
            push_text(&mut parts, before, form, scope, &quotes)?;
            let value = match name.strip_prefix("item") {
                Some(_) if !scope.has_items => {
                    return Err(format!("{{{name}}} is an element of a list: the call needs for_each"));
                }
                Some("") => NamedValue::Item(JsonPath::default()),
                Some(path) => NamedValue::Item(path.trim_start_matches('.').parse()?),
                None => NamedValue::Call(CallValue::parse(name, scope.calls)?),
            };
            parts.push(CallTextPart::Value { value, default: default.map(str::to_owned), is_quoted });
            rest = after;
        }
        quotes.read(rest);
        push_text(&mut parts, rest, form, scope, &quotes)?;
        Ok(Self { form, parts })
    }

    /// Returns an empty text, which replaces one that did not compile until the error is reported.
    pub fn empty() -> Self {
        Self { form: TextForm::Plain, parts: Vec::new() }
    }

    /// Returns the calls whose values it names.
    pub fn calls(&self) -> impl Iterator<Item = &CallValue> {
        self.parts.iter().filter_map(|part| match part {
            CallTextPart::Value { value: NamedValue::Call(value), .. } => Some(value),
            _ => None,
        })
    }

    /// Returns the headers of responses that it names, each with its call.
    pub fn headers(&self) -> impl Iterator<Item = (usize, &HeaderName)> {
        self.calls().filter_map(|value| Some((value.call, value.header()?)))
    }

    /// Returns whether it names the element of the list.
    pub fn has_item(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, CallTextPart::Value { value: NamedValue::Item(_), .. }))
    }

    /// Returns the values of the request that it names.
    pub fn request_values(&self) -> impl Iterator<Item = &RequestValue> {
        self.parts
            .iter()
            .flat_map(|part| match part {
                CallTextPart::Text(text) => Some(text.values()),
                CallTextPart::Value { .. } => None,
            })
            .flatten()
    }

    /// Returns the text with its values filled in.
    ///
    /// # Errors
    /// Returns which value is missing.
    pub fn fill(&self, inputs: &CallInputs<'_>) -> Result<Vec<u8>, MissingValue> {
        let mut out = Vec::with_capacity(64);
        for part in &self.parts {
            match part {
                CallTextPart::Text(text) => out.extend_from_slice(&text.fill(&inputs.view)),
                CallTextPart::Value { value, default, is_quoted } => {
                    let (read, of) = match value {
                        NamedValue::Call(value) => (value.read(inputs), Some(value.call)),
                        NamedValue::Item(path) => {
                            (inputs.item.and_then(|item| path.find(item)).map(Cow::Borrowed), None)
                        }
                    };
                    let written = read.is_some_and(|json| self.write(&json, *is_quoted, &mut out));
                    match (written, default) {
                        (true, _) => {}
                        (false, Some(default)) => out.extend_from_slice(default.as_bytes()),
                        (false, None) => return Err(MissingValue(of)),
                    }
                }
            }
        }
        Ok(out)
    }

    /// Appends a value of JSON as the form of the text requires. Returns whether there is one: a value that is no text
    /// cannot stand in a path, and is missing there.
    fn write(&self, json: &str, is_quoted: bool, out: &mut Vec<u8>) -> bool {
        if self.form == TextForm::Json && !is_quoted {
            out.extend_from_slice(json.as_bytes());
            return true;
        }
        let Some(text) = json_text(json) else { return false };
        match self.form {
            TextForm::Target => {
                percent_encode(text.as_bytes(), COMPONENT).for_each(|part| out.extend_from_slice(part.as_bytes()));
                !text.is_empty()
            }
            TextForm::Json => {
                let quoted = serde_json::Value::from(text).to_string();
                out.extend_from_slice(quoted.get(1..quoted.len() - 1).unwrap_or_default().as_bytes());
                true
            }
            _ => {
                out.extend_from_slice(text.as_bytes());
                true
            }
        }
    }
}

/// Compiles the text between two values of calls.
fn push_text(
    parts: &mut Vec<CallTextPart>,
    text: &str,
    form: TextForm,
    scope: &CallScope<'_>,
    quotes: &QuoteState,
) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let template = Template::new(text, &TextScope { form, errors: false, params: scope.params })?;
    if form == TextForm::Json && template.as_text().is_none() && !quotes.values_are_quoted {
        return Err("put values of the request in quotes: a client could write any JSON in their place".to_owned());
    }
    parts.push(CallTextPart::Text(template));
    Ok(())
}

/// Returns what stands before the next value of a call or an element, its name, its default, and what follows.
fn next_value(text: &str) -> Option<(&str, &str, Option<&str>, &str)> {
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.find('{')?;
        let inside = &text[at + 1..];
        let end = inside.find(['}', '{']).unwrap_or(inside.len());
        let (name, default) = match inside[..end].split_once('|') {
            Some((name, default)) => (name, Some(default)),
            None => (&inside[..end], None),
        };
        let is_it = name.starts_with("calls.") || name == "item" || name.starts_with("item.");
        if is_it && inside[end..].starts_with('}') && !text[..at].ends_with('{') {
            return Some((&text[..at], name, default, &inside[end + 1..]));
        }
        from = at + 1;
    }
}

/// Whether the place in a JSON text is within a string.
#[derive(Debug)]
struct QuoteState {
    inside: bool,
    escaped: bool,
    /// Whether all values of the request in the last text stood within strings.
    values_are_quoted: bool,
}

impl Default for QuoteState {
    fn default() -> Self {
        Self { inside: false, escaped: false, values_are_quoted: true }
    }
}

impl QuoteState {
    /// Reads a text, and returns whether its end is within a string.
    fn read(&mut self, text: &str) -> bool {
        self.values_are_quoted = true;
        for (at, byte) in text.bytes().enumerate() {
            if byte == b'{' && !self.inside {
                let rest = &text[at + 1..];
                let name = rest.find('}').map_or("", |end| &rest[..end]);
                let is_value = |c: char| c.is_ascii_alphanumeric() || "._-*|".contains(c);
                self.values_are_quoted &= name.is_empty() || !name.chars().all(is_value);
            }
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = self.inside,
                b'"' => self.inside = !self.inside,
                _ => {}
            }
        }
        self.inside
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use pingora::http::RequestHeader;

    use super::*;
    use crate::exchange::Exchange;

    const CALLS: &[&str] = &["user", "order"];
    const USER: &str = r#"{"id":7.0,"name":"A/\u00e9\"","tags":[1],"none":null}"#;

    fn compile(text: &str, form: TextForm) -> Result<CallText, String> {
        CallText::new(text, form, &CallScope { calls: CALLS, has_items: true, params: &|| vec!["id".to_owned()] })
    }

    fn fill(text: &str, form: TextForm) -> Result<String, MissingValue> {
        let mut request = RequestHeader::build("GET", b"/p?q=a%22b%26", None).expect("a request");
        request.insert_header("x-a", "1").expect("a header");
        let (exchange, mut headers) = (Exchange::default(), HeaderMap::new());
        headers.insert("etag", HeaderValue::from_static("\"v1\""));
        let view = RequestView { request: &request, exchange: &exchange, pattern: None, response: None };
        let result = |call| (call == 0).then_some(CallResult { status: 201, headers: &headers, json: USER });
        let inputs = CallInputs { view, result: &result, item: Some(r#"{"sku":"s 1"}"#) };
        let filled = compile(text, form).expect(text).fill(&inputs)?;
        Ok(String::from_utf8(filled).expect("UTF-8"))
    }

    #[test]
    fn values_are_written_as_their_place_requires() {
        for (text, form, wanted) in [
            ("/u/{calls.user.body.id}/{calls.user.body.name}", TextForm::Target, "/u/7.0/A%2F%C3%A9%22"),
            ("/i/{item.sku}/x", TextForm::Target, "/i/s%201/x"),
            ("{calls.user.status} {calls.user.header.etag} {header.x-a}", TextForm::Header, "201 \"v1\" 1"),
            ("{calls.user.body.x|none}-{calls.order.body.x|}", TextForm::Plain, "none-"),
            (
                r#"{"i":{calls.user.body.id},"n":"{calls.user.body.name}","t":{calls.user.body.tags},"q":"{query.q}"}"#,
                TextForm::Json,
                r#"{"i":7.0,"n":"A/é\"","t":[1],"q":"a\"b&"}"#,
            ),
            (r#"[{calls.user.body.none},{item}]"#, TextForm::Json, r#"[null,{"sku":"s 1"}]"#),
        ] {
            assert_eq!(fill(text, form).as_deref(), Ok(wanted), "{text}");
        }
        for (text, of) in [
            ("/{calls.user.body.x}", Some(0)),
            ("/{calls.user.body.none}", Some(0)),
            ("/{calls.user.body.tags}", Some(0)),
            ("/{calls.order.body.id}", Some(1)),
            ("/{item.x}", None),
        ] {
            assert_eq!(fill(text, TextForm::Target), Err(MissingValue(of)), "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_known() {
        for (text, form, why) in [
            ("/{calls.users.body.id}", TextForm::Target, "has the name \"users\"; did you mean \"user\"?"),
            ("/{calls.user}", TextForm::Target, "expected calls.NAME.body.PATH"),
            ("/{calls.user.bod.x}", TextForm::Target, "expected calls.NAME.body.PATH"),
            ("/{calls.user.body.a..b}", TextForm::Target, "expected a path of names"),
            ("/{nothing}", TextForm::Target, "nothing here is called {nothing}"),
            ("{\"a\":{query.q}}", TextForm::Json, "put values of the request in quotes"),
        ] {
            let error = compile(text, form).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let scope = CallScope { calls: CALLS, has_items: false, params: &Vec::new };
        assert!(CallText::new("/{item.id}", TextForm::Target, &scope).expect_err("no list").contains("for_each"));
        assert_eq!(compile("/a{calls.user.body.id}", TextForm::Target).expect("a text").calls().count(), 1);
    }
}
