//! WebSockets, in a tunnel of our own.
//!
//! Pingora drops a tunnel right after its 101 when the target answers before Pingora has noted that
//! the request has no body (cloudflare/pingora#946). So the handshake is made here, over Pingora's
//! connector and HTTP/1 session, and then the two streams are joined.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v1::client::HttpSession as ClientSession;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Context, Gateway};
use crate::exchange::Reason;

/// How long a tunnel may be silent in both directions, as HAProxy's `timeout tunnel` is usually set.
const IDLE: Duration = Duration::from_secs(3600);

/// How long one direction may go on once the other has ended.
const HALF_CLOSED: Duration = Duration::from_secs(30);

const BUFFER: usize = 8 * 1024;

const HOP_BY_HOP: [HeaderName; 4] =
    [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection"), http::header::TE, http::header::TRAILER];

impl Gateway {
    /// Carries a WebSocket, or passes on the answer of a target that declined it. Always true: the
    /// request is answered.
    pub(super) async fn tunnel(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let target = match self.handshake(session, ctx).await {
            Ok(target) => target,
            Err(error) => {
                self.answer_failure(session, &error, ctx).await;
                return Ok(true);
            }
        };
        let answer = target.resp_header().cloned();
        let Some(mut answer) = answer else { return Ok(true) };
        self.note_answer(&answer, ctx);
        if answer.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return self.decline(session, ctx, target, answer).await;
        }
        if let Some(id) = &ctx.exchange.request_id {
            answer.insert_header(super::intake::X_REQUEST_ID, id.clone())?;
        }
        if let Some(upstream) = &ctx.upstream {
            ctx.sticky.tell(upstream, ctx.exchange.secure, &mut answer);
        }
        if let Some(route) = &ctx.route {
            for filter in route.filters.iter().rev() {
                filter.on_response(&mut answer, &ctx.exchange, false);
            }
        }
        answer.insert_header(CONNECTION, HeaderValue::from_static("Upgrade"))?;
        ctx.status = 101;
        ctx.exchange.reason = Reason::Upgraded;
        session.write_response_header(Box::new(answer), false).await?;
        ctx.head = Some(Box::new(session.req_header().clone()));
        self.join(session, ctx, target).await;
        Ok(true)
    }

    /// Connects, with another target if one cannot be reached, and sends the handshake.
    async fn handshake(&self, session: &mut Session, ctx: &mut Context) -> Result<ClientSession> {
        loop {
            let peer = self.pick(session, ctx).await?;
            let stream = match self.connector.new_stream(&http1(*peer.clone())).await {
                Ok(stream) => stream,
                Err(error) => {
                    let error = self.connect_failed(ctx, error.into_up());
                    if error.retry() {
                        continue;
                    }
                    return Err(error);
                }
            };
            self.connected(false, ctx);
            let mut request = session.req_header().clone();
            strip_hop_by_hop(&mut request);
            self.prepare(session.req_header(), &mut request, ctx)?;
            request.insert_header(CONNECTION, HeaderValue::from_static("Upgrade"))?;
            request.insert_header(UPGRADE, HeaderValue::from_static("websocket"))?;
            let mut target = ClientSession::new(stream);
            target.read_timeout = peer.options.read_timeout;
            target.write_timeout = peer.options.write_timeout;
            match shake(&mut target, request).await {
                Ok(()) => return Ok(target),
                Err(error) => {
                    let error = self.exchange_failed(session, ctx, error.into_up(), false);
                    if !error.retry() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Passes on an answer other than 101.
    async fn decline(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        mut target: ClientSession,
        answer: pingora::http::ResponseHeader,
    ) -> Result<bool> {
        let mut answer = answer;
        let request = session.req_header().clone();
        let edited = self.edit_answer(&request, &mut answer, ctx);
        if let Err(error) = edited {
            self.answer_failure(session, &error, ctx).await;
            return Ok(true);
        }
        session.write_response_header(Box::new(answer), false).await?;
        loop {
            let part = match target.read_body_bytes().await {
                Ok(part) => part,
                Err(error) => {
                    ctx.exchange.reason = Reason::TargetReset;
                    return Err(error.into_up());
                }
            };
            let end = part.is_none();
            let mut body = part;
            self.edit_body(&mut body, end, ctx)?;
            session.write_response_body(body, end).await?;
            if end {
                return Ok(true);
            }
        }
    }

    /// Joins the two streams until both have ended or are silent; at the end of a drain they are cut.
    async fn join(&self, session: &mut Session, ctx: &mut Context, mut target: ClientSession) {
        // Bytes that came with the handshakes are the first of the tunnel.
        let early_in = session.read_request_body().now_or_never().and_then(Result::ok).flatten();
        let early_out = target.read_body_bytes().now_or_never().and_then(Result::ok).flatten();
        let (placeholder, _) = tokio::io::duplex(1);
        let placeholder = ServerSession::new_http1(Box::new(placeholder));
        let ServerSession::H1(client) = std::mem::replace(&mut *session.downstream_session, placeholder) else { return };
        let counts = (AtomicU64::new(0), AtomicU64::new(0));
        let (client_read, client_write) = tokio::io::split(client.into_inner());
        let (target_read, target_write) = tokio::io::split(target.into_inner());
        let inward = pump(client_read, target_write, early_in, &counts.0);
        let outward = pump(target_read, client_write, early_out, &counts.1);
        tokio::select! {
            () = both(inward, outward) => {}
            () = silence(&counts, IDLE) => ctx.exchange.detail = Some("the tunnel was silent for an hour".to_owned()),
        }
        ctx.tunnelled = Some((counts.0.into_inner(), counts.1.into_inner()));
    }
}

/// Sends the handshake, and reads on past informational answers.
async fn shake(target: &mut ClientSession, request: RequestHeader) -> Result<()> {
    target.write_request_header(Box::new(request)).await?;
    loop {
        target.read_response().await?;
        let status = target.resp_header().map(|head| head.status);
        if status.is_none_or(|s| !s.is_informational() || s == http::StatusCode::SWITCHING_PROTOCOLS) {
            return Ok(());
        }
    }
}

/// A handshake is HTTP/1.1 whatever else is spoken to the target.
fn http1(mut peer: HttpPeer) -> HttpPeer {
    peer.options.set_http_version(1, 1);
    peer
}

/// Removes what belongs to the client's own connection, and what its `Connection` names.
pub(super) fn strip_hop_by_hop(request: &mut RequestHeader) {
    let named: Vec<HeaderName> = request
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|n| n.trim().parse().ok())
        .filter(|n| *n != UPGRADE && *n != http::header::HOST)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        request.remove_header(name);
    }
}

/// Copies one direction to its end, and then closes that direction alone.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    early: Option<Bytes>,
    count: &AtomicU64,
) -> std::io::Result<()> {
    if let Some(early) = early {
        count.fetch_add(early.len() as u64, Ordering::Relaxed);
        to.write_all(&early).await?;
        to.flush().await?;
    }
    let mut buffer = vec![0; BUFFER];
    loop {
        // A reset is an end like any other: the shutdown below tells the other side.
        let taken = from.read(&mut buffer).await.unwrap_or_default();
        if taken == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..taken]).await?;
        to.flush().await?;
        count.fetch_add(taken as u64, Ordering::Relaxed);
    }
}

/// Runs both directions; once one has ended the other has [`HALF_CLOSED`] to do so.
async fn both(inward: impl Future, outward: impl Future) {
    tokio::pin!(inward, outward);
    tokio::select! {
        _ = &mut inward => drop(tokio::time::timeout(HALF_CLOSED, outward).await),
        _ = &mut outward => drop(tokio::time::timeout(HALF_CLOSED, inward).await),
    }
}

/// Resolves when neither direction has moved for that long.
async fn silence(counts: &(AtomicU64, AtomicU64), limit: Duration) {
    let sum = || counts.0.load(Ordering::Relaxed) + counts.1.load(Ordering::Relaxed);
    let (mut last, mut since) = (sum(), Instant::now());
    loop {
        tokio::time::sleep(limit / 8).await;
        let now = sum();
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() >= limit {
            return;
        }
    }
}
