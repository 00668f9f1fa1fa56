//! How tries end, and whether there is another one.

use std::time::{Duration, Instant};

use pingora::http::ResponseHeader;

use super::{Again, Left, Replay, Try, Visit};
use crate::rules::resilience::backoff;
use crate::upstreams::failure::Failure;
use crate::upstreams::target::TargetOutcome;

impl Visit {
    /// Notes that the present try has its connection.
    pub fn note_connection(&mut self, reused: bool) {
        if let Some(current) = &mut self.current {
            current.note_connection(&self.upstream, reused);
        }
    }

    /// Notes the head of the response to the present try.
    pub fn note_response(&mut self, head: &ResponseHeader, grpc: bool, now: Instant) {
        let Some(current) = &mut self.current else { return };
        current.responded = Some(now);
        let seconds = current.begun.map(|from| now.saturating_duration_since(from).as_secs_f64());
        self.upstream.metrics().response.observe(seconds.unwrap_or_default());
        self.upstream.pool.report(&mut current.picked, TargetOutcome::of_response(head, grpc), seconds);
    }

    /// Notes that the target of the present try failed.
    pub fn report(&mut self, outcome: TargetOutcome) {
        if let Some(current) = &mut self.current {
            self.upstream.pool.report(&mut current.picked, outcome, None);
        }
    }

    /// Notes that the target of a try beside the present one failed.
    pub fn report_try(&self, attempt: &mut Try, outcome: TargetOutcome) {
        self.upstream.pool.report(&mut attempt.picked, outcome, None);
    }

    /// Notes that no connection could be made. The request was never sent, so another target may have it at once, whatever
    /// it is; the target had no work by it, so that it is no matter of the budget. Whether there is a further try.
    pub fn note_no_connection(&mut self, now: Instant) -> bool {
        self.report(TargetOutcome::GatewayFailed);
        if !self.upstream.retry.connect {
            return false;
        }
        match self.exclude() {
            Left::Another => {
                self.upstream.metrics().retries.inc();
                true
            }
            // To the same one once more it is a retry as any other.
            Left::Tried => self.begin_retry(now),
            Left::None => false,
        }
    }

    /// Notes that the exchange with the target failed. Returns how it may be tried again; see [`Self::again`].
    pub fn note_failure(&mut self, failure: Failure, replay: Replay) -> Option<Again> {
        let unanswered = replay.unsent && !self.has_response();
        let retry = &self.upstream.retry;
        let wanted = match (failure.unprocessed, failure.timed_out) {
            (true, _) => retry.connect || retry.reset,
            (false, true) => retry.timeout,
            (false, false) => retry.reset,
        };
        let allowed = replay.possible && (replay.safe || failure.unprocessed);
        let again = failure.by_target && unanswered && wanted && allowed;
        let reused = self.current.as_ref().is_some_and(|current| current.reused);
        // A kept connection that is closed as a request is sent says nothing about its target: once, the request is sent
        // again over a new one.
        let stale = reused && !failure.timed_out && !self.fresh && !failure.stream_reset;
        let renewed = again && self.tries < self.attempts() && (failure.unprocessed || stale);
        if failure.by_target && unanswered && !renewed {
            self.report(if failure.timed_out { TargetOutcome::TimedOut } else { TargetOutcome::GatewayFailed });
        }
        again.then_some(if renewed { Again::NewConnection } else { Again::Retry })
    }

    /// Begins to try again, after a pause where it is a retry. Whether there is a further try.
    pub fn again(&mut self, how: Again, now: Instant) -> bool {
        match how {
            Again::NewConnection => {
                let target = self.address();
                self.tried.retain(|address| Some(*address) != target);
                self.fresh = true;
                true
            }
            Again::Retry => self.exclude() != Left::None && self.begin_retry(now),
        }
    }

    /// Whether a response is one that the upstream's retries are for.
    pub fn is_retried(&self, head: &ResponseHeader) -> bool {
        self.upstream.retry.is_for(head)
    }

    /// Decides whether the response that has come, one that the retries are for, is tried again. It is not for the backup's
    /// sake: what a target has responded is a response.
    pub fn retry_response(&mut self, replay: Replay, now: Instant) -> bool {
        self.discarded = replay.safe && replay.possible && self.exclude() != Left::None && self.begin_retry(now);
        self.discarded
    }

    /// Whether the response that has come is tried again; said once.
    pub fn take_discarded(&mut self) -> bool {
        std::mem::take(&mut self.discarded)
    }

    /// Leaves the target out of further tries, for as long as another is left.
    fn exclude(&mut self) -> Left {
        let failed = self.current.as_ref().map(Try::address).filter(|address| !self.tried.contains(address));
        self.tried.extend(failed);
        if self.tries >= self.attempts() {
            return Left::None;
        }
        // Asked of the members themselves: the one that failed may have been taken out meanwhile.
        let choice = self.upstream.pool.choice();
        let others = choice.members().any(|m| !self.tried.contains(&m.target.address));
        if others || (self.backup().is_some() && !self.has_response()) {
            return Left::Another;
        }
        self.tried.clear();
        if choice.eligible > 0 { Left::Tried } else { Left::None }
    }

    /// Begins a retry, if the budget has room for it, after a pause.
    fn begin_retry(&mut self, now: Instant) -> bool {
        let upstream = &self.upstream;
        let allowed = upstream.pool.begin_retry();
        if allowed {
            upstream.metrics().retries.inc();
            let pause = Duration::from_nanos(backoff(self.tries, upstream.retry.backoff, upstream.retry.backoff_max, fastrand::u64(..)));
            let at = now + pause;
            self.resume = Some(self.deadline.map_or(at, |deadline| at.min(deadline)));
        } else {
            upstream.metrics().retries_denied.inc();
        }
        allowed
    }
}
