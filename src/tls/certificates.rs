//! Certificates and keys in PEM files.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use pingora::protocols::tls::CaType;
use pingora::utils::tls::{WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::file::{MAX_MATERIAL, read_file};
use super::own_certificate::may_be_own;

fn pem(path: &Path) -> Result<Vec<u8>, String> {
    read_file(path, MAX_MATERIAL).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = pem(path)?;
    let found: Result<Vec<_>, _> = rustls_pemfile::certs(&mut bytes.as_slice()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("{} holds no certificate in PEM", path.display())),
    }
}

/// Reads a private key.
///
/// # Errors
/// When the file cannot be read or holds no key; the error names it.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = pem(path)?;
    let key = rustls_pemfile::private_key(&mut bytes.as_slice()).ok().flatten();
    key.ok_or_else(|| format!("{} holds no private key in PEM", path.display()))
}

/// Reads a chain and its key, and checks that they belong together.
///
/// # Errors
/// When a file cannot be read, holds nothing usable, or does not fit the other; the error names the file.
pub fn chain_and_key(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, String> {
    stapled_chain_and_key(cert, key, None)
}

/// The same with the response of an OCSP responder that is sent with the certificate, if there is one.
///
/// # Errors
/// As for [`chain_and_key`], and when the file holds no such response.
pub fn stapled_chain_and_key(cert: &Path, key: &Path, ocsp: Option<&Path>) -> Result<Arc<CertifiedKey>, String> {
    let (chain, key_der) = match (certificates(cert), private_key(key)) {
        (Ok(chain), Ok(key_der)) => (chain, key_der),
        (Err(one), Err(other)) if one != other => return Err(format!("{one}; {other}")),
        (Err(why), _) | (_, Err(why)) => return Err(why),
    };
    let signing = rustls::crypto::ring::sign::any_supported_type(&key_der).map_err(|_| {
        format!("the key in {} is of no supported kind (RSA, ECDSA P-256 or P-384, Ed25519)", key.display())
    })?;
    let mut certified = CertifiedKey::new(chain, signing);
    certified.ocsp = ocsp.map(ocsp_response).transpose()?;
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(_) => Err(format!("the key in {} does not belong to the certificate in {}", key.display(), cert.display())),
    }
}

/// The start of a response that says something of a certificate (RFC 6960, section 4.2.1): a sequence whose status is
/// `successful`, and which has a part of response bytes.
fn is_ocsp_response(bytes: &[u8]) -> bool {
    let header = match bytes {
        [0x30, length, ..] if *length < 0x80 => 2,
        [0x30, length @ 0x81..=0x83, ..] => 2 + usize::from(length & 0x7f),
        _ => return false,
    };
    bytes.get(header..header + 4) == Some(&[0x0a, 1, 0, 0xa0])
}

fn ocsp_response(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = pem(path)?;
    let wrong = || format!("{} holds no response of an OCSP responder in DER", path.display());
    if is_ocsp_response(&bytes) { Ok(bytes) } else { Err(wrong()) }
}

/// Returns the CA certificates to trust, from a CA file or those of the system.
///
/// # Errors
/// When the CA file is wrong. A system without CA certificates gives an empty store.
pub fn trusted_roots(path: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match path {
        Some(path) => {
            for certificate in certificates(path)? {
                store
                    .add(certificate)
                    .map_err(|e| format!("{} holds a certificate that cannot be used as a CA: {e}", path.display()))?;
            }
        }
        None => {
            for certificate in pingora::tls::load_native_certs().unwrap_or_default() {
                // One malformed certificate in the system's store does not affect the others.
                let _ = store.add(certificate);
            }
        }
    }
    Ok(store)
}

/// CA certificates for Pingora's peers; two values are equal when their certificates are.
#[derive(Clone, Debug)]
pub struct PeerRoots {
    /// The certificates.
    pub certificates: Arc<CaType>,
    /// Whether one of them may be a target's own certificate, which Pingora cannot verify.
    pub may_be_own: bool,
    digest: Vec<u8>,
}

impl PeerRoots {
    /// Returns a placeholder for peers that are not verified on a system without CA certificates: Pingora's connector
    /// builds a verifier even then, and rustls builds none without a CA (pingora-core 0.9.1,
    /// `connectors/tls/rustls`). The key of the certificate was discarded.
    pub fn placeholder() -> &'static Self {
        static PLACEHOLDER: LazyLock<PeerRoots> = LazyLock::new(|| {
            let found = rustls_pemfile::certs(&mut include_bytes!("placeholder.pem").as_slice()).flatten().collect();
            PeerRoots::of(found)
        });
        &PLACEHOLDER
    }

    /// Returns whether these are the certificates of [`Self::placeholder`].
    pub fn is_placeholder(certificates: &Arc<CaType>) -> bool {
        Arc::ptr_eq(certificates, &Self::placeholder().certificates)
    }

    /// Reads them from a CA file.
    ///
    /// # Errors
    /// As for [`trusted_roots`].
    pub fn read(path: &Path) -> Result<Self, String> {
        trusted_roots(Some(path))?; // proves that each parses: parse_x509 would panic
        Ok(Self::of(certificates(path)?))
    }

    fn of(certificates: Vec<CertificateDer<'static>>) -> Self {
        let digest = certificates.iter().fold(Vec::new(), |mut all: Vec<u8>, c| {
            all.extend_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, c.as_ref()).as_ref());
            all
        });
        let wrapped: Vec<WrappedX509> =
            certificates.into_iter().map(|c| WrappedX509::new(c.as_ref().to_vec(), parse_x509)).collect();
        let may_be_own = wrapped.iter().any(may_be_own);
        Self { certificates: wrapped.into(), may_be_own, digest }
    }
}

impl PartialEq for PeerRoots {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for PeerRoots {}

impl std::hash::Hash for PeerRoots {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}
