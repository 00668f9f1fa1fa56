//! One request's dealings with one upstream: its turn, the targets that it tries, and how long it may go on.
//!
//! Nothing here knows of a client's session. Whoever sends a request to an upstream makes a visit, and says what it needs to
//! know of the caller. What waits is told apart from what does not: [`Visit::try_admit`] and [`Visit::try_next`] return
//! `None` where there is something to wait for, and [`Visit::admit`] and [`Visit::next`] wait for it. Time is a parameter of
//! the former, so that whole visits are simulated.

mod admit;
mod retry;
#[cfg(test)]
mod simulation;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::upstreams::peer::HttpPeer;
use tokio::time::sleep_until;

use super::choice::Member;
use super::gate::{AdmittedRequest, Class};
use super::members::{PickRequest, Picked};
use super::sticky::StickySession;
use super::upstream::Upstream;
use crate::exchange::{Reason, Rejection};
use crate::rules::identity::RequestKey;
use crate::rules::routing::RequestFacts;

/// What of a request decides on its target.
#[derive(Clone, Copy, Default)]
pub struct Caller<'r> {
    /// The request; without one there is neither the key of a hash nor a session.
    pub request: Option<RequestFacts<'r>>,
    /// Who it is from.
    pub consumer: Option<&'r str>,
}

impl Caller<'_> {
    /// Returns the hash of the request's key, if it has one.
    pub(super) fn hash(&self, key: &RequestKey) -> Option<u64> {
        key.hash(self.request.as_ref()?, self.consumer)
    }
}

/// What allows for a request to be sent a second time (RFC 9110, section 9.2.2).
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// Nothing of a final response has gone to the client.
    pub unsent: bool,
    /// Its method is one whose requests may be sent twice.
    pub safe: bool,
    /// The whole of it can be sent again.
    pub possible: bool,
}

/// How a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// By the same rules over a new connection: a kept one was closed as the request was sent, or the request was not
    /// processed, which says nothing of its target.
    NewConnection,
    /// At another target, or at the same after a pause.
    Retry,
}

/// The targets that are left to be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// One that was not tried.
    Another,
    /// Only those that were tried.
    Tried,
    /// None, or no attempt.
    None,
}

/// One try at one target. The request is counted on the target while this lives.
#[derive(Debug)]
pub struct Try {
    /// The target.
    pub picked: Picked,
    /// When it was begun; a target that was picked at the admission is not tried yet.
    begun: Option<Instant>,
    /// When the head of the response came.
    responded: Option<Instant>,
    /// Whether its connection had been kept.
    reused: bool,
}

impl Try {
    fn new(picked: Picked, begun: Option<Instant>) -> Self {
        Self { picked, begun, responded: None, reused: false }
    }

    /// Returns the address of its target.
    pub fn address(&self) -> SocketAddr {
        self.picked.member.target.address
    }

    /// Notes that it has its connection.
    pub(super) fn note_connection(&mut self, upstream: &Upstream, reused: bool) {
        self.reused = reused;
        // The time is asked for where it is of use.
        let took = if reused { Duration::ZERO } else { self.begun.map_or(Duration::ZERO, |begun| begun.elapsed()) };
        upstream.count_connection(reused, took);
    }
}

/// One request's dealings with one upstream.
#[derive(Debug)]
pub struct Visit {
    /// The upstream, or its backup once the request went over to that.
    upstream: Arc<Upstream>,
    class: Class,
    /// When no further try may begin, and the present one ends.
    deadline: Option<Instant>,
    /// Whether there is one try at the upstream itself, and no more.
    single: bool,
    /// Its place among the requests of the upstream.
    entered: Option<AdmittedRequest>,
    session: StickySession,
    /// The try that was begun last.
    current: Option<Try>,
    /// Tries.
    tries: u32,
    /// Targets that failed, and those of tries under way.
    tried: Vec<SocketAddr>,
    /// When the next try may begin.
    resume: Option<Instant>,
    /// Whether the next try is on a new connection, since a kept one was closed.
    fresh: bool,
    /// Whether the response that has come is to be tried again.
    discarded: bool,
}

impl Visit {
    /// Begins a visit: its tries end at `deadline`.
    pub fn new(upstream: Arc<Upstream>, class: Class, deadline: Option<Instant>) -> Self {
        Self {
            upstream,
            class,
            deadline,
            single: false,
            entered: None,
            session: StickySession::default(),
            current: None,
            tries: 0,
            tried: Vec::new(),
            resume: None,
            fresh: false,
            discarded: false,
        }
    }

    /// Begins a visit of one try, without retries and without a backup.
    pub fn single(upstream: Arc<Upstream>, class: Class, deadline: Option<Instant>) -> Self {
        Self { single: true, ..Self::new(upstream, class, deadline) }
    }

    /// Returns the upstream that it is at.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Returns the target that was picked last.
    pub fn member(&self) -> Option<&Arc<Member>> {
        self.current.as_ref().map(|current| &current.picked.member)
    }

    /// Returns the address of the target that was picked last.
    pub fn address(&self) -> Option<SocketAddr> {
        self.current.as_ref().map(Try::address)
    }

    /// Returns the end of its time.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the number of tries so far.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether its time is over.
    pub fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Returns how long the last try took to the head of its response.
    pub fn response_time(&self) -> Option<Duration> {
        let current = self.current.as_ref()?;
        current.begun.zip(current.responded).map(|(from, to)| to.saturating_duration_since(from))
    }

    /// Whether the head of a response has come in the last try.
    pub fn has_response(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.responded.is_some())
    }

    fn attempts(&self) -> u32 {
        if self.single { 1 } else { self.upstream.retry.attempts }
    }

    fn backup(&self) -> Option<&Arc<Upstream>> {
        self.upstream.backup.as_ref().filter(|_| !self.single)
    }
}

/// Tries.
impl Visit {
    /// Begins the next try: the first has the target of the admission, and each further one picks its own. Returns `None`
    /// where a pause or a turn has to be waited for.
    pub fn try_next(&mut self, caller: &Caller<'_>, now: Instant) -> Option<Result<(), Box<Rejection>>> {
        let begun = if self.is_over(now) {
            Err(Rejection::new(Reason::RouteTimeout, ""))
        } else if self.resume.is_some_and(|at| now < at) {
            return None;
        } else if self.current.as_ref().is_some_and(|current| current.begun.is_none()) {
            Ok(())
        } else {
            self.try_admit(caller)?
        };
        self.tries += 1;
        (self.resume, self.discarded) = (None, false);
        if let Some(current) = &mut self.current {
            current.begun = Some(now);
        }
        Some(begun)
    }

    /// Does what [`Self::try_next`] does, and waits for what there is to wait for, until the deadline at most.
    ///
    /// # Errors
    /// With the rejection of a request that gets no target, or whose time is over.
    pub async fn next(&mut self, caller: &Caller<'_>) -> Result<(), Box<Rejection>> {
        loop {
            let now = Instant::now();
            if let Some(begun) = self.try_next(caller, now) {
                return begun;
            }
            match self.resume.filter(|at| now < *at) {
                Some(at) => sleep_until(at.into()).await,
                None => {
                    if let Err(rejection) = self.admit(caller).await {
                        self.tries += 1;
                        return Err(rejection);
                    }
                }
            }
        }
    }

    /// Begins a try at a second target beside the one at `present`, if there is one and the budget of retries has room.
    pub fn try_beside(&mut self, present: SocketAddr, now: Instant) -> Option<Try> {
        if self.is_over(now) || self.tries >= self.attempts() {
            return None;
        }
        self.tried.push(present);
        let pool = &self.upstream.pool;
        let picked = pool.pick(&PickRequest { tried: &self.tried, ..PickRequest::default() }).ok()?;
        if !pool.begin_retry() {
            self.upstream.metrics().retries_denied.inc();
            return None;
        }
        self.upstream.metrics().hedges.inc();
        self.tries += 1;
        let beside = Try::new(picked, Some(now));
        self.tried.push(beside.address());
        Some(beside)
    }

    /// Takes the present try out, for as long as it is under way beside others.
    pub fn take_try(&mut self) -> Option<Try> {
        self.current.take()
    }

    /// Makes a try the one that the visit goes on with.
    pub fn set_try(&mut self, current: Try) {
        self.current = Some(current);
    }

    /// Returns how the target of the present try is reached. No step may take longer than there is time.
    pub fn peer(&self, now: Instant) -> Option<Box<HttpPeer>> {
        self.current.as_ref().map(|current| self.peer_of(current, now))
    }

    /// Returns how the target of a try is reached.
    pub fn peer_of(&self, attempt: &Try, now: Instant) -> Box<HttpPeer> {
        let mut peer = Box::new(attempt.picked.member.peer.clone());
        if self.fresh {
            // Under a key that no kept connection has.
            peer.group_key = fastrand::u64(..);
        }
        let options = &mut peer.options;
        if let Some(per_try) = self.upstream.retry.per_try {
            options.read_timeout = Some(options.read_timeout.map_or(per_try, |read| read.min(per_try)));
        }
        if let Some(left) = self.deadline.map(|deadline| deadline.saturating_duration_since(now)) {
            for limit in [
                &mut options.connection_timeout,
                &mut options.total_connection_timeout,
                &mut options.read_timeout,
                &mut options.write_timeout,
            ] {
                *limit = Some(limit.map_or(left, |l| l.min(left)));
            }
        }
        peer
    }
}
