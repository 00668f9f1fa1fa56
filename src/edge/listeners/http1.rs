//! HTTP/1: requests one after another on a connection.

use std::pin::Pin;
use std::sync::Arc;

use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;

use super::admit::Held;
use super::connection::{Connection, scope};
use super::guard::readable;
use super::listening::Context;
use crate::telemetry::metrics::METRICS;

/// A connection between requests, which is where most are at any time: what is here is what an idle one costs.
struct Idle {
    stream: Option<Stream>,
    /// With what was read of a next request, if anything was.
    settings: Option<Box<HttpPersistentSettings>>,
    /// Requests that it had.
    served: u32,
    connection: Arc<Connection>,
    context: Arc<Context>,
    _held: Held,
}

type Work<'w> = Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'w>>;

/// Serves a connection until either side closes it.
pub fn spawn(stream: Stream, connection: Arc<Connection>, context: Arc<Context>, held: Held) {
    let scoped = Arc::clone(&connection);
    let mut idle = Idle { stream: Some(stream), settings: None, served: 0, connection, context, _held: held };
    let serving = async move {
        let mut wait = true;
        while !wait || idle.readable().await {
            let Some(work) = idle.serve_one() else { return };
            let Some(reused) = work.await else { return idle.note_end() };
            wait = idle.keep(reused);
        }
    };
    tokio::spawn(scope(&scoped, serving));
}

impl Idle {
    /// Waits for a request; whether one comes.
    async fn readable(&mut self) -> bool {
        match &mut self.stream {
            Some(stream) => readable(stream).await.is_ok(),
            None => false,
        }
    }

    /// Serves the next request. What a session holds is in the box.
    fn serve_one(&mut self) -> Option<Work<'_>> {
        let limits = self.context.limits();
        let mut session = ServerSession::new_http1(self.stream.take()?);
        if let Some(settings) = self.settings.take() {
            settings.apply_to_session(&mut session);
        }
        // 0 is "no timer of Pingora's": the guard has the deadlines.
        session.set_keepalive(Some(0));
        session.set_keepalive_reuses_remaining(limits.requests_per_connection.map(|most| most.saturating_sub(1 + self.served)));
        session.set_pipelining_enabled(true);
        session.set_read_timeout(Some(limits.body_idle_time));
        Some(self.context.proxy.process_new_http(session, &self.context.shutdown))
    }

    /// Keeps the connection for a next request; whether that is to be waited for.
    fn keep(&mut self, reused: ReusedHttpStream) -> bool {
        self.note_end();
        let (stream, settings) = reused.consume();
        // What was read of a next request is in the settings: it is not waited for.
        let nothing_more = self.connection.has_read_nothing_more();
        self.stream = Some(stream);
        self.settings = settings.filter(|_| !nothing_more).map(Box::new);
        self.served = self.served.saturating_add(1);
        let limits = self.context.limits();
        self.connection.await_head(limits.idle_time, limits.header_time);
        nothing_more
    }

    /// Counts a head that was begun and not finished.
    fn note_end(&self) {
        if self.connection.is_within_head() {
            METRICS.refused.with_label_values(&["head"]).inc();
        }
    }
}
