//! The client of the running task: whether it is still there, and how fast it reads.

use std::time::Duration;

use super::connection::{Connection, with_current};
use super::pace::Pace;
use super::progress::Progress;

/// How often a waiting request checks whether its client is still there.
pub const PRESENCE_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// When it checks for the first time: many clients that leave do so at once.
const FIRST_PRESENCE_CHECK: Duration = Duration::from_millis(2);

/// Resolves when the client of the running task has gone or, on HTTP/2, has reset the stream; never where the task
/// has none. Only the request's own task, which holds the stream, may await it.
pub async fn client_gone() {
    if let Some(progress) = Progress::current() {
        return progress.gone().await;
    }
    let mut pause = FIRST_PRESENCE_CHECK;
    loop {
        tokio::time::sleep(pause).await;
        pause = PRESENCE_CHECK_INTERVAL.min(pause * 2);
        match with_current(Connection::is_gone) {
            Some(false) => {}
            Some(true) => return,
            None => std::future::pending().await,
        }
    }
}

/// Calls `work` with the pace of the request that the running task serves. Does nothing where there is no client, as
/// with an idle connection to a target.
pub fn with_pace<T>(work: impl Fn(&Pace) -> T) -> Option<T> {
    Progress::with_current(|progress| work(&progress.pace))
        .or_else(|| with_current(|connection| work(&connection.pace)))
}
