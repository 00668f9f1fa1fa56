//! Events of a target that become messages to a client.

use std::time::Instant;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use serde_json::json;
use tokio::time::sleep_until;

use super::socket_end::{SocketEnd, SocketEnded};
use crate::actions::{Forward, SocketTranslation};
use crate::edge::proxy::context::Side;
use crate::edge::proxy::{Context, Gateway};
use crate::exchange::{Reason, Rejection};
use crate::rules::frames::close_code::{GOING_AWAY, SERVICE_RESTART};
use crate::rules::websocket::{EventReader, ServerEvent, SocketFault};

/// The close code of a stream of events that has ended in order.
const NORMAL: u16 = 1000;

/// The close code of one that was broken off: "Internal Error".
const INTERNAL_ERROR: u16 = 1011;

impl Gateway {
    pub(super) async fn events_to_messages(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (forward, sockets, envelope): (&Forward, &SocketTranslation, bool),
        mut head: RequestHeader,
    ) -> Result<()> {
        head.set_method(Method::GET);
        head.insert_header(ACCEPT, HeaderValue::from_static("text/event-stream"))?;
        let Some(mut response) = self.open_target(session, ctx, (forward, &head, false, None)).await? else {
            return Ok(());
        };
        if response.head.status != StatusCode::OK {
            // The handshake has the target's own response.
            return self.send_response(session, ctx, response).await;
        }
        let kind = response.head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if !kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream")) {
            let rejection = Rejection::new(Reason::ResponseUntranslatable, "").log("it is no stream of events");
            ctx.leave_upstream();
            return self.reject(session, &rejection, ctx).await;
        }
        let Some(halves) = self.accept_socket(session, ctx).await? else { return Ok(()) };
        ctx.end_of(Side::Request);
        let mut socket = SocketEnd::new(halves, false, sockets.max_message);
        let (mut reader, mut events) = (EventReader::new(sockets.max_message), Vec::new());
        let mut drained = std::pin::pin!(self.tunnel_time_over());
        let mut idle = Instant::now() + sockets.idle_time;
        let code = 'socket: loop {
            tokio::select! {
                biased;
                part = response.part() => {
                    idle = Instant::now() + sockets.idle_time;
                    let part = match part {
                        Ok(Some(part)) => part,
                        Ok(None) => break Some(NORMAL),
                        Err(_) => break Some(INTERNAL_ERROR),
                    };
                    let too_large = reader.push(&part, &mut events).is_err();
                    for event in events.drain(..) {
                        if socket.send(true, message_of(event, envelope).as_bytes()).await.is_err() {
                            break 'socket None;
                        }
                    }
                    if too_large {
                        break Some(SocketFault::TooLarge.code());
                    }
                }
                // What the client sends is for nobody.
                message = socket.next() => match message {
                    Ok(_) => {}
                    Err(SocketEnded::Fault(fault)) => break Some(fault.code()),
                    Err(_) => break None,
                },
                () = sleep_until(idle.into()) => break Some(GOING_AWAY),
                () = &mut drained => break Some(SERVICE_RESTART),
            }
        };
        drop(response);
        ctx.leave_upstream();
        match code {
            Some(code) => socket.close(code).await,
            None => socket.end(SocketEnded::Closed).await,
        }
        ctx.ending.tunnelled = Some(socket.counts.into());
        Ok(())
    }
}

fn message_of(event: ServerEvent, envelope: bool) -> String {
    if !envelope {
        return event.data;
    }
    let kind = if event.kind.is_empty() { "message" } else { &event.kind };
    json!({"event": kind, "id": event.id, "data": event.data}).to_string()
}
