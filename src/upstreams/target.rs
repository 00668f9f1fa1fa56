//! One server of an upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::breaker::SharedBreaker;
use crate::exchange::clock;
use crate::rules::balance::{Ewma, hash_key};
use crate::rules::resilience::{BreakerShape, Ejection, OutlierShape, Tally};

/// A target as it was configured; a name may stand for several addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetSpec {
    /// A host name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Its share; at least 1.
    pub weight: u32,
    /// 0 is asked first, and others as far as it is not healthy.
    pub priority: u32,
    /// Where it is.
    pub zone: Option<String>,
    /// Whether it takes no new sessions.
    pub draining: bool,
}

impl TargetSpec {
    /// A target of weight 1.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, weight: 1, priority: 0, zone: None, draining: false }
    }

    /// What `Host` is for this target.
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

/// How requests to a target ended, as far as it is to blame or to praise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It responded, with something below 500.
    Good,
    /// It responded with 5xx, but with none of the next kind.
    Failed,
    /// It could not be reached, broke off, or responded with 502, 503 or 504.
    GatewayFailed,
    /// It was reached, and took too long to respond. Counts as the one before.
    TimedOut,
}

impl Outcome {
    /// Of a status.
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayFailed,
            500.. => Self::Failed,
            _ => Self::Good,
        }
    }

    /// Of the head of a response, to a caller that speaks gRPC or does not. A status of gRPC in the head is a response
    /// without a message: UNAVAILABLE is what a proxy would say with 503; UNKNOWN, INTERNAL and DATA_LOSS are what a server
    /// would say with 500.
    pub fn of_response(head: &http::response::Parts, grpc: bool) -> Self {
        let status = Self::of_status(head.status.as_u16());
        if !grpc {
            return status;
        }
        match head.headers.get("grpc-status").map(http::HeaderValue::as_bytes) {
            Some(b"14") => Self::GatewayFailed,
            Some(b"2" | b"13" | b"15") => Self::Failed,
            _ => status,
        }
    }

    /// Whether it is one that a gateway in front of the target would report with 502, 503 or 504.
    pub fn is_gateway_failure(self) -> bool {
        matches!(self, Self::GatewayFailed | Self::TimedOut)
    }

    /// Whether it is no failure.
    pub fn is_good(self) -> bool {
        self == Self::Good
    }
}

/// What every request writes: apart from what every request reads, so that the one does not take the other's
/// cache line from the other workers. Processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Counts {
    latency: Ewma,
    active: AtomicU32,
    /// Failures in a row, of all kinds and of the way to it.
    in_a_row: AtomicU32,
    gateway_in_a_row: AtomicU32,
    good: AtomicU32,
    bad: AtomicU32,
}

/// One server: an address, how it behaves, and its load. Kept over reloads.
#[derive(Debug)]
pub struct Target {
    /// Where it is.
    pub address: SocketAddr,
    /// Its address as text, for logs and metrics.
    pub label: String,
    /// Its number in tables of hashes.
    pub id: u64,
    counts: Counts,
    ejection: Mutex<(Ejection, &'static str)>,
    ejected: AtomicBool,
    /// Whether its last failure was a time-out: that it can be connected to does not speak against that.
    timed_out: AtomicBool,
    /// When it became eligible after it was not, for a slow start; 0 is from the beginning.
    started: AtomicU64,
    breaker: Mutex<Option<Arc<SharedBreaker>>>,
    /// A place for each socket that is being connected to it.
    pub connecting: Semaphore,
}

/// How many sockets may be on their way to one target. Further requests wait, for as long as connecting may take.
const CONNECTING: usize = 256;

impl Target {
    /// A target of which nothing is known yet.
    pub fn new(address: SocketAddr) -> Self {
        let label = address.to_string();
        Self {
            address,
            id: hash_key(label.as_bytes()),
            label,
            counts: Counts {
                latency: Ewma::new(clock::now()),
                active: AtomicU32::new(0),
                in_a_row: AtomicU32::new(0),
                gateway_in_a_row: AtomicU32::new(0),
                good: AtomicU32::new(0),
                bad: AtomicU32::new(0),
            },
            ejection: Mutex::new((Ejection::default(), "")),
            ejected: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            started: AtomicU64::new(0),
            breaker: Mutex::new(None),
            connecting: Semaphore::new(CONNECTING),
        }
    }

    /// Its response time.
    pub fn latency(&self) -> &Ewma {
        &self.counts.latency
    }

    /// Requests that it is working on.
    pub fn active(&self) -> u32 {
        self.counts.active.load(Ordering::Relaxed)
    }

    /// Counts a request on it, until [`Self::end`]: [`Picked`](super::Picked) says both.
    pub fn begin(&self) {
        self.counts.active.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is on it no longer.
    pub fn end(&self) {
        self.counts.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Its breaker of that shape, which goes on from where the one stands that it has.
    pub fn breaker(&self, shape: BreakerShape) -> Arc<SharedBreaker> {
        let mut breaker = self.breaker.lock();
        let of_shape = breaker.as_ref().map_or_else(|| Arc::new(SharedBreaker::new(shape)), |known| known.reshaped(shape));
        Arc::clone(breaker.insert(of_shape))
    }

    /// Whether it is left out because of its responses.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Acquire)
    }

    /// Why, and until when on [`clock`].
    pub fn ejection(&self) -> Option<(&'static str, u64)> {
        let (ejection, why) = *self.ejection.lock();
        ejection.until().map(|until| (why, until))
    }

    /// How often in a row it was ejected, until when on [`clock`], and why; `None` when it is not.
    pub fn ejection_state(&self) -> Option<(u32, u64, &'static str)> {
        let (ejection, why) = *self.ejection.lock();
        ejection.until().map(|until| (ejection.times(), until, why))
    }

    /// It was ejected by a predecessor and is so until then.
    pub fn stay_ejected(&self, times: u32, until: u64, why: &'static str) {
        *self.ejection.lock() = (Ejection::until_then(times, until), why);
        self.ejected.store(true, Ordering::Release);
    }

    /// Notes an outcome. Why it should be ejected, if it should.
    pub fn observe(&self, outcome: Outcome, shape: &OutlierShape) -> Option<&'static str> {
        if outcome.is_good() {
            self.counts.good.fetch_add(1, Ordering::Relaxed);
            for row in [&self.counts.in_a_row, &self.counts.gateway_in_a_row] {
                // Read first: a store would take the cache line from the other workers.
                if row.load(Ordering::Relaxed) != 0 {
                    row.store(0, Ordering::Relaxed);
                }
            }
            return None;
        }
        self.counts.bad.fetch_add(1, Ordering::Relaxed);
        self.timed_out.store(outcome == Outcome::TimedOut, Ordering::Relaxed);
        let row = self.counts.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let gateway = if outcome.is_gateway_failure() { self.counts.gateway_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        // Where no more may be ejected now, the next row of failures asks again, and not each of them.
        if shape.failures > 0 && row.is_multiple_of(shape.failures) {
            Some("consecutive_failures")
        } else if shape.gateway_failures > 0 && gateway > 0 && gateway.is_multiple_of(shape.gateway_failures) {
            Some("consecutive_gateway_failures")
        } else {
            None
        }
    }

    /// What came in since this was last asked.
    pub fn take_tally(&self) -> Tally {
        Tally { good: self.counts.good.swap(0, Ordering::Relaxed), bad: self.counts.bad.swap(0, Ordering::Relaxed) }
    }

    /// Leaves it out for a time.
    pub fn eject(&self, shape: &OutlierShape, why: &'static str) {
        let mut ejection = self.ejection.lock();
        ejection.0.eject(shape, clock::now());
        ejection.1 = why;
        self.ejected.store(true, Ordering::Release);
        self.forget();
    }

    /// Lets it back if its time is over. Whether it came back.
    pub fn release(&self, now: u64) -> bool {
        self.is_ejected() && self.let_back(|ejection| ejection.release(now))
    }

    /// Lets it back at once: a probe has succeeded, and was responded to if it asked for that. Whether it came
    /// back. One that takes too long to respond comes back only when a probe is responded to: a stopped process can be connected to.
    pub fn pardon(&self, answered: bool) -> bool {
        let shown = answered || !self.timed_out.load(Ordering::Relaxed);
        self.is_ejected() && shown && self.let_back(Ejection::pardon)
    }

    fn let_back(&self, ask: impl FnOnce(&mut Ejection) -> bool) -> bool {
        let mut ejection = self.ejection.lock();
        let back = ask(&mut ejection.0);
        if back {
            self.ejected.store(false, Ordering::Release);
            self.forget();
        }
        back
    }

    /// An interval has gone by without an ejection.
    pub fn calm(&self) {
        self.ejection.lock().0.calm();
    }

    fn forget(&self) {
        for counter in [&self.counts.in_a_row, &self.counts.gateway_in_a_row, &self.counts.good, &self.counts.bad] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// It is eligible from now on, and is to be started slowly.
    pub fn start_slowly(&self) {
        self.started.store(clock::now(), Ordering::Relaxed);
    }

    /// How long it has been eligible, if it was ever not.
    pub fn started(&self, now: u64) -> Option<u64> {
        let started = self.started.load(Ordering::Relaxed);
        (started > 0).then(|| now.saturating_sub(started))
    }
}
