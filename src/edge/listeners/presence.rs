//! The client of the running task: whether it is still there, and how fast it reads.

use std::time::Duration;

use super::connection::{Connection, with_current};
use super::pace::Pace;
use super::progress::Progress;

/// How often a request that waits looks whether its client is still there.
pub const LOOK: Duration = Duration::from_millis(50);

/// When it looks for the first time: many a client that leaves does so at once.
const FIRST_LOOK: Duration = Duration::from_millis(2);

/// Resolves when the client of the running task has gone or, on HTTP/2, has reset the stream; never where the task has
/// none. To be awaited by a request's own task alone, which holds the stream.
pub async fn client_gone() {
    if let Some(progress) = Progress::current() {
        return progress.gone().await;
    }
    let mut pause = FIRST_LOOK;
    loop {
        tokio::time::sleep(pause).await;
        pause = LOOK.min(pause * 2);
        match with_current(Connection::is_gone) {
            Some(false) => {}
            Some(true) => return,
            None => std::future::pending().await,
        }
    }
}

/// Does something with the pace of the request that the running task serves. Nothing where there is no client, as
/// with a connection that is kept for a next request.
pub fn with_pace<T>(work: impl Fn(&Pace) -> T) -> Option<T> {
    Progress::with_current(|progress| work(&progress.pace)).or_else(|| with_current(|connection| work(&connection.pace)))
}
