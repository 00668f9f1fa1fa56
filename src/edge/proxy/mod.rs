//! The phases of Pingora's `ProxyHttp`, a file per phase; this one only says which is which.

mod answer;
mod context;
mod failure;
mod finish;
mod forward;
mod intake;
mod respond;
mod route;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use pingora::connectors::TransportConnector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_limits::rate::Rate;

use crate::snapshot::Serving;

pub use context::Context;

/// The gateway as Pingora sees it.
pub struct Gateway {
    serving: Arc<ArcSwap<Serving>>,
    /// Requests by address, coarsely; the exact limits are filters.
    shield: Rate,
    /// Connections for what Pingora's proxy does not carry: WebSockets.
    connector: TransportConnector,
    /// True once the process drains.
    shutdown: pingora::server::ShutdownWatch,
}

impl Gateway {
    /// A gateway that serves whatever `serving` holds at a request's start.
    pub fn new(serving: Arc<ArcSwap<Serving>>, shutdown: pingora::server::ShutdownWatch) -> Self {
        // Windows of a second: shorter ones panic under concurrency, longer ones are scaled below.
        // A wider sketch than the default keeps the error small at 100,000 addresses.
        let shield = Rate::new_with_estimator_config(Duration::from_secs(1), 4, 65_536);
        Self { serving, shield, connector: TransportConnector::new(None), shutdown }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.serving.load_full())
    }

    /// None: Pingora's compression module would be asked on every message.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        self.route(session, ctx).await
    }

    async fn request_body_filter(&self, session: &mut Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Context) -> Result<()> {
        self.count_body(session, body.as_ref(), end, ctx)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        self.pick(session, ctx)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        self.connected(reused, ctx);
        Ok(())
    }

    async fn upstream_request_filter(&self, session: &mut Session, request: &mut RequestHeader, ctx: &mut Context) -> Result<()> {
        self.prepare(session.req_header(), request, ctx)
    }

    async fn upstream_response_filter(&self, _session: &mut Session, response: &mut ResponseHeader, ctx: &mut Context) -> Result<()> {
        self.answered(response, ctx);
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Context) -> Result<()> {
        self.edit_answer(session.req_header(), response, ctx)
    }

    fn response_body_filter(&self, _session: &mut Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Context) -> Result<Option<Duration>> {
        self.edit_body(body, end, ctx)?;
        Ok(None)
    }

    fn fail_to_connect(&self, _session: &mut Session, _peer: &HttpPeer, ctx: &mut Context, error: Box<Error>) -> Box<Error> {
        self.connect_failed(ctx, error)
    }

    fn error_while_proxy(&self, _peer: &HttpPeer, session: &mut Session, error: Box<Error>, ctx: &mut Context, reused: bool) -> Box<Error> {
        self.exchange_failed(session, ctx, error, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        self.answer_failure(session, error, ctx).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        self.finish(session, error, ctx);
    }

    /// Every failure is in the access log with its reason; a second line for each would let anyone
    /// fill the disk.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _context: pingora::proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
