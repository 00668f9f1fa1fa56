//! The condition beside a filter under which it runs: `when`.

use pingora::http::RequestHeader;

use super::Stage;
use super::authorize::facts::{COUNTRY, KNOWN_FACTS, RequestFacts};
use crate::exchange::Exchange;
use crate::rules::expressions::{Expression, FactKind};

/// The condition under which a filter runs.
#[derive(Debug)]
pub struct Condition(Expression);

impl Condition {
    /// Compiles the condition of a filter of that stage.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn compile(source: &str, stage: Stage) -> Result<Self, String> {
        if matches!(stage, Stage::Authenticate) {
            return Err("an authenticator holds for every request of its route: write two routes, or any_of".to_owned());
        }
        let known: Vec<(&'static str, FactKind)> =
            KNOWN_FACTS.iter().copied().filter(|(name, _)| *name != COUNTRY).collect();
        let expression = Expression::compile(source, &known)?;
        let early = expression.facts().iter().find(|fact| fact.starts_with("identity."));
        match early {
            Some(fact) if stage < Stage::Authenticate => {
                Err(format!("{fact} is not known yet where this filter runs, which is before authentication"))
            }
            _ => Ok(Self(expression)),
        }
    }

    /// Returns whether the condition is true for a request; one that cannot be evaluated is not.
    pub fn is_true(&self, request: &RequestHeader, exchange: &Exchange) -> bool {
        self.0.holds(&RequestFacts::new(request, exchange, None)).unwrap_or(false)
    }

    /// Returns whether the filter runs for a request; `in_doubt` says whether it does where the condition cannot be
    /// evaluated.
    pub fn holds(&self, request: &RequestHeader, exchange: &Exchange, in_doubt: bool) -> bool {
        self.0.holds(&RequestFacts::new(request, exchange, None)).unwrap_or(in_doubt)
    }
}
