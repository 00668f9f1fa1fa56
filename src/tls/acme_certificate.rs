//! Certificates that are obtained while the gateway runs (ACME, RFC 8555), and those of the challenge TLS-ALPN-01 (RFC
//! 8737).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::AHashMap;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

/// The protocol of the challenge TLS-ALPN-01.
pub const ACME_PROTOCOL: &[u8] = b"acme-tls/1";

/// A certificate that is obtained while the gateway runs. Until there is one, a certificate of its own takes its place,
/// which no client accepts: the listener can start, and the challenge be met.
#[derive(Debug)]
pub struct AcmeCertificate {
    /// Its names in lower case.
    pub names: Vec<String>,
    current: ArcSwap<CertifiedKey>,
    is_obtained: AtomicBool,
    /// The certificates of challenges by their names.
    challenges: Mutex<AHashMap<String, Arc<CertifiedKey>>>,
}

fn certified(params: &CertificateParams) -> Result<CertifiedKey, String> {
    let key = KeyPair::generate().map_err(|e| e.to_string())?;
    let certificate = params.self_signed(&key).map_err(|e| e.to_string())?;
    let key_der = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&key_der).map_err(|e| e.to_string())?;
    // Not checked for consistency: rustls does not parse the critical extension of a challenge.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing))
}

fn params(names: &[String]) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(|e| e.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

impl AcmeCertificate {
    /// Returns a certificate of those names that is still to be obtained.
    ///
    /// # Errors
    /// When a name is none of the DNS.
    pub fn new(names: Vec<String>) -> Result<Self, String> {
        let placeholder = certified(&params(&names)?)?;
        Ok(Self {
            names,
            current: ArcSwap::from_pointee(placeholder),
            is_obtained: AtomicBool::new(false),
            challenges: Mutex::default(),
        })
    }

    /// Returns the present certificate.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.current.load_full()
    }

    /// Returns whether it has been obtained.
    pub fn is_obtained(&self) -> bool {
        self.is_obtained.load(Ordering::Acquire)
    }

    /// Replaces the certificate.
    pub fn store(&self, certified: CertifiedKey) {
        self.current.store(Arc::new(certified));
        self.is_obtained.store(true, Ordering::Release);
    }

    /// Returns the certificate for the challenge of a name.
    pub fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.challenges.lock().get(name).cloned()
    }

    /// Sets the certificate for the challenge of a name, with the digest of its key authorization (RFC 8737, section
    /// 3).
    ///
    /// # Errors
    /// When the name is none of the DNS, or the digest is none of SHA-256.
    pub fn set_challenge(&self, name: &str, digest: &[u8]) -> Result<(), String> {
        if digest.len() != 32 {
            return Err("the digest of a challenge has another length".to_owned());
        }
        let mut params = params(&[name.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        self.challenges.lock().insert(name.to_ascii_lowercase(), Arc::new(certified(&params)?));
        Ok(())
    }

    /// Drops the certificates of challenges.
    pub fn clear_challenges(&self) {
        self.challenges.lock().clear();
    }
}

/// Returns a new key in PEM, and a request for a certificate of those names (RFC 2986) in DER.
///
/// # Errors
/// When a name is none of the DNS, or the key is none.
pub fn certificate_request(names: &[String], key: Option<&str>) -> Result<(String, Vec<u8>), String> {
    let key = match key {
        Some(pem) => KeyPair::from_pem(pem),
        None => KeyPair::generate(),
    };
    let key = key.map_err(|e| e.to_string())?;
    let request = params(names)?.serialize_request(&key).map_err(|e| e.to_string())?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}
