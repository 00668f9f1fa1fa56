//! The pump: it joins two streams until both directions have ended.
//!
//! Each direction ends by itself: the end of one is passed on at once, and the other goes on. A reset is passed on as
//! a reset, behind the bytes that came before it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::direction::{Direction, DirectionContext, DirectionEnd};
use super::side::SideStream;
use crate::telemetry::metrics::StreamMetrics;

/// How long a direction keeps an empty pipe.
const PIPE_IDLE: Duration = Duration::from_millis(200);

/// How often a side that has ended its direction is checked for a reset: nothing is read from it any more.
const HALF_CLOSED_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A time that never comes.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// The limits of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PumpLimits {
    /// How long no byte may pass in either direction.
    pub idle: Option<Duration>,
    /// How long no byte may pass once one direction has ended.
    pub half_closed: Option<Duration>,
    /// The longest time of the whole session.
    pub total: Option<Duration>,
    /// The rates of the directions to the target and to the client, in bytes per second.
    pub rates: [Option<u64>; 2],
}

/// The bytes that were carried, which can be read while the session lives.
#[derive(Debug, Default)]
pub struct PumpCounts {
    /// Those that the target has taken.
    inward: AtomicU64,
    /// Those that the client has taken.
    outward: AtomicU64,
}

impl PumpCounts {
    /// Returns the counts of a session that has carried so much already, inward and outward.
    pub fn of([inward, outward]: [u64; 2]) -> Self {
        Self { inward: AtomicU64::new(inward), outward: AtomicU64::new(outward) }
    }

    /// Returns the number of bytes that were received from the client and that the target has taken.
    pub fn received(&self) -> u64 {
        self.inward.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes that were sent to the client.
    pub fn sent(&self) -> u64 {
        self.outward.load(Ordering::Relaxed)
    }
}

/// A side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The target.
    Target,
}

/// How a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PumpEnd {
    /// Both sides have ended their direction; that one first.
    Finished(Side),
    /// The connection of a side has failed, mostly by a reset, which the other one has got too.
    Reset(Side),
    /// No byte has passed for too long.
    Idle,
    /// One direction had ended, and no byte has passed in the other for too long.
    HalfClosed,
    /// It has lasted too long.
    TotalTime,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PumpState {
    /// How long it has lived.
    pub age: Duration,
    /// How long no byte has passed.
    pub silent: Duration,
    /// Whether the client has ended its direction, and whether the target has.
    pub ended: [bool; 2],
    /// Whether the client was the first of them.
    pub client_first: bool,
}

/// Two streams that are joined.
pub struct Pump {
    client: SideStream,
    target: SideStream,
    counts: Arc<PumpCounts>,
    limits: PumpLimits,
    /// The directions to the target and to the client, and their ends.
    directions: [Direction; 2],
    ends: [Option<DirectionEnd>; 2],
    /// The side that has ended first, and the one whose connection has failed.
    first: Option<Side>,
    failed: Option<Side>,
    begun: Instant,
    /// When bytes have last passed, or a direction has ended, and the numbers of bytes by then.
    moved: Instant,
    carried: [u64; 2],
    /// What counts the bytes of all sessions together.
    total: Option<Arc<StreamMetrics>>,
    timer: Pin<Box<Sleep>>,
}

impl Pump {
    /// Joins the two streams.
    pub fn new(client: SideStream, target: SideStream, limits: PumpLimits, counts: Arc<PumpCounts>) -> Self {
        let begun = Instant::now();
        Self {
            carried: [counts.received(), counts.sent()],
            client,
            target,
            counts,
            limits,
            directions: limits.rates.map(Direction::new),
            ends: [None; 2],
            first: None,
            failed: None,
            begun,
            moved: begun,
            total: None,
            timer: Box::pin(tokio::time::sleep(NEVER)),
        }
    }

    /// Lets the bytes be counted among those of all sessions as well.
    #[must_use]
    pub fn counted(mut self, total: Option<Arc<StreamMetrics>>) -> Self {
        self.total = total;
        self
    }

    /// Carries bytes until the target has sent some, for at most `limit`. Returns how the session has ended, if it has.
    pub async fn run_to_first_byte(&mut self, limit: Duration) -> Option<PumpEnd> {
        let counts = Arc::clone(&self.counts);
        let work = std::future::poll_fn(|context| match self.poll_run(context) {
            Poll::Ready(end) => Poll::Ready(Some(end)),
            Poll::Pending if counts.sent() > 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let end = tokio::time::timeout(limit, work).await.ok().flatten();
        if let Some(PumpEnd::Reset(by)) = end {
            // It is rare, and waits.
            Box::pin(self.pass_reset(by)).await;
        }
        end
    }

    /// Carries bytes to the end of the session.
    pub async fn run(&mut self) -> PumpEnd {
        let end = std::future::poll_fn(|context| self.poll_run(context)).await;
        if let PumpEnd::Reset(by) = end {
            // It is rare, and waits.
            Box::pin(self.pass_reset(by)).await;
        }
        end
    }

    /// Returns whether its bytes are those of the two sockets, so that another process can go on with it.
    pub fn is_plain(&self) -> bool {
        self.client.plain().is_some() && self.target.plain().is_some()
    }

    /// Reads nothing more, and waits until nothing of the session is in this process. Returns false if that takes
    /// longer than `limit`, or if the session ends meanwhile.
    pub async fn hold(&mut self, limit: Duration) -> bool {
        self.directions.iter_mut().for_each(|direction| direction.hold(true));
        let work = std::future::poll_fn(|context| match self.poll_run(context) {
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending if self.is_empty() => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        });
        tokio::time::timeout(limit, work).await.unwrap_or(false)
    }

    /// Reads again.
    pub fn release(&mut self) {
        self.directions.iter_mut().for_each(|direction| direction.hold(false));
    }

    fn is_empty(&self) -> bool {
        let mut directions = self.directions.iter().zip(&self.ends);
        let is_settled = |(direction, end): (&Direction, &Option<DirectionEnd>)| match end {
            None => direction.is_empty(),
            Some(end) => *end == DirectionEnd::Finished,
        };
        self.failed.is_none() && directions.all(is_settled)
    }

    /// Returns the two connections, if nothing but them is needed to go on with the session.
    pub fn sockets(&self) -> Option<[&TcpStream; 2]> {
        Some([self.client.plain()?, self.target.plain()?])
    }

    /// Returns how far the session is, for another process to go on with it.
    pub fn state(&self) -> PumpState {
        PumpState {
            age: self.begun.elapsed(),
            silent: self.moved.elapsed(),
            ended: self.ends.map(|end| end.is_some()),
            client_first: self.first == Some(Side::Client),
        }
    }

    /// Goes on with a session that another process has begun.
    #[must_use]
    pub fn resumed(mut self, state: PumpState) -> Self {
        let ago = |time: Duration| self.begun.checked_sub(time).unwrap_or(self.begun);
        (self.moved, self.begun) = (ago(state.silent), ago(state.age));
        self.ends = state.ended.map(|ended| ended.then_some(DirectionEnd::Finished));
        let first = if state.client_first { Side::Client } else { Side::Target };
        self.first = state.ended.contains(&true).then_some(first);
        self
    }

    /// Lets both connections be reset when they are closed, because the session is cut.
    pub fn cut(&self) {
        for side in [&self.client, &self.target] {
            let _ = socket2::SockRef::from(side.tcp()).set_linger(Some(Duration::ZERO));
        }
    }

    async fn pass_reset(&self, by: Side) {
        match by {
            Side::Client => self.target.reset().await,
            Side::Target => self.client.reset().await,
        }
    }

    /// Notes what has been carried since the last call.
    fn note_carried(&mut self) {
        let carried = [self.counts.received(), self.counts.sent()];
        if carried != self.carried {
            if let Some(total) = &self.total {
                total.count_bytes(carried[0] - self.carried[0], carried[1] - self.carried[1]);
            }
            (self.carried, self.moved) = (carried, Instant::now());
        }
    }

    fn poll_run(&mut self, context: &mut Context<'_>) -> Poll<PumpEnd> {
        loop {
            self.poll_direction(context, Side::Client);
            self.poll_direction(context, Side::Target);
            self.note_carried();
            if let Some(end) = self.end() {
                return Poll::Ready(end);
            }
            if self.timer.is_elapsed() {
                if let Some(end) = self.time_over(Instant::now()).or_else(|| self.end()) {
                    return Poll::Ready(end);
                }
                let at = self.next_time();
                self.timer.as_mut().reset(at);
            } else {
                // A timer that is due earlier finds nothing to do, and is set again then.
                let at = self.next_time();
                if at < self.timer.deadline() {
                    self.timer.as_mut().reset(at);
                }
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Carries what comes from a side.
    fn poll_direction(&mut self, context: &mut Context<'_>, source: Side) {
        let place = source as usize;
        if self.ends[place].is_some() {
            return;
        }
        let (from, to, count) = match source {
            Side::Client => (&mut self.client, &mut self.target, &self.counts.inward),
            Side::Target => (&mut self.target, &mut self.client, &self.counts.outward),
        };
        let begun = self.begun;
        // Never 0, which is no time.
        let now = || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut with = DirectionContext {
            from,
            to,
            count,
            source_failed: self.failed == Some(source),
            source_is_open: self.ends[1 - place].is_none(),
            now: &now,
        };
        if let Poll::Ready(end) = self.directions[place].poll(context, &mut with) {
            self.note_end(source, end);
        }
    }

    fn note_end(&mut self, source: Side, end: DirectionEnd) {
        let (place, other) = match source {
            Side::Client => (0, Side::Target),
            Side::Target => (1, Side::Client),
        };
        self.ends[place] = Some(end);
        self.moved = Instant::now();
        match end {
            DirectionEnd::Finished => {
                self.first.get_or_insert(source);
            }
            DirectionEnd::SourceFailed => {
                self.failed.get_or_insert(source);
                // Nobody takes what comes the other way.
                self.ends[1 - place].get_or_insert(DirectionEnd::SinkFailed);
            }
            // What the side has sent before is still read from its socket.
            DirectionEnd::SinkFailed => {
                self.failed.get_or_insert(other);
            }
        }
    }

    /// Returns how the session has ended, once both directions have.
    fn end(&self) -> Option<PumpEnd> {
        if self.ends.contains(&None) {
            return None;
        }
        Some(match (self.failed, self.first) {
            (Some(by), _) => PumpEnd::Reset(by),
            (None, first) => PumpEnd::Finished(first.unwrap_or(Side::Client)),
        })
    }

    /// Notes the failure of a side that has ended its direction and is not read any more.
    fn check_ended_side(&mut self) {
        let (place, side, stream) = match self.ends {
            [Some(DirectionEnd::Finished), None] => (1, Side::Client, &self.client),
            [None, Some(DirectionEnd::Finished)] => (0, Side::Target, &self.target),
            _ => return,
        };
        if stream.has_failed() {
            self.failed.get_or_insert(side);
            self.ends[place] = Some(DirectionEnd::SinkFailed);
        }
    }

    /// Returns the limit on the time without bytes.
    fn idle_limit(&self) -> Option<Duration> {
        let limits = &self.limits;
        if self.ends == [None; 2] {
            return limits.idle;
        }
        match (limits.idle, limits.half_closed) {
            (Some(idle), Some(half_closed)) => Some(idle.min(half_closed)),
            (idle, half_closed) => idle.or(half_closed),
        }
    }

    /// Returns when there is something to do although no byte comes.
    fn next_time(&self) -> Instant {
        let mut at = self.begun + self.limits.total.unwrap_or(NEVER).min(NEVER);
        if let Some(limit) = self.idle_limit() {
            at = at.min(self.moved + limit.min(NEVER));
        }
        if self.ends != [None; 2] {
            at = at.min(Instant::now() + HALF_CLOSED_CHECK_INTERVAL);
        }
        for direction in &self.directions {
            if direction.has_idle_pipe() {
                at = at.min(self.moved + PIPE_IDLE);
            }
            if let Some(resumes) = direction.resumes() {
                at = at.min(self.begun + Duration::from_nanos(resumes));
            }
        }
        at
    }

    /// Does what is due, and returns how the session has ended if that is its end.
    fn time_over(&mut self, now: Instant) -> Option<PumpEnd> {
        if self.limits.total.is_some_and(|total| now.duration_since(self.begun) >= total) {
            return Some(PumpEnd::TotalTime);
        }
        let silent = now.duration_since(self.moved);
        if self.idle_limit().is_some_and(|limit| silent >= limit) {
            let whole = self.ends == [None; 2] || self.limits.half_closed.is_none_or(|limit| silent < limit);
            return Some(if whole { PumpEnd::Idle } else { PumpEnd::HalfClosed });
        }
        self.check_ended_side();
        if silent >= PIPE_IDLE {
            self.directions.iter_mut().for_each(Direction::release_pipe);
        }
        None
    }
}
