//! Tunnels for WebSockets.
//!
//! Pingora drops a tunnel right after its 101 when the target responds before Pingora has noted that the request has
//! no body (cloudflare/pingora#946). So the relay makes the handshake, over Pingora's connector and HTTP/1 session,
//! and then the two streams are joined here. The pump of layer 4 does not fit: to end with close frames between two
//! frames a tunnel has to see each byte, which splice hides, and both streams are Pingora's, without access to their
//! sockets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONNECTION, HeaderValue, SET_COOKIE, UPGRADE};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v1::client::HttpSession as ClientSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::hop_by_hop::drop_from_response;
use super::{Context, Gateway};
use crate::exchange::Reason;
use crate::filters::ResponseView;
use crate::rules::frames::close_code::{GOING_AWAY, SERVICE_RESTART};
use crate::rules::frames::{WebSocketFrames, close_frame};

/// How long a tunnel may be silent in both directions, as HAProxy's `timeout tunnel` is usually set.
const TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long one direction may go on once the other has ended.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(30);

const TUNNEL_BUFFER: usize = 8 * 1024;

/// How long a client may take to respond to a close frame (RFC 6455, section 5.5.1).
const CLIENT_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a target may take for that, once the client has responded.
const TARGET_CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

impl Gateway {
    /// Carries a WebSocket, or relays the response of a target that declined it.
    pub(super) async fn tunnel(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let response = match self.fetch(session, ctx, false, true).await {
            Ok(response) => response,
            Err(error) => {
                self.respond_to_failure(session, &error, ctx).await;
                return Ok(());
            }
        };
        if response.head.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return self.send_response(session, ctx, response).await;
        }
        let mut head = response.head.clone();
        let Some(target) = response.into_http1() else { return Error::err(ErrorType::InternalError) };
        if let Some(id) = &ctx.exchange.request_id {
            head.insert_header(super::intake::X_REQUEST_ID, id.clone())?;
        }
        if let Some(cookie) = ctx.visit.as_ref().and_then(|visit| visit.session_cookie(ctx.exchange.peer.is_secure())) {
            head.append_header(SET_COOKIE, cookie)?;
        }
        if let Some(route) = ctx.serving.route(ctx.matched.route) {
            let pattern = ctx.serving.pattern(ctx.listener, ctx.matched.found());
            let view = ResponseView { request: session.req_header(), exchange: &ctx.exchange, pattern, own: false };
            route.filters(ctx.listener).on_head(&mut head, &view, &mut ctx.memories);
        }
        drop_from_response(&mut head);
        head.insert_header(UPGRADE, HeaderValue::from_static("websocket"))?;
        head.insert_header(CONNECTION, HeaderValue::from_static("Upgrade"))?;
        ctx.status = 101;
        ctx.exchange.reason = Reason::Upgraded;
        session.write_response_header(Box::new(head), false).await?;
        ctx.ending.head = Some(Box::new(session.req_header().clone()));
        self.join(session, ctx, target).await;
        Ok(())
    }

    /// Joins the two streams until both have ended or are silent. At the end of a drain they are cut.
    async fn join(&self, session: &mut Session, ctx: &mut Context, mut target: ClientSession) {
        if let Some(connection) = &ctx.downstream.connection {
            connection.stop_following();
        }
        // Bytes that came with the handshakes are the first of the tunnel.
        let early_in = session.read_request_body().now_or_never().and_then(Result::ok).flatten();
        let early_out = target.read_body_bytes().now_or_never().and_then(Result::ok).flatten();
        let (placeholder, _) = tokio::io::duplex(1);
        let placeholder = ServerSession::new_http1(Box::new(placeholder));
        let ServerSession::H1(client) = std::mem::replace(&mut *session.downstream_session, placeholder) else {
            return;
        };
        let counts = (AtomicU64::new(0), AtomicU64::new(0));
        let (client_read, client_write) = tokio::io::split(client.into_inner());
        let (target_read, target_write) = tokio::io::split(target.into_inner());
        let (stop, stopped) = watch::channel(false);
        let inward = TunnelDirection {
            early: early_in,
            count: &counts.0,
            stop: stopped.clone(),
            close_frame: close_frame(GOING_AWAY, true),
        };
        let outward = TunnelDirection {
            early: early_out,
            count: &counts.1,
            stop: stopped.clone(),
            close_frame: close_frame(SERVICE_RESTART, false),
        };
        let drained = async {
            self.tunnel_time_over().await;
            stop.send_replace(true);
            tokio::time::sleep(CLIENT_CLOSE_TIMEOUT).await;
        };
        tokio::select! {
            () = run_both(inward.run(client_read, target_write), outward.run(target_read, client_write), stopped) => {}
            () = await_silence(&counts, TUNNEL_IDLE_TIMEOUT) => {
                ctx.exchange.detail = Some("the tunnel was silent for an hour".to_owned());
            }
            () = drained => {}
        }
        ctx.ending.tunnelled = Some((counts.0.into_inner(), counts.1.into_inner()));
    }
}

impl Gateway {
    /// Resolves when the process has drained for as long as tunnels may go on in a drain.
    async fn tunnel_time_over(&self) {
        let mut draining = self.draining.clone();
        loop {
            if draining.wait_for(|draining| *draining).await.is_err() {
                return std::future::pending().await;
            }
            let process = &self.serving.serving().snapshot.process;
            // In time before whatever is still active is cut.
            let latest = process.drain_time.saturating_sub(CLIENT_CLOSE_TIMEOUT).max(process.drain_time / 2);
            let time = process.websocket_time.min(latest);
            // A drain may be cancelled.
            if tokio::time::timeout(time, draining.wait_for(|draining| !*draining)).await.is_err() {
                return;
            }
        }
    }
}

/// One direction of a tunnel.
struct TunnelDirection<'t> {
    /// The bytes that came with the handshake.
    early: Option<Bytes>,
    count: &'t AtomicU64,
    /// Whether it is to end at the end of the next frame.
    stop: watch::Receiver<bool>,
    /// The close frame with which it then ends.
    close_frame: Vec<u8>,
}

impl TunnelDirection<'_> {
    /// Copies to the end, and then closes that direction alone.
    async fn run(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut frames = WebSocketFrames::default();
        if let Some(early) = self.early.take() {
            frames.follow(&early);
            self.send(&early, &mut to).await?;
        }
        let mut buffer = vec![0; TUNNEL_BUFFER];
        loop {
            let stopping = *self.stop.borrow();
            if stopping && frames.at_boundary() {
                return self.close_handshake(&mut frames, &mut from, &mut to, &mut buffer).await;
            }
            let read = from.read(&mut buffer);
            let taken = tokio::select! {
                // A reset is an end like any other: the shutdown below forwards it to the other side.
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
                return self.close_handshake(&mut frames, &mut from, &mut to, &mut buffer).await;
            }
        }
    }

    async fn send(&self, bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        to.write_all(bytes).await?;
        to.flush().await?;
        self.count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Sends the close frame, and waits for that of the other side, without forwarding anything (RFC 6455, section
    /// 7.1.2).
    async fn close_handshake(
        &self,
        frames: &mut WebSocketFrames,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        buffer: &mut [u8],
    ) -> std::io::Result<()> {
        to.write_all(&self.close_frame).await?;
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

/// Runs both directions; once one has ended the other has [`HALF_CLOSED_TIMEOUT`] to do so. In a drain the client's
/// response to its close frame is waited for, and the target's for [`TARGET_CLOSE_TIMEOUT`] only.
async fn run_both(inward: impl Future, outward: impl Future, stop: watch::Receiver<bool>) {
    tokio::pin!(inward, outward);
    tokio::select! {
        _ = &mut inward => {
            let time = if *stop.borrow() { TARGET_CLOSE_TIMEOUT } else { HALF_CLOSED_TIMEOUT };
            drop(tokio::time::timeout(time, outward).await);
        }
        _ = &mut outward => drop(tokio::time::timeout(HALF_CLOSED_TIMEOUT, inward).await),
    }
}

/// Resolves when neither direction has moved for `limit`.
async fn await_silence(counts: &(AtomicU64, AtomicU64), limit: Duration) {
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
