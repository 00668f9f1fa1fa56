//! `listeners`: where connections are accepted.

use schemars::JsonSchema;
use serde::Deserialize;

use super::errors::Errors;
use super::filters::FilterEntry;
use crate::notation::{Duration, File, Host, Listen, Name, Network, OneOrMany, RateText, Size};

/// One address to accept connections on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Its name, in logs and metrics.
    pub name: Name,
    /// The address and port.
    pub address: Listen,
    /// What it speaks: `http`, or `tcp` or `udp`, for which `streams` has the rules. Default `http`.
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
    /// The header in which those proxies name the client; the other one is then not used. Default `x_forwarded_for`.
    pub client_address: Option<ClientAddress>,
    /// The load balancers that send a PROXY header before everything else. Default: none.
    pub proxy_protocol: Option<ProxyProtocol>,
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
    /// Connections at layer 4 (TCP, RFC 9293), whatever is spoken in them, with or without TLS.
    Tcp,
    /// Datagrams (UDP, RFC 768).
    Udp,
}

/// The header in which trusted proxies name the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAddress {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The PROXY protocol (HAProxy's, versions 1 and 2).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// The load balancers. Each of their connections has to begin with a header; those of other clients never have one.
    #[schemars(length(min = 1))]
    pub from: Vec<Network>,
    /// What is done with connections of other clients: `accept` them without a header, or `reject` them. Default
    /// `accept`.
    #[serde(default)]
    pub others: OtherClients,
}

/// What is done with connections that do not come from a load balancer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtherClients {
    /// They are accepted without a header.
    #[default]
    Accept,
    /// They are closed.
    Reject,
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
    /// clients that ask for none or an unknown one. Of several with one name that is used whose kind of key the client
    /// supports.
    pub certificates: Vec<Certificate>,
    /// The versions and cipher suites by the names of Mozilla's recommendations. Default `intermediate`.
    pub preset: Option<TlsPreset>,
    /// The lowest version. Default `"1.2"`, and `"1.3"` with the preset `modern`.
    pub min_version: Option<TlsVersion>,
    /// The cipher suites in order of preference, instead of those of the preset.
    pub ciphers: Option<OneOrMany<Cipher>>,
    /// The certificates of clients. Default: none is requested.
    pub client: Option<ClientCertificates>,
    /// Settings of single hosts, chosen by the server name that the client asks for.
    #[serde(default)]
    pub hosts: Vec<TlsHost>,
}

impl Tls {
    /// Returns whether clients of any host are requested to have a certificate.
    pub fn requests_certificates(&self) -> bool {
        let mut settings = self.client.iter().chain(self.hosts.iter().filter_map(|host| host.client.as_ref()));
        settings.any(|client| client.mode != ClientMode::None)
    }
}

/// TLS settings of some hosts; what is not set is as for the listener.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsHost {
    /// The hosts: `admin.example.com`, or `*.example.com` for all names below.
    #[schemars(length(min = 1))]
    pub names: Vec<Host>,
    /// The versions and cipher suites by the names of Mozilla's recommendations.
    pub preset: Option<TlsPreset>,
    /// The lowest version.
    pub min_version: Option<TlsVersion>,
    /// The cipher suites in order of preference, instead of those of the preset.
    pub ciphers: Option<OneOrMany<Cipher>>,
    /// The certificates of clients.
    pub client: Option<ClientCertificates>,
}

/// The certificates of clients (mTLS).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificates {
    /// Whether a client has to have one. Default `required`.
    #[serde(default)]
    pub mode: ClientMode,
    /// The CA file (PEM) by which they are verified.
    pub ca: Option<File>,
    /// The lists of revoked certificates (PEM, or one in DER). Each certificate of a chain needs one of its issuer,
    /// that of the CA itself excepted.
    pub crl: Option<OneOrMany<File>>,
    /// What happens once a list has expired (`nextUpdate`): `reject` every client, or `accept` as before. Default
    /// `reject`.
    pub expired_crl: Option<Doubtful>,
    /// What happens with a certificate for whose issuer there is no list. Default `reject`.
    pub unknown_revocation: Option<Doubtful>,
}

/// Whether clients have to have a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientMode {
    /// A connection without one fails.
    #[default]
    Required,
    /// One is requested, and verified where the client has one; the filter `mtls` requires it of single routes.
    Optional,
    /// None is requested, although the listener requests one of other hosts.
    None,
}

/// What is done where the revocation of a certificate is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Doubtful {
    /// The connection fails.
    Reject,
    /// The certificate is accepted.
    Accept,
}

/// Versions and cipher suites by the names of Mozilla's recommendations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsPreset {
    /// TLS 1.3 alone.
    Modern,
    /// TLS 1.2 and 1.3, with ephemeral keys and authenticated encryption.
    Intermediate,
}

/// A cipher suite by its name in the registry of the IANA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[allow(non_camel_case_types, reason = "the names of the registry")]
pub enum Cipher {
    TLS_AES_256_GCM_SHA384,
    TLS_AES_128_GCM_SHA256,
    TLS_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V13,
}

/// A certificate chain and its key, as PEM files, which are read again at every reload; or names for which a
/// certificate is obtained.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The chain, the server's own certificate first.
    pub cert: Option<File>,
    /// The private key.
    pub key: Option<File>,
    /// The names of a certificate that is obtained from the ACME server of `acme`, instead of the files.
    pub acme: Option<OneOrMany<Host>>,
    /// A response of the CA's OCSP responder (DER, as `openssl ocsp -respout` writes it), which is sent with the
    /// certificate. Default: none.
    pub ocsp: Option<File>,
}

/// Limits of a listener.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerLimits {
    /// The most connections at a time, or flows of a listener of kind `udp`. At the limit the connection that has been
    /// idle longest is closed for the next; where none is idle, further ones wait in the kernel's queue; present flows
    /// go on, and datagrams that would begin another are dropped. Default 20000.
    #[schemars(range(min = 1))]
    pub connections: u32,
    /// The most connections, or flows, at a time of one client address or of one IPv6 /64; further ones are closed, and
    /// datagrams that would begin another flow dropped. Connections of `trusted_proxies` are not counted. Default: half
    /// of `connections`, and 64 where that is less.
    #[schemars(range(min = 1))]
    pub connections_per_address: Option<u32>,
    /// The most datagrams of clients in a time, on a listener of kind `udp`; further ones are dropped. Default: any
    /// number.
    pub datagrams: Option<RateText>,
    /// The most new connections, or flows, in a time; further ones are closed, and datagrams that would begin another
    /// flow dropped. Connections are counted in seconds. Default: any number.
    pub new_connections: Option<RateText>,
    /// The most new connections of one client address, or of one IPv6 /64, in a time; further ones are closed. Default:
    /// any number.
    pub new_connections_per_address: Option<RateText>,
    /// The time from the first byte of a request to the end of its headers, also for the TLS handshake and the HTTP/2
    /// preface. Default 10s.
    pub header_time: Duration,
    /// On a listener of kind `tcp` whose rules ask for what clients say in TLS: the time after which a client that has
    /// sent nothing is one of a protocol in which the server speaks first (MySQL, SMTP). It takes the rule without
    /// `server_name` and `alpn`, if there is one. Default 3s.
    pub hello_time: Duration,
    /// The largest head of a request, names and values together. Default 64KiB, at most 1MiB.
    pub headers: Size,
    /// The most headers of a request. Default 256, which is also the most.
    #[schemars(range(min = 1, max = 256))]
    pub header_count: u32,
    /// The most parameters in a query; further ones are rejected with 414. Default 1000.
    #[schemars(range(min = 1))]
    pub query_parameters: u32,
    /// How long a connection may be idle between requests. Default 60s.
    pub idle_time: Duration,
    /// The longest pause within a request body, and within a response that the client does not read. Default 30s.
    pub body_idle_time: Duration,
    /// The least number of bytes of a request body in a second, on average; the first `header_time` is not counted.
    /// A target that reads slowly counts against it too. Default: none.
    pub body_rate: Option<Size>,
    /// The largest request body. Default 100MiB.
    pub body: Size,
    /// Requests on one connection before it is closed; 0 is any number. Default 0.
    pub requests_per_connection: u32,
    /// Concurrent streams on an HTTP/2 connection. Default 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub streams: u32,
    /// The most memory for the heads and the send buffers (64KiB each) of the streams of an HTTP/2 connection; further
    /// streams are refused, and clients send them again. Default 8MiB.
    pub http2_memory: Size,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        let seconds = |s| Duration(std::time::Duration::from_secs(s));
        Self {
            connections: 20_000,
            connections_per_address: None,
            datagrams: None,
            new_connections: None,
            new_connections_per_address: None,
            header_time: seconds(10),
            hello_time: seconds(3),
            headers: Size(64 << 10),
            header_count: 256,
            query_parameters: 1_000,
            body_rate: None,
            idle_time: seconds(60),
            body_idle_time: seconds(30),
            body: Size(100 << 20),
            requests_per_connection: 0,
            streams: 100,
            http2_memory: Size(8 << 20),
        }
    }
}
