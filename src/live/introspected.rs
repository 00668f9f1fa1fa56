//! The tokens that an authorization server was called about.

use std::sync::Arc;

use super::verified::VerifiedTokens;
use crate::clients::{CallError, SingleFlight};
use crate::exchange::Claims;

/// What a server says of a token.
#[derive(Clone, Debug)]
pub enum IntrospectedToken {
    /// It is active, with these claims.
    Active(Arc<Claims>),
    /// It is not active.
    Inactive,
}

/// The result of a call about a token. An error is for the log.
pub type IntrospectionResult = Result<IntrospectedToken, IntrospectionError>;

/// Why a server does not say anything of a token.
#[derive(Clone, Debug)]
pub enum IntrospectionError {
    /// The call failed.
    Call(CallError),
    /// The response is not one of RFC 7662.
    Response(String),
}

impl std::fmt::Display for IntrospectionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Response(why) => f.write_str(why),
        }
    }
}

/// The tokens that one server was called about, by their digests. Tokens that are not active have a place of their own,
/// so that random ones cannot displace those that are.
#[derive(Debug)]
pub struct IntrospectedTokens {
    /// Active tokens.
    pub active: VerifiedTokens<Claims>,
    /// Tokens that are not active.
    pub inactive: VerifiedTokens<()>,
    /// The calls in progress.
    pub calls: Arc<SingleFlight<[u8; 32], IntrospectionResult>>,
}

/// The most active tokens that are remembered, each with its claims.
const MAX_ACTIVE: usize = 32_768;

impl Default for IntrospectedTokens {
    fn default() -> Self {
        let (active, inactive) = (VerifiedTokens::of_at_most(MAX_ACTIVE), VerifiedTokens::default());
        Self { active, inactive, calls: Arc::default() }
    }
}

impl IntrospectedTokens {
    /// Returns what is known of a token at `now` (seconds).
    pub fn get(&self, digest: &[u8; 32], now: u64) -> Option<IntrospectedToken> {
        if let Some(claims) = self.active.get(digest, 0, now) {
            return Some(IntrospectedToken::Active(claims));
        }
        self.inactive.get(digest, 0, now).map(|_| IntrospectedToken::Inactive)
    }
}
