//! Messages of a client that become requests, one after the other, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use tokio::time::{sleep_until, timeout_at};

use super::socket_end::{SocketEnd, SocketEnded};
use crate::actions::{Forward, MessageRequests, SocketTranslation};
use crate::edge::proxy::admission::choose;
use crate::edge::proxy::failure::is_method_repeatable;
use crate::edge::proxy::pick::connecting_caller;
use crate::edge::proxy::{Context, Gateway};
use crate::exchange::{Reason, Rejection, render};
use crate::rules::frames::close_code::{GOING_AWAY, SERVICE_RESTART};
use crate::rules::websocket::SocketMessage;
use crate::upstreams::{OutgoingRequest, Response, Upstream, Visit, error_text};

/// The close code of a peer that sends more than is taken: "Try Again Later" of the registry of RFC 6455.
const TRY_AGAIN_LATER: u16 = 1013;

/// The facts that all requests of a WebSocket share.
struct MessageScene<'s> {
    ctx: &'s Context,
    came: &'s RequestHeader,
    head: RequestHeader,
    upstream: Arc<Upstream>,
    forward: &'s Forward,
    requests: &'s MessageRequests,
    max: usize,
}

/// What the client is sent for a message: whether it is a text, and its bytes. Nothing for an empty response.
type Reply = Option<(bool, Bytes)>;

impl Gateway {
    pub(super) async fn messages_to_requests(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (forward, sockets, requests): (&Forward, &SocketTranslation, &MessageRequests),
        mut head: RequestHeader,
    ) -> Result<()> {
        let came = session.req_header().clone();
        let chosen = choose(forward, &came, &ctx.exchange).and_then(|share| forward.upstreams.get(share));
        let Some(upstream) = chosen.cloned() else {
            return self.reject(session, &Rejection::new(Reason::NoHealthyTarget, ""), ctx).await;
        };
        head.set_method(requests.method.clone());
        let Some(halves) = self.accept_socket(session, ctx).await? else { return Ok(()) };
        let mut socket = SocketEnd::new(halves, false, sockets.max_message);
        let scene = MessageScene { ctx, came: &came, head, upstream, forward, requests, max: sockets.max_message };
        self.carry_messages(&scene, &mut socket, sockets.idle_time).await;
        ctx.ending.tunnelled = Some(socket.counts.into());
        Ok(())
    }

    /// Makes the requests of messages until the WebSocket ends, and ends it.
    async fn carry_messages(&self, scene: &MessageScene<'_>, socket: &mut SocketEnd, idle_time: Duration) {
        let mut queue = VecDeque::new();
        let mut running: Option<BoxFuture<'_, Reply>> = None;
        let mut idle = Instant::now() + idle_time;
        let mut drained = std::pin::pin!(self.tunnel_time_over());
        let code = loop {
            if running.is_none()
                && let Some(message) = queue.pop_front()
            {
                running = Some(self.request_of(scene, message).boxed());
            }
            let is_idle = running.is_none();
            tokio::select! {
                biased;
                reply = reply_of(running.as_mut()) => {
                    running = None;
                    idle = Instant::now() + idle_time;
                    if let Some((is_text, body)) = reply
                        && socket.send(is_text, &body).await.is_err()
                    {
                        break None;
                    }
                }
                message = socket.next() => match message {
                    Ok(_) if queue.len() >= scene.requests.queue => break Some(TRY_AGAIN_LATER),
                    Ok(message) => {
                        idle = Instant::now() + idle_time;
                        queue.push_back(message);
                    }
                    Err(SocketEnded::Fault(fault)) => break Some(fault.code()),
                    Err(_) => break None,
                },
                () = sleep_until(idle.into()), if is_idle => break Some(GOING_AWAY),
                () = &mut drained => break Some(SERVICE_RESTART),
            }
        };
        let ending = async {
            match code {
                Some(code) => socket.close(code).await,
                None => socket.end(SocketEnded::Closed).await,
            }
        };
        // A request that has begun is brought to its end, so that what it does is not cut; nothing is sent for it.
        let rest = async {
            if let Some(running) = running {
                running.await;
            }
        };
        tokio::join!(ending, rest);
    }

    /// Makes the request of a message.
    async fn request_of(&self, scene: &MessageScene<'_>, message: SocketMessage) -> Reply {
        let (is_text, body) = match message {
            SocketMessage::Text(body) => (true, body),
            SocketMessage::Binary(body) => (false, body),
            _ => return None,
        };
        let mut head = scene.head.clone();
        let binary = HeaderValue::from_static("application/octet-stream");
        let content_type = if is_text { scene.requests.content_type.clone() } else { binary };
        let _ = head.insert_header(CONTENT_TYPE, content_type);
        let deadline = Instant::now() + scene.requests.timeout;
        let mut visit = Visit::new(Arc::clone(&scene.upstream), scene.forward.class, Some(deadline));
        let sent = body.len() as u64;
        let responded = self.send_message(scene, (&head, body), (&mut visit, deadline)).await;
        let (status, reply) = match responded {
            Ok((status, reply)) => (status, reply),
            Err(rejection) => {
                let rendered = render(&rejection, &scene.ctx.exchange, None);
                (rendered.status, Some((true, rendered.body)))
            }
        };
        scene.upstream.metrics().by_class.count(status);
        visit.count_traffic([sent, reply.as_ref().map_or(0, |(_, body)| body.len() as u64)]);
        visit.end();
        reply
    }

    async fn send_message(
        &self,
        scene: &MessageScene<'_>,
        (head, body): (&RequestHeader, Bytes),
        (visit, deadline): (&mut Visit, Instant),
    ) -> std::result::Result<(u16, Reply), Box<Rejection>> {
        let outgoing = OutgoingRequest {
            head,
            body,
            caller: connecting_caller(scene.came, scene.ctx),
            safe: is_method_repeatable(&scene.requests.method, scene.ctx),
            hedged: false,
            upgrade: false,
            grpc: false,
            edit: &|request, member, deadline| {
                self.prepare_translated(scene.came, request, (member, deadline, false), scene.ctx)
            },
            interim: None,
            is_wanted: &|| true,
        };
        let mut response = self.calls.send(visit, &outgoing).await?;
        let status = response.head.status.as_u16();
        let body = match timeout_at(deadline.into(), response.read(scene.max + 1)).await {
            Ok(read) => read.map_err(|error| Rejection::new(Reason::TargetReset, "").log(error_text(&error)))?,
            Err(_) => return Err(Rejection::new(Reason::RouteTimeout, "")),
        };
        if body.len() > scene.max {
            return Err(Rejection::new(Reason::ResponseUntranslatable, "it is too long"));
        }
        let is_text = !is_binary(&response) && std::str::from_utf8(&body).is_ok();
        self.calls.release(response).await;
        Ok((status, (!body.is_empty()).then_some((is_text, body))))
    }
}

/// Resolves with the reply of the request that is made, if one is.
async fn reply_of(running: Option<&mut BoxFuture<'_, Reply>>) -> Reply {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

/// Returns whether the media type of a response is one of bytes.
fn is_binary(response: &Response) -> bool {
    let kind = response.head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    ["application/octet-stream", "image/", "audio/", "video/"]
        .iter()
        .any(|prefix| kind.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix.as_bytes())))
}
