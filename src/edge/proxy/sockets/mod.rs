//! WebSockets whose other side speaks HTTP or events: one side is a WebSocket of the gateway's own.

mod from_events;
mod halves;
mod socket_end;
mod to_requests;
mod to_target;

use http::HeaderValue;
use http::header::HeaderName;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::forward::edit_target;
use super::hop_by_hop::drop_from_request;
use super::translate::DROPPED;
use super::{Context, Gateway};
use crate::actions::{Forward, SocketKind, SocketTranslation};
use crate::exchange::{Reason, Rejection};
use crate::rules::websocket::accept_key;
use crate::upstreams::error_text;

pub(super) use halves::SocketHalves;

const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
pub(super) const SEC_WEBSOCKET_EXTENSIONS: HeaderName = HeaderName::from_static("sec-websocket-extensions");
const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const SEC_WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

/// The fields of a handshake.
const OF_HANDSHAKES: [HeaderName; 4] =
    [SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION];

type OrRejection<T> = std::result::Result<T, Box<Rejection>>;

impl Gateway {
    /// Serves a request one side of which is a WebSocket of the gateway's own.
    ///
    /// # Errors
    /// Fails where the response has begun and cannot be completed, which the client is to see.
    pub(super) async fn translate_sockets(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (forward, sockets): (&Forward, &SocketTranslation),
    ) -> Result<()> {
        let came = session.req_header().clone();
        let head = match head_for_target(&came, forward, ctx) {
            Ok(head) => head,
            Err(rejection) => return self.reject(session, &rejection, ctx).await,
        };
        if let (SocketKind::MessagesToRequests(_) | SocketKind::EventsToMessages { .. }, Err(rejection)) =
            (&sockets.kind, check_handshake(&came))
        {
            return self.reject(session, &rejection, ctx).await;
        }
        match &sockets.kind {
            SocketKind::MessagesToRequests(requests) => {
                self.messages_to_requests(session, ctx, (forward, sockets, requests), head).await
            }
            SocketKind::EventsToMessages { envelope } => {
                self.events_to_messages(session, ctx, (forward, sockets, *envelope), head).await
            }
            SocketKind::RequestToMessage { content_type, timeout } => {
                self.request_to_message(session, ctx, (forward, sockets, content_type.as_ref(), *timeout), head).await
            }
            SocketKind::MessagesToEvents { first, heartbeat } => {
                self.messages_to_events(session, ctx, (forward, sockets, first.as_deref(), *heartbeat), head).await
            }
        }
    }

    /// Sends the client the response to its handshake, and takes its stream. `None` where it has none.
    async fn accept_socket(&self, session: &mut Session, ctx: &mut Context) -> Result<Option<SocketHalves>> {
        let key = session.req_header().headers.get(SEC_WEBSOCKET_KEY).map(|key| accept_key(key.as_bytes()));
        let mut head = ResponseHeader::build(101, Some(8))?;
        head.insert_header(SEC_WEBSOCKET_ACCEPT, key.unwrap_or_default())?;
        self.finish_handshake(session, ctx, head).await?;
        Ok(SocketHalves::of_client(session, ctx))
    }
}

/// Returns whether a handshake is one that the gateway can respond to (RFC 6455, section 4.2.1).
fn check_handshake(came: &RequestHeader) -> OrRejection<()> {
    let bad = |detail: &'static str| Rejection::new(Reason::BadRequest, detail);
    if came.headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let supported = HeaderValue::from_static("13");
        let rejection = bad("the version of the WebSocket has to be 13").status(426);
        return Err(rejection.header(SEC_WEBSOCKET_VERSION, supported));
    }
    match came.headers.get(SEC_WEBSOCKET_KEY) {
        Some(key) if key.len() == 24 => Ok(()),
        _ => Err(bad("the key of the WebSocket is missing or malformed")),
    }
}

/// Returns the head for the target, without the fields of a handshake and of a body.
fn head_for_target(came: &RequestHeader, forward: &Forward, ctx: &Context) -> OrRejection<RequestHeader> {
    let internal = |error: Box<pingora::Error>| Rejection::new(Reason::Internal, "").log(error_text(&error));
    let mut edited = came.clone();
    edit_target(came, &mut edited, forward, ctx).map_err(internal)?;
    let mut head = came.clone();
    drop_from_request(&mut head);
    let target = edited.uri.path_and_query().map_or("/", |target| target.as_str());
    head.set_uri(target.parse().map_err(|_| Rejection::new(Reason::BadPath, "the path is malformed"))?);
    super::intake::edit_headers(&mut head, |fields| {
        OF_HANDSHAKES.iter().for_each(|name| _ = fields.remove(name));
        DROPPED.iter().for_each(|name| _ = fields.remove(name));
        super::forward::requested_host(came).into_iter().for_each(|host| _ = fields.insert(http::header::HOST, host));
    });
    Ok(head)
}
