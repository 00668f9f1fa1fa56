//! One probe: its request, and the evaluation of the response.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, TE};
use pingora::connectors::TransportConnector;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;

use super::call::{Reply, call, error_text, is_exhaustion};
use super::datagram_probe::{DatagramProbe, DnsProbe};
use super::proxy_header::HeaderOpener;
use super::watch::WatchShape;
use crate::notation::Statuses;
use crate::rules::protocols::HeaderTransport;
use crate::tls::{connector_options, verify_own_certificate};

/// The maximum size of a body that is searched for a text.
const MAX_PROBED_BODY: usize = 64 * 1024;

/// The connectors of all probes.
static CONNECTORS: LazyLock<(TransportConnector, Connector<()>)> =
    LazyLock::new(|| (TransportConnector::new(connector_options()), Connector::new(connector_options())));

/// The kind of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// A connection, with TLS where the upstream uses it.
    Tcp,
    /// An HTTP request.
    Http(HttpProbe),
    /// `grpc.health.v1.Health/Check` (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
    Grpc {
        /// The service name in the request; empty is the server as a whole.
        service: String,
    },
    /// A datagram.
    Udp(DatagramProbe),
    /// A query of the DNS.
    Dns(DnsProbe),
}

/// An HTTP request and the expected response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// `GET`, `HEAD` …
    pub method: http::Method,
    /// The path, with its query.
    pub path: String,
    /// `Host`, instead of the target's own.
    pub host: Option<String>,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The statuses of a healthy target.
    pub status: Statuses,
    /// A header that the response must have.
    pub expect_header: Option<HeaderName>,
    /// An expression that the first 64 KiB of the body must match.
    pub expect_body: Option<Expression>,
}

/// A regular expression, equal to those with the same text.
#[derive(Clone, Debug)]
pub struct Expression(pub regex::Regex);

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Expression {}

impl std::hash::Hash for Expression {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

/// A probe that is sent repeatedly.
pub struct Probe {
    kind: ProbeKind,
    peer: HttpPeer,
    authority: String,
    timeout: Duration,
    address: SocketAddr,
    /// The PROXY header of a datagram.
    header: Vec<u8>,
}

impl Probe {
    /// Returns the probe of a watch.
    pub fn new(shape: &WatchShape) -> Self {
        let mut peer = shape.transport.apply(HttpPeer::new(shape.address, false, String::new()), &shape.host);
        let timeout = shape.probe.timeout;
        peer.options.connection_timeout = Some(timeout);
        peer.options.total_connection_timeout = Some(timeout);
        peer.options.read_timeout = Some(timeout);
        peer.options.custom_l4 = shape.transport.proxy.as_ref().map(HeaderOpener::of_probe);
        // No connection is reused: whether a connection can be made is part of the probe.
        peer.options.idle_timeout = Some(Duration::ZERO);
        if matches!(shape.probe.kind, ProbeKind::Grpc { .. }) {
            peer.options.set_http_version(2, 2);
        }
        let is_of_datagrams = matches!(shape.probe.kind, ProbeKind::Udp(_) | ProbeKind::Dns(_));
        let proxy = shape.transport.proxy.as_ref().filter(|_| is_of_datagrams);
        Self {
            kind: shape.probe.kind.clone(),
            peer,
            authority: shape.authority.clone(),
            timeout,
            address: shape.address,
            header: proxy.map(|proxy| proxy.header(None, HeaderTransport::Datagram)).unwrap_or_default(),
        }
    }

    /// Sends it once.
    ///
    /// # Errors
    /// Describes what is wrong with the target.
    pub async fn check(&self) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, self.send()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no response within {:?}", self.timeout)),
        }
    }

    async fn send(&self) -> Result<(), String> {
        match &self.kind {
            ProbeKind::Tcp => {
                let stream = CONNECTORS.0.new_stream(&self.peer).await.map_err(|e| cause(&e))?;
                let digest = Digest { ssl_digest: stream.get_ssl_digest(), ..Digest::default() };
                verify_own_certificate(&self.peer, Some(&digest)).await.map_err(|e| cause(&e))
            }
            ProbeKind::Http(probe) => {
                let most = if probe.expect_body.is_some() { MAX_PROBED_BODY } else { 0 };
                let reply = self.call(probe.request(&self.authority)?, Bytes::new(), most).await?;
                probe.evaluate(&reply)
            }
            ProbeKind::Udp(probe) => probe.check(self.address, &self.header).await,
            ProbeKind::Dns(probe) => probe.check(self.address, &self.header).await,
            ProbeKind::Grpc { service } => {
                let reply = self.call(grpc_request(&self.authority)?, grpc_message(service), MAX_PROBED_BODY).await?;
                evaluate_grpc(&reply)
            }
        }
    }

    async fn call(&self, request: RequestHeader, body: Bytes, most: usize) -> Result<Reply, String> {
        call(&CONNECTORS.1, &self.peer, request, body, most).await.map_err(|e| cause(&e))
    }
}

/// The error of a probe that could not be sent because no socket was available: it says nothing about the target.
pub const UNSENT: &str = "no socket is left to probe it";

/// Returns the reason for which a probe failed.
fn cause(error: &pingora::Error) -> String {
    if is_exhaustion(error) {
        return UNSENT.to_owned();
    }
    error_text(error)
}

fn malformed<E: std::fmt::Display>(error: E) -> String {
    format!("the probe is malformed: {error}")
}

impl HttpProbe {
    fn request(&self, authority: &str) -> Result<RequestHeader, String> {
        let mut request = RequestHeader::build(self.method.clone(), self.path.as_bytes(), None).map_err(malformed)?;
        request.insert_header(HOST, self.host.as_deref().unwrap_or(authority)).map_err(malformed)?;
        if matches!(self.method, http::Method::POST | http::Method::PUT | http::Method::PATCH) {
            // Without it a body may be awaited (RFC 9110, section 8.6).
            request.insert_header(http::header::CONTENT_LENGTH, "0").map_err(malformed)?;
        }
        for (name, value) in &self.headers {
            request.insert_header(name.clone(), value.clone()).map_err(malformed)?;
        }
        Ok(request)
    }

    fn evaluate(&self, reply: &Reply) -> Result<(), String> {
        let status = reply.head.status.as_u16();
        if !self.status.contains(status) {
            return Err(format!("status {status}"));
        }
        if let Some(name) = self.expect_header.as_ref().filter(|name| !reply.head.headers.contains_key(*name)) {
            return Err(format!("the header {name} is missing"));
        }
        match &self.expect_body {
            Some(pattern) if !pattern.0.is_match(&String::from_utf8_lossy(&reply.body)) => {
                Err("the body does not match".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn grpc_request(authority: &str) -> Result<RequestHeader, String> {
    let mut request = RequestHeader::build("POST", b"/grpc.health.v1.Health/Check", None).map_err(malformed)?;
    request.insert_header(HOST, authority).map_err(malformed)?;
    request.insert_header(CONTENT_TYPE, "application/grpc").map_err(malformed)?;
    request.insert_header(TE, "trailers").map_err(malformed)?;
    Ok(request)
}

/// Returns a message of one field, number 1 of type string, behind the five bytes of its frame.
fn grpc_message(service: &str) -> Bytes {
    // A name of more than 127 bytes would need a longer length; there is none.
    let name = &service.as_bytes()[..service.len().min(127)];
    let mut message = Vec::new();
    if !name.is_empty() {
        message.extend_from_slice(&[0x0a, name.len() as u8]);
        message.extend_from_slice(name);
    }
    let mut frame = vec![0, 0, 0, 0, message.len() as u8];
    frame.append(&mut message);
    frame.into()
}

/// Evaluates a response: `status: SERVING` is field 1 with the value 1.
fn evaluate_grpc(reply: &Reply) -> Result<(), String> {
    let from = |headers: &http::HeaderMap| headers.get("grpc-status").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let status = reply.trailers.as_ref().and_then(from).or_else(|| from(&reply.head.headers));
    match status.as_deref() {
        Some("0") => {}
        Some(other) => return Err(format!("grpc-status {other}")),
        None => return Err(format!("no gRPC response, status {}", reply.head.status.as_u16())),
    }
    match reply.body.get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        Some([0x08, other, ..]) => Err(format!("not serving, health status {other}")),
        _ => Err("not serving, no health status".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grpc_message_is_framed() {
        assert_eq!(&grpc_message("")[..], &[0, 0, 0, 0, 0]);
        assert_eq!(&grpc_message("ab")[..], &[0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }
}
