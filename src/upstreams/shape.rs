//! What an upstream is, as its configuration says: the part that decides whether it is the same one.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use pingora::upstreams::peer::HttpPeer;

use super::discovery::DiscoveryShape;
use super::gate::GateShape;
use super::target::TargetSpec;
use super::watch::ActiveProbe;
use crate::clients::Resolver;
use crate::rules::balance::Algorithm;
use crate::rules::resilience::{BreakerShape, Budget, OutlierShape};
use crate::tls::{PeerAuthorities, system_roots};

/// What an HTTP/2 target may send of a response before it is read, and so before the client takes it; and the streams of a
/// connection, so that none waits for the client of another one.
const STREAM_WINDOW: u32 = 64 * 1024;
const STREAMS: u32 = 100;

/// The same for a request whose body is still coming.
const DUPLEX_WINDOW: u32 = 8 * 1024 * 1024;

/// What tells connections with such a window from the others of a target.
const DUPLEX_KEY: u64 = 0x6475_706c_6578;

/// Has a request whose body is still coming take a connection with a large window: Pingora does not read the response while
/// it waits to send a part of the request, so that with a target that sends back what it gets both would wait for each
/// other.
pub fn widen_window(peer: &mut HttpPeer) {
    if peer.options.alpn.get_max_http_version() == 2 {
        peer.options.h2_stream_window_size = Some(DUPLEX_WINDOW);
        peer.options.h2_connection_window_size = Some(4 * DUPLEX_WINDOW);
        peer.group_key ^= DUPLEX_KEY;
    }
}

/// All that makes a pool what it is. Two configurations that ask for the same shape share the pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// The upstream's name.
    pub name: String,
    /// How a target is picked.
    pub algorithm: Algorithm,
    /// The targets that are written down.
    pub targets: Vec<TargetSpec>,
    /// How they are spoken to.
    pub transport: Transport,
    /// How they are probed.
    pub probe: Option<ActiveProbe>,
    /// When targets are left out because of their answers.
    pub outlier: Option<OutlierShape>,
    /// Percent of healthy targets below which health is ignored; 0 is never.
    pub panic_threshold: u32,
    /// How targets that have just become eligible are started: nanoseconds, thousandths of aggression.
    pub slow_start: Option<(u64, u32)>,
    /// The breaker of the whole upstream.
    pub breaker: Option<BreakerShape>,
    /// The breaker of each target.
    pub target_breaker: Option<BreakerShape>,
    /// How many requests there may be.
    pub gate: GateShape,
    /// How many of them may be retries.
    pub budget: Budget,
    /// The key of its sessions, if it has any.
    pub sessions: Option<SessionKey>,
    /// The zone that this gateway is in.
    pub zone: Option<String>,
    /// Where further targets come from.
    pub discovery: Option<DiscoveryShape>,
    /// Who knows host names, if not the system's name servers.
    pub resolver: Option<Resolver>,
    /// Time between two look-ups of host names that do not say how long they hold.
    pub resolve_interval: Duration,
}

/// What turns a target's address into the tag that its sessions carry: nobody without the key can
/// make a tag, or read an address out of one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionKey([u8; 32]);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl SessionKey {
    /// The key that a secret stands for; without one, the gateway's own.
    pub fn new(secret: Option<&str>, own: [u8; 32]) -> Self {
        let Some(secret) = secret else { return Self(own) };
        let digest = digest::digest(&digest::SHA256, secret.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(digest.as_ref());
        Self(key)
    }

    /// The tag of a target.
    pub fn tag(&self, label: &str) -> u128 {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut tag = [0; 16];
        tag.copy_from_slice(&hmac::sign(&key, label.as_bytes()).as_ref()[..16]);
        u128::from_be_bytes(tag)
    }
}

/// How targets are spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transport {
    /// The least and the greatest major version of HTTP.
    pub versions: (u8, u8),
    /// TLS, if any.
    pub tls: Option<TransportTls>,
    /// To connect, TLS included.
    pub connect: Duration,
    /// Between two reads.
    pub read: Duration,
    /// For one write.
    pub write: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

/// TLS towards targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransportTls {
    /// Whether the certificate is verified.
    pub verify: bool,
    /// The name to ask for and verify instead of the target's own.
    pub name: Option<String>,
    /// Authorities instead of the system's.
    pub ca: Option<PeerAuthorities>,
}

impl Transport {
    /// Gives a peer the settings of this transport; `host` is the target's configured name.
    pub fn apply(&self, mut peer: HttpPeer, host: &str) -> HttpPeer {
        if let Some(tls) = &self.tls {
            peer.scheme = pingora::upstreams::peer::Scheme::HTTPS;
            // Never empty: Pingora takes an empty name to mean that nothing is to be verified.
            peer.sni = tls.name.clone().unwrap_or_else(|| host.to_owned());
            // With authorities and without verification, it is `verify_own_certificate` that verifies.
            let by_pingora = tls.verify && tls.ca.as_ref().is_none_or(|ca| !ca.may_be_own);
            peer.options.verify_cert = by_pingora;
            peer.options.verify_hostname = by_pingora;
            peer.options.ca = match &tls.ca {
                Some(ca) if tls.verify => Some(Arc::clone(&ca.certificates)),
                _ if !tls.verify && system_roots().is_empty() => Some(Arc::clone(&PeerAuthorities::placeholder().certificates)),
                _ => None,
            };
        }
        let (least, most) = self.versions;
        peer.options.set_http_version(most, least);
        peer.options.max_h2_streams = STREAMS as usize;
        // What may come before it is read, and so before the client takes it: Pingora's own is 8 MiB for each response.
        peer.options.h2_stream_window_size = Some(STREAM_WINDOW);
        // Of all its streams, so that none waits for a client of another one.
        peer.options.h2_connection_window_size = Some(STREAMS * STREAM_WINDOW);
        // Upgrades have a tunnel of their own; Pingora's would lose some.
        peer.options.http_upstream_request_policy = pingora::upstreams::peer::HttpUpstreamRequestPolicy::deny_upgrades();
        peer.options.connection_timeout = Some(self.connect);
        peer.options.total_connection_timeout = Some(self.connect);
        peer.options.read_timeout = Some(self.read);
        peer.options.write_timeout = Some(self.write);
        peer.options.idle_timeout = Some(self.idle);
        // Pingora's own hash leaves out authorities and protocol, so that a connection made under
        // other terms could be reused; fixed seeds, since it has to be the same at every reload.
        peer.group_key = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((&self.tls, self.versions));
        peer
    }
}
