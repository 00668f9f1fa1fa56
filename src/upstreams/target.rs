//! One target of an upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::breaker::SharedBreaker;
use crate::exchange::clock;
use crate::rules::balance::{Ewma, hash_key};
use crate::rules::resilience::{BreakerShape, Ejection, OutlierShape, Tally};

/// The configuration of a target; a name may stand for several addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetSpec {
    /// A host name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Its weight; at least 1.
    pub weight: u32,
    /// Its priority: 0 first, and others as far as it is not healthy.
    pub priority: u32,
    /// Its zone.
    pub zone: Option<String>,
    /// Whether it takes no new sessions.
    pub draining: bool,
}

impl TargetSpec {
    /// Returns a target of weight 1.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, weight: 1, priority: 0, zone: None, draining: false }
    }

    /// Returns the value of `Host` for this target.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The outcome of a request to a target, as far as the target caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetOutcome {
    /// It responded with a status below 500.
    Good,
    /// It responded with 5xx, except those of the next kind.
    Failed,
    /// It could not be reached, closed the connection, or responded with 502, 503 or 504.
    GatewayFailed,
    /// It was reached, and took too long to respond. Counts like the previous one.
    TimedOut,
}

impl TargetOutcome {
    /// All outcomes in the order of their declaration, the good one first.
    pub const ALL: [Self; 4] = [Self::Good, Self::Failed, Self::GatewayFailed, Self::TimedOut];

    /// Returns the word for it in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Failed => "failed",
            Self::GatewayFailed => "gateway_failed",
            Self::TimedOut => "timed_out",
        }
    }

    /// Returns the outcome of a response with this status.
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayFailed,
            500.. => Self::Failed,
            _ => Self::Good,
        }
    }

    /// Returns the outcome of a response head, for a client that uses gRPC or not. A gRPC status in the head belongs to
    /// a response without a message: a proxy would report UNAVAILABLE as 503; a server would report UNKNOWN, INTERNAL
    /// and DATA_LOSS as 500.
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

    /// Returns whether a gateway in front of the target would report it as 502, 503 or 504.
    pub fn is_gateway_failure(self) -> bool {
        matches!(self, Self::GatewayFailed | Self::TimedOut)
    }

    /// Returns whether it is no failure.
    pub fn is_good(self) -> bool {
        self == Self::Good
    }
}

/// The counters that every request writes. They are separate from what every request reads, so that writes do not
/// evict its cache line from the other workers. Processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct TargetCounters {
    latency: Ewma,
    active: AtomicU32,
    /// Failures in a row: all, and gateway failures.
    in_a_row: AtomicU32,
    gateway_in_a_row: AtomicU32,
    /// Tries by outcome, in the order of [`TargetOutcome::ALL`].
    outcomes: [AtomicU64; TargetOutcome::ALL.len()],
}

/// A target: its address, health and load. It is kept over reloads.
#[derive(Debug)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// Its address as text, for logs and metrics.
    pub label: String,
    /// Its id in hash tables.
    pub id: u64,
    counts: TargetCounters,
    /// The good and the bad tries that were part of a tally, or precede the present row of tallies.
    tallied: [AtomicU64; 2],
    ejection: Mutex<(Ejection, &'static str)>,
    ejected: AtomicBool,
    /// Whether its last failure was a time-out: a successful connection does not disprove that.
    timed_out: AtomicBool,
    /// Whether its probes have found it down since its last start.
    down: AtomicBool,
    /// The time at which it became eligible again, for a slow start; 0 if it always was.
    started: AtomicU64,
    breaker: Mutex<Option<Arc<SharedBreaker>>>,
    /// The limit on concurrent connection attempts.
    pub connecting: Semaphore,
}

/// The maximum number of concurrent connection attempts to one target. Further requests wait, up to the connect
/// time-out.
const MAX_CONNECTING: usize = 256;

impl Target {
    /// Returns a target without any history.
    pub fn new(address: SocketAddr) -> Self {
        let label = address.to_string();
        Self {
            address,
            id: hash_key(label.as_bytes()),
            label,
            counts: TargetCounters {
                latency: Ewma::new(clock::now()),
                active: AtomicU32::new(0),
                in_a_row: AtomicU32::new(0),
                gateway_in_a_row: AtomicU32::new(0),
                outcomes: Default::default(),
            },
            tallied: [AtomicU64::new(0), AtomicU64::new(0)],
            ejection: Mutex::new((Ejection::default(), "")),
            ejected: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            down: AtomicBool::new(false),
            started: AtomicU64::new(0),
            breaker: Mutex::new(None),
            connecting: Semaphore::new(MAX_CONNECTING),
        }
    }

    /// Returns its response time.
    pub fn latency(&self) -> &Ewma {
        &self.counts.latency
    }

    /// Returns the number of requests in flight.
    pub fn active(&self) -> u32 {
        self.counts.active.load(Ordering::Relaxed)
    }

    /// Counts a request on it, until [`Self::end`]; [`Picked`](super::Picked) calls both.
    pub fn begin(&self) {
        self.counts.active.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the count of a request.
    pub fn end(&self) {
        self.counts.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns its breaker of that shape, which takes over the state of the present one.
    pub fn breaker(&self, shape: BreakerShape) -> Arc<SharedBreaker> {
        let mut breaker = self.breaker.lock();
        let of_shape =
            breaker.as_ref().map_or_else(|| Arc::new(SharedBreaker::new(shape)), |known| known.reshaped(shape));
        Arc::clone(breaker.insert(of_shape))
    }

    /// Returns whether it is ejected.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Acquire)
    }

    /// Returns the reason and the end of its ejection, on [`clock`].
    pub fn ejection(&self) -> Option<(&'static str, u64)> {
        let (ejection, why) = *self.ejection.lock();
        ejection.until().map(|until| (why, until))
    }

    /// Returns the number of ejections in a row, the end on [`clock`], and the reason; `None` when it is not ejected.
    pub fn ejection_state(&self) -> Option<(u32, u64, &'static str)> {
        let (ejection, why) = *self.ejection.lock();
        ejection.until().map(|until| (ejection.times(), until, why))
    }

    /// Restores an ejection of a predecessor, until the given time.
    pub fn restore_ejection(&self, times: u32, until: u64, why: &'static str) {
        *self.ejection.lock() = (Ejection::restored(times, until), why);
        self.ejected.store(true, Ordering::Release);
    }

    /// Counts an outcome. Returns whether it is the target's first, and the target was not reached.
    pub fn count(&self, outcome: TargetOutcome) -> bool {
        let before = self.counts.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        before == 0 && outcome.is_gateway_failure() && self.totals() == [0, 1]
    }

    /// Returns the number of tries by outcome, with the word for each.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = TargetOutcome::ALL.into_iter().zip(&self.counts.outcomes);
        counts.map(|(outcome, count)| (outcome.word(), count.load(Ordering::Relaxed)))
    }

    /// Returns the number of good and of bad tries.
    fn totals(&self) -> [u64; 2] {
        let [good, bad @ ..] = &self.counts.outcomes;
        [good.load(Ordering::Relaxed), bad.iter().map(|count| count.load(Ordering::Relaxed)).sum()]
    }

    /// Records an outcome. Returns the reason for an ejection, if it should be ejected.
    pub fn observe(&self, outcome: TargetOutcome, shape: &OutlierShape) -> Option<&'static str> {
        if outcome.is_good() {
            for row in [&self.counts.in_a_row, &self.counts.gateway_in_a_row] {
                // Read first: a store would evict the cache line from the other workers.
                if row.load(Ordering::Relaxed) != 0 {
                    row.store(0, Ordering::Relaxed);
                }
            }
            return None;
        }
        self.timed_out.store(outcome == TargetOutcome::TimedOut, Ordering::Relaxed);
        let row = self.counts.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let gateway = if outcome.is_gateway_failure() {
            self.counts.gateway_in_a_row.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            0
        };
        // Where no more targets may be ejected now, the next series of failures tries again, and not every failure.
        if shape.failures > 0 && row.is_multiple_of(shape.failures) {
            Some("consecutive_failures")
        } else if shape.gateway_failures > 0 && gateway > 0 && gateway.is_multiple_of(shape.gateway_failures) {
            Some("consecutive_gateway_failures")
        } else {
            None
        }
    }

    /// Returns the counts since the last call.
    pub fn take_tally(&self) -> Tally {
        let [good, bad] = self.totals();
        let since = |now: u64, index: usize| {
            let before = self.tallied[index].swap(now, Ordering::Relaxed);
            u32::try_from(now.wrapping_sub(before)).unwrap_or(u32::MAX)
        };
        Tally { good: since(good, 0), bad: since(bad, 1) }
    }

    /// Ejects it.
    pub fn eject(&self, shape: &OutlierShape, why: &'static str) {
        let mut ejection = self.ejection.lock();
        ejection.0.eject(shape, clock::now());
        ejection.1 = why;
        self.ejected.store(true, Ordering::Release);
        self.forget();
    }

    /// Ends the ejection if its time is over. Returns whether it ended.
    pub fn expire_ejection(&self, now: u64) -> bool {
        self.is_ejected() && self.update_ejection(|ejection| ejection.expire_ejection(now))
    }

    /// Ends the ejection at once, since a probe has succeeded; `answered` says whether it got a response. Returns
    /// whether the ejection ended. After a time-out only a probe with a response ends it: a stopped process accepts
    /// connections too.
    pub fn end_ejection(&self, answered: bool) -> bool {
        let shown = answered || !self.timed_out.load(Ordering::Relaxed);
        self.is_ejected() && shown && self.update_ejection(Ejection::end_ejection)
    }

    fn update_ejection(&self, ask: impl FnOnce(&mut Ejection) -> bool) -> bool {
        let mut ejection = self.ejection.lock();
        let back = ask(&mut ejection.0);
        if back {
            self.ejected.store(false, Ordering::Release);
            self.forget();
        }
        back
    }

    /// Records an interval without an ejection.
    pub fn decay_ejections(&self) {
        self.ejection.lock().0.decay_ejections();
    }

    fn forget(&self) {
        for counter in [&self.counts.in_a_row, &self.counts.gateway_in_a_row] {
            counter.store(0, Ordering::Relaxed);
        }
        self.take_tally();
    }

    /// Notes that its probes have found it down.
    pub fn note_down(&self) {
        self.down.store(true, Ordering::Relaxed);
    }

    /// Returns whether its probes have found it down since the last call.
    pub fn take_down(&self) -> bool {
        self.down.swap(false, Ordering::Relaxed)
    }

    /// Starts a slow start: the target is eligible from now on.
    pub fn start_slowly(&self) {
        self.started.store(clock::now(), Ordering::Relaxed);
    }

    /// Returns for how long it has been eligible, if it ever was not.
    pub fn started(&self, now: u64) -> Option<u64> {
        let started = self.started.load(Ordering::Relaxed);
        (started > 0).then(|| now.saturating_sub(started))
    }
}
