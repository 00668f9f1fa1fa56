//! Whether there still is a client, for work that a client waits for.

use std::time::Duration;

use super::connection::with_current;
use super::http2::Progress;

/// How often a request that waits looks whether its client is still there.
pub const LOOK: Duration = Duration::from_millis(50);

/// Resolves when the client of the running task has gone or, on HTTP/2, has reset the stream; never where the task has
/// none. To be awaited by a request's own task alone, which holds the stream.
pub async fn client_gone() {
    if let Some(progress) = Progress::current() {
        return progress.gone().await;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        match with_current(super::connection::Connection::is_gone) {
            Some(false) => {}
            Some(true) => return,
            None => std::future::pending().await,
        }
    }
}
