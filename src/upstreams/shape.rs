//! The shape of an upstream: the part of its configuration that decides whether two upstreams are the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use pingora::connectors::l4::BindTo;
use pingora::upstreams::peer::HttpPeer;

use super::discovery::DiscoveryShape;
use super::gate::GateShape;
use super::proxy_header::ProxyHeaderShape;
use super::socket::SocketOptions;
use super::target::TargetSpec;
use super::watch::ActiveProbe;
use crate::clients::Resolver;
use crate::rules::balance::{Algorithm, ZoneRule};
use crate::rules::resilience::{BreakerShape, OutlierShape, RetryBudget};
use crate::tls::{PeerIdentity, PeerRoots, system_roots};

/// The flow-control window of an HTTP/2 response: the number of bytes that a target may send before the client reads
/// them. And the streams of a connection, so that none waits for the client of another one.
const TARGET_STREAM_WINDOW: u32 = 64 * 1024;
const TARGET_STREAMS: u32 = 100;

/// The window for a request whose body is still being sent.
const DUPLEX_WINDOW: u32 = 8 * 1024 * 1024;

/// Distinguishes connections with such a window from the others of a target.
const DUPLEX_KEY: u64 = 0x6475_706c_6578;

/// Makes a request whose body is still being sent use a connection with a large window: Pingora does not read the
/// response while it waits to send a part of the request, so that with a target that echoes its input both would wait
/// for each other.
pub fn widen_window(peer: &mut HttpPeer) {
    if peer.options.alpn.get_max_http_version() == 2 {
        peer.options.h2_stream_window_size = Some(DUPLEX_WINDOW);
        peer.options.h2_connection_window_size = Some(4 * DUPLEX_WINDOW);
        peer.group_key ^= DUPLEX_KEY;
    }
}

/// The configuration of a pool. Configurations that need the same shape share the pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// The upstream's name.
    pub name: String,
    /// The balancing algorithm.
    pub algorithm: Algorithm,
    /// The configured targets.
    pub targets: Vec<TargetSpec>,
    /// The transport to the targets.
    pub transport: TargetTransport,
    /// The active probe.
    pub probe: Option<ActiveProbe>,
    /// The conditions for ejection.
    pub outlier: Option<OutlierShape>,
    /// The percentage of healthy targets below which health is ignored; 0 is never.
    pub panic_threshold: u32,
    /// The slow start of targets that become eligible: nanoseconds, thousandths of aggression.
    pub slow_start: Option<(u64, u32)>,
    /// The breaker of the whole upstream.
    pub breaker: Option<BreakerShape>,
    /// The breaker of each target.
    pub target_breaker: Option<BreakerShape>,
    /// The limits on concurrent requests.
    pub gate: GateShape,
    /// The retry budget.
    pub budget: RetryBudget,
    /// The key of its session tags, if it has sessions.
    pub sessions: Option<SessionKey>,
    /// The zone that this gateway is in.
    pub zone: Option<String>,
    /// The division of load among zones.
    pub zones: ZoneRule,
    /// The source of further targets.
    pub discovery: Option<DiscoveryShape>,
    /// The resolver for host names, if not the system's.
    pub resolver: Option<Resolver>,
    /// The interval between look-ups of host names without a time to live.
    pub resolve_interval: Duration,
}

/// The key that turns a target's address into the tag of its sessions: without the key, nobody can forge a tag or
/// derive an address from one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionKey([u8; 32]);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl SessionKey {
    /// Returns the key derived from a secret, or without one the gateway's own.
    pub fn new(secret: Option<&str>, own: [u8; 32]) -> Self {
        let Some(secret) = secret else { return Self(own) };
        let digest = digest::digest(&digest::SHA256, secret.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(digest.as_ref());
        Self(key)
    }

    /// Returns the tag of a target.
    pub fn tag(&self, label: &str) -> u128 {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut tag = [0; 16];
        tag.copy_from_slice(&hmac::sign(&key, label.as_bytes()).as_ref()[..16]);
        u128::from_be_bytes(tag)
    }
}

/// The transport to targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetTransport {
    /// The minimum and the maximum major version of HTTP.
    pub versions: (u8, u8),
    /// The PROXY header at the start of each connection, if any.
    pub proxy: Option<ProxyHeaderShape>,
    /// TLS, if any.
    pub tls: Option<TransportTls>,
    /// The options of sockets.
    pub socket: SocketOptions,
    /// The time-out for connecting, TLS included.
    pub connect: Duration,
    /// The time-out between two reads.
    pub read: Duration,
    /// The time-out for one write.
    pub write: Duration,
    /// The time after which an unused connection is closed.
    pub idle: Duration,
}

/// TLS towards targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransportTls {
    /// Whether the certificate is verified.
    pub verify: bool,
    /// The name to request and verify instead of the target's own.
    pub name: Option<String>,
    /// The CA certificates instead of the system's.
    pub ca: Option<PeerRoots>,
    /// The gateway's own certificate.
    pub identity: Option<PeerIdentity>,
}

impl TargetTransport {
    /// Gives a peer the settings of this transport; `host` is the target's configured name.
    pub fn apply(&self, mut peer: HttpPeer, host: &str) -> HttpPeer {
        if let Some(tls) = &self.tls {
            peer.scheme = pingora::upstreams::peer::Scheme::HTTPS;
            // Never empty: Pingora takes an empty name to mean that nothing is verified.
            peer.sni = tls.name.clone().unwrap_or_else(|| host.to_owned());
            // With a CA and without verification, `verify_own_certificate` verifies.
            let by_pingora = tls.verify && tls.ca.as_ref().is_none_or(|ca| !ca.may_be_own);
            peer.options.verify_cert = by_pingora;
            peer.options.verify_hostname = by_pingora;
            peer.options.ca = match &tls.ca {
                Some(ca) if tls.verify => Some(Arc::clone(&ca.certificates)),
                _ if !tls.verify && system_roots().is_empty() => {
                    Some(Arc::clone(&PeerRoots::placeholder().certificates))
                }
                _ => None,
            };
        }
        // Pingora builds what rustls needs for each connection then, and resumes no session (pingora-core 0.9.1,
        // `connectors/tls/rustls`). That costs about 50 µs, most of it for the key; without a certificate it is 1 µs.
        peer.client_cert_key = self.tls.as_ref().and_then(|tls| tls.identity.as_ref()).map(PeerIdentity::key);
        let (least, most) = self.versions;
        peer.options.set_http_version(most, least);
        peer.options.max_h2_streams = TARGET_STREAMS as usize;
        // The bytes that may arrive before they are read, and so before the client takes them: Pingora's default is 8
        // MiB per response.
        peer.options.h2_stream_window_size = Some(TARGET_STREAM_WINDOW);
        // The window of all its streams, so that none waits for the client of another one.
        peer.options.h2_connection_window_size = Some(TARGET_STREAMS * TARGET_STREAM_WINDOW);
        // Upgrades use a tunnel of their own; Pingora's would lose some.
        peer.options.http_upstream_request_policy =
            pingora::upstreams::peer::HttpUpstreamRequestPolicy::deny_upgrades();
        peer.options.connection_timeout = Some(self.connect);
        peer.options.total_connection_timeout = Some(self.connect);
        peer.options.read_timeout = Some(self.read);
        peer.options.write_timeout = Some(self.write);
        peer.options.idle_timeout = Some(self.idle);
        // For connections that Pingora makes itself: those of probes.
        if let Some(bind) = self.socket.bind {
            let mut from = BindTo::default();
            from.addr = Some(SocketAddr::new(bind, 0));
            peer.options.bind_to = Some(from);
        }
        // Pingora's own hash omits the CA and the protocol, so that a connection made under other settings could be
        // reused. The seeds are fixed, since the hash has to be the same after every reload.
        peer.group_key =
            ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((&self.tls, self.versions, self.proxy, self.socket));
        peer
    }
}
