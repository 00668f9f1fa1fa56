//! WebSockets, in a tunnel of our own.
//!
//! Pingora drops a tunnel right after its 101 when the target answers before Pingora has noted that
//! the request has no body (cloudflare/pingora#946). So the handshake is made here, over Pingora's
//! connector and HTTP/1 session, and then the two streams are joined.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, UPGRADE};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v1::client::HttpSession as ClientSession;
use pingora::protocols::{Digest, Stream};
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::connect::while_client;
use super::hop_by_hop::drop_from_response;
use super::{Context, Gateway};
use crate::exchange::Reason;
use crate::filters::ResponseView;
use crate::rules::frames::close_code::{GOING_AWAY, SERVICE_RESTART};
use crate::rules::frames::{Frames, close_frame};
use crate::tls::verify_own_certificate;
use crate::upstreams::misframed;

/// How long a tunnel may be silent in both directions, as HAProxy's `timeout tunnel` is usually set.
const IDLE: Duration = Duration::from_secs(3600);

/// How long one direction may go on once the other has ended.
const HALF_CLOSED: Duration = Duration::from_secs(30);

const BUFFER: usize = 8 * 1024;

/// How long a client may take to answer a close frame.
const CLOSING: Duration = Duration::from_secs(5);

/// How long a target may take for that, once the client has.
const MOMENT: Duration = Duration::from_millis(300);

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
        if let Some(upstream) = ctx.upstream() {
            ctx.sticky.tell(upstream, ctx.exchange.peer.is_secure(), &mut answer);
        }
        if let Some(route) = ctx.serving.route(ctx.route) {
            let view = ResponseView { request: session.req_header(), exchange: &ctx.exchange, own: false };
            route.filters(ctx.listener).on_head(&mut answer, &view, &mut ctx.memories);
        }
        drop_from_response(&mut answer);
        answer.insert_header(UPGRADE, HeaderValue::from_static("websocket"))?;
        answer.insert_header(CONNECTION, HeaderValue::from_static("Upgrade"))?;
        ctx.status = 101;
        ctx.exchange.reason = Reason::Upgraded;
        session.write_response_header(Box::new(answer), false).await?;
        ctx.head = Some(Box::new(session.req_header().clone()));
        self.join(session, ctx, target).await;
        Ok(true)
    }

    async fn connect_tunnel(&self, peer: &HttpPeer) -> Result<Stream> {
        let stream = self.connector.new_stream(peer).await?;
        let digest = Digest { ssl_digest: stream.get_ssl_digest(), ..Digest::default() };
        verify_own_certificate(peer, Some(&digest)).await?;
        Ok(stream)
    }

    /// Connects, with another target if one cannot be reached, and sends the handshake.
    async fn handshake(&self, session: &mut Session, ctx: &mut Context) -> Result<ClientSession> {
        loop {
            let peer = self.pick(session, ctx).await?;
            let stream = match while_client(self.connect_tunnel(&http1(*peer.clone()))).await {
                Ok(stream) => stream,
                Err(error) => {
                    let error = self.connect_failed(session, ctx, error.into_up());
                    if error.retry() {
                        continue;
                    }
                    return Err(error);
                }
            };
            self.connected(false, ctx);
            let mut request = session.req_header().clone();
            strip_hop_by_hop(&mut request);
            // Other proxies send one of 0; a handshake has no body.
            request.remove_header(&CONTENT_LENGTH);
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
        if let Some(connection) = &ctx.connection {
            connection.follow_no_more();
        }
        // Bytes that came with the handshakes are the first of the tunnel.
        let early_in = session.read_request_body().now_or_never().and_then(Result::ok).flatten();
        let early_out = target.read_body_bytes().now_or_never().and_then(Result::ok).flatten();
        let (placeholder, _) = tokio::io::duplex(1);
        let placeholder = ServerSession::new_http1(Box::new(placeholder));
        let ServerSession::H1(client) = std::mem::replace(&mut *session.downstream_session, placeholder) else { return };
        let counts = (AtomicU64::new(0), AtomicU64::new(0));
        let (client_read, client_write) = tokio::io::split(client.into_inner());
        let (target_read, target_write) = tokio::io::split(target.into_inner());
        let (stop, stopped) = watch::channel(false);
        let inward = Pump { early: early_in, count: &counts.0, stop: stopped.clone(), farewell: close_frame(GOING_AWAY, true) };
        let outward = Pump { early: early_out, count: &counts.1, stop: stopped.clone(), farewell: close_frame(SERVICE_RESTART, false) };
        let told = async {
            self.end_of_tunnels().await;
            stop.send_replace(true);
            tokio::time::sleep(CLOSING).await;
        };
        tokio::select! {
            () = both(inward.run(client_read, target_write), outward.run(target_read, client_write), stopped) => {}
            () = silence(&counts, IDLE) => ctx.exchange.detail = Some("the tunnel was silent for an hour".to_owned()),
            () = told => {}
        }
        ctx.tunnelled = Some((counts.0.into_inner(), counts.1.into_inner()));
    }
}

impl Gateway {
    /// Resolves when the process has drained for as long as WebSockets may go on meanwhile.
    async fn end_of_tunnels(&self) {
        let mut draining = self.draining.clone();
        loop {
            if draining.wait_for(|draining| *draining).await.is_err() {
                return std::future::pending().await;
            }
            let process = &self.serving.serving().snapshot.process;
            // In time before whatever is still under way is cut.
            let latest = process.drain_time.saturating_sub(CLOSING).max(process.drain_time / 2);
            let time = process.websocket_time.min(latest);
            // A drain may be called off.
            if tokio::time::timeout(time, draining.wait_for(|draining| !*draining)).await.is_err() {
                return;
            }
        }
    }
}

/// Sends the handshake, and reads on past informational answers.
async fn shake(target: &mut ClientSession, request: RequestHeader) -> Result<()> {
    target.write_request_header(Box::new(request)).await?;
    loop {
        target.read_response().await?;
        let Some(head) = target.resp_header() else { return Ok(()) };
        if head.status == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if let Some(why) = misframed(head) {
            return pingora::Error::e_explain(pingora::ErrorType::InvalidHTTPHeader, why);
        }
        if !head.status.is_informational() {
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

/// One direction.
struct Pump<'t> {
    /// What came with the handshake.
    early: Option<Bytes>,
    count: &'t AtomicU64,
    /// Whether it is to end at the next frame's end.
    stop: watch::Receiver<bool>,
    /// The close frame that it then ends with.
    farewell: Vec<u8>,
}

impl Pump<'_> {
    /// Copies to the end, and then closes that direction alone.
    async fn run(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut frames = Frames::default();
        if let Some(early) = self.early.take() {
            frames.follow(&early);
            self.send(&early, &mut to).await?;
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            let stopping = *self.stop.borrow();
            if stopping && frames.at_boundary() {
                return self.take_leave(&mut frames, &mut from, &mut to, &mut buffer).await;
            }
            let read = from.read(&mut buffer);
            let taken = tokio::select! {
                // A reset is an end like any other: the shutdown below tells the other side.
                taken = read => taken.unwrap_or_default(),
                _ = self.stop.changed(), if !stopping => continue,
            };
            if taken == 0 {
                return to.shutdown().await;
            }
            if !stopping {
                frames.follow(&buffer[..taken]);
                self.send(&buffer[..taken], &mut to).await?;
                continue;
            }
            let end = frames.finish(&buffer[..taken]);
            self.send(&buffer[..end], &mut to).await?;
            if frames.at_boundary() {
                frames.follow(&buffer[end..taken]);
                return self.take_leave(&mut frames, &mut from, &mut to, &mut buffer).await;
            }
        }
    }

    async fn send(&self, bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        to.write_all(bytes).await?;
        to.flush().await?;
        self.count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Says that it is over, and waits for the same from the other side, passing nothing on.
    async fn take_leave(
        &self,
        frames: &mut Frames,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        buffer: &mut [u8],
    ) -> std::io::Result<()> {
        to.write_all(&self.farewell).await?;
        to.flush().await?;
        while !frames.is_closed() {
            let taken = from.read(buffer).await.unwrap_or_default();
            if taken == 0 {
                break;
            }
            frames.follow(&buffer[..taken]);
        }
        Ok(())
    }
}

/// Runs both directions; once one has ended the other has [`HALF_CLOSED`] to do so. In a drain the
/// client's answer to its close frame is waited for, and the target's for a moment only.
async fn both(inward: impl Future, outward: impl Future, stop: watch::Receiver<bool>) {
    tokio::pin!(inward, outward);
    tokio::select! {
        _ = &mut inward => {
            let time = if *stop.borrow() { MOMENT } else { HALF_CLOSED };
            drop(tokio::time::timeout(time, outward).await);
        }
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
