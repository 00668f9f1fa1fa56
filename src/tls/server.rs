//! TLS for listeners: settings by host, and the configuration that rustls needs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig};

use super::Tickets;
use super::acme_certificate::ACME_PROTOCOL;
use super::certificate_table::CertificateTable;
use super::client_verification::ClientVerification;
use super::suites::{provider_with, versions};

struct CertificateResolver(Arc<ArcSwap<CertificateTable>>);

impl std::fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().find(hello.server_name(), hello.signature_schemes())
    }
}

/// Presents the certificates of challenges.
struct ChallengeResolver(Arc<ArcSwap<CertificateTable>>);

impl std::fmt::Debug for ChallengeResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChallengeResolver")
    }
}

impl ResolvesServerCert for ChallengeResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().challenge(hello.server_name()?)
    }
}

/// Returns the configuration for the challenge TLS-ALPN-01 (RFC 8737): it has no settings of the listener and requests
/// no client certificate, and nothing is served after its handshake.
pub fn challenge_config(table: Arc<ArcSwap<CertificateTable>>) -> Arc<ServerConfig> {
    super::install_provider();
    let resolver = Arc::new(ChallengeResolver(table));
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![ACME_PROTOCOL.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Arc::new(config)
}

/// The TLS settings of a listener, or of some of its hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// Whether TLS 1.2 is rejected.
    pub only_13: bool,
    /// The cipher suites in order of preference; an empty list is all.
    pub suites: Vec<CipherSuite>,
    /// The protocols to negotiate, in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// The verification of client certificates; without it none is requested.
    pub client: Option<ClientVerification>,
}

/// The number of sessions in the cache of a configuration, for clients that support no tickets.
const MAX_SESSIONS: usize = 20_000;

/// Returns the TLS configuration of a listener or of some of its hosts, over a table of certificates that may be
/// replaced later. Tickets and cached sessions are accepted by this configuration alone.
pub fn server_config(
    settings: &ServerSettings,
    table: Arc<ArcSwap<CertificateTable>>,
    tickets: Tickets,
) -> Arc<ServerConfig> {
    super::install_provider();
    let builder = ServerConfig::builder_with_provider(provider_with(&settings.suites));
    let (builder, resolver) = match builder.with_protocol_versions(versions(settings.only_13)) {
        Ok(builder) => (builder, CertificateResolver(table)),
        // Suites are checked before. A configuration that cannot be has no certificate: each handshake fails.
        Err(error) => {
            log::error!("TLS settings cannot be used: {error}");
            (ServerConfig::builder(), CertificateResolver(Arc::default()))
        }
    };
    let builder = match &settings.client {
        Some(client) => builder.with_client_cert_verifier(Arc::clone(&client.verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols.clone_from(&settings.alpn);
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(MAX_SESSIONS);
    config.ticketer = Arc::new(tickets);
    Arc::new(config)
}
