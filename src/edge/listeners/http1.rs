//! HTTP/1: requests one after another on a connection.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingora::apps::ReusedHttpStream;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;

use super::admitted::Admitted;
use super::connection::{Connection, scope};
use super::guard::readable;
use super::linger::linger;
use super::service::{HttpService, RequestWork};
use super::wire::Fault;
use crate::exchange::Reason;
use crate::telemetry::Record;
use crate::telemetry::metrics::METRICS;

/// A connection between requests, where most are at any time: its fields are the cost of an idle one.
struct BetweenRequests {
    stream: Option<Stream>,
    /// The number of requests that it had.
    served: u32,
    connection: Arc<Connection>,
    service: Arc<HttpService>,
    _admitted: Admitted,
}

/// Serves a connection until either side closes it.
pub fn spawn(stream: Stream, connection: Arc<Connection>, service: Arc<HttpService>, admitted: Admitted) {
    let scoped = Arc::clone(&connection);
    let mut idle = BetweenRequests { stream: Some(stream), served: 0, connection, service, _admitted: admitted };
    let serving = async move {
        while idle.readable().await {
            let Some(work) = idle.serve_one() else { break };
            let reused = work.await;
            if !reused.is_some_and(|reused| idle.keep(reused)) {
                break;
            }
        }
        if let Some(left) = idle.end() {
            Box::pin(linger(left, &idle.connection)).await;
        }
    };
    tokio::spawn(scope(&scoped, serving));
}

impl BetweenRequests {
    /// Waits for a request and returns whether one comes.
    async fn readable(&mut self) -> bool {
        match &mut self.stream {
            Some(stream) => readable(stream).await.is_ok(),
            None => false,
        }
    }

    /// Serves the next request. What a session holds is in the box.
    fn serve_one(&mut self) -> Option<RequestWork<'_>> {
        let limits = self.service.limits();
        let mut session = ServerSession::new_http1(self.stream.take()?);
        // 0 is "no timer of Pingora's": the guard has the deadlines.
        session.set_keepalive(Some(0));
        session.set_keepalive_reuses_remaining(
            limits.requests_per_connection.map(|most| most.saturating_sub(1 + self.served)),
        );
        session.set_pipelining_enabled(true);
        session.set_read_timeout(Some(limits.body_idle_time));
        Some(self.service.http.serve(session, &self.service.shutdown))
    }

    /// Prepares the connection for its next request and returns whether it can be reused.
    fn keep(&mut self, reused: ReusedHttpStream) -> bool {
        // The connection also has what Pingora has read of a next request, and replays it.
        let (stream, _) = reused.consume();
        self.stream = Some(stream);
        self.served = self.served.saturating_add(1);
        self.connection.await_head(self.service.limits().idle_time);
        self.connection.rewind()
    }

    /// Ends the connection. Returns the rest of its socket where the client may still be sending.
    fn end(&mut self) -> Option<OwnedFd> {
        self.note_end();
        // A stream says only before it is dropped whether more may come on it.
        self.stream = None;
        self.connection.take_left()
    }

    /// Counts a head that was begun and not finished, and logs its rejection.
    fn note_end(&self) {
        if !self.connection.is_within_head() {
            return;
        }
        METRICS.refused.with_label_values(&["head"]).inc();
        if let Some(reason) = self.connection.take_rejected() {
            log_rejection(&self.service, &self.connection, reason);
        }
    }
}

/// Counts and logs a request that was rejected before its target was known.
fn log_rejection(service: &HttpService, connection: &Connection, reason: Reason) {
    METRICS.unrouted().observe(reason, reason.status(), 0.0);
    let serving = service.serving.serving();
    if serving.access_log.is_off() {
        return;
    }
    let client = connection.client();
    let record = Record {
        time: SystemTime::now(),
        client: client.text.as_bytes(),
        method: "-",
        host: "",
        path: "-",
        query: None,
        secret_parameters: &[],
        protocol: "HTTP/1.1",
        tls: client.tls(),
        status: reason.status(),
        reason,
        detail: connection.fault().map(Fault::text),
        would_reject: None,
        route: None,
        api_version: None,
        operation: None,
        upstream: None,
        target: None,
        consumer: None,
        duration: Duration::ZERO,
        upstream_time: None,
        tries: 0,
        cache: None,
        translation: None,
        bytes_in: 0,
        bytes_out: 0,
        request_id: None,
        trace_id: 0,
        user_agent: None,
        referer: None,
        view: None,
    };
    serving.access_log.push(&record, &serving.snapshot.log.1);
}
