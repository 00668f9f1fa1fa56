//! SIGHUP reloads; SIGUSR2 upgrades; SIGTERM and SIGINT drain, and a second one ends at once; SIGQUIT and SIGUSR1,
//! which mean something to other gateways, are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc::{SIGINT, SIGTERM};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Supervisor;
use super::handover::start_successor;

/// What is said of signals that mean something to other gateways.
const USR1: &str = "SIGUSR1 is refused: SIGHUP opens the access log anew, as it reloads everything";
const QUIT: &str = "SIGQUIT is refused: a process ends for a successor when that serves (SIGUSR2, `portcullis upgrade`); \
                    SIGTERM drains and ends it";

/// Whether a signal that ends a process has come, from the moment in which it comes: before anything serves nobody may
/// have the time to wait for it.
static TOLD_TO_END: AtomicBool = AtomicBool::new(false);

/// Whether this process has been told to end.
pub fn told_to_end() -> bool {
    TOLD_TO_END.load(Ordering::Acquire)
}

/// The signals that a gateway knows; from its making on none of them ends the process by itself.
pub struct Signals([std::io::Result<Signal>; 6]);

impl Signals {
    /// To be called within a runtime.
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
            // SAFETY: what is called within a signal handler stores to an atomic, and nothing else. Where it is
            // refused, only the waiting below is left.
            let _ = unsafe { signal_hook_registry::register(number, || TOLD_TO_END.store(true, Ordering::Release)) };
        }
        Self(kinds.map(signal))
    }

    /// Resolves at the first signal that ends a process.
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

/// Listens for signals for as long as the process lives.
///
/// # Errors
/// When the system does not let it.
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
            _ = rotate.recv() => log::warn!("{USR1}"),
            _ = upgrade.recv() => {
                let supervisor = Arc::clone(&supervisor);
                // What comes of it is in the log.
                tokio::task::spawn_blocking(move || start_successor(&supervisor, &|text| log::info!("{text}")));
            }
            _ = quit.recv() => log::warn!("{QUIT}"),
            _ = async { tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} } } => {
                if ending {
                    log::warn!("ended at once by a second signal");
                    crate::telemetry::finish_log();
                    #[expect(clippy::disallowed_methods, reason = "whoever asks twice does not want the drain")]
                    std::process::exit(1);
                }
                ending = true;
                supervisor.end();
            }
        }
    }
}
