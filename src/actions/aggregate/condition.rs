//! The condition of a call, over the facts of the request and earlier calls.

use pingora::http::RequestHeader;
use serde_json::Value as Json;

use super::text::CallResult;
use crate::exchange::Exchange;
use crate::filters::{COUNTRY, KNOWN_FACTS, RequestFacts};
use crate::notation::nearest;
use crate::rules::expressions::{Expression, Fact, FactKind, Facts, Members};

/// The fact that holds the calls.
const CALLS: &str = "calls";

/// A compiled condition.
#[derive(Debug)]
pub struct CallCondition {
    expression: Expression,
    /// The places and names of the calls that it reads.
    calls: Vec<(usize, String)>,
}

impl CallCondition {
    /// Compiles a condition.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn new(source: &str, names: &[&str]) -> Result<Self, String> {
        let facts = KNOWN_FACTS.iter().copied().filter(|(name, _)| *name != COUNTRY);
        let known: Vec<(&'static str, FactKind)> = facts.chain([(CALLS, FactKind::Map)]).collect();
        let expression = Expression::compile(source, &known)?;
        let mut calls = Vec::new();
        if expression.facts().contains(&CALLS) {
            for name in calls_in(source)? {
                let Some(place) = names.iter().position(|known| *known == name) else {
                    return Err(format!("no call has the name \"{name}\"{}", nearest(name, names.iter().copied())));
                };
                if !calls.iter().any(|(known, _)| *known == place) {
                    calls.push((place, name.to_owned()));
                }
            }
        }
        Ok(Self { expression, calls })
    }

    /// Returns the facts that it reads.
    pub fn facts(&self) -> &[&'static str] {
        self.expression.facts()
    }

    /// Returns the calls that it reads.
    pub fn calls(&self) -> impl Iterator<Item = usize> {
        self.calls.iter().map(|(place, _)| *place)
    }

    /// Returns whether the condition holds.
    ///
    /// # Errors
    /// Returns why it cannot be evaluated.
    pub fn holds<'r>(
        &self,
        request: &RequestHeader,
        exchange: &Exchange,
        result: &dyn Fn(usize) -> Option<CallResult<'r>>,
    ) -> Result<bool, String> {
        let calls = self.calls.iter().map(|(place, name)| (name.as_str(), KnownCall::of(result(*place)))).collect();
        let facts = CallFacts { request: RequestFacts::new(request, exchange, None), calls: KnownCalls(calls) };
        self.expression.holds(&facts)
    }
}

/// Returns the names of the calls that a condition names: `calls.user`, `calls["user"]`.
fn calls_in(source: &str) -> Result<Vec<&str>, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = Vec::new();
    for (at, word) in source.match_indices(CALLS) {
        let (before, behind) = (&source[..at], &source[at + word.len()..]);
        if before.ends_with(|c| is_word(c) || c == '.') || behind.starts_with(is_word) {
            continue;
        }
        let quoted = |quote: char| {
            let inside = behind.strip_prefix('[')?.trim_start().strip_prefix(quote)?;
            inside.split_once(quote).map(|(name, _)| name)
        };
        let dotted = || behind.strip_prefix('.').map(|rest| rest.split(|c| !is_word(c)).next().unwrap_or_default());
        let name = dotted().or_else(|| quoted('"')).or_else(|| quoted('\''));
        names.push(name.ok_or("calls are named as calls.NAME or calls[\"NAME\"]")?);
    }
    Ok(names)
}

struct CallFacts<'f> {
    request: RequestFacts<'f>,
    calls: KnownCalls<'f>,
}

impl Facts for CallFacts<'_> {
    fn fact(&self, name: &str) -> Option<Fact<'_>> {
        if name == CALLS { Some(Fact::Members(&self.calls)) } else { self.request.fact(name) }
    }
}

#[derive(Debug)]
struct KnownCalls<'f>(Vec<(&'f str, KnownCall)>);

impl Members for KnownCalls<'_> {
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String> {
        Ok(self.0.iter().find(|(known, _)| *known == name).map(|(_, call)| Fact::Members(call)))
    }
}

/// A call that has ended.
#[derive(Debug)]
struct KnownCall {
    ok: bool,
    status: u16,
    body: Json,
}

impl KnownCall {
    fn of(result: Option<CallResult<'_>>) -> Self {
        let (ok, status) = (result.is_some(), result.map_or(0, |result| result.status));
        let body = result.and_then(|result| serde_json::from_str(result.json).ok());
        Self { ok, status, body: body.unwrap_or(Json::Null) }
    }
}

impl Members for KnownCall {
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String> {
        Ok(match name {
            "ok" => Some(Fact::Flag(self.ok)),
            "status" => Some(Fact::Number(i64::from(self.status))),
            "body" => Some(Fact::Json(&self.body)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn conditions_read_the_request_and_calls() {
        let request = RequestHeader::build("GET", b"/p?a=1", None).expect("a request");
        let (exchange, headers) = (Exchange::default(), HeaderMap::new());
        let json = r#"{"kind":"staff","tags":["a","b"],"n":3}"#;
        let result = |call| (call == 1).then_some(CallResult { status: 201, headers: &headers, json });
        for (source, holds) in [
            ("calls.user.ok && calls.user.status == 201", Ok(true)),
            ("calls.user.body.kind == 'staff' && 'b' in calls.user.body.tags", Ok(true)),
            ("calls[\"user\"].body.n > 2 && request.query['a'] == '1'", Ok(true)),
            ("!calls.order.ok && calls.order.status == 0", Ok(true)),
            ("request.method == 'POST'", Ok(false)),
            ("calls.order.body.x == 1", Err(())),
        ] {
            let condition = CallCondition::new(source, &["order", "user"]).expect(source);
            assert_eq!(condition.holds(&request, &exchange, &result).map_err(drop), holds, "{source}");
        }
        for (source, why) in [
            ("calls.users.ok", "no call has the name \"users\"; did you mean \"user\"?"),
            ("size(calls) > 1", "calls"),
            ("call.user.ok", "there is no call"),
        ] {
            let error = CallCondition::new(source, &["order", "user"]).expect_err(source);
            assert!(error.contains(why), "{source}: {error}");
        }
    }
}
