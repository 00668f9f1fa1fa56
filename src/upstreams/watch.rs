//! Active probes: one watch for each target and way of probing, however many upstreams it is in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::health::{HealthState, HealthView, Thresholds};
use super::members::Members;
use super::probe::{Probe, ProbeKind, UNSENT};
use super::shape::Transport;

/// An active probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ActiveProbe {
    /// What is sent.
    pub kind: ProbeKind,
    /// Time between two probes.
    pub interval: Duration,
    /// Time between two probes while the last results disagree with the status.
    pub interval_changing: Duration,
    /// Time between two probes of a target that is down.
    pub interval_down: Duration,
    /// The longest that one may take.
    pub timeout: Duration,
    /// Results in a row that count.
    pub thresholds: Thresholds,
}

/// What makes two watches the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchShape {
    /// Where the target is.
    pub address: SocketAddr,
    /// The name by which it is spoken to.
    pub authority: String,
    /// The name that TLS verifies.
    pub host: String,
    /// How it is probed.
    pub probe: ActiveProbe,
    /// How it is spoken to.
    pub transport: Transport,
}

/// A target that is probed for as long as somebody wants to know.
#[derive(Debug)]
pub struct Watch {
    shape: WatchShape,
    health: Mutex<HealthState>,
    members: Mutex<Vec<Weak<Members>>>,
    first: tokio::sync::watch::Sender<bool>,
}

/// All that are watched.
static WATCHES: LazyLock<Mutex<HashMap<WatchShape, Weak<Watch>>>> = LazyLock::new(Mutex::default);

impl Watch {
    /// The watch of that shape, which from now on tells `members` as well. Begins to probe if it is
    /// new; `healthy` is what a predecessor knew.
    pub fn of(shape: WatchShape, members: Weak<Members>, healthy: Option<bool>) -> Arc<Self> {
        let mut watches = WATCHES.lock();
        if let Some(watch) = watches.get(&shape).and_then(Weak::upgrade) {
            watch.tell(members);
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

    fn tell(&self, members: Weak<Members>) {
        let mut told = self.members.lock();
        told.retain(|known| known.strong_count() > 0 && !known.ptr_eq(&members));
        told.push(members);
    }

    /// Whether the target may be picked, as far as probes say.
    pub fn is_healthy(&self) -> bool {
        self.health.lock().is_healthy()
    }

    /// Whether the target is healthy; `None` before anything is known.
    pub fn known(&self) -> Option<bool> {
        self.health.lock().known()
    }

    /// For people.
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
        let told: Vec<_> = self.members.lock().iter().filter_map(Weak::upgrade).collect();
        for members in told {
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
