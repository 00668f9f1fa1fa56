//! The choice of the target for a try.

use std::net::SocketAddr;
use std::time::Instant;

use http::{HeaderValue, Version};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::connect::opener;
use super::context::Downstream;
use super::waiting::{Waited, wait};
use super::{Context, Gateway};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::filters::Verdict;
use crate::rules::routing::RequestFacts;
use crate::upstreams::{Caller, ProxiedClient, keep_to_one_client, widen_window};

/// Returns the request as rules see it.
pub(super) fn request_facts<'q>(request: &'q RequestHeader, exchange: &'q Exchange) -> RequestFacts<'q> {
    RequestFacts {
        host: &exchange.host,
        path: request.uri.path(),
        query: request.uri.query(),
        method: &request.method,
        headers: &request.headers,
        client: exchange.client,
    }
}

/// Returns the request as its upstream sees it.
pub(super) fn caller<'r>(request: &'r RequestHeader, exchange: &'r Exchange) -> Caller<'r> {
    let request = Some(request_facts(request, exchange));
    Caller { request, address: None, consumer: consumer(exchange), client: None }
}

/// Returns the request as its upstream sees it, for connections that are made with [`crate::upstreams::Calls`].
pub(super) fn connecting_caller<'r>(request: &'r RequestHeader, ctx: &'r Context) -> Caller<'r> {
    Caller { client: Some(proxied_client(request, &ctx.exchange, &ctx.downstream)), ..caller(request, &ctx.exchange) }
}

/// Returns the client as a PROXY header names it.
fn proxied_client<'r>(request: &RequestHeader, exchange: &'r Exchange, downstream: &Downstream) -> ProxiedClient<'r> {
    let (peer, proxy) = (exchange.peer.address, exchange.peer.proxy());
    // The port of a client that a header of the request names is unknown.
    let is_peer = peer.ip().to_canonical() == exchange.client;
    let source = if is_peer { peer } else { SocketAddr::new(exchange.client, 0) };
    let local = || downstream.connection.as_ref().and_then(|connection| connection.local());
    let tls = exchange.peer.tls();
    ProxiedClient {
        source,
        destination: proxy.and_then(|proxy| proxy.destination).or_else(local),
        tls,
        proxy,
        authority: Some(&*exchange.host).filter(|host| !host.is_empty()),
        alpn: tls.map(|_| if request.version == Version::HTTP_2 { &b"h2"[..] } else { b"http/1.1" }),
        id: exchange.request_id.as_ref().map(HeaderValue::as_bytes),
    }
}

pub(super) fn consumer(exchange: &Exchange) -> Option<&str> {
    exchange.identity.as_ref().map(|i| &*i.name)
}

impl Gateway {
    /// Begins a try, and returns how its target is reached.
    pub(super) async fn pick(&self, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        // Each try sends the body from its beginning.
        ctx.request_body.seen = 0;
        ctx.mirroring.restart();
        let Some(visit) = &mut ctx.visit else { return Error::err(ErrorType::InternalError) };
        let caller = caller(session.req_header(), &ctx.exchange);
        let mut now = Instant::now();
        let begun = match visit.try_next(&caller, now) {
            Some(begun) => begun,
            None => {
                let begun = Box::pin(wait_while_client_present(&ctx.downstream, visit.next(&caller))).await;
                now = Instant::now();
                begun
            }
        };
        if let Err(rejection) = begun {
            return Err(fail_with(ctx, rejection));
        }
        let (Some(mut peer), Some(member)) = (visit.peer(now), visit.member()) else {
            return Error::err(ErrorType::InternalError);
        };
        let client = member.proxy.map(|_| proxied_client(session.req_header(), &ctx.exchange, &ctx.downstream));
        peer.options.custom_l4 = Some(opener(member, client.as_ref()));
        if client.is_some() {
            keep_to_one_client(&mut peer);
        }
        let sending = !session.is_body_done() || ctx.whole.is_some();
        if sending {
            widen_window(&mut peer);
        }
        ctx.pace().iter().for_each(|pace| pace.begin(peer.options.read_timeout, sending));
        if session.is_body_empty() {
            // What is written fits into any socket's buffer: it needs no timer.
            peer.options.write_timeout = None;
        }
        Ok(peer)
    }
}

/// Waits for a target while the client is there.
pub(super) async fn wait_while_client_present(downstream: &Downstream, work: impl Future<Output = Verdict>) -> Verdict {
    match wait(downstream, None, work).await {
        Waited::Done(done) => done,
        Waited::Late | Waited::Gone => Err(Rejection::new(Reason::ClientGone, "")),
    }
}

/// Keeps a rejection for the response, and returns the error to fail with.
pub(super) fn fail_with(ctx: &mut Context, rejection: Box<Rejection>) -> Box<Error> {
    let status = rejection.http_status();
    ctx.rejection = Some(rejection);
    Error::new(ErrorType::HTTPStatus(status))
}
