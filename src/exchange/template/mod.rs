//! Texts in which values of a request stand in braces: `{client}`, `{header.x-tenant|none}`.
//!
//! A brace begins a value only where a name and `}` (or `|` and a default) follow it, so that JSON and styles can be
//! written as they are. `{{name}` writes `{name}`.

mod foreign;
mod target;
mod value;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use pingora::http::RequestHeader;

use super::{Exchange, Reason};
use crate::notation::nearest;
use crate::rules::routing::PathPattern;

pub use value::{RequestValue, claim, claim_text};

/// The request that a text is filled in for.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'r> {
    /// The request's head as the client sent it.
    pub request: &'r RequestHeader,
    /// The facts about the exchange.
    pub exchange: &'r Exchange,
    /// The path pattern that matched it, if a route did.
    pub pattern: Option<&'r PathPattern>,
    /// The rejection that it gets, in error pages.
    pub response: Option<ErrorFacts<'r>>,
}

/// The facts about a rejection that an error page may name.
#[derive(Clone, Copy, Debug)]
pub struct ErrorFacts<'r> {
    /// The status.
    pub status: u16,
    /// The reason.
    pub reason: Reason,
    /// The detail for the client; empty without one.
    pub detail: &'r str,
}

/// What a text becomes, which decides how values are encoded in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    /// The value of a header: one that cannot stand there counts as absent.
    Header,
    /// A request target or `Location`: values are percent-encoded, except parts of the client's own target.
    Target,
    /// HTML: `<`, `>`, `&` and quotes are written as entities.
    Html,
    /// A text within a JSON string.
    Json,
    /// Text as it is.
    Plain,
}

/// What may be named in a text.
pub struct TextScope<'s> {
    /// What the text becomes.
    pub form: TextForm,
    /// Whether it is an error page, which has more values.
    pub errors: bool,
    /// Returns the names of the parameters that the path always has, with `*` where it has a rest.
    pub params: &'s dyn Fn() -> Vec<String>,
}

impl TextScope<'_> {
    /// Returns the scope of a text outside of routes, where paths have no parameters.
    pub fn outside(form: TextForm) -> Self {
        Self { form, errors: false, params: &Vec::new }
    }
}

/// A compiled text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    form: TextForm,
    parts: Vec<TemplatePart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Value { value: RequestValue, default: String },
}

/// Bytes that would begin another parameter or end the query, for parts of a path that are filled into a query.
const QUERY_VALUE: &AsciiSet = &percent_encoding::CONTROLS.add(b'&').add(b'+').add(b'=').add(b';').add(b'#').add(b'?');

/// Bytes that a component of a request target may hold as they are (RFC 3986, section 2.3).
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Template {
    /// Compiles a text.
    ///
    /// # Errors
    /// Returns what is wrong with it: an unknown name, or the notation of another program.
    pub fn new(text: &str, scope: &TextScope<'_>) -> Result<Self, String> {
        if let Some(why) = foreign::explain(text, scope.form) {
            return Err(why);
        }
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = memchr::memchr(b'{', rest.as_bytes()) {
            let (before, behind) = (&rest[..at], &rest[at + 1..]);
            literal.push_str(before);
            if behind.strip_prefix('{').and_then(placeholder).is_some() {
                literal.push('{');
                rest = &behind[1..];
                // The name that follows is text.
                let end = rest.find('}').unwrap_or(rest.len());
                literal.push_str(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            let Some((name, default, after)) = placeholder(behind) else {
                if scope.form == TextForm::Target {
                    return Err(format!("expected {{name}}, found {:?}", &rest[at..]));
                }
                literal.push('{');
                rest = behind;
                continue;
            };
            if !literal.is_empty() {
                parts.push(TemplatePart::Text(std::mem::take(&mut literal)));
            }
            parts.push(TemplatePart::Value { value: named(name, scope)?, default: default.to_owned() });
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(TemplatePart::Text(literal));
        }
        if scope.form == TextForm::Target {
            target::check(&parts)?;
        }
        Ok(Self { form: scope.form, parts })
    }

    /// Returns an empty template, which replaces one that did not compile until the error is reported.
    pub fn empty() -> Self {
        Self { form: TextForm::Plain, parts: Vec::new() }
    }

    /// Returns the template that is this text, whatever stands in it.
    pub fn literal(text: String) -> Self {
        Self { form: TextForm::Plain, parts: vec![TemplatePart::Text(text)] }
    }

    /// Returns the text if it names no value.
    pub fn as_text(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [TemplatePart::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the values that it names.
    pub fn values(&self) -> impl Iterator<Item = &RequestValue> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Value { value, .. } => Some(value),
            TemplatePart::Text(_) => None,
        })
    }

    /// Returns whether a value may hold what is not a part of the client's own target.
    pub fn has_foreign_values(&self) -> bool {
        self.values().any(|value| !value.is_encoded())
    }

    /// Returns the text with its values filled in.
    pub fn fill(&self, view: &RequestView<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let mut in_query = false;
        for part in &self.parts {
            match part {
                TemplatePart::Text(text) => {
                    in_query |= text.contains('?');
                    out.extend_from_slice(text.as_bytes());
                }
                TemplatePart::Value { value, default } => match value.read(view).filter(|v| self.is_fit(v)) {
                    Some(read) if in_query && self.form == TextForm::Target && value.is_encoded() => {
                        percent_encode(&read, QUERY_VALUE).for_each(|part| out.extend_from_slice(part.as_bytes()));
                    }
                    Some(read) => encode(&read, self.form, value.is_encoded(), &mut out),
                    None => out.extend_from_slice(default.as_bytes()),
                },
            }
        }
        if self.form == TextForm::Target {
            // A path that begins with two slashes would be taken for an authority.
            while out.starts_with(b"//") || out.starts_with(b"/\\") {
                out.remove(1);
            }
        }
        out
    }

    /// Returns the filled-in text as the value of a header; `None` when nothing is left of it.
    pub fn fill_header(&self, view: &RequestView<'_>) -> Option<HeaderValue> {
        let filled = self.fill(view);
        let value = HeaderValue::from_maybe_shared(Bytes::from(filled)).ok()?;
        Some(value).filter(|value| !value.is_empty())
    }

    /// Returns the filled-in text; bytes that are not UTF-8 become the replacement character.
    pub fn fill_text(&self, view: &RequestView<'_>) -> String {
        String::from_utf8(self.fill(view))
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// Returns the filled-in text, or `None` where a value that it names is not there.
    pub fn fill_present(&self, view: &RequestView<'_>) -> Option<String> {
        self.values().all(|value| value.read(view).is_some()).then(|| self.fill_text(view))
    }

    fn is_fit(&self, value: &[u8]) -> bool {
        self.form != TextForm::Header || value.iter().all(|byte| *byte >= b' ' && *byte != 0x7f || *byte == b'\t')
    }

    /// Returns the headers of a request that a text names, without compiling it.
    pub fn headers_in(text: &str) -> Vec<HeaderName> {
        let after_braces = text.split('{').skip(1).filter_map(placeholder);
        let named = after_braces.filter_map(|(name, ..)| name.strip_prefix("header."));
        named.filter_map(|name| name.to_ascii_lowercase().parse().ok()).collect()
    }
}

/// Returns the name, the default and what follows, if a text begins with what stands in braces.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let end = text.find(['}', '{'])?;
    let after = text[end..].strip_prefix('}')?;
    let (name, default) = text[..end].split_once('|').unwrap_or((&text[..end], ""));
    // Names of claims may be URLs.
    let is_claim = name.starts_with("claim.");
    let fine = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') || (is_claim && matches!(byte, b':' | b'/'))
    };
    let is_name = name == "*" || (!name.is_empty() && name.bytes().all(fine) && !name.starts_with(['-', '.']));
    is_name.then_some((name, default, after))
}

/// Returns the value of that name.
fn named(name: &str, scope: &TextScope<'_>) -> Result<RequestValue, String> {
    // What has a fixed name is looked for first: a text that names nothing else is the same for all routes.
    let fixed = RequestValue::of(name, scope.errors);
    if let Some(value) = fixed
        && value != Ok(RequestValue::Rest)
    {
        return value;
    }
    let params = (scope.params)();
    if params.iter().any(|param| param == name) {
        return Ok(if name == "*" { RequestValue::Rest } else { RequestValue::Param(name.to_owned()) });
    }
    match name {
        "*" => Err("{*} needs a path that ends in /*, on every path of the route".to_owned()),
        name => {
            let known: Vec<&str> = {
                let of_route = params.iter().map(|name| &**name);
                of_route.chain(RequestValue::names(scope.errors).map(|name| -> &str { name })).collect()
            };
            let near = nearest(name, known.iter().copied());
            let names: Vec<&str> = RequestValue::names(scope.errors).filter(|name| *name != "*").collect();
            let own = if params.is_empty() { String::new() } else { format!("{}, ", params.join(", ")) };
            let escape = if scope.form == TextForm::Target { "" } else { "; {{ writes a brace" };
            Err(format!("nothing here is called {{{name}}}{near}; known: {own}{}{escape}", names.join(", ")))
        }
    }
}

/// Appends a value as the form of the text requires.
fn encode(value: &[u8], form: TextForm, is_encoded: bool, out: &mut Vec<u8>) {
    match form {
        TextForm::Target if !is_encoded => {
            percent_encode(value, COMPONENT).for_each(|part| out.extend_from_slice(part.as_bytes()));
        }
        TextForm::Header | TextForm::Plain | TextForm::Target => out.extend_from_slice(value),
        TextForm::Html => {
            for byte in value {
                match byte {
                    b'<' => out.extend_from_slice(b"&lt;"),
                    b'>' => out.extend_from_slice(b"&gt;"),
                    b'&' => out.extend_from_slice(b"&amp;"),
                    b'"' => out.extend_from_slice(b"&quot;"),
                    b'\'' => out.extend_from_slice(b"&#39;"),
                    byte => out.push(*byte),
                }
            }
        }
        TextForm::Json => {
            let text = String::from_utf8_lossy(value);
            let quoted = serde_json::to_string(&text).unwrap_or_default();
            out.extend_from_slice(quoted.get(1..quoted.len() - 1).unwrap_or_default().as_bytes());
        }
    }
}

/// Returns the form of a body of that media type.
pub fn form_of_type(content_type: &[u8]) -> TextForm {
    let end = content_type.iter().position(|byte| *byte == b';').unwrap_or(content_type.len());
    match String::from_utf8_lossy(content_type[..end].trim_ascii()).to_ascii_lowercase() {
        html if html == "text/html" || html.ends_with("xml") => TextForm::Html,
        json if json.ends_with("json") => TextForm::Json,
        _ => TextForm::Plain,
    }
}

/// Returns a text as it is shown in messages, shortened.
pub(super) fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests;
