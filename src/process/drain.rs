//! From serving to the end, and back again when a successor fails.

use super::{Supervisor, notify};

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
        self.admin_paused.send_replace(paused);
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
            self.pause(true);
            // Pingora's own clean-up would cut connections whose request is on its way; our connections
            // end by themselves: with the request that they have, or shortly after the drain began.
            self.close(true);
            let mut back = self.phase.subscribe();
            tokio::select! {
                () = self.leave() => break,
                _ = back.wait_for(|phase| *phase == Phase::Serving) => {
                    self.close(false);
                    self.pause(false);
                }
            }
        }
        self.serving.load().access_log.close();
    }

    /// Waits until nothing is under way or the time is over, and until it may leave.
    async fn leave(&self) {
        let mut phase = self.phase.subscribe();
        if *phase.borrow() == Phase::Leaving {
            // Nobody else has these sockets, or whoever has them has settled.
            self.listeners.lock().clear();
        }
        let limit = self.serving.load().snapshot.process.drain_time;
        log::info!("draining: {} connections and streams are under way, for at most {limit:?}", self.drain.count());
        let drained = tokio::time::timeout(limit, self.drain.empty()).await;
        let _ = phase.wait_for(|phase| *phase == Phase::Leaving).await;
        match drained {
            Ok(()) => log::info!("drained: nothing is under way"),
            Err(_) => log::warn!("{} connections and streams were still under way and are cut", self.drain.count()),
        }
    }
}
