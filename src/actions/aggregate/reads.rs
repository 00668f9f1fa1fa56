//! The values of the request on which the result of an `aggregate` depends, which caches have to know.

use http::header::{COOKIE, HeaderName, HeaderValue};

use super::config::Config;
use super::text::CallText;
use super::{Aggregate, Call, CallCondition};
use crate::actions::HttpAction;
use crate::exchange::RequestValue;

/// The fact that holds the headers of the request.
const HEADERS: &str = "request.headers";

/// The values on which a result depends.
#[derive(Debug, Default)]
pub(super) struct ReadValues {
    headers: Vec<HeaderName>,
    /// Whether it depends on what no header has, or on headers that are not known.
    pub is_private: bool,
}

impl ReadValues {
    /// Returns the values that the calls read.
    pub fn of(config: &Config, calls: &[Call]) -> Self {
        let mut reads = Self::default();
        reads.headers.extend(calls.iter().flat_map(|call| call.forward_headers.iter().cloned()));
        reads.headers.extend(<Aggregate as HttpAction>::headers_read(config).into_iter().map(|(name, _)| name));
        for value in calls.iter().flat_map(Call::texts).flat_map(CallText::request_values) {
            reads.add_value(value);
        }
        let sources = config.calls.iter().map(|call| call.when.as_deref().unwrap_or_default());
        for (call, source) in calls.iter().zip(sources) {
            let facts = call.condition.as_ref().map(CallCondition::facts).unwrap_or_default();
            facts.iter().for_each(|fact| reads.add_fact(fact, source));
        }
        reads.headers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        reads.headers.dedup();
        reads
    }

    /// Returns the `Vary` of the response (RFC 9110, section 12.5.5).
    pub fn vary(&self) -> Option<HeaderValue> {
        let names: Vec<&str> = self.headers.iter().map(HeaderName::as_str).collect();
        if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
    }

    fn add_value(&mut self, value: &RequestValue) {
        match value {
            RequestValue::Header(name) => self.headers.push(name.clone()),
            RequestValue::Cookie(_) => self.headers.push(COOKIE),
            // They are of the URL.
            RequestValue::Host
            | RequestValue::Method
            | RequestValue::Scheme
            | RequestValue::Path
            | RequestValue::Query
            | RequestValue::QueryParameter(_)
            | RequestValue::Param(_)
            | RequestValue::Rest => {}
            _ => self.is_private = true,
        }
    }

    fn add_fact(&mut self, fact: &str, source: &str) {
        match fact {
            HEADERS => match headers_in(source) {
                Some(names) => self.headers.extend(names),
                None => self.is_private = true,
            },
            "request.cookies" => self.headers.push(COOKIE),
            "request.method" | "request.path" | "request.host" | "request.scheme" | "request.query" | "calls" => {}
            _ => self.is_private = true,
        }
    }
}

/// Returns the headers that a condition names; `None` where it reads one whose name is not written in it.
fn headers_in(source: &str) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for (at, word) in source.match_indices(HEADERS) {
        let (before, behind) = (source[..at].trim_end(), &source[at + word.len()..]);
        let name = quoted_key(behind).or_else(|| tested_key(before, behind))?;
        names.push(name.to_ascii_lowercase().parse().ok()?);
    }
    Some(names)
}

/// Returns `name` of `request.headers["name"]`.
fn quoted_key(behind: &str) -> Option<&str> {
    let inside = behind.trim_start().strip_prefix('[')?.trim_start();
    let quote = inside.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (name, rest) = inside[1..].split_once(quote)?;
    rest.trim_start().starts_with(']').then_some(name)
}

/// Returns `name` of `"name" in request.headers`.
fn tested_key<'s>(before: &'s str, behind: &str) -> Option<&'s str> {
    if behind.trim_start().starts_with(['[', '.']) {
        return None;
    }
    let before = before.strip_suffix("in")?.trim_end();
    let quote = before.chars().next_back().filter(|c| matches!(c, '"' | '\''))?;
    before[..before.len() - 1].rsplit_once(quote).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_conditions_are_found() {
        let found = |source: &str| {
            headers_in(source).map(|names| names.iter().map(HeaderName::to_string).collect::<Vec<_>>().join(" "))
        };
        for (source, wanted) in [
            ("request.headers['X-A'] == 'b'", Some("x-a")),
            ("'x-a' in request.headers && request.headers[ \"x-b\" ] == '1'", Some("x-a x-b")),
            ("request.headers[request.query['h']] == '1'", None),
            ("request.headers['x' + 'y'] == '1'", None),
            ("request.query['h'] in request.headers", None),
            ("size(request.headers) > 1", None),
        ] {
            assert_eq!(found(source).as_deref(), wanted, "{source}");
        }
    }
}
