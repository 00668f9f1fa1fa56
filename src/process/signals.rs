//! SIGHUP reloads; SIGUSR2 upgrades; SIGTERM and SIGINT drain, and a second one ends at once.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::Supervisor;
use super::handover::start_successor;

/// Listens for signals for as long as the process lives.
pub async fn listen(supervisor: Arc<Supervisor>) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    let mut ending = false;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                let supervisor = Arc::clone(&supervisor);
                tokio::spawn(async move { supervisor.reload().await });
            }
            _ = upgrade.recv() => {
                let supervisor = Arc::clone(&supervisor);
                // What comes of it is in the log.
                tokio::task::spawn_blocking(move || start_successor(&supervisor, &|text| log::info!("{text}")));
            }
            _ = quit.recv() => log::warn!("SIGQUIT is refused: a process ends for a successor when that serves (SIGUSR2, `portcullis upgrade`)"),
            _ = async { tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} } } => {
                if ending {
                    log::warn!("ended at once by a second signal");
                    #[expect(clippy::disallowed_methods, reason = "whoever asks twice does not want the drain")]
                    std::process::exit(1);
                }
                ending = true;
                supervisor.end();
            }
        }
    }
}
