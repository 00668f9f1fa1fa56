//! `listeners`: where connections are accepted.

use schemars::JsonSchema;
use serde::Deserialize;

use super::errors::Errors;
use super::filters::FilterEntry;
use crate::notation::{Duration, File, Listen, Name, Network, Size};

/// One address to accept connections on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Its name, in logs and metrics.
    pub name: Name,
    /// The address and port.
    pub address: Listen,
    /// What it speaks. Default `http`, the only kind so far.
    #[serde(default)]
    pub kind: ListenerKind,
    /// The protocols; over TLS they are negotiated (ALPN), without TLS `http2` is h2c with prior
    /// knowledge. Default: both over TLS, `http1` without.
    pub protocols: Option<Vec<Protocol>>,
    /// Certificates; without them the listener is plain.
    pub tls: Option<Tls>,
    /// The proxies whose `X-Forwarded-*` headers are trusted. Default: none. The `X-Forwarded-For` of other clients
    /// is passed on before their own address.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Filters of all requests on this listener, whichever route they match.
    #[serde(default)]
    pub filters: Vec<FilterEntry>,
    /// The pages for rejections of requests on this listener, by status or class of statuses.
    #[serde(default)]
    pub errors: Errors,
    /// The limits of a connection and a request.
    #[serde(default)]
    pub limits: ListenerLimits,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListenerKind {
    /// HTTP over TCP, with or without TLS.
    #[default]
    Http,
}

/// A protocol that a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// TLS towards clients.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificates, chosen by the server name that the client asks for; the first is also for
    /// clients that ask for none or an unknown one.
    pub certificates: Vec<Certificate>,
    /// The lowest version. Default `"1.2"`.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V13,
}

/// A certificate chain and its key, as PEM files. They are read again at every reload.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The chain, the server's own certificate first.
    pub cert: File,
    /// The private key.
    pub key: File,
}

/// Limits of a listener.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerLimits {
    /// The most connections at a time. At the limit the one that has been idle longest is closed for the next; where
    /// none is idle, further ones wait in the kernel's queue. Default 20000.
    #[schemars(range(min = 1))]
    pub connections: u32,
    /// The most connections at a time of one client address, or of one IPv6 /64; further ones are closed. Those of
    /// `trusted_proxies` are not counted. Default: half of `connections`, and 64 where that is less.
    #[schemars(range(min = 1))]
    pub connections_per_address: Option<u32>,
    /// The time from the first byte of a request to the end of its headers, also for the TLS handshake and the HTTP/2
    /// preface. Default 10s.
    pub header_time: Duration,
    /// The largest head of a request, names and values together. Default 64KiB, at most 1MiB.
    pub headers: Size,
    /// How long a connection may be idle between requests. Default 60s.
    pub idle_time: Duration,
    /// The longest pause within a request body, and within a response that the client does not read. Default 30s.
    pub body_idle_time: Duration,
    /// The largest request body. Default 100MiB.
    pub body: Size,
    /// Requests on one connection before it is closed; 0 is any number. Default 0.
    pub requests_per_connection: u32,
    /// Concurrent streams on an HTTP/2 connection. Default 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub streams: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        let seconds = |s| Duration(std::time::Duration::from_secs(s));
        Self {
            connections: 20_000,
            connections_per_address: None,
            header_time: seconds(10),
            headers: Size(64 << 10),
            idle_time: seconds(60),
            body_idle_time: seconds(30),
            body: Size(100 << 20),
            requests_per_connection: 0,
            streams: 100,
        }
    }
}
