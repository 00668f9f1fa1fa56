//! TLS for listeners: certificates by server name, which can be replaced at run time.

use std::sync::Arc;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

use super::Tickets;

/// Certificates by name. New handshakes use the table that was stored last.
#[derive(Debug)]
pub struct CertificateTable {
    by_name: AHashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl CertificateTable {
    /// Builds the table. The first certificate is also used for unknown names. Where two certificates have the same
    /// name, the earlier one is used.
    pub fn new(certificates: &[Arc<CertifiedKey>]) -> Self {
        let mut by_name = AHashMap::new();
        for certificate in certificates {
            for name in names(certificate) {
                by_name.entry(name).or_insert_with(|| Arc::clone(certificate));
            }
        }
        Self { by_name, first: certificates.first().cloned() }
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let by_name = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            self.by_name.get(&name).or_else(|| self.by_name.get(&wildcard?))
        });
        by_name.or(self.first.as_ref()).cloned()
    }
}

/// Returns the DNS names of a certificate (RFC 5280, section 4.2.1.6), in lower case.
fn names(certificate: &CertifiedKey) -> Vec<String> {
    let Some(leaf) = certificate.cert.first() else { return Vec::new() };
    let Ok(parsed) = rustls::server::ParsedCertificate::try_from(leaf) else { return Vec::new() };
    drop(parsed);
    subject_names(leaf.as_ref())
}

fn subject_names(der: &[u8]) -> Vec<String> {
    let wrapped = pingora::utils::tls::WrappedX509::new(der.to_vec(), pingora::utils::tls::parse_x509);
    let names = wrapped.borrow_cert().subject_alternative_name().ok().flatten();
    let names = names.map(|extension| {
        let dns = extension.value.general_names.iter().filter_map(|name| {
            let text = name.to_string();
            text.strip_prefix("DNSName(").and_then(|t| t.strip_suffix(')')).map(str::to_ascii_lowercase)
        });
        dns.collect()
    });
    names.unwrap_or_default()
}

struct CertificateResolver(Arc<ArcSwap<CertificateTable>>);

impl std::fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().find(hello.server_name())
    }
}

/// The TLS settings of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Whether TLS 1.2 is rejected.
    pub only_13: bool,
    /// The protocols to negotiate, in order of preference.
    pub alpn: Vec<Vec<u8>>,
}

/// Returns the TLS configuration of a listener, over a table of certificates that may be replaced later.
pub fn server_config(
    settings: &ServerSettings,
    table: Arc<ArcSwap<CertificateTable>>,
    tickets: Tickets,
) -> Arc<ServerConfig> {
    super::install_provider();
    let versions: &[&rustls::SupportedProtocolVersion] =
        if settings.only_13 { &[&version::TLS13] } else { &[&version::TLS12, &version::TLS13] };
    let builder = ServerConfig::builder_with_protocol_versions(versions);
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(CertificateResolver(table)));
    config.alpn_protocols.clone_from(&settings.alpn);
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(20_000);
    config.ticketer = Arc::new(tickets);
    Arc::new(config)
}
