//! The gateway's own responses.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Method, Version};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;

use super::intake::X_REQUEST_ID;
use super::{Context, Gateway};
use crate::exchange::{Connect, Reason, Rejection, render};
use crate::filters::ResponseView;

impl Gateway {
    /// Responds with a rejection.
    pub(super) async fn reject(&self, session: &mut Session, rejection: &Rejection, ctx: &mut Context) -> Result<()> {
        note_protocol(session.req_header(), ctx);
        let page = if ctx.exchange.is_grpc() || ctx.exchange.connect.is_some() || rejection.relayed.is_some() {
            None
        } else {
            ctx.error_page(rejection, session.req_header())
        };
        let rendered = render(rejection, &ctx.exchange, page);
        if matches!(rejection.reason, Reason::BadRequest | Reason::BadPath | Reason::HeadersTooLarge) {
            // Where a request was read one way, the bytes behind it may have been meant another way.
            ctx.close_after(session);
        }
        ctx.exchange.detail.clone_from(&rejection.log);
        self.respond(session, ctx, rejection.reason, rendered.status, &rendered.headers, rendered.body).await
    }

    /// Writes a response, edited by the route's filters.
    pub(super) async fn respond(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        reason: Reason,
        status: u16,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<()> {
        ctx.exchange.reason = reason;
        ctx.status = status;
        ctx.end_with_the_listener(session);
        // The target's response that this one replaces may have had a date.
        ctx.downstream.connection.iter().for_each(|connection| drop(connection.take_date()));
        let mut response = ResponseHeader::build(status, Some(headers.len() + 8))?;
        for (name, value) in headers {
            response.append_header(name.clone(), value.clone())?;
        }
        // A gRPC response is its head alone here ("Trailers-Only"), and has no length.
        let is_grpc = ctx.exchange.grpc && session.req_header().version == Version::HTTP_2;
        if status != 204 && status != 304 && !is_grpc {
            response.insert_header(CONTENT_LENGTH, body.len())?;
        }
        if let Some(id) = &ctx.exchange.request_id {
            response.insert_header(X_REQUEST_ID, id.clone())?;
        }
        if let Some(route) = ctx.serving.route(ctx.matched.route) {
            let pattern = ctx.serving.pattern(ctx.listener, ctx.matched.found());
            let view = ResponseView { request: session.req_header(), exchange: &ctx.exchange, pattern, own: true };
            route.filters(ctx.listener).on_head(&mut response, &view, &mut ctx.memories);
        } else if let Some(chain) = ctx.serving.unrouted(ctx.listener) {
            let view =
                ResponseView { request: session.req_header(), exchange: &ctx.exchange, pattern: None, own: true };
            chain.on_head(&mut response, &view, &mut ctx.memories);
        }
        ctx.memories.clear();
        let bodiless = session.req_header().method == Method::HEAD || body.is_empty();
        drain_short_rest(session);
        // Sent as tasks: on HTTP/2 Pingora's `write_response_header` loses that the head is the end.
        let mut tasks = vec![HttpTask::Header(Box::new(response), bodiless)];
        if !bodiless {
            tasks.push(HttpTask::Body(Some(body), true));
        }
        session.write_response_tasks(tasks).await?;
        Ok(())
    }
}

/// Notes in which form of gRPC-Web or of the Connect protocol the client reads rejections. Few requests are rejected, so
/// it is not looked for before.
fn note_protocol(request: &RequestHeader, ctx: &mut Context) {
    if let Some(web) = &mut ctx.exchange.grpc_web {
        *web = web.accepted(request.headers.get_all(ACCEPT));
        return;
    }
    ctx.exchange.connect = Connect::of(request).filter(|connect| {
        let translation = || ctx.forward()?.translation(&ctx.view(request));
        connect.is_named_by(request) || translation().is_some_and(|it| it.protocols().from == "connect")
    });
}

/// How long the rest of a short body is waited for once the response is sent.
const BODY_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest body that is drained so that the connection can be reused.
const MAX_DRAINED_BODY: u64 = 64 * 1024;

/// Has the rest of a short request body drained once the response is sent. Called before the response is written,
/// because that ends what can be asked of the request. On HTTP/2 the stream itself drains the rest of its body.
pub(super) fn drain_short_rest(session: &mut Session) {
    if has_short_rest(session) {
        // Pingora drains the rest when the response is sent, and keeps the connection.
        session.set_close_on_response_before_downstream_finish(false);
        session.set_total_drain_timeout(Some(BODY_DRAIN_TIMEOUT));
    }
}

/// Returns whether the rest of the body is to be drained: its length is known and short. Otherwise the connection is
/// closed after the response. A client that waits for 100 (Continue) may send its body or not, so it is unknown what
/// comes next (RFC 9110, section 10.1.1).
fn has_short_rest(session: &mut Session) -> bool {
    if session.is_body_done() {
        return false;
    }
    let request = session.req_header();
    let length = request.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length <= MAX_DRAINED_BODY) && !request.headers.contains_key(http::header::EXPECT)
}
