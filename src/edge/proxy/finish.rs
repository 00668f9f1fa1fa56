//! The end of a request: metrics and the log line, from one record.

use std::time::SystemTime;

use http::Version;
use pingora::Error;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::{Context, Gateway};
use crate::exchange::Reason;
use crate::rules::caching::CacheOutcome;
use crate::telemetry::Record;
use crate::telemetry::metrics::METRICS;
use crate::upstreams::Visit;

impl Gateway {
    /// Counts and logs the request.
    pub(super) fn finish(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        let broken_off = error.is_some() && ctx.exchange.reason == Reason::Forwarded && !ctx.ending.ended_by_reset;
        if broken_off {
            // The response had begun and was broken off, and no other phase has noted why.
            ctx.exchange.reason = Reason::TargetReset;
        }
        if ctx.downstream.connection.as_ref().is_some_and(|connection| connection.is_cut()) {
            ctx.exchange.reason = Reason::Cut;
        }
        let head = ctx.ending.head.take();
        let request = head.as_deref().unwrap_or_else(|| session.req_header());
        let bytes = ctx
            .ending
            .tunnelled
            .unwrap_or_else(|| (session.body_bytes_read() as u64, session.body_bytes_sent() as u64));
        record(ctx, request, bytes);
    }
}

/// Counts and logs a request once.
fn record(ctx: &mut Context, request: &RequestHeader, (bytes_in, bytes_out): (u64, u64)) {
    ctx.ending.recorded = true;
    // The guards are dropped first: whoever reads the log line finds the counters without this request.
    ctx.visit.iter_mut().for_each(Visit::end);
    let duration = ctx.exchange.started.elapsed();
    let exchange = &ctx.exchange;
    let metrics = ctx.route().map_or_else(|| METRICS.unrouted(), |route| route.metrics());
    metrics.observe(exchange.reason, ctx.status, duration.as_secs_f64());
    exchange.cache.iter().for_each(|outcome| metrics.count_cache(*outcome));
    if let (Some(note), Some(route)) = (&exchange.translation, ctx.route()) {
        METRICS.translated(&route.name, note.from, note.to);
    }
    if let (Some(note), Some(route)) = (&exchange.graphql, ctx.route()) {
        note.kinds.iter().for_each(|kind| METRICS.graphql(&route.name, kind));
    }
    if let Some(version) = &ctx.matched.version {
        version.get().usage.count(exchange.identity.as_ref().and_then(|identity| identity.consumer_name()));
    }
    if let Some(operation) = ctx.route().and_then(|route| route.operation_metrics(exchange)) {
        operation.observe(ctx.status, duration.as_secs_f64());
    }
    if let Some(visit) = &ctx.visit {
        visit.upstream().metrics().by_class.count(ctx.status);
        visit.count_traffic([bytes_in, bytes_out]);
    }
    if ctx.serving.access_log.is_off() {
        return;
    }
    let visit = ctx.visit.as_ref();
    let fetched = ctx.cache.as_ref().and_then(|cache| cache.from.as_ref());
    let record = Record {
        time: SystemTime::now(),
        client: exchange.client_text.as_bytes(),
        method: request.method.as_str(),
        host: &exchange.host,
        path: request.uri.path(),
        query: request.uri.query(),
        secret_parameters: &ctx.serving.snapshot.secret_parameters,
        protocol: protocol(request.version),
        tls: exchange.peer.tls(),
        status: ctx.status,
        reason: exchange.reason,
        detail: exchange.detail.as_deref(),
        would_reject: exchange.would_reject.as_deref(),
        route: ctx.route().map(|r| r.name.as_str()),
        api_version: ctx.matched.version.as_ref().map(|one| (one.api.name.as_str(), one.get().name.as_str())),
        operation: ctx
            .route()
            .and_then(|r| r.api.as_ref()?.operation(exchange))
            .map(|one| one.id.as_str())
            .or(exchange.translation.as_ref().and_then(|note| note.operation.as_deref()))
            .or(exchange.graphql.as_ref().and_then(|note| note.name.as_deref())),
        upstream: visit.map(Visit::upstream).or(fetched.map(|from| &from.upstream)).map(|one| one.name.as_str()),
        target: visit
            .and_then(Visit::member)
            .or(fetched.and_then(|from| from.member.as_ref()))
            .map(|member| member.target.label.as_str()),
        cache: exchange.cache.map(CacheOutcome::word),
        translation: exchange.translation.as_deref(),
        consumer: exchange.identity.as_ref().map(|i| &*i.name),
        duration,
        upstream_time: visit.and_then(Visit::response_time).or(fetched.and_then(|from| from.time)),
        tries: visit.map(Visit::tries).or(fetched.map(|from| from.tries)).unwrap_or(0),
        bytes_in,
        bytes_out,
        request_id: exchange.request_id.as_ref().map(http::HeaderValue::as_bytes),
        trace_id: exchange.trace.trace_id,
        user_agent: request.headers.get(http::header::USER_AGENT).map(http::HeaderValue::as_bytes),
        referer: request.headers.get(http::header::REFERER).map(http::HeaderValue::as_bytes),
        view: Some(ctx.view(request)),
    };
    ctx.serving.access_log.push(&record, &ctx.serving.snapshot.log.1);
}

impl Drop for Context {
    /// Records a request whose work was dropped in the middle, as with a stalled stream.
    fn drop(&mut self) {
        if let (false, Some(head)) = (self.ending.recorded, self.ending.head.take()) {
            let gone = self.downstream.progress.is_some() && self.downstream.is_gone();
            self.exchange.reason = if gone { Reason::ClientGone } else { Reason::ClientTimeout };
            let bytes_in = self.request_body.seen;
            record(self, &head, (bytes_in, 0));
        }
        if let (true, Some(route)) = (self.matched.counted, self.route()) {
            route.metrics().in_flight.dec();
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
