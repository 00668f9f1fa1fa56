//! From serving to the end, and back again when a successor fails.

use super::{Supervisor, notify};
use crate::admin::Door;

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

    /// From now on it stands there. Nothing leads back from leaving.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let changes = *now != phase && *now != Phase::Leaving;
            if changes {
                *now = phase;
            }
            if changes && phase == Phase::Serving {
                // Here, and not by whoever drains: it may not have seen that there was something to come back from.
                self.close(false);
                self.pause(false);
            }
            changes
        });
    }

    /// Begins to end: drains, and then leaves.
    pub fn end(&self) {
        notify::stopping();
        self.enter(Phase::Leaving);
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
            let left = phase.wait_for(|phase| *phase != Phase::Serving).await.map_or(Phase::Leaving, |phase| *phase);
            self.listeners.lock().iter().for_each(|l| l.pause(true));
            // Where no successor has it, the operators' listener goes on: it says that this process drains.
            let handed = left == Phase::StandingBy;
            self.admin_door.send_replace(if handed { Door::Paused } else { Door::Open });
            // Pingora's own clean-up would cut connections whose request is on its way; our connections
            // end by themselves: with the request that they have, or shortly after the drain began.
            self.close(true);
            let mut back = self.phase.subscribe();
            tokio::select! {
                () = self.leave(handed) => break,
                // As in `enter`, which may have come between the first look at the phase and the closing above.
                _ = back.wait_for(|phase| *phase == Phase::Serving) => {
                    self.close(false);
                    self.pause(false);
                }
            }
        }
        self.serving().access_log.close();
    }

    /// Waits until nothing is under way or the time is over, and until it may leave. From then on it has no
    /// listening socket: whoever has them besides may end as well.
    async fn leave(&self, handed: bool) {
        let limit = self.serving().snapshot.process.drain_time;
        log::info!("draining: {} connections and streams are under way, for at most {limit:?}", self.drain.count());
        let mut phase = self.phase.subscribe();
        let may_leave = async {
            let _ = phase.wait_for(|phase| *phase == Phase::Leaving).await;
            self.listeners.lock().clear();
            if handed {
                *self.admin.lock() = None;
                self.admin_door.send_replace(Door::Closed);
            }
        };
        let (drained, ()) = tokio::join!(tokio::time::timeout(limit, self.drain.empty()), may_leave);
        match drained {
            Ok(()) => log::info!("drained: nothing is under way"),
            Err(_) => log::warn!("{} connections and streams were still under way and are cut", self.drain.count()),
        }
    }
}
