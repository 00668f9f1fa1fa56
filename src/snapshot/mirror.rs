//! Copies of a route's requests for another upstream.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::upstreams::Upstream;

/// Copies for another upstream.
#[derive(Debug)]
pub struct Mirror {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The share of requests, of 2³².
    pub share: u64,
    /// Copies at a time.
    pub concurrent: u32,
    /// Copies under way.
    pub active: Arc<AtomicU32>,
}
