//! From serving to the end, and back again when a successor fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{Progress, Supervisor, notify};
use crate::admin::Door;
use crate::edge::Listening;

/// What is left to do at the very end has at least that long: to take what waits in the queues, to write down what
/// was cut, to tell whoever asked for an upgrade how it went.
const LAST: Duration = Duration::from_millis(500);

/// How long the last lines of the access log may take.
const TAKEN: Duration = Duration::from_secs(2);

/// How long a hand-over that is under way may take to come to its end, and a predecessor to leave its listeners.
pub(super) const TOGETHER: Duration = Duration::from_secs(8);

/// How often it is looked whether that is so.
const LOOK: Duration = Duration::from_millis(10);

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It accepts.
    Serving,
    /// A successor accepts; this process drains, and would accept again.
    StandingBy,
    /// It ends with its last request.
    Leaving,
}

impl Supervisor {
    /// Where it stands.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// From now on it stands there. Nothing leads back from leaving. Whether that is a change.
    pub(super) fn enter(&self, phase: Phase) -> bool {
        self.phase.send_if_modified(|now| {
            let changes = *now != phase && *now != Phase::Leaving;
            if changes {
                *now = phase;
            }
            if changes && phase == Phase::Serving {
                self.close(false);
                self.pause(false);
            }
            changes
        })
    }

    /// Accepts again after a hand-over that came to nothing, unless it was told to end meanwhile; whether it does.
    pub(super) fn resume(&self) -> bool {
        let mut serves = false;
        self.phase.send_if_modified(|now| {
            serves = *now == Phase::Serving;
            if serves {
                self.pause(false);
            }
            false
        });
        serves
    }

    /// Begins to end: drains, and then leaves. Where a successor serves, that goes on; a predecessor that stands by
    /// is not to come back.
    pub fn end(&self) {
        // First: it would take the end of this process for a reason to come back.
        self.settle(true);
        let mut before = Phase::Leaving;
        self.phase.send_if_modified(|now| {
            before = *now;
            if before == Phase::Serving {
                *now = Phase::Leaving;
            }
            before == Phase::Serving
        });
        match before {
            Phase::Serving | Phase::Leaving => {}
            Phase::StandingBy => self.leave_it_to_the_successor("serves, and the old process was told to end"),
        }
    }

    /// Ends with the last request: the successor is the service.
    pub(super) fn leave_it_to_the_successor(&self, why: &str) {
        let pid = self.successor.load(Ordering::Acquire);
        // Before this process ends: whoever started it would take its end for the service's. And not before there
        // is no way back.
        notify::main_pid(pid);
        self.progress(Progress::Settled(format!("process {pid} {why}; the old process ends with its last request")));
        self.enter(Phase::Leaving);
        self.leave_operators();
        log::info!("the successor, process {pid}, {why}: this process ends with its last request");
    }

    /// Ends, since the predecessor serves again, which has the sockets of these addresses as well.
    pub(super) fn make_way(&self, predecessor: i32, taken: &[SocketAddr]) {
        self.successor.store(predecessor, Ordering::Release);
        self.share(taken);
        self.enter(Phase::Leaving);
        self.leave_operators();
    }

    /// From now on another process has the sockets of these addresses as well, and of no others.
    pub(super) fn share(&self, addresses: &[SocketAddr]) {
        self.listeners.lock().iter().for_each(|l| l.share_with_another(addresses.contains(&l.address)));
    }

    /// Operators are for whoever serves.
    fn leave_operators(&self) {
        *self.admin.lock() = None;
        self.admin_door.send_replace(Door::Closed);
    }

    /// Lets the predecessor go, if it stands by; whether because this process was told to end.
    pub(super) fn settle(&self, ends: bool) {
        self.predecessor.lock().iter().for_each(|heir| heir.settle(ends));
    }

    /// Waits until the predecessor, which was let go, has no listening socket any more.
    pub(super) async fn predecessor_leaves(&self, until: Instant) {
        let gone = async {
            while self.predecessor.lock().is_some() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout_at(until.into(), gone).await.is_err() {
            log::warn!("the predecessor has not left its listeners in time");
        }
    }

    /// Whether it ends.
    pub(super) fn is_ending(&self) -> bool {
        self.phase() == Phase::Leaving
    }

    /// Accepts nothing for now, or again.
    pub(super) fn pause(&self, paused: bool) {
        self.listeners.lock().iter().for_each(|l| l.pause(paused));
        self.admin_door.send_replace(if paused { Door::Paused } else { Door::Open });
    }

    /// Lets everything that is under way end, or go on after all.
    fn close(&self, closing: bool) {
        self.listeners.lock().iter().for_each(|l| l.close(closing));
        self.draining.send_replace(closing);
    }

    /// Serves until it is to leave and has drained.
    pub(super) async fn serve_to_the_end(&self) {
        let mut phase = self.phase.subscribe();
        loop {
            let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
            let mut back = self.phase.subscribe();
            if !self.stop_accepting() {
                continue;
            }
            // It may have been back, and stand by for another by now.
            let is_back = async { while back.changed().await.is_ok() && *back.borrow_and_update() == Phase::Leaving {} };
            tokio::select! {
                () = self.leave() => break,
                () = is_back => {}
            }
        }
        let access_log = Arc::clone(&self.serving().access_log);
        access_log.close(TAKEN).await;
    }

    /// Accepts nothing any more and lets what is under way end, unless it serves again by now.
    fn stop_accepting(&self) -> bool {
        let mut stops = false;
        // Until the predecessor has left, as it was told to, nobody else may be there.
        let goes_on = self.predecessor.lock().is_some();
        // With the phase in hand: who comes back does so before this or after it.
        self.phase.send_if_modified(|now| {
            stops = *now != Phase::Serving;
            if stops {
                let alone = self.successor.load(Ordering::Acquire) == 0;
                // What a successor has not taken nobody else answers while it may be needed again.
                self.listeners.lock().iter().for_each(|l| l.pause(alone && !goes_on || l.is_shared()));
                // Where no other process has it, the operators' listener goes on: it says that this process drains.
                let others = if alone { Door::Open } else { Door::Paused };
                self.admin_door.send_if_modified(|door| *door != Door::Closed && std::mem::replace(door, others) != others);
                // Pingora's own clean-up would cut connections whose request is on its way; our connections
                // end by themselves: with the request that they have, or shortly after the drain began.
                self.close(true);
            }
            false
        });
        stops
    }

    /// Waits until nothing is under way or the time is over, and until it may leave. From then on it has no
    /// listening socket: whoever has them besides may end as well.
    async fn leave(&self) {
        let limit = self.serving().snapshot.process.drain_time;
        let begun = Instant::now();
        log::info!("draining: {} connections and streams are under way, for at most {limit:?}", self.drain.count());
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase == Phase::Leaving).await;
        // Who else has these sockets, if anybody, is not known before: what waits in their queues is left to nobody.
        let together = begun + TOGETHER.min(limit);
        let _ = tokio::time::timeout_at(together.into(), self.leading.empty()).await;
        if self.successor.load(Ordering::Acquire) == 0 {
            notify::stopping();
            // Nobody succeeds it any more, and another may be started meanwhile.
            self.offer.get().iter().for_each(|offer| offer.withdraw());
        }
        self.predecessor_leaves(together).await;
        let ended: Vec<_> = std::mem::take(&mut *self.listeners.lock()).into_iter().filter_map(Listening::end).collect();
        futures::future::join_all(ended).await;
        self.left.store(true, Ordering::Release);
        let left = limit.saturating_sub(begun.elapsed()).max(LAST);
        if timeout(left, self.drain.empty()).await.is_ok() {
            log::info!("drained: nothing is under way");
        } else {
            log::warn!("{} connections and streams were still under way and are cut", self.drain.count());
            self.drain.cut();
            let _ = timeout(LAST, self.drain.empty()).await;
        }
        let _ = timeout(LAST, self.asked.empty()).await;
    }
}
