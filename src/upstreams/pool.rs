//! The runtime state of an upstream.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use pingora::lb::Backends;
use rustls::ClientConfig;

use super::breaker::SharedBreaker;
use super::choice::Choice;
use super::discovery::{PingoraDiscovery, TargetChange, TargetChanges, TargetDiscovery};
use super::gate::Gate;
use super::members::{KnownTarget, NoPick, PickRequest, Picked, PoolMembers};
use super::shape::PoolShape;
use super::target::TargetOutcome;
use super::view::TargetView;
use crate::exchange::clock;
use crate::telemetry::metrics::TargetState;
use crate::tls::target_config;

/// The runtime state of an upstream.
pub struct Pool {
    backends: Backends,
    discovery: Arc<TargetDiscovery>,
    members: Arc<PoolMembers>,
    /// Whether a snapshot that serves has it.
    wanted: AtomicBool,
    /// Whether its background task runs.
    running: AtomicBool,
    /// Serialises discoveries, so that no older result replaces a newer one.
    discovering: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("members", &self.members).finish_non_exhaustive()
    }
}

impl Pool {
    /// Returns a pool of that shape, which takes over the targets that `before` has too.
    pub fn new(shape: PoolShape, before: Option<&Self>, changes: Arc<TargetChanges>) -> Arc<Self> {
        let (targets, further) = (shape.targets.clone(), shape.discovery.as_ref());
        let discovery =
            Arc::new(TargetDiscovery::new(targets, further, shape.resolver.as_ref(), shape.resolve_interval, changes));
        let backends = Backends::new(Box::new(PingoraDiscovery(Arc::clone(&discovery))));
        let members = Arc::new(PoolMembers::new(shape, before.map(|p| &*p.members)));
        Arc::new(Self {
            backends,
            discovery,
            members,
            wanted: AtomicBool::new(true),
            running: AtomicBool::new(false),
            discovering: tokio::sync::Mutex::default(),
        })
    }

    /// Returns its targets.
    pub(super) fn members(&self) -> &Arc<PoolMembers> {
        &self.members
    }

    /// Returns the changes of operators.
    pub(super) fn changes(&self) -> &TargetChanges {
        self.discovery.changes()
    }

    /// Returns whether any of its targets is given by name.
    pub fn has_names(&self) -> bool {
        let shape = self.shape();
        let named = shape.targets.iter().any(|t| t.host.parse::<std::net::IpAddr>().is_err());
        named || matches!(shape.discovery, Some(super::discovery::DiscoveryShape::Srv(_)))
    }

    /// Returns its shape.
    pub fn shape(&self) -> &PoolShape {
        &self.members.shape
    }

    /// Returns the targets that are eligible now.
    pub fn choice(&self) -> Arc<Choice> {
        self.members.choice.load_full()
    }

    /// Returns its admission gate.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.members.gate
    }

    /// Returns its breaker.
    pub fn breaker(&self) -> Option<&SharedBreaker> {
        self.members.breaker.as_deref()
    }

    /// Returns TLS towards its targets at layer 4, if they use TLS, or why there can be none.
    pub fn stream_tls(&self) -> Option<&Result<Arc<ClientConfig>, String>> {
        let tls = self.shape().transport.tls.as_ref()?;
        let made = || target_config(tls.verify, tls.ca.as_ref(), tls.identity.as_ref());
        Some(self.members.stream_tls.get_or_init(made))
    }

    /// Returns every target, for the admin interface.
    pub fn targets(&self) -> Vec<TargetView> {
        let known = self.members.by_address.lock();
        let mut targets: Vec<_> = known.values().map(TargetView::of).collect();
        targets.sort_by_key(|t| t.address);
        targets
    }

    /// Returns the state of every target, for metrics.
    pub fn states(&self) -> Vec<TargetState> {
        let mut states: Vec<_> = self.members.by_address.lock().values().map(KnownTarget::state).collect();
        states.sort_by(|one, other| one.address.cmp(&other.address));
        states
    }

    /// Picks a target, if possible that of the session.
    pub fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoPick> {
        self.members.pick(request)
    }

    /// Picks the target at that address, if it is known: for what goes to it already.
    pub fn pick_known(&self, address: SocketAddr) -> Option<Picked> {
        self.members.pick_known(address)
    }

    /// Returns the number of the present arrangement of targets.
    pub fn version(&self) -> u64 {
        self.members.choice.load().version
    }

    /// Returns whether what goes to a target already may go on to it.
    pub fn keeps(&self, address: SocketAddr) -> bool {
        self.members.keeps(address)
    }

    /// Counts a request, for the retry budget.
    pub fn count_request(&self) {
        self.members.count_request(clock::now());
    }

    /// Counts a retry, if the budget allows one.
    pub fn begin_retry(&self) -> bool {
        self.members.begin_retry(clock::now())
    }

    /// Records the outcome of a try: `seconds` is the time to the response's head, if there was one.
    pub fn report(&self, picked: &mut Picked, outcome: TargetOutcome, seconds: Option<f64>) {
        self.members.report(picked, outcome, seconds);
    }

    /// Marks the pool as wanted. Returns true if its background task does not run: the caller has to start it.
    pub fn start(&self) -> bool {
        self.wanted.store(true, Ordering::SeqCst);
        !self.running.swap(true, Ordering::SeqCst)
    }

    /// Returns whether a snapshot that serves, or is about to, has it.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Marks the pool as unwanted, since no snapshot that serves has it: its task ends, although requests may still
    /// use it.
    pub fn retire(&self) {
        self.wanted.store(false, Ordering::SeqCst);
    }

    /// Rearranges the eligible targets.
    pub fn refresh(&self) {
        self.members.rebuild();
    }

    /// Looks names up and waits until every target was probed once, so that the first request finds known targets.
    pub async fn first_round(&self) {
        self.discover().await;
        let watches: Vec<_> = self.members.by_address.lock().values().filter_map(|k| k.watch.clone()).collect();
        futures::future::join_all(watches.iter().map(|w| w.first())).await;
        self.members.rebuild();
    }

    /// Changes a target at run time. The change outlives reloads.
    pub async fn change(&self, address: SocketAddr, change: impl FnOnce(&mut TargetChange)) {
        self.discovery.changes().change(address, change);
        self.discover().await;
    }

    /// Queries its sources, and applies the changes of operators to the result.
    pub async fn discover(&self) {
        let _one = self.discovering.lock().await;
        // The discovery never fails: a name that cannot be resolved keeps its addresses.
        let _ = self.backends.update(|backends| self.members.replace(&backends)).await;
    }

    /// Keeps membership, ejections and slow starts up to date until the pool is dropped.
    pub async fn keep_fresh(pool: Weak<Self>) {
        loop {
            let Some(this) = pool.upgrade() else { return };
            let pause = if this.members.is_moving() { Duration::from_millis(100) } else { Duration::from_secs(1) };
            drop(this);
            tokio::time::sleep(pause).await;
            let Some(this) = pool.upgrade() else { return };
            if !this.wanted.load(Ordering::SeqCst) {
                this.running.store(false, Ordering::SeqCst);
                // A caller that wants the pool at this moment has found the task running.
                if !this.wanted.load(Ordering::SeqCst) || this.running.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
            if this.discovery.is_due() && this.discovering.try_lock().is_ok() {
                // In a task of its own, so that an unresponsive name server delays nothing else.
                let this = Arc::clone(&this);
                tokio::spawn(async move { this.discover().await });
            }
            this.members.tick();
        }
    }
}
