//! Open streams in a hand-over: flows of datagrams move before the successor serves, TCP sessions once it has settled.
//!
//! Until then this process could serve them again, should the successor fail: the flows that it has handed over are set
//! aside, and no session has moved.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::wire::send_streams;
use crate::edge::stream::{batch_of, resolve};
use crate::process::Supervisor;

/// The time-out for a successor to confirm sessions. They stand still meanwhile.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends the flows of all listeners, which are paused.
pub fn send_flows(stream: &UnixStream, supervisor: &Supervisor) -> io::Result<()> {
    let mut batches = supervisor.streams.flows.request();
    let mut count = 0;
    while let Some(batch) = batches.blocking_recv() {
        count += batch.descriptors.len();
        send_streams(stream, &batch)?;
    }
    if count > 0 {
        log::info!("{count} flows of datagrams are handed over");
    }
    Ok(())
}

/// Sends the TCP sessions that are ready to move. Those that the successor does not confirm go on in this process.
pub fn send_sessions(stream: &UnixStream, supervisor: &Supervisor, confirmed: &Receiver<Vec<usize>>) -> io::Result<()> {
    let sessions = &supervisor.streams.sessions;
    loop {
        let ready = sessions.take_ready();
        if ready.is_empty() {
            return Ok(());
        }
        let count = ready.len();
        let sent = batch_of(&ready).and_then(|batch| send_streams(stream, &batch)).and_then(|()| {
            confirmed.recv_timeout(CONFIRMATION_TIMEOUT).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
        });
        let _workers = supervisor.workers.enter();
        match sent {
            Ok(without) => {
                log::info!(
                    "{} sessions go on in the successor, {} here",
                    count - without.len().min(count),
                    without.len()
                );
                resolve(ready, |place| without.contains(&place), sessions);
            }
            Err(error) => {
                log::warn!("{count} sessions go on here: the successor does not confirm them: {error}");
                resolve(ready, |_| true, sessions);
                return Err(error);
            }
        }
    }
}
