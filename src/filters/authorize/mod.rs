//! `authorize`: decides what a caller may do, by its scopes, groups, roles and claims, by the request's method, address
//! and country, and by a condition.
//!
//! All keys that are given have to hold. A caller without an identity is rejected with 401 where one is needed, any
//! other with 403. What did not hold is in the log and not in the response, which would otherwise describe the rules.

mod addresses;
mod config;
pub(super) mod facts;
mod identity;

use http::Method;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use pingora::http::RequestHeader;

use super::{CompileContext, HttpFilter, Stage, Verdict};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::rules::expressions::Expression;

use addresses::{AddressRules, CountryRules};
use facts::{KNOWN_FACTS, RequestFacts};
use identity::IdentityRules;

pub use config::Config;

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    methods: Vec<Method>,
    addresses: AddressRules,
    countries: Option<CountryRules>,
    identity: IdentityRules,
    condition: Option<Expression>,
}

/// The reason why a request is not allowed. The texts are for the log.
#[derive(Debug)]
enum Denial {
    /// Nobody has been identified.
    Anonymous,
    /// The caller's scopes are not enough; these are.
    Scopes(String, Box<HeaderValue>),
    /// Something else does not hold.
    Other(String),
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authorize;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        if config.is_empty() {
            context.mistakes.add(&place, "expected at least one rule: without any, everything would be allowed");
            return None;
        }
        let addresses = AddressRules::compile(config, context);
        let countries = config.countries.as_ref().and_then(|countries| CountryRules::compile(countries, context));
        let identity = IdentityRules::compile(config, context);
        let condition = match &config.condition {
            Some(source) => {
                let compiled = Expression::compile(source, KNOWN_FACTS);
                let expression = context.mistakes.take(&place.key("condition"), compiled)?;
                if expression.facts().contains(&facts::COUNTRY) && config.countries.is_none() {
                    let text = "client.country needs a database: set countries: {database: PATH}";
                    context.mistakes.add(&place.key("condition"), text);
                }
                Some(expression)
            }
            None => None,
        };
        Some(Self {
            methods: config.methods.iter().map(|method| method.0.clone()).collect(),
            addresses: addresses?,
            countries,
            identity: identity?,
            condition,
        })
    }

    async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, (): &mut ()) -> Verdict {
        self.decide(request, exchange).map_err(|denial| match denial {
            Denial::Anonymous => Rejection::new(Reason::IdentityMissing, "").log("nobody has been identified"),
            Denial::Other(why) => Rejection::new(Reason::Forbidden, "").log(why),
            Denial::Scopes(why, challenge) => {
                let rejection = Rejection::new(Reason::Forbidden, "").log(why);
                // Only who has sent a token can send another (RFC 6750, section 3.1).
                let has_token = exchange.identity.as_ref().is_some_and(|identity| identity.claims.is_some());
                if has_token { rejection.header(WWW_AUTHENTICATE, *challenge) } else { rejection }
            }
        })
    }
}

impl Filter {
    /// Decides on a request: what costs least comes first.
    fn decide(&self, request: &RequestHeader, exchange: &Exchange) -> Result<(), Denial> {
        let same = |method: &Method| {
            // HEAD is GET without the content (RFC 9110, section 9.3.2).
            *method == request.method || (*method == Method::GET && request.method == Method::HEAD)
        };
        if !self.methods.is_empty() && !self.methods.iter().any(same) {
            return Err(Denial::Other(format!("the method {} is not allowed", request.method)));
        }
        self.addresses.decide(exchange.client).map_err(Denial::Other)?;
        if let Some(countries) = &self.countries {
            countries.decide(exchange.client).map_err(Denial::Other)?;
        }
        self.identity.decide(exchange.identity.as_ref())?;
        let Some(condition) = &self.condition else { return Ok(()) };
        let facts = RequestFacts::new(request, exchange, self.countries.as_ref());
        match condition.holds(&facts) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denial::Other("the condition does not hold".to_owned())),
            Err(why) => Err(Denial::Other(format!("the condition could not be evaluated: {why}"))),
        }
    }
}

#[cfg(test)]
mod tests;
