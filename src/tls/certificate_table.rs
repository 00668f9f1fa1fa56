//! Certificates of listeners by server name.

use std::sync::Arc;

use ahash::AHashMap;
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use smallvec::SmallVec;

/// The certificates of one name: several if their keys are of different kinds.
type Candidates = SmallVec<[Arc<CertifiedKey>; 2]>;

/// Certificates by name. New handshakes use the table that was stored last.
#[derive(Debug, Default)]
pub struct CertificateTable {
    by_name: AHashMap<String, Candidates>,
    first: Candidates,
}

impl CertificateTable {
    /// Builds the table. The first certificate is also used for unknown names. Where two certificates have the same
    /// name and the same kind of key, the earlier one is used.
    pub fn new(certificates: &[Arc<CertifiedKey>]) -> Self {
        let mut by_name: AHashMap<String, Candidates> = AHashMap::new();
        let first_name = certificates.first().and_then(|first| names(first).into_iter().next());
        for certificate in certificates {
            for name in names(certificate) {
                add(by_name.entry(name).or_default(), certificate);
            }
        }
        let of_name = first_name.and_then(|name| by_name.get(&name).cloned());
        let first = of_name.unwrap_or_else(|| certificates.first().cloned().into_iter().collect());
        Self { by_name, first }
    }

    /// Returns the certificate for a server name and the signature schemes of a client (RFC 8446, section 4.2.3).
    /// Without a scheme that fits it is the first one: the handshake fails with the right alert.
    pub fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let by_name = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            self.by_name.get(&name).or_else(|| self.by_name.get(&wildcard?))
        });
        let candidates = by_name.unwrap_or(&self.first);
        let fits = |one: &&Arc<CertifiedKey>| one.key.choose_scheme(schemes).is_some();
        candidates.iter().find(fits).or_else(|| candidates.first()).cloned()
    }
}

/// Adds a certificate to those of its name. Those with an RSA key come last: its signatures cost the most.
fn add(candidates: &mut Candidates, certificate: &Arc<CertifiedKey>) {
    let kind = certificate.key.algorithm();
    if candidates.iter().any(|known| known.key.algorithm() == kind) {
        return;
    }
    let place = if kind == SignatureAlgorithm::RSA { candidates.len() } else { 0 };
    candidates.insert(place, Arc::clone(certificate));
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
