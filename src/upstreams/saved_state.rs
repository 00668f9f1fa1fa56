//! The state of an upstream's targets and breakers that a successor process takes over.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::breaker::SharedBreaker;
use super::discovery::TargetChange;
use super::members::PoolMembers;
use super::pool::Pool;
use super::target::Target;
use crate::exchange::clock;

/// The state of an upstream. Times are remaining nanoseconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedPool {
    /// Its name.
    pub upstream: String,
    /// The time for which its breaker stays open, if it is open.
    open_for: Option<u64>,
    targets: Vec<SavedTarget>,
    /// The changes of operators.
    changes: Vec<(SocketAddr, TargetChange)>,
}

/// The state of a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedTarget {
    address: SocketAddr,
    /// The result of its probes.
    pub(super) healthy: Option<bool>,
    ejected: Option<SavedEjection>,
    open_for: Option<u64>,
    /// Its response time in seconds.
    latency: Option<f64>,
}

/// An ejection: the number in a row, the remaining time, and the reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedEjection {
    times: u32,
    left: u64,
    why: String,
}

/// The reasons for ejections, which a process keeps as constants.
const REASONS: [&str; 4] =
    ["consecutive_failures", "consecutive_gateway_failures", "failure_percentage", "success_rate"];

impl Pool {
    /// Returns the state for a successor.
    pub fn save(&self) -> SavedPool {
        let now = clock::now();
        let known = self.members().by_address.lock();
        let targets = known.values().map(|known| {
            let target = &known.target;
            let ejected = target.ejection_state().map(|(times, until, why)| SavedEjection {
                times,
                left: until.saturating_sub(now),
                why: why.to_owned(),
            });
            SavedTarget {
                address: target.address,
                healthy: known.watch.as_ref().and_then(|watch| watch.known()),
                ejected,
                open_for: known.member.breaker.as_deref().and_then(SharedBreaker::open_for),
                latency: target.latency().is_known().then(|| target.latency().read(now)),
            }
        });
        SavedPool {
            upstream: self.shape().name.clone(),
            open_for: self.breaker().and_then(SharedBreaker::open_for),
            targets: targets.collect(),
            changes: self.changes().all(),
        }
    }

    /// Restores the state of a predecessor: at once for the known targets, and for others as soon as they are known.
    pub fn restore(&self, saved: SavedPool) {
        let members = self.members();
        if let (Some(breaker), Some(left)) = (self.breaker(), saved.open_for) {
            breaker.reopen(left);
        }
        for (address, change) in saved.changes {
            self.changes().change(address, |own| *own = change);
        }
        let known = members.by_address.lock();
        let mut waiting = members.saved.lock();
        for target in saved.targets {
            match known.get(&target.address) {
                Some(known) => target.restore(&known.target, members, known.member.breaker.as_deref()),
                None => _ = waiting.insert(target.address, target),
            }
        }
        drop((known, waiting));
        members.rebuild();
    }
}

impl SavedTarget {
    /// Restores the state of a target.
    pub(super) fn restore(&self, target: &Target, members: &PoolMembers, breaker: Option<&SharedBreaker>) {
        let now = clock::now();
        if let (Some(ejected), Some(_)) = (&self.ejected, &members.shape.outlier) {
            let why = REASONS.iter().find(|r| **r == ejected.why).copied().unwrap_or("inherited");
            target.restore_ejection(ejected.times, now.saturating_add(ejected.left), why);
        }
        if let (Some(breaker), Some(left)) = (breaker, self.open_for) {
            breaker.reopen(left);
        }
        if let Some(seconds) = self.latency.filter(|s| s.is_finite()) {
            target.latency().set(seconds, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulation;
    use super::*;
    use crate::rules::resilience::{BreakerShape, OutlierShape};
    use crate::upstreams::members::{NoPick, PickRequest};
    use crate::upstreams::{TargetChanges, TargetOutcome, TargetSpec};
    use std::sync::Arc;

    const S: u64 = 1_000_000_000;

    #[tokio::test]
    async fn ejections_breakers_and_changes_go_on() {
        let mut shape = simulation::shape(&mut fastrand::Rng::with_seed(1));
        shape.algorithm = crate::rules::balance::Algorithm::RoundRobin;
        (shape.slow_start, shape.breaker, shape.panic_threshold, shape.gate.per_target) = (None, None, 0, 0);
        shape.targets = (1..=3).map(|n| TargetSpec::new("127.0.0.1", n)).collect();
        shape.outlier = Some(OutlierShape {
            failures: 2,
            gateway_failures: 0,
            interval: 10 * S,
            base: 30 * S,
            max: 300 * S,
            max_percent: 50,
            failure_share: None,
            deviation: None,
        });
        shape.target_breaker =
            Some(BreakerShape { failures: 2, ratio: 0, min_requests: 1, window: 10 * S, cool_down: 60 * S, probes: 1 });
        let old = Pool::new(shape.clone(), None, Arc::new(TargetChanges::default()));
        old.discover().await;
        let first = old.targets()[0].address;
        for _ in 0..40 {
            let Ok(mut picked) = old.pick(&PickRequest::default()) else { break };
            let bad = picked.member.target.address == first;
            old.report(&mut picked, if bad { TargetOutcome::Failed } else { TargetOutcome::Good }, Some(0.25));
        }
        old.change("127.0.0.9:9".parse().expect("an address"), |c| c.added = true).await;
        let form = serde_json::to_vec(&old.save()).expect("JSON");
        let take = || serde_json::from_slice::<SavedPool>(&form).expect("the form");

        // The result is the same before its targets are known and after.
        let (early, late) = (Pool::new(shape.clone(), None, Arc::default()), Pool::new(shape, None, Arc::default()));
        early.restore(take());
        early.discover().await;
        late.discover().await;
        late.restore(take());
        late.discover().await;
        for successor in [early, late] {
            let targets = successor.targets();
            assert_eq!(targets.len(), old.targets().len());
            let ejected = targets.iter().find(|t| t.address == first).expect("the target");
            assert!(
                ejected.ejected.as_ref().is_some_and(|e| e.reason == "consecutive_failures" && e.seconds_left > 25)
            );
            assert_eq!(ejected.breaker, Some("open"));
            assert!(targets.iter().any(|t| t.latency_ms.is_some_and(|ms| (ms - 250.0).abs() < 1.0)));
            let all: Vec<_> = targets.iter().filter(|t| t.address != first).map(|t| t.address).collect();
            assert!(matches!(
                successor.pick(&PickRequest { tried: &all, ..PickRequest::default() }),
                Err(NoPick::NoTarget | NoPick::Open(_))
            ));
        }
    }
}
