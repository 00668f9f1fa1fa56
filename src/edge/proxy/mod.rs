//! The phases of Pingora's `ProxyHttp`, one file per phase; this file only dispatches.

mod admission;
mod aggregate;
mod aggregate_calls;
mod aggregate_result;
mod cache;
mod connect;
mod context;
mod deadline;
mod failure;
mod files;
mod finish;
mod forward;
mod graphql;
mod held;
mod hop_by_hop;
mod idle_pool;
mod intake;
mod interim;
mod mirror;
mod panics;
mod pick;
mod relay;
mod replay;
mod respond;
mod response;
mod route;
mod service;
mod sockets;
mod targets;
mod translate;
mod tunnel;
mod versions;
mod waiting;
mod whole;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_limits::rate::Rate;
use tokio::sync::watch;

use crate::edge::listeners::Pace;
use crate::snapshot::Current;
use crate::tls::{connector_options, is_verified_later, verify_own_certificate};
use crate::upstreams::Calls;

pub use context::Context;
use panics::{catch_panic, catch_panic_now, resolve_panic};
pub use service::http_service;
pub use targets::Targets;
use whole::BodyBudget;

/// The gateway as Pingora sees it. A clone is the same gateway, for work that outlives a request.
#[derive(Clone)]
pub struct Gateway {
    serving: Arc<Current>,
    /// The coarse count of requests by address; the exact limits are filters.
    shield: Arc<Rate>,
    /// The connections for what Pingora's proxy does not carry.
    calls: Arc<Calls>,
    /// The memory of request bodies that are held whole.
    bodies: Arc<BodyBudget>,
    /// Whether the process drains.
    draining: watch::Receiver<bool>,
    /// The fetches for caches that are under way.
    flights: Arc<cache::Flights>,
}

impl Gateway {
    /// Returns a gateway that serves the configuration that `serving` holds at a request's start.
    pub fn new(serving: Arc<Current>, draining: watch::Receiver<bool>) -> Self {
        // Windows of a second: shorter ones panic under concurrency, longer ones are scaled below.
        // A wider sketch than the default keeps the error small at 100,000 addresses.
        let shield = Arc::new(Rate::new_with_estimator_config(Duration::from_secs(1), 4, 65_536));
        let calls = Arc::new(Calls::new(connector_options(), connect::opener));
        Self { serving, shield, calls, bodies: Arc::default(), draining, flights: Arc::default() }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed: Pingora moves it often, and a pointer is moved at no cost.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        Box::new(Context::new(self.serving.for_worker()))
    }

    /// Adds none: Pingora's compression module would be called for every message.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<bool> {
        // The future of this hook is moved into a box by async_trait: rare work is in a box of its own within, so
        // that what is moved stays small.
        resolve_panic(catch_panic(self.route(session, ctx)).await, ctx)
    }

    /// Any error here ends the exchange with the target at once. Pingora does so with HTTP/2 targets only for errors
    /// of the client (`proxy_h2.rs`, cloudflare/pingora#692): with others it goes on waiting for the response.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        resolve_panic(catch_panic_now(|| self.count_body(session, body.as_ref(), end, ctx)), ctx)
            .map_err(Error::into_down)?;
        if let Some(delay) = ctx.exchange.pacing.request_delay(body.as_ref().map_or(0, Bytes::len)) {
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }

    async fn proxy_upstream_filter(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<bool> {
        resolve_panic(catch_panic(self.admit(session, ctx)).await, ctx)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<Box<HttpPeer>> {
        let mut peer = resolve_panic(catch_panic(self.pick(session, ctx)).await, ctx)?;
        targets::pace(&mut peer);
        Ok(peer)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        if is_verified_later(peer) {
            Box::pin(verify_own_certificate(peer, digest)).await.map_err(Error::into_up)?;
        }
        // Pingora knows only of connections that it has kept itself.
        let reused = ctx.pace().is_some_and(Pace::take_reused) || reused;
        ctx.visit.iter_mut().for_each(|visit| visit.note_connection(reused));
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        // The only methods for which a length of 0 has a meaning (RFC 9110, section 8.6).
        let may_be_empty = |method: &Method| matches!(*method, Method::POST | Method::PUT | Method::PATCH);
        let empty = session.is_body_empty();
        let prepare = || {
            if let Some((visit, member)) = ctx.visit.as_ref().and_then(|visit| Some((visit, visit.member()?))) {
                self.prepare(session.req_header(), request, member, visit.deadline(), ctx)?;
            }
            if empty && may_be_empty(&request.method) {
                request.insert_header(CONTENT_LENGTH, HeaderValue::from_static("0"))?;
            }
            if let Some(whole) = &ctx.whole {
                request.remove_header(&TRANSFER_ENCODING);
                request.insert_header(CONTENT_LENGTH, whole.length())?;
            }
            mirror::begin(ctx, request);
            Ok(())
        };
        resolve_panic(catch_panic_now(prepare), ctx)?;
        if request.version == http::Version::HTTP_2 && session.is_body_empty() {
            // Pingora calls no filter for a body that HTTP/2 targets do not get.
            resolve_panic(catch_panic_now(|| self.count_body(session, None, true, ctx)), ctx)?;
        }
        interim::expect(session, request, ctx).await
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        resolve_panic(catch_panic_now(|| self.handle_response(session, response, ctx)), ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        if session.req_header().version == http::Version::HTTP_10 {
            // The end of the connection may be the end of the body.
            ctx.close_after(session);
        }
        interim::note_reuse(session, response, &mut ctx.interims);
        ctx.end_with_the_listener(session);
        if ctx.cache.is_some() {
            Box::pin(cache::invalidate(ctx, session.req_header(), response)).await;
        }
        resolve_panic(catch_panic_now(|| self.edit_response_head(session.req_header(), response, ctx)), ctx)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Context>,
    ) -> Result<Option<Duration>> {
        resolve_panic(catch_panic_now(|| self.edit_body(body, end, ctx)), ctx)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Box<Context>,
        error: Box<Error>,
    ) -> Box<Error> {
        self.connect_failed(ctx, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Box<Context>,
        _reused: bool,
    ) -> Box<Error> {
        self.exchange_failed(session, ctx, error)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Box<Context>) -> FailToProxy {
        if *error.etype() == admission::EXCHANGE_OVER {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        // Pingora closes the connection after a failure, whatever is returned here: the response says so.
        ctx.close_after(session);
        self.respond_to_failure(session, error, ctx).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Box<Context>) {
        self.finish(session, error, ctx);
        if let Some(whole) = ctx.whole.take() {
            whole.end(session);
        }
    }

    /// Every failure is in the access log with its reason; a second line for each would let anyone fill the disk.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Box<Context>, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Box<Context>,
        _error: &Error,
        _context: pingora::proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
