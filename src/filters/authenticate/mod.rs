//! Who calls: filters that find it out. They have no effect but to say so, so that they can be combined.

pub mod all_of;
pub mod any_of;
pub mod api_key;
pub mod basic;
pub mod jwt;
mod members;

use std::sync::Arc;

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use smallvec::SmallVec;

use crate::exchange::{Edit, Exchange, Identity, Reason, Rejection};

/// What an authenticator has found out.
#[derive(Debug, Default)]
pub struct Authenticated {
    /// Who calls; `None` when the credential is good and says nothing of it.
    pub identity: Option<Identity>,
    /// Edits for the target, beyond those that the filter always makes.
    pub edits: SmallVec<[Arc<[Edit]>; 1]>,
}

impl Authenticated {
    /// Notes it for what follows.
    pub(super) fn note(self, exchange: &mut Exchange) {
        exchange.identity = self.identity;
        self.edits.iter().for_each(|edits| exchange.edits.push(edits));
    }
}

/// How far a caller has come with an authenticator that does not let it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Attempt {
    /// It came without a credential.
    Missing,
    /// Its credential is not acceptable.
    Invalid,
    /// Its credential cannot be checked at the moment.
    Unchecked,
}

/// Why an authenticator does not let a caller in.
#[derive(Debug)]
pub struct Refusal {
    attempt: Attempt,
    rejection: Box<Rejection>,
}

impl Refusal {
    /// Returns the refusal of a caller that came without a credential.
    pub fn missing(rejection: Box<Rejection>) -> Self {
        Self { attempt: Attempt::Missing, rejection }
    }

    /// Returns the refusal of a caller whose credential is not acceptable.
    pub fn invalid(rejection: Box<Rejection>) -> Self {
        Self { attempt: Attempt::Invalid, rejection }
    }

    /// Returns the refusal of a caller whose credential cannot be checked at the moment; the log is told why.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self { attempt: Attempt::Unchecked, rejection: Rejection::new(Reason::AuthUnavailable, "").log(why) }
    }

    /// Returns the refusal of a caller whose credential is not checked, with the response to that.
    pub fn unchecked(rejection: Box<Rejection>) -> Self {
        Self { attempt: Attempt::Unchecked, rejection }
    }

    /// Returns the rejection of the request.
    pub fn into_rejection(self) -> Box<Rejection> {
        self.rejection
    }

    /// Returns the refusal that stands for several: of the caller that came furthest, with the challenges of all
    /// (RFC 9110, section 11.6.1).
    fn join(refusals: Vec<Self>) -> Self {
        let challenges: Vec<HeaderValue> = refusals.iter().flat_map(Self::challenges).cloned().collect();
        // Of equals the first: `max_by_key` takes the last.
        let furthest = refusals.into_iter().rev().max_by_key(|refusal| refusal.attempt);
        let Some(mut joined) = furthest else { return Self::unavailable("no authenticator") };
        if joined.attempt != Attempt::Unchecked {
            joined.rejection.headers.retain(|(name, _)| *name != WWW_AUTHENTICATE);
            joined.rejection.headers.extend(challenges.into_iter().map(|value| (WWW_AUTHENTICATE, value)));
        }
        joined
    }

    fn challenges(&self) -> impl Iterator<Item = &HeaderValue> {
        self.rejection.headers.iter().filter(|(name, _)| *name == WWW_AUTHENTICATE).map(|(_, value)| value)
    }
}
