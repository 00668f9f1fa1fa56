//! Towards the target: which one, and what it is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Version;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, TE};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::intake::{TRACEPARENT, X_FORWARDED_FOR, X_REQUEST_ID, edit_headers};
use super::route::params;
use super::{Context, Gateway};
use crate::exchange::{Reason, Rejection};
use crate::rules::balance::{Ask, Balance, Loads};
use crate::rules::identity::forwarded_for;
use crate::snapshot::{Forward, Host, PathEdit, Upstream};

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A split is by weight alone.
struct NoLoads;

impl Loads for NoLoads {
    fn active(&self, _: usize) -> u32 {
        0
    }

    fn latency(&self, _: usize) -> f64 {
        0.0
    }
}

fn choose(forward: &Forward) -> Option<&std::sync::Arc<Upstream>> {
    match &forward.split {
        None => forward.upstreams.first(),
        Some(split) => {
            let ask = Ask { key: None, random: 0, loads: &NoLoads, tried: &[] };
            forward.upstreams.get(split.pick(&ask)?)
        }
    }
}

impl Gateway {
    /// Picks a target and says how to reach it.
    pub(super) fn pick(&self, _session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let now = Instant::now();
        if ctx.upstream.is_none() {
            let (upstream, timeout) = match ctx.forward() {
                Some(forward) => (choose(forward).cloned(), forward.timeout),
                None => (None, None),
            };
            ctx.deadline = timeout.map(|t| ctx.exchange.started + t);
            ctx.upstream = upstream;
            if let (Some(route), false) = (&ctx.route, ctx.counted) {
                route.metrics().in_flight.inc();
                ctx.counted = true;
            }
        }
        ctx.tries += 1;
        // Each attempt sends the body from its beginning.
        ctx.body_seen = 0;
        ctx.forwarded = Some(now);
        let left = ctx.deadline.map(|deadline| deadline.saturating_duration_since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(refuse(ctx, Rejection::new(Reason::RouteTimeout, "")));
        }
        // The guard of an earlier attempt is let go before the next is counted.
        ctx.picked = None;
        ctx.picked = ctx.upstream.as_ref().and_then(|u| u.pool.pick(None, &ctx.tried));
        let Some(picked) = &ctx.picked else {
            let rejection = no_target(ctx);
            return Err(refuse(ctx, rejection));
        };
        let mut peer = Box::new(picked.member.peer.clone());
        if let Some(left) = left {
            cap(&mut peer, left);
        }
        Ok(peer)
    }

    /// Counts the connection.
    pub(super) fn connected(&self, reused: bool, ctx: &Context) {
        let Some(upstream) = &ctx.upstream else { return };
        if reused {
            upstream.metrics.reused.inc();
        } else {
            upstream.metrics.connections.inc();
            if let Some(from) = ctx.forwarded {
                upstream.metrics.connect.observe(from.elapsed().as_secs_f64());
            }
        }
    }

    /// Writes what the target is told: path, host, who asks, ids.
    pub(super) fn prepare(&self, came: &RequestHeader, request: &mut RequestHeader, ctx: &Context) -> Result<()> {
        let Some(forward) = ctx.forward() else { return Ok(()) };
        set_path(request, forward, ctx)?;
        let host = host_for(came, forward, ctx);
        if let (Some(host), true) = (&host, request.uri.authority().is_some()) {
            set_authority(request, host);
        }
        let asked_for = came.headers.get(HOST).cloned().or_else(|| {
            let authority = came.uri.authority()?;
            HeaderValue::from_str(authority.as_str()).ok()
        });
        edit_headers(request, |headers| {
            if let Some(host) = host {
                headers.insert(HOST, host);
            }
            tell(headers, asked_for, ctx);
        });
        Ok(())
    }
}

/// Who asks, and the ids that lead through logs and traces.
fn tell(headers: &mut HeaderMap, asked_for: Option<HeaderValue>, ctx: &Context) {
    let exchange = &ctx.exchange;
    let list = match headers.contains_key(X_FORWARDED_FOR) {
        true => forwarded_for(headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes), exchange.peer_text.as_bytes()),
        false => exchange.peer_text.clone(),
    };
    headers.insert(X_FORWARDED_FOR, list);
    headers.insert(X_REAL_IP, exchange.client_text.clone());
    // Of the two families of forwarding headers one is kept, so that no target trusts the other.
    headers.remove(FORWARDED);
    if !(exchange.peer_trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(exchange.scheme()));
    }
    if !(exchange.peer_trusted && headers.contains_key(X_FORWARDED_HOST)) {
        match asked_for {
            Some(host) => headers.insert(X_FORWARDED_HOST, host),
            None => headers.remove(X_FORWARDED_HOST),
        };
    }
    if let Some(id) = &exchange.request_id {
        headers.insert(X_REQUEST_ID, id.clone());
    }
    headers.insert(TRACEPARENT, exchange.trace.header());
    if !exchange.trace.continued {
        headers.remove(TRACESTATE);
    }
    if exchange.grpc {
        // Pingora drops it with the hop-by-hop headers; gRPC targets insist on it.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Keeps a rejection for the answer, and fails with it.
pub(super) fn refuse(ctx: &mut Context, rejection: Box<Rejection>) -> Box<Error> {
    let status = rejection.reason.status();
    ctx.rejection = Some(rejection);
    Error::new(ErrorType::HTTPStatus(status))
}

/// Why there is no target: none that is healthy, none at all, or none that was not tried.
fn no_target(ctx: &Context) -> Box<Rejection> {
    let name = ctx.upstream.as_ref().map_or("", |u| u.name.as_str());
    let total = ctx.upstream.as_ref().map_or(0, |u| u.pool.choice().total);
    if total == 0 {
        return Rejection::new(Reason::DnsError, "").log(format!("upstream {name} has no targets: no name could be resolved"));
    }
    Rejection::new(Reason::NoHealthyTarget, "")
        .log(format!("upstream {name}: none of {total} targets may be picked, {} were tried", ctx.tried.len()))
}

/// No step may take longer than the route has left.
fn cap(peer: &mut HttpPeer, left: Duration) {
    let options = &mut peer.options;
    for limit in
        [&mut options.connection_timeout, &mut options.total_connection_timeout, &mut options.read_timeout, &mut options.write_timeout]
    {
        *limit = Some(limit.map_or(left, |l| l.min(left)));
    }
}

fn set_path(request: &mut RequestHeader, forward: &Forward, ctx: &Context) -> Result<()> {
    let path = request.uri.path();
    let changed = match &forward.path {
        PathEdit::Keep => return Ok(()),
        PathEdit::Strip(prefix) => match path.strip_prefix(prefix.as_str()) {
            Some("") => "/".to_owned(),
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            _ => return Ok(()),
        },
        PathEdit::Rewrite(template) => {
            let params = params(ctx, path);
            let rest = rest_of(ctx, path);
            template.fill(|name| if name == "*" { Some(rest) } else { params.iter().find(|(n, _)| *n == name).map(|(_, v)| *v) })
        }
    };
    let target = match request.uri.query() {
        Some(query) => format!("{changed}?{query}"),
        None => changed,
    };
    let mut parts = request.uri.clone().into_parts();
    let malformed = |_| Error::explain(ErrorType::InternalError, "the rewritten path is malformed");
    parts.path_and_query = Some(target.parse().map_err(malformed)?);
    let uri = http::Uri::from_parts(parts).map_err(|_| Error::new(ErrorType::InternalError))?;
    request.set_uri(uri);
    Ok(())
}

/// What the `/*` of the route's path took, without its slash.
fn rest_of<'p>(ctx: &Context, path: &'p str) -> &'p str {
    use crate::rules::routing::PathPattern;
    let router = ctx.listener.and_then(|l| ctx.serving.snapshot.routers.get(l));
    let Some(PathPattern::Segments { segments, rest: true }) = router.map(|r| &r.entry(ctx.entry).path) else { return "" };
    let mut rest = path.get(1..).unwrap_or_default();
    for _ in segments {
        rest = rest.split_once('/').map_or("", |(_, rest)| rest);
    }
    rest
}

/// `Host` for the target, where it is another than the client's.
fn host_for(came: &RequestHeader, forward: &Forward, ctx: &Context) -> Option<HeaderValue> {
    let own = || ctx.picked.as_ref().map(|p| p.member.authority.clone());
    match &forward.host {
        // HTTP/1.0 may come without; the target is told its own name then.
        Host::Keep if came.version != Version::HTTP_2 && !came.headers.contains_key(HOST) => own(),
        Host::Keep => None,
        Host::Target => own(),
        Host::Text(text) => Some(text.clone()),
    }
}

fn set_authority(request: &mut RequestHeader, host: &HeaderValue) {
    let mut parts = request.uri.clone().into_parts();
    parts.authority = host.to_str().ok().and_then(|h| h.parse().ok());
    if let Ok(uri) = http::Uri::from_parts(parts) {
        request.set_uri(uri);
    }
}

/// The address of the target that was picked last.
pub(super) fn picked_address(ctx: &Context) -> Option<SocketAddr> {
    ctx.picked.as_ref().map(|p| p.member.target.address)
}
