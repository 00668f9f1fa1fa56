//! Bare Pingora: the floor under every measurement. It forwards everything to one address, on one
//! worker thread, with the gateway's allocator, and does nothing else.
//!
//! `bare LISTEN TARGET`, for example `bare 127.0.0.1:8081 127.0.0.1:9000`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

#[path = "../../src/allocator.rs"]
mod allocator;

use async_trait::async_trait;
use pingora::prelude::{HttpPeer, ProxyHttp, Result, Server, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

struct Bare(std::net::SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() {
    allocator::keep_memory();
    let mut arguments = std::env::args().skip(1);
    let (listen, target) = (arguments.next().expect("LISTEN"), arguments.next().expect("TARGET"));
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare(target.parse().expect("an address")));
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
