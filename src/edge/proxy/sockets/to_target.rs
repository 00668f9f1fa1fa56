//! Targets that speak WebSocket, for clients of HTTP.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use tokio::time::timeout;

use super::socket_end::{SocketEnd, SocketEnded};
use super::{OrRejection, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SocketHalves};
use crate::actions::{ClientResponse, Forward, SocketTranslation};
use crate::edge::proxy::context::Side;
use crate::edge::proxy::pick::fail_with;
use crate::edge::proxy::relay::RelayRequest;
use crate::edge::proxy::translate::TranslatedWriting;
use crate::edge::proxy::waiting::{Waited, wait};
use crate::edge::proxy::whole::BudgetShare;
use crate::edge::proxy::{Context, Gateway};
use crate::exchange::{Reason, Rejection};
use crate::rules::websocket::{SocketMessage, accept_key, write_event};
use crate::upstreams::Response;

const NORMAL: u16 = 1000;

impl Gateway {
    /// Sends a request to a target, and returns its response. `None` where the client got one already.
    pub(super) async fn open_target(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (forward, head, upgrade, wait): (&Forward, &RequestHeader, bool, Option<Duration>),
    ) -> Result<Option<Response>> {
        let came = session.req_header().clone();
        let entered = self.enter_upstream(&came, forward, wait, ctx).await;
        let fetched = match (entered, ctx.visit.take()) {
            (Ok(()), Some(mut visit)) => {
                let asking = RelayRequest {
                    head,
                    came: &came,
                    body: Bytes::new(),
                    is_safe: true,
                    hedged: false,
                    upgrade,
                    translated: Some(false),
                    has_own_head: false,
                };
                let mut interims = std::mem::take(&mut ctx.interims);
                let fetched = self.fetch_for(session, &*ctx, (&mut visit, &mut interims), &asking).await;
                (ctx.visit, ctx.interims) = (Some(visit), interims);
                fetched
            }
            (Err(rejection), visit) => {
                ctx.visit = visit;
                Err(rejection)
            }
            (Ok(()), None) => Err(Rejection::new(Reason::Internal, "")),
        };
        let error = match fetched {
            Ok(Ok(response)) => return Ok(Some(response)),
            Ok(Err(error)) => error,
            Err(rejection) => fail_with(ctx, rejection),
        };
        self.respond_to_failure(session, &error, ctx).await;
        Ok(None)
    }

    /// Opens a WebSocket to a target. `None` where the client got a response already.
    async fn open_socket(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (forward, sockets, wait): (&Forward, &SocketTranslation, Option<Duration>),
        mut head: RequestHeader,
    ) -> Result<Option<SocketEnd>> {
        let key = STANDARD.encode(std::array::from_fn::<u8, 16, _>(|_| fastrand::u8(..)));
        head.set_method(Method::GET);
        head.remove_header(&CONTENT_TYPE);
        head.insert_header(SEC_WEBSOCKET_KEY, &key)?;
        head.insert_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))?;
        let opened = self.open_target(session, ctx, (forward, &head, true, wait)).await?;
        let Some(response) = opened else { return Ok(None) };
        if response.head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.send_response(session, ctx, response).await?;
            return Ok(None);
        }
        let accepted = response.head.headers.get(SEC_WEBSOCKET_ACCEPT);
        let is_accepted = accepted.is_some_and(|accepted| accepted == accept_key(key.as_bytes()).as_str());
        match SocketHalves::of_target(response).filter(|_| is_accepted) {
            Some(halves) => Ok(Some(SocketEnd::new(halves, true, sockets.max_message))),
            None => {
                let rejection =
                    Rejection::new(Reason::TargetProtocol, "").log("the handshake of the WebSocket is not valid");
                ctx.leave_upstream();
                self.reject(session, &rejection, ctx).await?;
                Ok(None)
            }
        }
    }

    pub(super) async fn request_to_message(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (forward, sockets, content_type, time): (&Forward, &SocketTranslation, Option<&HeaderValue>, Duration),
        head: RequestHeader,
    ) -> Result<()> {
        let until = ctx.exchange.started + time;
        let mut share = BudgetShare::new(&self.bodies);
        let body = self.read_body_for_calls(session, ctx, (sockets.max_message as u64, until), &mut share).await?;
        let body = match body {
            Ok(body) => body,
            Err(rejection) => return self.reject(session, &rejection, ctx).await,
        };
        let opened = self.open_socket(session, ctx, (forward, sockets, Some(time)), head).await?;
        let Some(mut socket) = opened else { return Ok(()) };
        ctx.end_of(Side::Request);
        let asked = wait(&ctx.downstream, Some(until), ask(&mut socket, &body)).await;
        let replied: OrRejection<SocketMessage> = match asked {
            Waited::Done(Ok(message)) => Ok(message),
            Waited::Done(Err(SocketEnded::Fault(fault))) => {
                Err(Rejection::new(Reason::ResponseUntranslatable, "").log(format!("{fault:?}")))
            }
            Waited::Done(Err(_)) => Err(Rejection::new(Reason::TargetReset, "").log("the WebSocket was closed")),
            Waited::Late => Err(Rejection::new(Reason::RouteTimeout, "")),
            Waited::Gone => return Err(fail_with(ctx, Rejection::new(Reason::ClientGone, ""))),
        };
        ctx.leave_upstream();
        tokio::spawn(async move { socket.close(NORMAL).await });
        match replied {
            Ok(message) => self.send_message_as_response(session, ctx, (message, content_type)).await,
            Err(rejection) => self.reject(session, &rejection, ctx).await,
        }
    }

    async fn send_message_as_response(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (message, content_type): (SocketMessage, Option<&HeaderValue>),
    ) -> Result<()> {
        let (is_text, body) = match message {
            SocketMessage::Text(body) => (true, body),
            SocketMessage::Binary(body) => (false, body),
            _ => (false, Bytes::new()),
        };
        let kind = match content_type {
            Some(kind) if is_text => kind.clone(),
            _ if !is_text => HeaderValue::from_static("application/octet-stream"),
            _ if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok() => {
                HeaderValue::from_static("application/json")
            }
            _ => HeaderValue::from_static("text/plain; charset=utf-8"),
        };
        let mut head = ResponseHeader::build(200, Some(8))?;
        head.insert_header(CONTENT_TYPE, kind)?;
        head.insert_header(CONTENT_LENGTH, body.len())?;
        self.write_made(session, ctx, head, body, Reason::Forwarded).await
    }

    pub(super) async fn messages_to_events(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (forward, sockets, first, heartbeat): (&Forward, &SocketTranslation, Option<&str>, Duration),
        head: RequestHeader,
    ) -> Result<()> {
        let opened = self.open_socket(session, ctx, (forward, sockets, None), head).await?;
        let Some(mut socket) = opened else { return Ok(()) };
        ctx.end_of(Side::Request);
        if let Some(first) = first
            && socket.send(true, first.as_bytes()).await.is_err()
        {
            ctx.leave_upstream();
            return self.reject(session, &Rejection::new(Reason::TargetReset, ""), ctx).await;
        }
        let mut out = ClientResponse::default();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        out.decide(StatusCode::OK, headers);
        let mut writing = TranslatedWriting::default();
        let is_head = session.req_header().method == Method::HEAD;
        let passed = match is_head {
            true => self.write_translated(session, ctx, &mut out, (&mut writing, true)).await,
            false => {
                self.pass_messages(session, ctx, (&mut socket, &mut out, &mut writing), (sockets, heartbeat)).await
            }
        };
        ctx.leave_upstream();
        tokio::spawn(async move { socket.close(NORMAL).await });
        passed
    }

    async fn pass_messages(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (socket, out, writing): (&mut SocketEnd, &mut ClientResponse, &mut TranslatedWriting),
        (sockets, heartbeat): (&SocketTranslation, Duration),
    ) -> Result<()> {
        let mut last = Instant::now();
        let mut drained = std::pin::pin!(self.tunnel_time_over());
        loop {
            self.write_translated(session, ctx, out, (writing, false)).await?;
            let next = async {
                tokio::select! {
                    biased;
                    message = timeout(heartbeat, socket.next()) => message.ok(),
                    () = &mut drained => Some(Err(SocketEnded::Closed)),
                }
            };
            let message = match wait(&ctx.downstream, ctx.deadline(), next).await {
                Waited::Done(message) => message,
                // The time of the route is the end of the stream.
                Waited::Late => break,
                Waited::Gone => return Err(fail_with(ctx, Rejection::new(Reason::ClientGone, ""))),
            };
            match message {
                Some(Ok(SocketMessage::Text(text) | SocketMessage::Binary(text))) => {
                    last = Instant::now();
                    write_event(&String::from_utf8_lossy(&text), &mut out.body);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) => break,
                None if last.elapsed() >= sockets.idle_time => break,
                None => out.body.extend_from_slice(b": \n\n"),
            }
        }
        self.write_translated(session, ctx, out, (writing, true)).await
    }
}

/// Sends a message, if there is one, and returns the next of the target.
async fn ask(socket: &mut SocketEnd, body: &[u8]) -> std::result::Result<SocketMessage, SocketEnded> {
    if !body.is_empty() {
        socket.send(std::str::from_utf8(body).is_ok(), body).await?;
    }
    socket.next().await
}
