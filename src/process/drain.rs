//! The phases of a process: from serving to its end, and back when a successor fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{Supervisor, UpgradeProgress, notify};
use crate::admin::AdminListenerState;
use crate::edge::{Listening, SocketPlace};

/// The minimum time for the last steps: to accept what waits in the queues, to log what was cut, to report the
/// outcome of an upgrade.
const FINAL_STEPS_TIMEOUT: Duration = Duration::from_millis(500);

/// The time-out for writing the last lines of the access log.
const ACCESS_LOG_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The time-out for a hand-over in progress to complete, and for a predecessor to close its listeners.
pub(super) const HANDOVER_END_TIMEOUT: Duration = Duration::from_secs(8);

/// The interval at which that is checked.
const PREDECESSOR_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// The phase of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessPhase {
    /// It accepts connections.
    Serving,
    /// A successor accepts; this process drains, and would accept again.
    StandingBy,
    /// It ends with its last request.
    Leaving,
}

impl Supervisor {
    /// Returns the present phase.
    pub fn phase(&self) -> ProcessPhase {
        *self.phase.borrow()
    }

    /// Enters a phase. Leaving is final. Returns whether the phase changed.
    pub(super) fn enter(&self, phase: ProcessPhase) -> bool {
        self.phase.send_if_modified(|now| {
            let changes = *now != phase && *now != ProcessPhase::Leaving;
            if changes {
                *now = phase;
            }
            if changes && phase == ProcessPhase::Serving {
                self.close(false);
                self.pause(false);
            }
            changes
        })
    }

    /// Accepts again after a failed hand-over, unless the process was told to end meanwhile. Returns whether it
    /// accepts.
    pub(super) fn resume(&self) -> bool {
        let mut serves = false;
        self.phase.send_if_modified(|now| {
            serves = *now == ProcessPhase::Serving;
            if serves {
                self.pause(false);
            }
            false
        });
        serves
    }

    /// Reports that the process is not ready, goes on accepting for `readiness_time`, and then begins to end. A process
    /// whose successor serves ends at once.
    pub(super) async fn withdraw_and_end(&self) {
        let time = self.serving().snapshot.process.readiness_time;
        if !time.is_zero() && self.phase() == ProcessPhase::Serving {
            self.is_withdrawn.store(true, Ordering::Release);
            log::info!("told to end: /readyz fails, and the listeners close in {time:?}");
            let mut phase = self.phase.subscribe();
            let _ = timeout(time, phase.wait_for(|phase| *phase != ProcessPhase::Serving)).await;
        }
        self.end();
    }

    /// Begins to end: the process drains, and then leaves. A successor that serves continues; a predecessor in
    /// standby must not return.
    pub fn end(&self) {
        // First: the predecessor would take the end of this process for a reason to return.
        self.release_predecessor(true);
        let mut before = ProcessPhase::Leaving;
        self.phase.send_if_modified(|now| {
            before = *now;
            if before == ProcessPhase::Serving {
                *now = ProcessPhase::Leaving;
            }
            before == ProcessPhase::Serving
        });
        match before {
            ProcessPhase::Serving | ProcessPhase::Leaving => {}
            ProcessPhase::StandingBy => self.leave_service_to_successor("serves, and the old process was told to end"),
        }
    }

    /// Ends with the last request: the successor is the service.
    pub(super) fn leave_service_to_successor(&self, why: &str) {
        let pid = self.successor.load(Ordering::Acquire);
        // Before this process ends, since the process that started it would take its end for that of the service. And
        // not before the change is final.
        notify::main_pid(pid);
        self.progress(UpgradeProgress::Settled(format!(
            "process {pid} {why}; the old process ends with its last request"
        )));
        self.enter(ProcessPhase::Leaving);
        self.close_admin();
        log::info!("the successor, process {pid}, {why}: this process ends with its last request");
    }

    /// Ends, since the predecessor serves again; it has the sockets of these addresses as well.
    pub(super) fn end_for_predecessor(&self, predecessor: i32, taken: &[SocketPlace]) {
        self.successor.store(predecessor, Ordering::Release);
        self.share(taken);
        self.enter(ProcessPhase::Leaving);
        self.close_admin();
    }

    /// Sets the places whose sockets another process has as well.
    pub(super) fn share(&self, places: &[SocketPlace]) {
        let is_shared = |l: &Listening| places.contains(&(l.transport(), l.address));
        self.listeners.lock().iter().for_each(|l| l.share_with_another(is_shared(l)));
    }

    /// Closes the admin listener to operators, who are for the process that serves.
    fn close_admin(&self) {
        *self.admin.lock() = None;
        self.admin_state.send_replace(AdminListenerState::Closed);
    }

    /// Releases the predecessor, if it stands by; `ends` says whether the reason is that this process was told to
    /// end.
    pub(super) fn release_predecessor(&self, ends: bool) {
        self.predecessor.lock().iter().for_each(|predecessor| predecessor.release(ends));
    }

    /// Waits until the released predecessor has no listening socket any more.
    pub(super) async fn predecessor_leaves(&self, until: Instant) {
        let gone = async {
            while self.predecessor.lock().is_some() {
                tokio::time::sleep(PREDECESSOR_CHECK_INTERVAL).await;
            }
        };
        if tokio::time::timeout_at(until.into(), gone).await.is_err() {
            log::warn!("the predecessor has not left its listeners in time");
        }
    }

    /// Returns whether the process is ending.
    pub(super) fn is_ending(&self) -> bool {
        self.phase() == ProcessPhase::Leaving
    }

    /// Pauses or resumes accepting.
    pub(super) fn pause(&self, paused: bool) {
        self.listeners.lock().iter().for_each(|l| l.pause(paused));
        self.admin_state.send_replace(if paused { AdminListenerState::Paused } else { AdminListenerState::Open });
    }

    /// Lets all connections end, or continue after all.
    fn close(&self, closing: bool) {
        self.listeners.lock().iter().for_each(|l| l.close(closing));
        self.draining.send_replace(closing);
    }

    /// Serves until the process is to leave and has drained.
    pub(super) async fn serve_to_the_end(&self) {
        let mut phase = self.phase.subscribe();
        loop {
            let _ = phase.wait_for(|phase| *phase != ProcessPhase::Serving).await;
            let mut back = self.phase.subscribe();
            if !self.stop_accepting() {
                continue;
            }
            // It may have returned, and stand by for another successor by now.
            let is_back =
                async { while back.changed().await.is_ok() && *back.borrow_and_update() == ProcessPhase::Leaving {} };
            tokio::select! {
                () = self.leave() => break,
                () = is_back => {}
            }
        }
        let access_log = Arc::clone(&self.serving().access_log);
        access_log.close(ACCESS_LOG_CLOSE_TIMEOUT).await;
    }

    /// Stops accepting and lets all connections end, unless the process serves again by now.
    fn stop_accepting(&self) -> bool {
        let mut stops = false;
        // Until the predecessor has left, as it was told to, no other process may listen.
        let goes_on = self.predecessor.lock().is_some();
        // With the phase locked: a process that returns does so before this or after it.
        self.phase.send_if_modified(|now| {
            stops = *now != ProcessPhase::Serving;
            if stops {
                let alone = self.successor.load(Ordering::Acquire) == 0;
                // What a successor has not taken is answered by no other process while this one may be needed again.
                self.listeners.lock().iter().for_each(|l| l.pause(alone && !goes_on || l.is_shared()));
                // If no other process has the admin listener, it continues: it reports that this process drains.
                let others = if alone { AdminListenerState::Open } else { AdminListenerState::Paused };
                self.admin_state.send_if_modified(|door| {
                    *door != AdminListenerState::Closed && std::mem::replace(door, others) != others
                });
                // Pingora's own clean-up would cut connections whose request is arriving; our connections end by
                // themselves, with their current request or shortly after the drain began.
                self.close(true);
            }
            false
        });
        stops
    }

    /// Waits until no connection is left or the time is over, and until the process may leave. Then it has no
    /// listening socket: other processes with the same sockets may end as well.
    async fn leave(&self) {
        let limit = self.serving().snapshot.process.drain_time;
        let begun = Instant::now();
        log::info!("draining: {} connections and streams are open, for at most {limit:?}", self.drain.count());
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase == ProcessPhase::Leaving).await;
        // Whether another process has these sockets is not known before: then nothing is left in their queues.
        let together = begun + HANDOVER_END_TIMEOUT.min(limit);
        let _ = tokio::time::timeout_at(together.into(), self.leading.empty()).await;
        if self.successor.load(Ordering::Acquire) == 0 {
            notify::stopping();
            // It has no successor any more, and another process may be started meanwhile.
            self.upgrade_listener.get().iter().for_each(|upgrade_listener| upgrade_listener.withdraw());
        }
        self.predecessor_leaves(together).await;
        let ended: Vec<_> =
            std::mem::take(&mut *self.listeners.lock()).into_iter().filter_map(Listening::end).collect();
        futures::future::join_all(ended).await;
        self.left.store(true, Ordering::Release);
        let left = limit.saturating_sub(begun.elapsed()).max(FINAL_STEPS_TIMEOUT);
        if timeout(left, self.drain.empty()).await.is_ok() {
            log::info!("drained: no connection is open");
        } else {
            log::warn!("{} connections and streams were still open and are cut", self.drain.count());
            self.drain.cut();
            let _ = timeout(FINAL_STEPS_TIMEOUT, self.drain.empty()).await;
        }
        let _ = timeout(FINAL_STEPS_TIMEOUT, self.asked.empty()).await;
    }
}
