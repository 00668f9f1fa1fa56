//! Sessions that were refreshed a moment ago.

use std::sync::Arc;

use super::verified::VerifiedTokens;
use crate::clients::SingleFlight;

/// The refreshed session, in the form that its filter gives it. An error says whether the session is over, and why.
pub type RefreshResult = Result<Arc<Vec<u8>>, (bool, String)>;

/// Sessions that were refreshed a moment ago, by the digest of the refresh token that they had.
///
/// A browser sends several requests at a time with the same cookie, and some when the first of them has brought a new
/// one already. A refresh token that is used twice ends the session at many providers (RFC 9700, section 4.14.2).
#[derive(Debug)]
pub struct RefreshedSessions {
    /// The sessions.
    pub recent: VerifiedTokens<Vec<u8>>,
    /// The refreshes in progress.
    pub calls: Arc<SingleFlight<[u8; 32], RefreshResult>>,
}

/// The most sessions that are remembered, each of a few KiB.
const MAX_REFRESHED: usize = 4_096;

impl Default for RefreshedSessions {
    fn default() -> Self {
        Self { recent: VerifiedTokens::of_at_most(MAX_REFRESHED), calls: Arc::default() }
    }
}
