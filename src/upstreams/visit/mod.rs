//! A visit: one request's way through one upstream, with its place, the targets that it tries, and its deadline.
//!
//! Nothing here knows a client's session. Code that sends a request to an upstream makes a visit, and passes the
//! facts about the caller. Waiting is separate: [`Visit::try_admit`] and [`Visit::try_next`] return `None` where
//! there is something to wait for, and [`Visit::admit`] and [`Visit::next`] wait for it. Time is a parameter of the
//! former, so that whole visits are simulated.

mod admit;
mod retry;
#[cfg(test)]
mod simulation;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::upstreams::peer::HttpPeer;
use tokio::time::sleep_until;

use super::choice::Member;
use super::gate::{AdmittedRequest, Class};
use super::members::{PickRequest, Picked};
use super::proxy_header::ProxiedClient;
use super::sticky::StickySession;
use super::upstream::Upstream;
use crate::exchange::{Reason, Rejection};
use crate::rules::identity::RequestKey;
use crate::rules::routing::RequestFacts;

/// The facts about a request that decide on its target.
#[derive(Clone, Copy, Default)]
pub struct Caller<'r> {
    /// The request; without one there are no keys and no sessions but those by address.
    pub request: Option<RequestFacts<'r>>,
    /// The address of a client that has no request: it is one of layer 4.
    pub address: Option<IpAddr>,
    /// The consumer.
    pub consumer: Option<&'r str>,
    /// The client, for targets to which a header names it; without one the connection is the gateway's own.
    pub client: Option<ProxiedClient<'r>>,
}

impl Caller<'_> {
    /// Returns the hash of the request's key, if it has one.
    pub(super) fn hash(&self, key: &RequestKey) -> Option<u64> {
        match (&self.request, self.address) {
            (Some(request), _) => key.hash(request, self.consumer),
            (None, Some(address)) => key.hash_address(address),
            (None, None) => None,
        }
    }
}

/// The conditions under which a request may be sent again (RFC 9110, section 9.2.2).
#[derive(Clone, Copy, Debug)]
pub struct ResendConditions {
    /// No part of a final response has been sent to the client.
    pub unsent: bool,
    /// Its method permits to send it again.
    pub safe: bool,
    /// The whole of it can be sent again.
    pub possible: bool,
}

/// How a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResendKind {
    /// By the same rules over a new connection: a reused one was closed as the request was sent, or the request was
    /// not processed, which says nothing about the target.
    NewConnection,
    /// At another target, or at the same after a pause.
    Retry,
}

/// The targets that remain for further tries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RemainingTargets {
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
    /// Whether its connection was a reused one.
    reused: bool,
}

impl Try {
    fn new(picked: Picked, begun: Option<Instant>) -> Self {
        Self { picked, begun, responded: None, reused: false }
    }

    /// Returns the address of the target.
    pub fn address(&self) -> SocketAddr {
        self.picked.member.target.address
    }

    /// Notes that the try has its connection.
    pub(super) fn note_connection(&mut self, upstream: &Upstream, reused: bool) {
        self.reused = reused;
        // The clock is read only where the time is used.
        let took = if reused { Duration::ZERO } else { self.begun.map_or(Duration::ZERO, |begun| begun.elapsed()) };
        upstream.count_connection(reused, took);
    }
}

/// The visit of one request to one upstream.
#[derive(Debug)]
pub struct Visit {
    /// The upstream, or its backup once the request went over to that.
    upstream: Arc<Upstream>,
    class: Class,
    /// When no further try may begin, and the present one ends.
    deadline: Option<Instant>,
    /// Whether there is one try at the upstream itself, and no more.
    single: bool,
    /// The request's place at the upstream.
    entered: Option<AdmittedRequest>,
    session: StickySession,
    /// The try that was begun last.
    current: Option<Try>,
    /// The number of tries.
    tries: u32,
    /// The targets that failed, and those of active tries.
    tried: Vec<SocketAddr>,
    /// When the next try may begin.
    resume: Option<Instant>,
    /// Whether the next try uses a new connection, since a reused one was closed.
    fresh: bool,
    /// Whether the request is retried because of the response that has come.
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

    /// Returns the visit of a stream that another process has begun: it is counted at the upstream and on its target,
    /// whatever their limits, and nothing is reported of it. `None` if the target is not known.
    pub fn resume(upstream: Arc<Upstream>, target: SocketAddr, tries: u32) -> Option<Self> {
        let picked = upstream.pool.pick_known(target)?;
        let entered = upstream.pool.gate().try_admit(Class::High);
        let current = Some(Try::new(picked, Some(Instant::now())));
        Some(Self { entered, current, tries, ..Self::new(upstream, Class::Normal, None) })
    }

    /// Begins a visit of one try, without retries and without a backup.
    pub fn single(upstream: Arc<Upstream>, class: Class, deadline: Option<Instant>) -> Self {
        Self { single: true, ..Self::new(upstream, class, deadline) }
    }

    /// Returns the upstream of the visit.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Returns the target that was picked last.
    pub fn member(&self) -> Option<&Arc<Member>> {
        self.current.as_ref().map(|current| &current.picked.member)
    }

    /// Counts the bytes that were sent to the target that was picked last, and received from it.
    pub fn count_traffic(&self, bytes: [u64; 2]) {
        self.member().iter().for_each(|member| self.upstream.count_traffic(member, 1, bytes));
    }

    /// Returns the address of the target that was picked last.
    pub fn address(&self) -> Option<SocketAddr> {
        self.current.as_ref().map(Try::address)
    }

    /// Returns the deadline.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the number of tries so far.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Returns whether the deadline has passed.
    pub fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Returns how long the last try took to the head of its response.
    pub fn response_time(&self) -> Option<Duration> {
        let current = self.current.as_ref()?;
        current.begun.zip(current.responded).map(|(from, to)| to.saturating_duration_since(from))
    }

    /// Returns whether the head of a response has come in the last try.
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

/// The tries of a visit.
impl Visit {
    /// Begins the next try: the first has the target of the admission, and each further one picks its own. Returns
    /// `None` where it has to wait for a pause or a place.
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

    /// Does what [`Self::try_next`] does, and waits for a pause or a place, until the deadline at most.
    ///
    /// # Errors
    /// Returns the rejection of a request that gets no target, or whose deadline has passed.
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

    /// Begins a second try at another target than `present`, if there is one and the retry budget permits it.
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

    /// Takes the present try out, while it runs beside others.
    pub fn take_try(&mut self) -> Option<Try> {
        self.current.take()
    }

    /// Sets the try that the visit goes on with.
    pub fn set_try(&mut self, current: Try) {
        self.current = Some(current);
    }

    /// Returns the peer of the present try's target. No step may take longer than the remaining time.
    pub fn peer(&self, now: Instant) -> Option<Box<HttpPeer>> {
        self.current.as_ref().map(|current| self.peer_of(current, now))
    }

    /// Returns the peer of a try's target.
    pub fn peer_of(&self, attempt: &Try, now: Instant) -> Box<HttpPeer> {
        let mut peer = Box::new(attempt.picked.member.peer.clone());
        if self.fresh {
            // Under a key that no idle connection has.
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
