//! The gateway's own certificate towards targets.

use std::path::Path;
use std::sync::Arc;

use pingora::utils::tls::CertKey;

use super::certificates::{chain_and_key, private_key};

/// A certificate and its key for Pingora's peers; two values are equal when both are.
#[derive(Clone)]
pub struct PeerIdentity {
    key: Arc<CertKey>,
    digest: [u8; 32],
}

impl std::fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerIdentity")
    }
}

impl PeerIdentity {
    /// Reads a chain and its key, and checks that they belong together.
    ///
    /// # Errors
    /// When a file cannot be read, holds nothing usable, or does not fit the other; the error names the file.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, String> {
        let certified = chain_and_key(cert, key)?;
        let chain: Vec<Vec<u8>> = certified.cert.iter().map(|one| one.to_vec()).collect();
        // `CertKey::new` panics on what is no certificate.
        let unreadable = || format!("{} holds a certificate that cannot be parsed", cert.display());
        let is_readable = |der: &Vec<u8>| x509_parser::parse_x509_certificate(der).is_ok();
        if !chain.iter().all(is_readable) {
            return Err(unreadable());
        }
        let key = private_key(key)?;
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        chain.iter().for_each(|one| context.update(one));
        context.update(key.secret_der());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Ok(Self { key: Arc::new(CertKey::new(chain, key.secret_der().to_vec())), digest })
    }

    /// Returns it in the form that Pingora needs.
    pub fn key(&self) -> Arc<CertKey> {
        Arc::clone(&self.key)
    }
}

impl PartialEq for PeerIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for PeerIdentity {}

impl std::hash::Hash for PeerIdentity {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}
