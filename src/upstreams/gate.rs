//! Admission to an upstream: how many requests it handles at a time, and how many are queued.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::exchange::clock;
use crate::rules::resilience::{AdaptiveShape, Gradient};

/// The limits of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GateShape {
    /// The maximum number of concurrent requests.
    pub requests: u32,
    /// The maximum number of concurrent requests per target; 0 is no limit.
    pub per_target: u32,
    /// The maximum number of queued requests.
    pub pending: u32,
    /// The maximum time in the queue.
    pub pending_time: Duration,
    /// The settings of a limit that follows the upstream's response time.
    pub adaptive: Option<AdaptiveShape>,
}

/// The class of a request, which decides about its admission under load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Admitted up to a quarter over the limit: for requests that must work under overload.
    High,
    /// Admitted up to the limit.
    #[default]
    Normal,
    /// Admitted up to three quarters of the limit, and never queued.
    Low,
}

impl Class {
    fn share(self, limit: u32) -> u32 {
        match self {
            Self::High => limit.saturating_add(limit / 4),
            Self::Normal => limit,
            Self::Low => (limit - limit / 4).max(1),
        }
    }
}

/// The gate of one upstream.
#[derive(Debug)]
pub struct Gate {
    shape: GateShape,
    active: AtomicU32,
    waiting: AtomicU32,
    limit: AtomicU32,
    /// The limits that result from the number of targets, and from their response time.
    by_targets: AtomicU32,
    by_time: AtomicU32,
    /// The queue, first in, first out. A place is handed over as the message.
    queue: Mutex<VecDeque<(Class, oneshot::Sender<AdmittedRequest>)>>,
    gradient: Option<Mutex<Gradient>>,
}

/// An admitted request, counted for as long as this value lives.
#[derive(Debug)]
pub struct AdmittedRequest(Arc<Gate>);

impl Gate {
    /// Returns an open gate.
    pub fn new(shape: GateShape) -> Arc<Self> {
        let gradient = shape.adaptive.map(|adaptive| Gradient::new(&adaptive, clock::now()));
        let by_time = gradient.as_ref().map_or(u32::MAX, Gradient::limit);
        let gate = Self {
            shape,
            active: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            limit: AtomicU32::new(shape.requests.min(by_time)),
            by_targets: AtomicU32::new(u32::MAX),
            by_time: AtomicU32::new(by_time),
            queue: Mutex::default(),
            gradient: gradient.map(Mutex::new),
        };
        Arc::new(gate)
    }

    /// Returns the number of requests in flight.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Returns the number of queued requests.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns the present limit.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets the number of targets. Without any, the pick rejects requests, and not the queue.
    pub fn set_targets(self: &Arc<Self>, count: usize) {
        if self.shape.per_target > 0 {
            let count = if count == 0 { u32::MAX } else { u32::try_from(count).unwrap_or(u32::MAX) };
            let limit = count.saturating_mul(self.shape.per_target);
            self.by_targets.store(limit, Ordering::Relaxed);
            self.update();
        }
    }

    /// Records a response time in seconds.
    pub fn observe(self: &Arc<Self>, seconds: f64) {
        let (Some(gradient), Some(shape)) = (&self.gradient, &self.shape.adaptive) else { return };
        // A sample is skipped when the lock is taken: there are enough.
        let Some(mut gradient) = gradient.try_lock() else { return };
        if let Some(limit) = gradient.observe(shape, seconds, self.active(), clock::now()) {
            drop(gradient);
            self.by_time.store(limit, Ordering::Relaxed);
            self.update();
        }
    }

    fn update(self: &Arc<Self>) {
        let least = self.by_targets.load(Ordering::Relaxed).min(self.by_time.load(Ordering::Relaxed));
        let limit = self.shape.requests.min(least);
        if self.limit.swap(limit, Ordering::Relaxed) < limit && self.waiting() > 0 {
            self.hand_over_places();
        }
    }

    fn try_enter(self: &Arc<Self>, class: Class) -> Option<AdmittedRequest> {
        let most = class.share(self.limit());
        let entered =
            self.active.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |active| (active < most).then(|| active + 1));
        entered.ok().map(|_| AdmittedRequest(Arc::clone(self)))
    }

    /// Hands free places to queued requests.
    fn hand_over_places(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        loop {
            // Cancelled waiters are skipped; one that is cancelled later drops its place, which calls this again.
            while queue.front().is_some_and(|(_, waiter)| waiter.is_closed()) {
                queue.pop_front();
            }
            let Some((class, _)) = queue.front() else { return };
            let Some(entered) = self.try_enter(*class) else { return };
            let Some((_, waiter)) = queue.pop_front() else { return };
            if let Err(late) = waiter.send(entered) {
                // It was cancelled in between. Its place is dropped without the lock that the drop takes.
                drop(queue);
                drop(late);
                queue = self.queue.lock();
            }
        }
    }

    /// Returns whether a request of that class is queued where it is not admitted at once.
    pub fn has_queue(&self, class: Class) -> bool {
        class != Class::Low && self.shape.pending > 0
    }

    /// Admits a request if it need not be queued.
    pub fn try_admit(self: &Arc<Self>, class: Class) -> Option<AdmittedRequest> {
        // A later request does not overtake queued ones.
        if self.waiting() == 0 || class == Class::High { self.try_enter(class) } else { None }
    }

    /// Admits a request at once or from the queue; `None` when there are too many.
    pub async fn admit(self: &Arc<Self>, class: Class) -> Option<AdmittedRequest> {
        if let Some(entered) = self.try_admit(class) {
            return Some(entered);
        }
        if self.has_queue(class) { self.wait_in_queue(class).await } else { None }
    }

    async fn wait_in_queue(self: &Arc<Self>, class: Class) -> Option<AdmittedRequest> {
        let _waiting = Waiting::begin(self)?;
        let (sender, turn) = oneshot::channel();
        self.queue.lock().push_back((class, sender));
        // A place may have become free in between.
        self.hand_over_places();
        tokio::time::timeout(self.shape.pending_time, turn).await.ok()?.ok()
    }
}

/// A queued request, counted for as long as this value lives.
struct Waiting<'g>(&'g Gate);

impl<'g> Waiting<'g> {
    fn begin(gate: &'g Gate) -> Option<Self> {
        let most = gate.shape.pending;
        let begun = gate.waiting.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |w| (w < most).then(|| w + 1));
        begun.ok().map(|_| Self(gate))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for AdmittedRequest {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.0.hand_over_places();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(requests: u32, pending: u32) -> Arc<Gate> {
        let pending_time = Duration::from_millis(50);
        Gate::new(GateShape { requests, per_target: 0, pending, pending_time, adaptive: None })
    }

    #[tokio::test]
    async fn lets_in_up_to_its_limit_and_queues_the_rest() {
        let gate = gate(2, 1);
        let (one, two) = (gate.admit(Class::Normal).await, gate.admit(Class::Normal).await);
        assert!(one.is_some() && two.is_some());
        let third = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.admit(Class::Normal).await }
        });
        while gate.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(gate.admit(Class::Normal).await.is_none(), "the queue is full");
        drop(one);
        let third = third.await.expect("no panic");
        assert!(third.is_some());
        assert!(gate.admit(Class::Normal).await.is_none(), "no request leaves in time");
        drop((two, third));
        assert_eq!((gate.active(), gate.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn the_longest_waiter_is_next_and_cancelled_waiters_are_skipped() {
        let gate = gate(1, 10);
        let first = gate.admit(Class::Normal).await.expect("a free place");
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..5 {
            let (waiting, noted) = (Arc::clone(&gate), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let entered = waiting.admit(Class::Normal).await;
                noted.lock().push(number);
                drop(entered);
            }));
            while gate.waiting() <= number {
                tokio::task::yield_now().await;
            }
        }
        let left = tasks.remove(1);
        left.abort();
        let _ = left.await;
        assert!(gate.try_admit(Class::Normal).is_none(), "a later request does not overtake queued ones");
        drop(first);
        for task in tasks {
            let _ = task.await;
        }
        assert_eq!(*order.lock(), [0, 2, 3, 4]);
        assert_eq!((gate.active(), gate.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn classes_are_shed_in_order() {
        let gate = gate(4, 0);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(gate.admit(Class::Low).await.expect("a free place"));
        }
        assert!(gate.admit(Class::Low).await.is_none());
        held.push(gate.admit(Class::Normal).await.expect("a free place"));
        assert!(gate.admit(Class::Normal).await.is_none());
        held.push(gate.admit(Class::High).await.expect("a free place"));
        assert!(gate.admit(Class::High).await.is_none());
    }

    #[tokio::test]
    async fn targets_bound_it() {
        let pending_time = Duration::from_millis(50);
        let gate = Gate::new(GateShape { requests: 100, per_target: 3, pending: 0, pending_time, adaptive: None });
        gate.set_targets(2);
        assert_eq!(gate.limit(), 6);
        gate.set_targets(0);
        assert_eq!(gate.limit(), 100);
    }
}
