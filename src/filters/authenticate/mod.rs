//! Filters that authenticate requests. They have no other effect, so that they can be combined.

pub mod all_of;
pub mod any_of;
pub mod api_key;
pub mod basic;
mod claims;
mod client_auth;
pub mod forward_auth;
pub mod hmac;
pub mod http_signature;
pub mod introspection;
pub mod jwt;
mod members;
pub mod mtls;
pub mod oidc;
mod public_url;
mod token_places;

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use smallvec::SmallVec;

use crate::exchange::{Edit, Exchange, Identity, Reason, Rejection};

pub(super) use client_auth::{ClientAuth, ClientCredentials};

/// The result of a successful authentication.
#[derive(Debug, Default)]
pub struct Authenticated {
    /// The identity of the client; `None` when the credential is valid and does not identify it.
    pub identity: Option<Identity>,
    /// Edits for the target, beyond those that the filter always makes.
    pub edits: SmallVec<[Arc<[Edit]>; 2]>,
    /// Values of `Set-Cookie` for the response, whichever it is.
    pub set_cookies: Vec<HeaderValue>,
}

impl Authenticated {
    /// Notes the result in the exchange.
    pub(super) fn note(self, exchange: &mut Exchange) {
        exchange.identity = self.identity;
        self.edits.iter().for_each(|edits| exchange.edits.push(edits));
        exchange.set_cookies.extend(self.set_cookies);
    }
}

/// How far a request came with an authenticator that does not accept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AuthenticationStage {
    /// It has no credential.
    Missing,
    /// Its credential is not acceptable.
    Invalid,
    /// Its credential cannot be verified at present.
    Unchecked,
}

/// The reason why an authenticator does not accept a request.
#[derive(Debug)]
pub struct Unauthenticated {
    attempt: AuthenticationStage,
    rejection: Box<Rejection>,
}

impl Unauthenticated {
    /// Returns the error for a request without a credential.
    pub fn missing(rejection: Box<Rejection>) -> Self {
        Self { attempt: AuthenticationStage::Missing, rejection }
    }

    /// Returns the error for a request whose credential is not acceptable.
    pub fn invalid(rejection: Box<Rejection>) -> Self {
        Self { attempt: AuthenticationStage::Invalid, rejection }
    }

    /// Returns the error for a request whose credential cannot be verified at present; `why` is logged.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self {
            attempt: AuthenticationStage::Unchecked,
            rejection: Rejection::new(Reason::AuthUnavailable, "").log(why),
        }
    }

    /// Returns the error for a request whose credential is not verified, with the response to that.
    pub fn unchecked(rejection: Box<Rejection>) -> Self {
        Self { attempt: AuthenticationStage::Unchecked, rejection }
    }

    /// Adds headers to the rejection.
    pub fn add_headers(&mut self, headers: impl Iterator<Item = (HeaderName, HeaderValue)>) {
        self.rejection.headers.extend(headers);
    }

    /// Returns the rejection of the request.
    pub fn into_rejection(self) -> Box<Rejection> {
        self.rejection
    }

    /// Joins several errors: the result is that of the request that came furthest, with the challenges of all (RFC
    /// 9110, section 11.6.1). Where there is no credential at all, it names none of them.
    fn join(failures: Vec<Self>) -> Self {
        let reasons: SmallVec<[Reason; 4]> = failures.iter().map(|failure| failure.rejection.reason).collect();
        // A redirect to a login is the response to a request without a credential as it is.
        let is_missing =
            |failure: &Self| failure.attempt == AuthenticationStage::Missing && failure.rejection.relayed.is_none();
        let are_missing = failures.len() > 1 && failures.iter().all(is_missing);
        let challenges: Vec<HeaderValue> = failures.iter().flat_map(Self::challenges).cloned().collect();
        // The first of equals counts: `max_by_key` takes the last.
        let furthest = failures.into_iter().rev().max_by_key(|failure| failure.attempt);
        let Some(mut joined) = furthest else { return Self::unavailable("no authenticator") };
        if joined.attempt != AuthenticationStage::Unchecked {
            joined.rejection.headers.retain(|(name, _)| *name != WWW_AUTHENTICATE);
            joined.rejection.headers.extend(challenges.into_iter().map(|value| (WWW_AUTHENTICATE, value)));
        }
        if are_missing {
            if reasons.iter().any(|reason| *reason != joined.rejection.reason) {
                joined.rejection.reason = Reason::CredentialMissing;
            }
            joined.rejection.detail = "one of several credentials is required".into();
        }
        joined
    }

    fn challenges(&self) -> impl Iterator<Item = &HeaderValue> {
        self.rejection.headers.iter().filter(|(name, _)| *name == WWW_AUTHENTICATE).map(|(_, value)| value)
    }
}

/// Returns the challenges of a rejection.
fn challenges_of(rejection: &Rejection) -> Vec<HeaderValue> {
    let headers = rejection.headers.iter().filter(|(name, _)| *name == WWW_AUTHENTICATE);
    headers.map(|(_, value)| value.clone()).collect()
}
