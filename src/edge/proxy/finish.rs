//! The request has ended: metrics and the log line, from one record.

use std::time::SystemTime;

use http::Version;
use pingora::Error;
use pingora::proxy::Session;

use super::{Context, Gateway};
use crate::exchange::Reason;
use crate::telemetry::Record;
use crate::telemetry::metrics::METRICS;

impl Gateway {
    /// Counts and logs.
    pub(super) fn finish(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        // The guards go first: whoever sees the log line sees the counters without this request.
        let target = ctx.picked.take().map(|p| std::sync::Arc::clone(&p.member));
        if let (Some(_), Reason::Forwarded) = (error, ctx.exchange.reason) {
            // The answer had begun and was broken off without a word from the other phases.
            ctx.exchange.reason = Reason::TargetReset;
        }
        let duration = ctx.exchange.started.elapsed();
        let exchange = &ctx.exchange;
        METRICS.ended(exchange.reason);
        if let Some(route) = &ctx.route {
            route.metrics().observe(ctx.status, duration.as_secs_f64());
        }
        let request = match &ctx.head {
            Some(head) => head.as_ref(),
            None => session.req_header(),
        };
        let (bytes_in, bytes_out) = match ctx.tunnelled {
            Some((bytes_in, bytes_out)) => (bytes_in, bytes_out),
            None => (session.body_bytes_read() as u64, session.body_bytes_sent() as u64),
        };
        let upstream_time = ctx.forwarded.zip(ctx.answered).map(|(from, to)| to.saturating_duration_since(from));
        ctx.serving.access_log.push(&Record {
            time: SystemTime::now(),
            client: exchange.client,
            method: request.method.as_str(),
            host: &exchange.host,
            path: request.uri.path(),
            query: request.uri.query(),
            protocol: protocol(request.version),
            status: ctx.status,
            reason: exchange.reason,
            detail: exchange.detail.as_deref(),
            route: ctx.route.as_ref().map(|r| r.name.as_str()),
            upstream: ctx.upstream.as_ref().map(|u| u.name.as_str()),
            target: target.as_ref().map(|m| m.target.label.as_str()),
            consumer: exchange.identity.as_ref().map(|i| &*i.name),
            duration,
            upstream_time,
            tries: ctx.tries,
            bytes_in,
            bytes_out,
            request_id: exchange.request_id.as_ref().map(http::HeaderValue::as_bytes),
            trace_id: exchange.trace.trace_id,
            user_agent: request.headers.get(http::header::USER_AGENT).map(http::HeaderValue::as_bytes),
        });
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
