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
use http::header::{CONNECTION, HeaderValue, SET_COOKIE, UPGRADE};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::hop_by_hop::drop_from_response;
use super::sockets::SocketHalves;
use super::{Context, Gateway};
use crate::exchange::Reason;
use crate::filters::ResponseView;
use crate::rules::frames::close_code::{GOING_AWAY, SERVICE_RESTART};
use crate::rules::frames::{WebSocketFrames, close_frame};
use crate::rules::websocket::FrameLimiter;

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
        let head = response.head.clone();
        let Some(target) = SocketHalves::of_target(response) else { return Error::err(ErrorType::InternalError) };
        self.finish_handshake(session, ctx, head).await?;
        if let Some(client) = SocketHalves::of_client(session, ctx) {
            self.join(ctx, client, target).await;
        }
        Ok(())
    }

    /// Sends the client the response to its handshake.
    pub(super) async fn finish_handshake(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        mut head: ResponseHeader,
    ) -> Result<()> {
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
        session.write_response_header(Box::new(head), false).await
    }

    /// Joins the two streams until both have ended or are silent. At the end of a drain they are cut.
    async fn join(&self, ctx: &mut Context, client: SocketHalves, target: SocketHalves) {
        let counts = (AtomicU64::new(0), AtomicU64::new(0));
        let (stop, stopped) = watch::channel(None);
        let (frames, idle_time) = match ctx.forward() {
            Some(forward) => (forward.websocket.frames, forward.websocket.idle_time.unwrap_or(TUNNEL_IDLE_TIMEOUT)),
            None => (None, TUNNEL_IDLE_TIMEOUT),
        };
        let inward = TunnelDirection {
            early: client.early,
            count: &counts.0,
            stop: stopped.clone(),
            limit: frames.map(|limits| (Instant::now(), FrameLimiter::new(limits, 0.0), &stop)),
            is_inward: true,
        };
        let outward = TunnelDirection {
            early: target.early,
            count: &counts.1,
            stop: stopped.clone(),
            limit: None,
            is_inward: false,
        };
        let drained = async {
            self.tunnel_time_over().await;
            stop.send_replace(Some(SERVICE_RESTART));
            tokio::time::sleep(CLIENT_CLOSE_TIMEOUT).await;
        };
        tokio::select! {
            () = run_both(inward.run(client.read, target.write), outward.run(target.read, client.write), stopped) => {}
            () = await_silence(&counts, idle_time) => {
                ctx.exchange.detail = Some(format!("the tunnel was silent for {idle_time:?}"));
            }
            () = drained => {}
        }
        ctx.ending.tunnelled = Some((counts.0.into_inner(), counts.1.into_inner()));
    }
}

impl Gateway {
    /// Resolves when the process has drained for as long as tunnels may go on in a drain.
    pub(super) async fn tunnel_time_over(&self) {
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
    /// The code with which the client's side is closed at the end of the next frame, if it is to end.
    stop: watch::Receiver<Option<u16>>,
    /// The limits of what is sent, since when they count, and what ends both directions.
    limit: Option<(Instant, FrameLimiter, &'t watch::Sender<Option<u16>>)>,
    /// Whether it is that from the client.
    is_inward: bool,
}

impl TunnelDirection<'_> {
    /// Copies to the end, and then closes that direction alone.
    async fn run(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut frames = WebSocketFrames::default();
        let mut passed = Vec::new();
        if let Some(early) = self.early.take() {
            self.pass(&early, (&mut frames, &mut passed), &mut to).await?;
        }
        let mut buffer = vec![0; TUNNEL_BUFFER];
        loop {
            let stop = *self.stop.borrow_and_update();
            if let Some(code) = stop.filter(|_| frames.at_boundary()) {
                return self.close_handshake(code, &mut frames, &mut from, &mut to, &mut buffer).await;
            }
            let read = from.read(&mut buffer);
            let taken = tokio::select! {
                // A reset is an end like any other: the shutdown below forwards it to the other side.
                taken = read => taken.unwrap_or_default(),
                _ = self.stop.changed(), if stop.is_none() => continue,
            };
            // The other direction may have ended both meanwhile, and what has come be the response to that.
            let stop = *self.stop.borrow_and_update();
            if taken == 0 && (stop.is_none() || !frames.at_boundary()) {
                return to.shutdown().await;
            }
            let Some(code) = stop else {
                self.pass(&buffer[..taken], (&mut frames, &mut passed), &mut to).await?;
                continue;
            };
            let end = frames.finish(&buffer[..taken]);
            self.send(&buffer[..end], &mut to).await?;
            if frames.at_boundary() {
                frames.follow(&buffer[end..taken]);
                return self.close_handshake(code, &mut frames, &mut from, &mut to, &mut buffer).await;
            }
        }
    }

    /// Passes on what has come, as far as the limits allow it.
    async fn pass(
        &mut self,
        bytes: &[u8],
        (frames, passed): (&mut WebSocketFrames, &mut Vec<u8>),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let Some((since, limiter, stop)) = &mut self.limit else {
            frames.follow(bytes);
            return self.send(bytes, to).await;
        };
        passed.clear();
        if let Err(fault) = limiter.pass(bytes, since.elapsed().as_secs_f64(), passed) {
            stop.send_replace(Some(fault.code()));
        }
        frames.follow(passed);
        self.send(passed, to).await
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
        code: u16,
        frames: &mut WebSocketFrames,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        buffer: &mut [u8],
    ) -> std::io::Result<()> {
        // The target is told that the client goes away.
        let code = if self.is_inward { GOING_AWAY } else { code };
        to.write_all(&close_frame(code, self.is_inward)).await?;
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
async fn run_both(inward: impl Future, outward: impl Future, stop: watch::Receiver<Option<u16>>) {
    tokio::pin!(inward, outward);
    tokio::select! {
        _ = &mut inward => {
            let time = if stop.borrow().is_some() { TARGET_CLOSE_TIMEOUT } else { HALF_CLOSED_TIMEOUT };
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
