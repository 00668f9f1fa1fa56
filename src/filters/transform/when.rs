//! The condition of a step that changes responses.

use pingora::http::ResponseHeader;

use crate::filters::ResponseView;
use crate::filters::authorize::facts::{COUNTRY, HeaderFacts, KNOWN_FACTS, RequestFacts};
use crate::rules::expressions::{Expression, Fact, FactKind, Facts};

/// The condition of a step that changes responses.
#[derive(Debug)]
pub(super) struct ResponseCondition(Expression);

impl ResponseCondition {
    /// Compiles the condition.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn compile(source: &str) -> Result<Self, String> {
        let mut known: Vec<(&'static str, FactKind)> =
            KNOWN_FACTS.iter().copied().filter(|(name, _)| *name != COUNTRY).collect();
        known.extend([("response.status", FactKind::Single), ("response.headers", FactKind::Map)]);
        Expression::compile(source, &known).map(Self)
    }

    /// Returns whether the step is taken. It is where the condition cannot be evaluated: it may hide something.
    pub fn holds(&self, response: &ResponseHeader, view: &ResponseView<'_>) -> bool {
        let request = RequestFacts::new(view.request, view.exchange, None);
        let status = i64::from(response.status.as_u16());
        let facts = ResponseFacts { request, status, headers: HeaderFacts(&response.headers) };
        self.0.holds(&facts).unwrap_or(true)
    }
}

struct ResponseFacts<'r> {
    request: RequestFacts<'r>,
    status: i64,
    headers: HeaderFacts<'r>,
}

impl Facts for ResponseFacts<'_> {
    fn fact(&self, name: &str) -> Option<Fact<'_>> {
        match name {
            "response.status" => Some(Fact::Number(self.status)),
            "response.headers" => Some(Fact::Members(&self.headers)),
            name => self.request.fact(name),
        }
    }
}
