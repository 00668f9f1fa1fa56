//! Certificates of listeners by server name.

use std::sync::Arc;

use ahash::AHashMap;
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use smallvec::SmallVec;

use super::acme_certificate::AcmeCertificate;

/// The certificates of one name: several if their keys are of different kinds.
type Candidates = SmallVec<[Arc<CertifiedKey>; 2]>;

/// Where a certificate comes from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// Files, which have been read.
    Files(Arc<CertifiedKey>),
    /// An ACME server.
    Acme(Arc<AcmeCertificate>),
}

/// Certificates by name. New handshakes use the table that was stored last.
#[derive(Debug, Default)]
pub struct CertificateTable {
    by_name: AHashMap<String, Candidates>,
    obtained: AHashMap<String, Arc<AcmeCertificate>>,
    first: Option<First>,
}

/// The certificates for unknown names.
#[derive(Clone, Debug)]
enum First {
    Files(Candidates),
    Acme(Arc<AcmeCertificate>),
}

impl CertificateTable {
    /// Builds the table. The first certificate is also used for unknown names. Where two certificates have the same
    /// name and the same kind of key, the earlier one is used.
    pub fn new(certificates: &[CertificateSource]) -> Self {
        let mut by_name: AHashMap<String, Candidates> = AHashMap::new();
        let mut obtained = AHashMap::new();
        for certificate in certificates {
            match certificate {
                CertificateSource::Files(certificate) => {
                    for name in names(certificate) {
                        add(by_name.entry(name).or_default(), certificate);
                    }
                }
                CertificateSource::Acme(certificate) => {
                    for name in &certificate.names {
                        obtained.entry(name.clone()).or_insert_with(|| Arc::clone(certificate));
                    }
                }
            }
        }
        let first = certificates.first().map(|first| match first {
            CertificateSource::Files(first) => {
                let name = names(first).into_iter().next();
                let of_name = name.and_then(|name| by_name.get(&name).cloned());
                First::Files(of_name.unwrap_or_else(|| std::iter::once(Arc::clone(first)).collect()))
            }
            CertificateSource::Acme(first) => First::Acme(Arc::clone(first)),
        });
        Self { by_name, obtained, first }
    }

    /// Returns the certificate for the challenge of a name (RFC 8737).
    pub fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.obtained.get(&name)?.challenge(&name)
    }

    /// Returns the certificate for a server name and the signature schemes of a client (RFC 8446, section 4.2.3).
    /// Without a scheme that fits it is the first one: the handshake fails with the right alert.
    pub fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let lower = name.map(str::to_ascii_lowercase);
        let exact = lower.as_ref().and_then(|name| self.by_name.get(name));
        if exact.is_none()
            && let Some(obtained) = lower.as_ref().and_then(|name| self.obtained.get(name))
        {
            return Some(obtained.current());
        }
        let below = || self.by_name.get(&format!("*.{}", lower.as_ref()?.split_once('.')?.1));
        let candidates = match (exact.or_else(below), &self.first) {
            (Some(found), _) | (None, Some(First::Files(found))) => found,
            (None, Some(First::Acme(first))) => return Some(first.current()),
            (None, None) => return None,
        };
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
