//! HTTP/1: requests one after another on a connection.

use std::pin::Pin;
use std::sync::Arc;

use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;

use super::connection::Connection;
use super::guard::readable;
use super::listening::Context;
use crate::telemetry::metrics::METRICS;

/// Serves a connection until either side closes it.
pub async fn serve(mut stream: Stream, connection: &Arc<Connection>, context: &Context) {
    let mut settings = None;
    if readable(&mut stream).await.is_err() {
        return;
    }
    loop {
        let reused = serve_one(stream, settings, context).await;
        if connection.is_within_head() {
            METRICS.refused.with_label_values(&["head"]).inc();
        }
        let Some(reused) = reused.map(ReusedHttpStream::consume) else { return };
        (stream, settings) = reused;
        // What was read of a next request is in the settings: it is not waited for.
        let nothing_more = connection.has_read_nothing_more();
        connection.await_head(context.limits().idle_time);
        if nothing_more && readable(&mut stream).await.is_err() {
            return;
        }
    }
}

type Work<'w> = Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'w>>;

/// Serves the next request. What a session holds is in the box, and not in the connection's task, which idles
/// without one most of the time.
fn serve_one(stream: Stream, settings: Option<HttpPersistentSettings>, context: &Context) -> Work<'_> {
    let limits = context.limits();
    let mut session = ServerSession::new_http1(stream);
    match settings {
        Some(settings) => settings.apply_to_session(&mut session),
        None => {
            // 0 is "no timer of Pingora's": the guard has the deadlines.
            session.set_keepalive(Some(0));
            session.set_keepalive_reuses_remaining(limits.requests_per_connection.map(|n| n.saturating_sub(1)));
            session.set_pipelining_enabled(true);
        }
    }
    session.set_read_timeout(Some(limits.body_idle_time));
    context.proxy.process_new_http(session, &context.shutdown)
}
