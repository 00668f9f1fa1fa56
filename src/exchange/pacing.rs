//! The paces of the bodies of one request.

use std::sync::Arc;
use std::time::Duration;

use super::clock;
use crate::rules::limits::Pacer;

/// The paces that the bodies of a request keep; most have none, which costs nothing.
#[derive(Debug, Default)]
pub struct Pacing {
    /// Those of the request body.
    pub request: Vec<Arc<Pacer>>,
    /// Those of the response body.
    pub response: Vec<Arc<Pacer>>,
}

impl Pacing {
    /// Takes the turn of a part of the request body, and returns how long it has to wait, if it has to.
    pub fn request_delay(&self, bytes: usize) -> Option<Duration> {
        delay(&self.request, bytes)
    }

    /// Takes the turn of a part of the response body, and returns how long it has to wait, if it has to.
    pub fn response_delay(&self, bytes: usize) -> Option<Duration> {
        delay(&self.response, bytes)
    }
}

fn delay(pacers: &[Arc<Pacer>], bytes: usize) -> Option<Duration> {
    if pacers.is_empty() || bytes == 0 {
        return None;
    }
    let now = clock::now();
    let wait = pacers.iter().map(|pacer| pacer.delay(bytes as u64, now)).max().unwrap_or(0);
    (wait > 0).then(|| Duration::from_nanos(wait))
}
