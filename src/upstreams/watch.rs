//! Active probes: one watch for each target and kind of probe, shared by all upstreams with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::health::{HealthState, HealthView, Thresholds};
use super::members::PoolMembers;
use super::probe::{Probe, ProbeKind, UNSENT};
use super::shape::TargetTransport;

/// The configuration of an active probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ActiveProbe {
    /// The kind of probe.
    pub kind: ProbeKind,
    /// The interval between two probes.
    pub interval: Duration,
    /// The interval while the last results contradict the status.
    pub interval_changing: Duration,
    /// The interval for an unhealthy target.
    pub interval_down: Duration,
    /// The time-out of a probe.
    pub timeout: Duration,
    /// The number of results in a row that count.
    pub thresholds: Thresholds,
}

/// The properties that make two watches the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchShape {
    /// The target's address.
    pub address: SocketAddr,
    /// The authority in its requests.
    pub authority: String,
    /// The name that TLS verifies.
    pub host: String,
    /// How it is probed.
    pub probe: ActiveProbe,
    /// The transport to it.
    pub transport: TargetTransport,
}

/// A target that is probed for as long as any upstream needs the result.
#[derive(Debug)]
pub struct Watch {
    shape: WatchShape,
    health: Mutex<HealthState>,
    members: Mutex<Vec<Weak<PoolMembers>>>,
    first: tokio::sync::watch::Sender<bool>,
}

/// All watches.
static WATCHES: LazyLock<Mutex<HashMap<WatchShape, Weak<Watch>>>> = LazyLock::new(Mutex::default);

impl Watch {
    /// Returns the watch of that shape, which notifies `members` from now on as well. A new one starts to probe;
    /// `healthy` is the result of a predecessor.
    pub fn of(shape: WatchShape, members: Weak<PoolMembers>, healthy: Option<bool>) -> Arc<Self> {
        let mut watches = WATCHES.lock();
        if let Some(watch) = watches.get(&shape).and_then(Weak::upgrade) {
            watch.notify(members);
            return watch;
        }
        if watches.len() == watches.capacity() {
            watches.retain(|_, watch| watch.strong_count() > 0);
        }
        let watch = Arc::new(Self {
            shape: shape.clone(),
            health: Mutex::new(HealthState::new(healthy)),
            members: Mutex::new(vec![members]),
            first: tokio::sync::watch::channel(healthy.is_some()).0,
        });
        watches.insert(shape, Arc::downgrade(&watch));
        tokio::spawn(probe(Arc::downgrade(&watch)));
        watch
    }

    fn notify(&self, members: Weak<PoolMembers>) {
        let mut notified = self.members.lock();
        notified.retain(|known| known.strong_count() > 0 && !known.ptr_eq(&members));
        notified.push(members);
    }

    /// Returns whether the target is eligible, as far as probes say.
    pub fn is_healthy(&self) -> bool {
        self.health.lock().is_healthy()
    }

    /// Returns whether the target is healthy; `None` before anything is known.
    pub fn known(&self) -> Option<bool> {
        self.health.lock().known()
    }

    /// Returns the health for the admin interface.
    pub fn view(&self) -> HealthView {
        self.health.lock().view()
    }

    /// Waits for the first result.
    pub async fn first(&self) {
        let _ = self.first.subscribe().wait_for(|done| *done).await;
    }

    fn observe(&self, result: Result<(), String>) {
        let (good, failure) = (result.is_ok(), result.clone().err());
        let changed = self.health.lock().observe(result, self.shape.probe.thresholds);
        self.first.send_replace(true);
        let notified: Vec<_> = self.members.lock().iter().filter_map(Weak::upgrade).collect();
        for members in notified {
            members.probed(self.shape.address, good, changed, failure.as_deref());
        }
    }

    fn pause(&self) -> Duration {
        let health = self.health.lock();
        let probe = &self.shape.probe;
        let pause = match (health.is_changing(), health.is_healthy()) {
            (true, _) => probe.interval_changing,
            (false, true) => probe.interval,
            (false, false) => probe.interval_down,
        };
        // A fifth of jitter, so that many gateways do not probe in step.
        pause.mul_f64(fastrand::f64().mul_add(0.2, 0.9))
    }
}

async fn probe(watch: Weak<Watch>) {
    let probe = match watch.upgrade() {
        Some(watch) => Probe::new(&watch.shape),
        None => return,
    };
    loop {
        let result = probe.check().await;
        let Some(this) = watch.upgrade() else { return };
        match result {
            Err(why) if why == UNSENT => log::warn!("the target {} keeps its health: {why}", this.shape.address),
            result => this.observe(result),
        }
        let pause = this.pause();
        drop(this);
        tokio::time::sleep(pause).await;
    }
}
