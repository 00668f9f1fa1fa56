//! The URL of a request as its client sees it, behind trusted proxies.

use http::header::{HOST, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use crate::exchange::Exchange;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The URL of a request as its client sees it.
#[derive(Clone, Copy, Debug)]
pub struct PublicUrl<'r> {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// The host, and the port if the client has sent one. It is what the client says.
    pub host: &'r str,
    /// The path and the query.
    pub target: &'r str,
}

impl<'r> PublicUrl<'r> {
    /// Returns the URL of a request. What a proxy says of it counts if the proxy is trusted.
    pub fn of(request: &'r RequestHeader, exchange: &Exchange) -> Self {
        let by_proxy = |name: &HeaderName| request.headers.get(name).filter(|_| exchange.peer_trusted);
        let scheme = match by_proxy(&X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
            Some(b"https") => "https",
            Some(b"http") => "http",
            _ => exchange.scheme(),
        };
        let own = || request.headers.get(HOST).and_then(|host| host.to_str().ok());
        let in_target = || request.uri.authority().map(http::uri::Authority::as_str);
        let host = by_proxy(&X_FORWARDED_HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(in_target).or_else(own).unwrap_or_default();
        let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Self { scheme, host, target }
    }
}

impl std::fmt::Display for PublicUrl<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.host, self.target)
    }
}
