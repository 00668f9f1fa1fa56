//! The edits of a target's response on its way to the client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderValue, SET_COOKIE, TRANSFER_ENCODING};
use http::response::Parts as RespParts;
use http::{Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::context::Side;
use super::hop_by_hop::{drop_from_response, drop_hop_by_hop};
use super::intake::X_REQUEST_ID;
use super::pick::fail_with;
use super::{Context, Gateway, interim};
use crate::exchange::{Reason, Rejection};
use crate::filters::ResponseView;
use crate::rules::payload::Opaque;
use crate::upstreams::{TargetOutcome, misframed};

impl Gateway {
    /// Handles the head of a response. Fails when the request is to be retried.
    pub(super) fn handle_response(
        &self,
        session: &Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        // Done before Pingora copies the head with the case of every name.
        edit_response(response, |_| {});
        ctx.pace().iter().for_each(|pace| pace.end_head(response.status.is_informational()));
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
            ctx.interims.count += 1;
            if ctx.interims.count <= interim::MAX_INTERIM_RESPONSES {
                return Ok(());
            }
            ctx.visit.iter_mut().for_each(|visit| visit.report(TargetOutcome::GatewayFailed));
            return Err(fail_with(
                ctx,
                Rejection::new(Reason::TargetProtocol, "").log("the target sent too many interim responses"),
            ));
        }
        if let Some(why) = misframed(response) {
            ctx.visit.iter_mut().for_each(|visit| visit.report(TargetOutcome::GatewayFailed));
            return Err(fail_with(ctx, Rejection::new(Reason::TargetProtocol, "").log(why)));
        }
        self.report_response(response, ctx);
        if self.retry_response(session, response, ctx) {
            return Error::e_explain(ErrorType::HTTPStatus(response.status.as_u16()), "a response that causes a retry");
        }
        Ok(())
    }

    /// Reports to the target's health, breaker and log what its response says.
    pub(super) fn report_response(&self, response: &ResponseHeader, ctx: &mut Context) {
        if let Some(visit) = &mut ctx.visit {
            visit.note_response(response, ctx.exchange.grpc, Instant::now());
        }
    }

    /// Edits the head of the response: the route's filters run in reverse order.
    pub(super) fn edit_response_head(
        &self,
        request: &RequestHeader,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if response.status.is_informational() {
            if response.status != StatusCode::SWITCHING_PROTOCOLS {
                drop_from_response(response);
            }
            return Ok(());
        }
        ctx.status = response.status.as_u16();
        ctx.exchange.reason = Reason::Forwarded;
        // A response has the version that is spoken with the client (RFC 9112, section 2.3).
        response.set_version(Version::HTTP_11);
        if response.status == StatusCode::NO_CONTENT {
            // RFC 9110, section 8.6, and RFC 9112, section 6.1.
            response.remove_header(&CONTENT_LENGTH);
            response.remove_header(&TRANSFER_ENCODING);
        }
        ctx.downstream.progress.iter().for_each(|progress| progress.note_response_begun());
        edit_response(response, |headers| {
            drop_hop_by_hop(headers);
            headers.reserve(MAX_ADDED_RESPONSE_FIELDS);
            join_lengths(headers);
            if let Some(id) = &ctx.exchange.request_id {
                headers.insert(X_REQUEST_ID, id.clone());
            }
        });
        if let (true, Some(date), Some(connection)) =
            (request.version != Version::HTTP_2, response.headers.get(DATE), &ctx.downstream.connection)
        {
            connection.keep_date(date.clone());
        }
        if request.version == Version::HTTP_10 {
            // An HTTP/1.0 client knows no chunks: the end of the connection is the end of the body.
            response.remove_header(&TRANSFER_ENCODING);
        }
        if let Some(cookie) = ctx.visit.as_ref().and_then(|visit| visit.session_cookie(ctx.exchange.peer.is_secure())) {
            let _ = response.append_header(SET_COOKIE, cookie);
        }
        if is_bodiless(request, response) {
            ctx.end_of(Side::Response);
        }
        let serving = Arc::clone(&ctx.serving);
        let Some(route) = serving.route(ctx.matched.route) else { return Ok(()) };
        let whole = response.headers.contains_key(CONTENT_LENGTH);
        let pattern = serving.pattern(ctx.listener, ctx.matched.found());
        let view = ResponseView { request, exchange: &ctx.exchange, pattern, own: false };
        let edited = route.filters(ctx.listener).on_response(response, &view, &mut ctx.memories);
        ctx.body = edited.map_err(|rejection| fail_with(ctx, rejection))?;
        // A filter may have set another.
        ctx.status = response.status.as_u16();
        super::cache::edit_head(ctx, response);
        prepare_changed_body(request, response, whole, ctx)?;
        if is_bodiless(request, response) {
            ctx.memories.clear();
        }
        Ok(())
    }

    /// Edits a part of the response body. Returns how long to wait before it is sent, if the response has a pace.
    pub(super) fn edit_body(&self, body: &mut Option<Bytes>, end: bool, ctx: &mut Context) -> Result<Option<Duration>> {
        ctx.pace().iter().for_each(|pace| pace.pass());
        if ctx.deadline().is_some_and(|deadline| Instant::now() > deadline) {
            return Err(fail_with(ctx, Rejection::new(Reason::RouteTimeout, "")));
        }
        self.edit_body_untimed(body, end, ctx)
    }

    /// Edits a part of the response body, although the time of the route may be over.
    pub(super) fn edit_body_untimed(
        &self,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if let Err(why) = ctx.body.push(body, end) {
            let reason = if why == Opaque::Invalid { Reason::ResponseInvalid } else { Reason::ResponseOpaque };
            return Err(fail_with(ctx, Rejection::new(reason, "").log(why.to_string())));
        }
        if end {
            if let (Some(_), false, Some(connection)) = (&body, ctx.body.is_empty(), &ctx.downstream.connection) {
                // The last chunk follows at once.
                connection.cork();
            }
            // Done before the client has the last of the body: its next request never finds this one in its way.
            ctx.end_of(Side::Response);
            ctx.memories.clear();
        }
        Ok(ctx.exchange.pacing.response_delay(body.as_ref().map_or(0, Bytes::len)))
    }
}

/// Prepares for a body that passes through filters. `whole` says that the target's length was known.
fn prepare_changed_body(
    request: &RequestHeader,
    response: &mut ResponseHeader,
    whole: bool,
    ctx: &Context,
) -> Result<()> {
    if ctx.body.is_empty() {
        return Ok(());
    }
    if ctx.body.decodes() {
        ctx.pace().iter().for_each(|pace| pace.note_decoding());
    }
    if ctx.body.changes() {
        reframe(request, response)?;
    }
    if let (true, Some(connection)) = (whole, &ctx.downstream.connection) {
        // This is no event stream: the head may wait for the first bytes of the body and be sent with them.
        connection.cork();
    }
    Ok(())
}

/// Joins equal Content-Length fields into one (RFC 9110, section 8.6); a response in which they differ is rejected.
fn join_lengths(headers: &mut HeaderMap) {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let (Some(length), Some(_)) = (lengths.next().cloned(), lengths.next()) {
        headers.insert(CONTENT_LENGTH, length);
    }
}

/// The number of fields that are added to a response at most: the gateway's, Pingora's, and some for filters.
const MAX_ADDED_RESPONSE_FIELDS: usize = 6;

/// Edits the fields of a response in the map itself, as [`super::intake::edit_headers`] does those of a request.
/// Known names are sent in their usual case, others in lower case.
pub(super) fn edit_response(response: &mut ResponseHeader, edit: impl FnOnce(&mut HeaderMap)) {
    let reason = response.get_reason_phrase();
    let own_reason = reason.filter(|r| Some(*r) != response.status.canonical_reason()).map(str::to_owned);
    let placeholder = ResponseHeader::from(http::Response::new(()).into_parts().0);
    let mut parts: RespParts = std::mem::replace(response, placeholder).into();
    edit(&mut parts.headers);
    *response = parts.into();
    if let Some(reason) = own_reason {
        // The phrase came as a reason phrase, so it is a valid one.
        let _ = response.set_reason_phrase(Some(&reason));
    }
}

/// Returns whether a response ends with its head (RFC 9112, section 6.3).
fn is_bodiless(request: &RequestHeader, response: &ResponseHeader) -> bool {
    let empty = || response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
    request.method == Method::HEAD || matches!(response.status.as_u16(), 204 | 304) || empty()
}

/// Frames a body whose length is no longer known: in chunks where the client knows them.
fn reframe(request: &RequestHeader, response: &mut ResponseHeader) -> Result<()> {
    if request.version == Version::HTTP_11 && !is_bodiless(request, response) {
        response.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(())
}
