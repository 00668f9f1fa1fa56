//! Signals: SIGHUP reloads; SIGUSR1 opens the access log again; SIGUSR2 upgrades; SIGTERM and SIGINT drain, and a
//! second one ends at once; SIGQUIT, which has another meaning in other gateways, is ignored with a warning.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc::{SIGINT, SIGTERM};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Supervisor;
use super::handover::start_successor;

/// The warning about a signal that has another meaning in other gateways.
const QUIT: &str = "SIGQUIT is ignored: a process ends for a successor when that serves (SIGUSR2, `portcullis \
    upgrade`); \
                    SIGTERM drains and ends it";

/// Whether a signal to end has arrived, set in the signal handler: before the gateway serves, no task may be free to
/// wait for it.
static TOLD_TO_END: AtomicBool = AtomicBool::new(false);

/// Returns whether this process has been told to end.
pub fn told_to_end() -> bool {
    TOLD_TO_END.load(Ordering::Acquire)
}

/// The handlers of the gateway's signals; once created, none of these signals ends the process by itself.
pub struct Signals([std::io::Result<Signal>; 6]);

impl Signals {
    /// Installs the handlers. It has to be called within a runtime.
    pub fn new() -> Self {
        let kinds = [
            SignalKind::hangup(),
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        for number in [SIGTERM, SIGINT] {
            // SAFETY: the signal handler only stores to an atomic. If the registration fails, only the waiting below
            // is left.
            let _ = unsafe { signal_hook_registry::register(number, || TOLD_TO_END.store(true, Ordering::Release)) };
        }
        Self(kinds.map(signal))
    }

    /// Resolves at the first signal to end.
    pub async fn told_to_end(&mut self) {
        let [_, terminate, interrupt, ..] = &mut self.0;
        tokio::select! { () = first(terminate) => {}, () = first(interrupt) => {} }
    }
}

async fn first(signal: &mut std::io::Result<Signal>) {
    match signal {
        Ok(signal) => _ = signal.recv().await,
        Err(_) => std::future::pending().await,
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self::new()
    }
}

/// Handles signals for as long as the process lives.
///
/// # Errors
/// When the system rejects a handler.
pub async fn listen(signals: Signals, supervisor: Arc<Supervisor>) -> std::io::Result<()> {
    let [hangup, terminate, interrupt, quit, rotate, upgrade] = signals.0;
    let (mut hangup, mut terminate, mut interrupt) = (hangup?, terminate?, interrupt?);
    let (mut quit, mut rotate, mut upgrade) = (quit?, rotate?, upgrade?);
    let mut ending = false;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                let supervisor = Arc::clone(&supervisor);
                tokio::spawn(async move { supervisor.reload_or_pass_on().await });
            }
            _ = rotate.recv() => supervisor.reopen_access_log(),
            _ = upgrade.recv() => {
                let supervisor = Arc::clone(&supervisor);
                // The result is in the log.
                tokio::task::spawn_blocking(move || start_successor(&supervisor, &|text| log::info!("{text}")));
            }
            _ = quit.recv() => log::warn!("{QUIT}"),
            _ = async { tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} } } => {
                if ending {
                    log::warn!("ended at once by a second signal");
                    crate::telemetry::finish_log();
                    #[expect(clippy::disallowed_methods, reason = "the second signal skips the drain")]
                    std::process::exit(1);
                }
                ending = true;
                let supervisor = Arc::clone(&supervisor);
                tokio::spawn(async move { supervisor.withdraw_and_end().await });
            }
        }
    }
}
