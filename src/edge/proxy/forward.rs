//! The head that the target is sent: path, host, client, ids, and how long it may take.

use std::time::Instant;

use http::Version;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, TE};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};

use super::deadline::{GRPC_TIMEOUT, forward_deadline};
use super::intake::{TRACEPARENT, X_FORWARDED_FOR, X_REQUEST_ID, edit_headers};
use super::{Context, Gateway};
use crate::actions::{Forward, Host, PathEdit};
use crate::exchange::{TraceState, tracestate};
use crate::rules::identity::forwarded_for;

use crate::upstreams::Member;

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The most fields that are added for a target, and some for filters.
const MAX_ADDED_REQUEST_FIELDS: usize = 11;

impl Gateway {
    /// Edits the head for the target: path, host, client, ids.
    pub(super) fn prepare(
        &self,
        came: &RequestHeader,
        request: &mut RequestHeader,
        member: &Member,
        deadline: Option<Instant>,
        ctx: &Context,
    ) -> Result<()> {
        let Some(forward) = ctx.forward() else { return Ok(()) };
        edit_target(came, request, forward, ctx)?;
        edit_fields(came, request, (forward, member), ctx);
        edit_headers(request, |headers| forward_deadline(headers, forward, deadline, ctx.exchange.grpc));
        Ok(())
    }

    /// Edits the head of a translated request for the target: its path is final.
    pub(super) fn prepare_translated(
        &self,
        came: &RequestHeader,
        request: &mut RequestHeader,
        (member, deadline, grpc): (&Member, Option<Instant>, bool),
        ctx: &Context,
    ) -> Result<()> {
        let Some(forward) = ctx.forward() else { return Ok(()) };
        edit_fields(came, request, (forward, member), ctx);
        edit_headers(request, |headers| {
            if grpc && deadline.is_some() {
                // Its value is written with the time that is left.
                headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("0m"));
            }
            forward_deadline(headers, forward, deadline, grpc);
        });
        Ok(())
    }
}

/// Edits the path and the query as the route's filters and its action say.
pub(super) fn edit_target(
    came: &RequestHeader,
    request: &mut RequestHeader,
    forward: &Forward,
    ctx: &Context,
) -> Result<()> {
    let edited = ctx.exchange.edits.apply_to_target(request, &ctx.view(came));
    edited.map_err(|why| Error::explain(ErrorType::InternalError, why))?;
    set_path(came, request, forward, ctx)
}

/// Edits the host and the fields.
fn edit_fields(
    came: &RequestHeader,
    request: &mut RequestHeader,
    (forward, member): (&Forward, &Member),
    ctx: &Context,
) {
    let host = host_for(came, forward, member);
    if let (Some(host), true) = (&host, request.uri.authority().is_some()) {
        set_authority(request, host);
    }
    let asked_for = requested_host(came);
    edit_headers(request, |headers| {
        // Reserved for all fields that are added, so that the map grows once.
        headers.reserve(MAX_ADDED_REQUEST_FIELDS);
        if let Some(host) = host {
            headers.insert(HOST, host);
        }
        write_forwarding_fields(headers, asked_for, ctx);
        write_prefix(headers, came.uri.path(), forward, ctx.exchange.peer_trusted);
        ctx.exchange.edits.apply_to_headers(headers, &ctx.view(came));
    });
}

/// Adds the fields that a target is sent, and the edits of the route's filters, with the host that was asked for.
pub(super) fn add_fields_for_target(
    came: &RequestHeader,
    request: &mut RequestHeader,
    forward: &Forward,
    ctx: &Context,
) {
    let asked_for = requested_host(came);
    edit_headers(request, |headers| {
        headers.reserve(MAX_ADDED_REQUEST_FIELDS);
        asked_for.iter().for_each(|host| _ = headers.insert(HOST, host.clone()));
        write_forwarding_fields(headers, asked_for, ctx);
        write_prefix(headers, came.uri.path(), forward, ctx.exchange.peer_trusted);
        ctx.exchange.edits.apply_to_headers(headers, &ctx.view(came));
    });
}

/// Returns the host that the client asked for, as it wrote it.
pub(super) fn requested_host(came: &RequestHeader) -> Option<HeaderValue> {
    came.headers.get(HOST).cloned().or_else(|| {
        let authority = came.uri.authority()?;
        HeaderValue::from_str(authority.as_str()).ok()
    })
}

/// Writes the fields for the client and the ids that link logs and traces.
pub(super) fn write_forwarding_fields(headers: &mut HeaderMap, asked_for: Option<HeaderValue>, ctx: &Context) {
    let exchange = &ctx.exchange;
    let list = match headers.contains_key(X_FORWARDED_FOR) {
        true => forwarded_for(
            headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes),
            exchange.peer.text.as_bytes(),
        ),
        false => exchange.peer.text.clone(),
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
    if !(exchange.peer_trusted && headers.contains_key(X_FORWARDED_PORT)) {
        match &ctx.downstream.connection {
            Some(connection) => headers.insert(X_FORWARDED_PORT, connection.listener_state.port_text.clone()),
            // A request that is made in place of a client's has no connection.
            None if exchange.listener_port > 0 => {
                headers.insert(X_FORWARDED_PORT, HeaderValue::from(exchange.listener_port))
            }
            None => headers.remove(X_FORWARDED_PORT),
        };
    }
    if let (Some(name), Some(identity)) = (&ctx.serving.snapshot.identity_headers.consumer, &exchange.identity)
        && let Ok(value) = HeaderValue::from_bytes(identity.name.as_bytes())
    {
        headers.insert(name.clone(), value);
    }
    if let Some(id) = &exchange.request_id {
        headers.insert(X_REQUEST_ID, id.clone());
    }
    headers.insert(TRACEPARENT, exchange.trace.header());
    if headers.contains_key(TRACESTATE) {
        let came =
            if exchange.trace.continued { tracestate(&headers.get_all(TRACESTATE)) } else { TraceState::Invalid };
        match came {
            TraceState::Valid => {}
            TraceState::Other(value) => _ = headers.insert(TRACESTATE, value),
            TraceState::Invalid => _ = headers.remove(TRACESTATE),
        }
    }
    if exchange.grpc {
        // Pingora drops it with the hop-by-hop headers; gRPC targets require it.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Writes the prefix that was stripped from the path, behind that of a trusted proxy.
fn write_prefix(headers: &mut HeaderMap, path: &str, forward: &Forward, trusted: bool) {
    let begins = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let stripped = match &forward.path {
        PathEdit::Strip(prefix) if begins(prefix) => prefix,
        _ => {
            if !trusted {
                headers.remove(X_FORWARDED_PREFIX);
            }
            return;
        }
    };
    let before = headers.get(X_FORWARDED_PREFIX).filter(|_| trusted).map_or(&b""[..], HeaderValue::as_bytes);
    if let Ok(value) = HeaderValue::from_bytes(&[before, stripped.as_bytes()].concat()) {
        headers.insert(X_FORWARDED_PREFIX, value);
    }
}

fn set_path(came: &RequestHeader, request: &mut RequestHeader, forward: &Forward, ctx: &Context) -> Result<()> {
    let Some(target) = forward.changed_target(request.uri.path(), request.uri.query(), &ctx.view(came)) else {
        return Ok(());
    };
    let mut parts = request.uri.clone().into_parts();
    let malformed = |_| Error::explain(ErrorType::InternalError, "the rewritten path is malformed");
    parts.path_and_query = Some(target.parse().map_err(malformed)?);
    let uri = http::Uri::from_parts(parts).map_err(|_| Error::new(ErrorType::InternalError))?;
    request.set_uri(uri);
    Ok(())
}

/// Returns the `Host` for the target, where it differs from the client's.
fn host_for(came: &RequestHeader, forward: &Forward, member: &Member) -> Option<HeaderValue> {
    let own = || Some(member.authority.clone());
    match &forward.host {
        // HTTP/1.0 may come without one; the target gets its own name then.
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
