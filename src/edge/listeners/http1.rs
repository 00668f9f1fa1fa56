//! HTTP/1: requests one after another on a connection.

use std::sync::Arc;

use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;

use super::connection::Connection;
use super::guard::readable;
use super::listening::Context;
use crate::telemetry::metrics::METRICS;

/// Serves a connection until either side closes it.
pub async fn serve(mut stream: Stream, connection: &Arc<Connection>, context: &Context) {
    let limits = context.limits();
    if readable(&mut stream).await.is_err() {
        return;
    }
    let mut session = ServerSession::new_http1(stream);
    // 0 is "no timer of Pingora's": the guard has the deadlines.
    session.set_keepalive(Some(0));
    session.set_keepalive_reuses_remaining(limits.requests_per_connection.map(|n| n.saturating_sub(1)));
    session.set_pipelining_enabled(true);
    loop {
        let limits = context.limits();
        session.set_read_timeout(Some(limits.body_idle_time));
        let result = context.proxy.process_new_http(session, &context.shutdown).await;
        if connection.is_within_head() {
            METRICS.refused.with_label_values(&["head"]).inc();
        }
        let Some((mut stream, settings)) = result.map(ReusedHttpStream::consume) else { return };
        // What was read of a next request is in the settings: it is not waited for.
        let nothing_more = connection.has_read_nothing_more();
        connection.await_head(limits.idle_time);
        if nothing_more && readable(&mut stream).await.is_err() {
            return;
        }
        session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        }
    }
}
