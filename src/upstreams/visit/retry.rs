//! The end of tries, and the decision on retries.

use std::time::{Duration, Instant};

use pingora::http::ResponseHeader;

use super::{RemainingTargets, ResendConditions, ResendKind, Try, Visit};
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

    /// Notes the first datagram of the target of the present try.
    pub fn note_datagram(&mut self, now: Instant) {
        let Some(current) = &mut self.current else { return };
        current.responded = Some(now);
        let seconds = current.begun.map(|from| now.saturating_duration_since(from).as_secs_f64());
        self.upstream.metrics().response.observe(seconds.unwrap_or_default());
        self.upstream.pool.report(&mut current.picked, TargetOutcome::Good, seconds);
    }

    /// Notes that the target of the present try failed.
    pub fn report(&mut self, outcome: TargetOutcome) {
        if let Some(current) = &mut self.current {
            self.upstream.pool.report(&mut current.picked, outcome, None);
        }
    }

    /// Notes that the target of the present try serves a connection at layer 4, to which it has connected within that
    /// time: it counts as a response time does.
    pub fn note_served(&mut self, connected: Duration) {
        if let Some(current) = &mut self.current {
            self.upstream.pool.report(&mut current.picked, TargetOutcome::Good, Some(connected.as_secs_f64()));
        }
    }

    /// Notes that the target of a try beside the present one failed.
    pub fn report_try(&self, attempt: &mut Try, outcome: TargetOutcome) {
        self.upstream.pool.report(&mut attempt.picked, outcome, None);
    }

    /// Notes that no connection could be made, and returns whether there is a further try. The request was never
    /// sent, so another target may have it at once, whatever its method; the target had no work by it, so the budget
    /// does not count it.
    pub fn note_no_connection(&mut self, now: Instant) -> bool {
        self.report(TargetOutcome::GatewayFailed);
        if !self.upstream.retry.connect {
            return false;
        }
        match self.exclude() {
            RemainingTargets::Another => {
                self.upstream.metrics().retries.inc();
                true
            }
            // At the same target it is a retry like any other.
            RemainingTargets::Tried => self.begin_retry(now),
            RemainingTargets::None => false,
        }
    }

    /// Notes that the exchange with the target failed. Returns how it may be sent again; see [`Self::again`].
    pub fn note_failure(&mut self, failure: Failure, replay: ResendConditions) -> Option<ResendKind> {
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
        // A reused connection that is closed as a request is sent says nothing about the target: once, the request is
        // sent again over a new one.
        let stale = reused && !failure.timed_out && !self.fresh && !failure.stream_reset;
        let renewed = again && self.tries < self.attempts() && (failure.unprocessed || stale);
        if failure.by_target && unanswered && !renewed {
            self.report(if failure.timed_out { TargetOutcome::TimedOut } else { TargetOutcome::GatewayFailed });
        }
        again.then_some(if renewed { ResendKind::NewConnection } else { ResendKind::Retry })
    }

    /// Prepares to send the request again, after a pause where it is a retry. Returns whether there is a further try.
    pub fn prepare_resend(&mut self, how: ResendKind, now: Instant) -> bool {
        match how {
            ResendKind::NewConnection => {
                let target = self.address();
                self.tried.retain(|address| Some(*address) != target);
                self.fresh = true;
                true
            }
            ResendKind::Retry => self.exclude() != RemainingTargets::None && self.begin_retry(now),
        }
    }

    /// Returns whether the upstream's retries apply to a response.
    pub fn is_retried(&self, head: &ResponseHeader) -> bool {
        self.upstream.retry.is_for(head)
    }

    /// Decides whether the request is retried because of the response that has come, to which retries apply. The
    /// backup is not used for that: what a target has responded is a response.
    pub fn retry_response(&mut self, replay: ResendConditions, now: Instant) -> bool {
        self.discarded =
            replay.safe && replay.possible && self.exclude() != RemainingTargets::None && self.begin_retry(now);
        self.discarded
    }

    /// Takes whether the request is retried because of the response that has come.
    pub fn take_discarded(&mut self) -> bool {
        std::mem::take(&mut self.discarded)
    }

    /// Excludes the target from further tries, while another is left.
    fn exclude(&mut self) -> RemainingTargets {
        let failed = self.current.as_ref().map(Try::address).filter(|address| !self.tried.contains(address));
        self.tried.extend(failed);
        if self.tries >= self.attempts() {
            return RemainingTargets::None;
        }
        // Checked in the members themselves: the one that failed may have been removed meanwhile.
        let choice = self.upstream.pool.choice();
        let others = choice.members().any(|m| !self.tried.contains(&m.target.address));
        if others || (self.backup().is_some() && !self.has_response()) {
            return RemainingTargets::Another;
        }
        self.tried.clear();
        if choice.eligible > 0 { RemainingTargets::Tried } else { RemainingTargets::None }
    }

    /// Begins a retry after a pause, if the budget permits it.
    fn begin_retry(&mut self, now: Instant) -> bool {
        let upstream = &self.upstream;
        let allowed = upstream.pool.begin_retry();
        if allowed {
            upstream.metrics().retries.inc();
            let pause = Duration::from_nanos(backoff(
                self.tries,
                upstream.retry.backoff,
                upstream.retry.backoff_max,
                fastrand::u64(..),
            ));
            let at = now + pause;
            self.resume = Some(self.deadline.map_or(at, |deadline| at.min(deadline)));
        } else {
            upstream.metrics().retries_denied.inc();
        }
        allowed
    }
}
