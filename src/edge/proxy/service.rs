//! The proxy as the listeners see it.

use std::sync::Arc;

use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;

use super::{Gateway, Targets};
use crate::edge::listeners::{RequestWork, ServeHttp};

/// Pingora's proxy for the gateway.
struct Proxy(Arc<HttpProxy<Gateway, Targets>>);

impl ServeHttp for Proxy {
    fn serve<'w>(&'w self, session: ServerSession, shutdown: &'w ShutdownWatch) -> RequestWork<'w> {
        self.0.process_new_http(session, shutdown)
    }
}

/// Returns what serves the requests of all listeners for HTTP.
pub fn http_service(gateway: Gateway, conf: &Arc<ServerConf>) -> Arc<dyn ServeHttp> {
    Arc::new(Proxy(Arc::new(Targets::proxy(gateway, conf))))
}
