//! The identity that the claims of a verified token, or of a server that knows the token, give a client.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use http::header::HeaderValue;
use serde_json::Value;

use crate::exchange::{Claims, Edit, Identity, claim as find_claim, claim_text};
use crate::filters::Consumers;
use crate::notation::Header;

/// The result for a verified token.
#[derive(Debug)]
pub struct Verified {
    /// The identity of the client; `None` when the token does not identify it.
    pub identity: Option<Identity>,
    /// Headers for the target.
    pub edits: Arc<[Edit]>,
}

/// What is done with claims.
#[derive(Debug)]
pub struct ClaimRules {
    /// The claim that identifies the client.
    pub consumer_claim: String,
    /// Whether only configured consumers are accepted.
    pub known_consumers: bool,
    /// Claims that have to be there.
    pub required: Vec<String>,
    /// Headers for the target with the values of claims.
    pub forward: Vec<(String, HeaderName)>,
    /// The consumers.
    pub consumers: Arc<Consumers>,
}

impl ClaimRules {
    /// Returns headers with the values of claims.
    pub fn forwarded(headers: &BTreeMap<String, Header>) -> Vec<(String, HeaderName)> {
        headers.iter().map(|(claim, header)| (claim.clone(), header.0.clone())).collect()
    }

    /// Returns what the gateway needs of valid claims.
    ///
    /// # Errors
    /// When the client is not acceptable; the text is for the client.
    pub fn accept(&self, claims: Arc<Claims>) -> Result<Verified, &'static str> {
        // It is one string (RFC 7519, section 4.1.1).
        if claims.get("iss").is_some_and(|issuer| !issuer.is_string()) {
            return Err("the token's issuer is not a text");
        }
        if self.required.iter().any(|name| claims.get(name).is_none_or(Value::is_null)) {
            return Err("the token lacks a required claim");
        }
        let subject = claims.get(&self.consumer_claim).and_then(Value::as_str);
        let issuer = claims.get("iss").and_then(Value::as_str);
        let known = subject.and_then(|s| self.consumers.by_subject(s, issuer));
        if known.is_none() && self.known_consumers {
            return Err("the token is not of a known consumer");
        }
        let edits = self.forward.iter().filter_map(|(claim, name)| {
            let value = HeaderValue::from_bytes(claim_text(find_claim(&claims, claim)?).as_bytes()).ok()?;
            Some(Edit::Set(name.clone(), value))
        });
        // A subject without a consumer is distinct from all consumers, and from the same subject of another issuer:
        // no consumer's name has a #.
        let stranger = || subject.map(|s| Arc::from(format!("{}#{s}", issuer.unwrap_or_default())));
        let name = known.as_ref().map(|known| Arc::clone(&known.name)).or_else(stranger);
        let edits = edits.collect();
        let identity = name.map(|name| Identity { name, consumer: known, claims: Some(claims), scopes: None });
        Ok(Verified { identity, edits })
    }
}
