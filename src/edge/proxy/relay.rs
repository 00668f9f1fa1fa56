//! The relay, which is the one forwarder beside Pingora's own: it sends the request to the targets of a visit, and
//! sends their response to the client.
//!
//! Pingora's proxy speaks to one target per request, and loses tunnels. So hedged requests and WebSockets take this
//! way, and everything else that has a response of its own. It decides once for all of them: hop-by-hop fields, the
//! framing for each version of HTTP, interim responses, timeouts, a client that is gone, and the reuse of both
//! connections.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::sync::mpsc::channel;

use super::context::Side;
use super::failure::is_method_repeatable;
use super::hop_by_hop::drop_from_request;
use super::interim::Interims;
use super::pick::{connecting_caller, fail_with};
use super::sockets::SEC_WEBSOCKET_EXTENSIONS;
use super::waiting::{Waited, pause, wait};
use super::{Context, Gateway, interim, mirror};
use crate::exchange::{Reason, Rejection};
use crate::upstreams::{Member, OutgoingRequest, Response, Visit};

/// Returns whether the request may be hedged: it has no body, and no effect that could happen twice.
fn may_hedge(session: &mut Session, ctx: &Context) -> bool {
    let wanted = ctx.upstream().is_some_and(|u| u.retry.hedge_after.is_some() && u.retry.attempts > 1);
    wanted && is_method_repeatable(&session.req_header().method, ctx) && session.is_body_empty()
}

/// Returns whether a request is relayed: one that is hedged; and one of HTTP/1.0 to an HTTP/2 target, whose response
/// Pingora's proxy would send in chunks, which that client does not know (RFC 9112, section 6.1); and one whose
/// response may be replaced once its body is known. Its body is none, or is held whole.
pub(super) fn is_relayed(session: &mut Session, ctx: &Context) -> bool {
    let speaks_http2 = |member: &Member| member.peer.options.alpn.get_max_http_version() == 2;
    if session.req_header().version == Version::HTTP_10
        && ctx.visit.as_ref().and_then(Visit::member).is_some_and(|m| speaks_http2(m))
    {
        return session.is_body_empty() || ctx.whole.is_some();
    }
    // What is to be stored passes through Pingora's cache, which the relay does not fill.
    if !session.cache.enabled() && ctx.route().is_some_and(|route| route.filters(ctx.listener).judges_responses()) {
        return session.is_body_empty() || ctx.whole.is_some();
    }
    may_hedge(session, ctx)
}

impl Gateway {
    /// Sends the request to the targets of its visit, and sends the response to the client.
    pub(super) async fn relay(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let hedged = may_hedge(session, ctx);
        match self.fetch(session, ctx, hedged, false).await {
            Ok(response) => self.send_response(session, ctx, response).await,
            Err(error) => {
                self.respond_to_failure(session, &error, ctx).await;
                Ok(())
            }
        }
    }

    /// Sends the request to the targets of its visit and returns the response, while the client waits for it and gets
    /// the interim responses. An upgrade is one to WebSocket.
    pub(super) async fn fetch(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        hedged: bool,
        upgrade: bool,
    ) -> Result<Response> {
        let mut head = session.req_header().clone();
        drop_from_request(&mut head);
        if upgrade {
            // Some clients send one of 0; such a request has no body.
            head.remove_header(&CONTENT_LENGTH);
            if ctx.forward().is_some_and(|forward| forward.websocket.frames.is_some_and(|it| it.message.is_some())) {
                // What is compressed has another length than what was meant to be limited.
                head.remove_header(&SEC_WEBSOCKET_EXTENSIONS);
            }
        }
        let body = ctx.whole.as_ref().map_or_else(Bytes::new, |whole| whole.bytes());
        if ctx.whole.is_some() {
            head.remove_header(&TRANSFER_ENCODING);
            head.remove_header(&EXPECT);
            head.insert_header(CONTENT_LENGTH, body.len())?;
        }
        let Some(mut visit) = ctx.visit.take() else { return Error::err(ErrorType::InternalError) };
        if !upgrade {
            self.mirror_relayed(&head, &body, &visit, ctx)?;
        }
        ctx.pace().iter().for_each(|pace| pace.begin(None, false));
        let mut interims = std::mem::take(&mut ctx.interims);
        let asking = RelayRequest {
            head: &head,
            came: &head,
            body,
            is_safe: is_method_repeatable(&head.method, ctx),
            hedged,
            upgrade,
            translated: None,
            has_own_head: false,
        };
        let fetched = self.fetch_for(session, &*ctx, (&mut visit, &mut interims), &asking).await;
        (ctx.visit, ctx.interims) = (Some(visit), interims);
        match fetched {
            Ok(response) => Ok(response?),
            Err(rejection) => Err(fail_with(ctx, rejection)),
        }
    }

    pub(super) async fn fetch_for(
        &self,
        session: &mut Session,
        ctx: &Context,
        (visit, interims): (&mut Visit, &mut Interims),
        asking: &RelayRequest<'_>,
    ) -> std::result::Result<Result<Response>, Box<Rejection>> {
        let (sender, mut interim) = channel(interim::MAX_INTERIM_RESPONSES as usize);
        let outgoing = OutgoingRequest {
            head: asking.head,
            body: asking.body.clone(),
            caller: connecting_caller(asking.came, ctx),
            safe: asking.is_safe,
            hedged: asking.hedged,
            upgrade: asking.upgrade,
            grpc: asking.translated.unwrap_or(ctx.exchange.grpc),
            edit: &|request, member, deadline| {
                if asking.has_own_head {
                    return Ok(());
                }
                match asking.translated {
                    Some(grpc) => self.prepare_translated(asking.came, request, (member, deadline, grpc), ctx)?,
                    None => self.prepare(asking.came, request, member, deadline, ctx)?,
                }
                if asking.upgrade {
                    request.insert_header(CONNECTION, HeaderValue::from_static("Upgrade"))?;
                    request.insert_header(UPGRADE, HeaderValue::from_static("websocket"))?;
                }
                Ok(())
            },
            interim: Some(sender),
            is_wanted: &|| !ctx.downstream.is_gone(),
        };
        let mut response = std::pin::pin!(self.calls.send(visit, &outgoing));
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    Some(head) = interim.recv() => Received::Interim(head),
                    response = &mut response => Received::Response(Box::new(response)),
                }
            };
            match wait(&ctx.downstream, None, next).await {
                Waited::Done(Received::Response(response)) => {
                    // Both may have come in one read.
                    while let Ok(head) = interim.try_recv() {
                        if let Err(error) = interim::forward_interim(session, head, interims).await {
                            return Ok(Err(error));
                        }
                    }
                    return response.map(Ok);
                }
                Waited::Done(Received::Interim(head)) => {
                    if let Err(error) = interim::forward_interim(session, head, interims).await {
                        return Ok(Err(error));
                    }
                }
                Waited::Late | Waited::Gone => return Err(Rejection::new(Reason::ClientGone, "")),
            }
        }
    }

    /// Sends a copy of the request, as its first target gets it, to the route's mirror, if it has one.
    pub(super) fn mirror_relayed(
        &self,
        head: &RequestHeader,
        body: &Bytes,
        visit: &Visit,
        ctx: &mut Context,
    ) -> Result<()> {
        if let (true, Some(member)) = (ctx.forward().is_some_and(|forward| !forward.mirrors.is_empty()), visit.member())
        {
            let mut request = head.clone();
            self.prepare(head, &mut request, member, visit.deadline(), ctx)?;
            mirror::begin(ctx, &request);
            self.copy_body(ctx, Some(body).filter(|body| !body.is_empty()), true);
        }
        Ok(())
    }

    /// Sends a response to the client, through the route's filters.
    ///
    /// # Errors
    /// Fails where it has begun and cannot be completed, which the client is to see.
    pub(super) async fn send_response(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        response: Response,
    ) -> Result<()> {
        let Err(error) = self.send(session, ctx, response).await else { return Ok(()) };
        if session.response_written().is_some_and(|head| !head.status.is_informational()) {
            return Err(error);
        }
        self.respond_to_failure(session, &error, ctx).await;
        ctx.close_after(session);
        Ok(())
    }

    async fn send(&self, session: &mut Session, ctx: &mut Context, mut response: Response) -> Result<()> {
        // All of the request has been sent.
        ctx.end_of(Side::Request);
        let request = session.req_header().clone();
        let mut head = response.head.clone();
        set_framing(&request, &mut head)?;
        self.edit_response_head(&request, &mut head, ctx)?;
        if request.version == Version::HTTP_10 {
            // The end of the connection may be the end of the body.
            ctx.close_after(session);
        }
        interim::note_reuse(session, &head, &mut ctx.interims);
        ctx.end_with_the_listener(session);
        if ctx.body.holds_head() {
            return self.send_held(session, ctx, (head, response)).await;
        }
        // Nothing reads from the client meanwhile, so nothing would send a head that is kept back.
        ctx.downstream.connection.iter().for_each(|connection| connection.clear_corks());
        session.write_response_header(Box::new(head), false).await?;
        loop {
            let mut body = match wait(&ctx.downstream, ctx.deadline(), response.part()).await {
                Waited::Done(body) => body?,
                Waited::Late => return Err(fail_with(ctx, Rejection::new(Reason::RouteTimeout, ""))),
                Waited::Gone => return Err(fail_with(ctx, Rejection::new(Reason::ClientGone, ""))),
            };
            let end = body.is_none() || response.is_done();
            // Pingora sends none on HTTP/1.
            let trailers =
                if body.is_none() && request.version == Version::HTTP_2 { response.trailers().await? } else { None };
            if let Some(delay) = self.edit_body(&mut body, end, ctx)? {
                pause(ctx, delay).await?;
            }
            session.write_response_body(body, end && trailers.is_none()).await?;
            if let Some(trailers) = trailers {
                session.write_response_tasks(vec![HttpTask::Trailer(Some(Box::new(trailers)))]).await?;
            }
            if end {
                break;
            }
        }
        self.calls.release(response).await;
        Ok(())
    }
}

/// A request to send to targets.
pub(super) struct RelayRequest<'a> {
    /// Its head.
    pub head: &'a RequestHeader,
    /// The head that decides on the target.
    pub came: &'a RequestHeader,
    /// Its body.
    pub body: Bytes,
    /// Whether it may be sent again.
    pub is_safe: bool,
    /// Whether it may go to a second target beside the first.
    pub hedged: bool,
    /// Whether it is a handshake of a WebSocket.
    pub upgrade: bool,
    /// Whether it was translated, and then whether into gRPC.
    pub translated: Option<bool>,
    /// Whether its head is sent as it is.
    pub has_own_head: bool,
}

/// What a target has sent.
enum Received<T> {
    /// The response, or why there is none.
    Response(Box<T>),
    /// The head of an interim response.
    Interim(ResponseHeader),
}

/// Removes the framing between target and gateway; a body of unknown length is sent in chunks.
fn set_framing(request: &RequestHeader, head: &mut ResponseHeader) -> Result<()> {
    head.set_version(Version::HTTP_11);
    head.remove_header(&TRANSFER_ENCODING);
    let bodiless = request.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    if request.version == Version::HTTP_11 && !bodiless && !head.headers.contains_key(CONTENT_LENGTH) {
        head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(())
}
