//! The verified identity of a request's sender.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::notation::{Quota, Rate};

/// The claims of a token (RFC 7519, section 4).
pub type Claims = serde_json::Map<String, Value>;

/// The verified identity of a request's sender.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The consumer's name, or the token's subject when no consumer is configured for it.
    pub name: Arc<str>,
    /// The consumer, if it is a known one.
    pub consumer: Option<Arc<ConsumerFacts>>,
    /// The claims of its token, if it has sent one.
    pub claims: Option<Arc<Claims>>,
    /// The scopes of its credential, if that has any.
    pub scopes: Option<Arc<[Box<str>]>>,
}

/// What is known of a consumer besides its credentials.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ConsumerFacts {
    /// The name.
    pub name: Arc<str>,
    /// The groups that it is in.
    pub groups: Vec<Box<str>>,
    /// The name of its plan.
    pub plan: Option<Arc<str>>,
    /// Its own limits, which replace those of its plan.
    pub allowance: Option<Arc<Allowance>>,
}

/// The limits of a consumer or a plan; what it does not say is said by the filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// The windows of its rate limit; empty if it has none.
    pub rate_limit: Vec<Rate>,
    /// The quota.
    pub quota: Option<Quota>,
    /// The most requests at a time.
    pub concurrency: Option<u32>,
}

impl Identity {
    /// Returns the identity of a known consumer whose credential has these scopes.
    pub fn of(consumer: Arc<ConsumerFacts>, scopes: Option<Arc<[Box<str>]>>) -> Self {
        Self { name: Arc::clone(&consumer.name), consumer: Some(consumer), claims: None, scopes }
    }

    /// Returns the consumer's name, if the sender is a known one.
    pub fn consumer_name(&self) -> Option<&str> {
        self.consumer.as_ref().map(|consumer| &*consumer.name)
    }

    /// Returns all scopes of the sender, in the order in which [`Self::has_scope`] looks for them.
    pub fn scopes(&self) -> Vec<Cow<'_, str>> {
        let mut all: Vec<Cow<'_, str>> =
            self.scopes.iter().flat_map(|all| all.iter()).map(|one| Cow::Borrowed(&**one)).collect();
        for claim in ["scope", "scp"].iter().filter_map(|name| self.claims.as_ref()?.get(*name)) {
            match claim {
                Value::String(text) => all.extend(text.split(' ').filter(|one| !one.is_empty()).map(Cow::Borrowed)),
                Value::Array(list) => all.extend(list.iter().filter_map(Value::as_str).map(Cow::Borrowed)),
                _ => {}
            }
        }
        all
    }

    /// Returns the groups that the consumer is in.
    pub fn groups(&self) -> &[Box<str>] {
        self.consumer.as_ref().map_or(&[], |consumer| &consumer.groups)
    }

    /// Returns the name of the consumer's plan.
    pub fn plan(&self) -> Option<&Arc<str>> {
        self.consumer.as_ref()?.plan.as_ref()
    }

    /// Returns whether the sender has that scope: by its credential, or by its token's claim `scope` (RFC 8693,
    /// section 4.2: scopes with blanks between them) or `scp` (a list or such a text).
    pub fn has_scope(&self, scope: &str) -> bool {
        let has = |value: &Value| match value {
            Value::String(text) => text.split(' ').any(|one| one == scope),
            Value::Array(all) => all.iter().any(|one| one.as_str() == Some(scope)),
            _ => false,
        };
        self.scopes.iter().flat_map(|all| all.iter()).any(|one| **one == *scope)
            || self.claims.iter().any(|claims| ["scope", "scp"].iter().any(|name| claims.get(*name).is_some_and(has)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_those_of_the_credential_and_of_the_token() {
        let with = |claims: Value, scopes: &[&str]| Identity {
            name: "ada".into(),
            consumer: None,
            claims: claims.as_object().cloned().map(Arc::new),
            scopes: Some(scopes.iter().map(|one| Box::from(*one)).collect()),
        };
        let of_token = with(serde_json::json!({"scope": "orders:read profile", "scp": ["a b"]}), &[]);
        assert!(of_token.has_scope("profile") && of_token.has_scope("a b"));
        assert!(!of_token.has_scope("orders") && !of_token.has_scope("a") && !of_token.has_scope(""));
        assert!(with(Value::Null, &["x"]).has_scope("x") && !with(Value::Null, &[]).has_scope("x"));
    }
}
