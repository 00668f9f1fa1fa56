//! Verification of clients' certificates on listeners.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::file::{MAX_MATERIAL, read_file};
use crate::exchange::TlsFacts;

/// The settings for client certificates, with the paths of their files.
#[derive(Debug)]
pub struct ClientVerificationFiles<'f> {
    /// The CA certificates.
    pub ca: &'f Path,
    /// The revocation lists (RFC 5280, section 5).
    pub crl: Vec<&'f Path>,
    /// Whether a connection without a certificate is rejected.
    pub required: bool,
    /// Whether a revocation list whose `nextUpdate` has passed is used further.
    pub accept_expired_crl: bool,
    /// Whether a certificate is accepted for which there is no revocation list.
    pub accept_unknown_revocation: bool,
}

/// The verification of client certificates. Two are equal when settings and contents of files are.
#[derive(Clone)]
pub struct ClientVerification {
    /// Whether a connection without a certificate is rejected.
    pub required: bool,
    /// The identity of the settings without the contents of files: a connection may be used for another host only if
    /// that has the same.
    pub policy: [u8; 32],
    /// The identity of the settings and the contents of files.
    pub digest: [u8; 32],
    /// When the first of the revocation lists expires, in seconds of Unix time.
    pub crl_expires: Option<i64>,
    /// The verifier.
    pub verifier: Arc<dyn ClientCertVerifier>,
}

impl std::fmt::Debug for ClientVerification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientVerification").field("required", &self.required).finish_non_exhaustive()
    }
}

impl PartialEq for ClientVerification {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ClientVerification {}

/// The digest of several values, each with its length, so that no two lists of values have the same.
struct Digest(Context);

impl Digest {
    fn new(flags: [bool; 3]) -> Self {
        let mut digest = Self(Context::new(&SHA256));
        digest.add(&flags.map(u8::from));
        digest
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl ClientVerification {
    /// Reads the files and builds the verifier.
    ///
    /// # Errors
    /// When a file cannot be read or holds nothing usable; the error names the file.
    pub fn read(files: &ClientVerificationFiles<'_>) -> Result<Self, String> {
        super::install_provider();
        let flags = [files.required, files.accept_expired_crl, files.accept_unknown_revocation];
        let (mut policy, mut digest) = (Digest::new(flags), Digest::new(flags));
        let roots = super::trusted_roots(Some(files.ca))?;
        policy.add(files.ca.as_os_str().as_encoded_bytes());
        digest.add(&content(files.ca)?);
        let (mut lists, mut crl_expires) = (Vec::new(), None);
        for path in &files.crl {
            let bytes = content(path)?;
            policy.add(path.as_os_str().as_encoded_bytes());
            digest.add(&bytes);
            let (found, expires) = revocation_lists(path, &bytes)?;
            lists.extend(found);
            crl_expires = [crl_expires, expires].into_iter().flatten().min();
        }
        let verifier = build(roots, lists, files)?;
        let (policy, digest) = (policy.finish(), digest.finish());
        Ok(Self { required: files.required, policy, digest, crl_expires, verifier })
    }

    /// Verifies a chain again, as of now: that of a resumed session was verified when the session began.
    ///
    /// # Errors
    /// Returns why the chain is not acceptable.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        match chain.split_first() {
            Some((leaf, others)) => self.verifier.verify_client_cert(leaf, others, UnixTime::now()).map(|_| ()),
            None if self.required => Err(rustls::Error::NoCertificatesPresented),
            None => Ok(()),
        }
    }
}

impl ClientVerification {
    /// Verifies the client of a connection again if settings or files have changed since it was last verified: a
    /// revoked client is rejected on connections that it has already, too. Returns whether it is accepted.
    pub fn still_accepts(&self, facts: &TlsFacts) -> bool {
        if *facts.verified_by.lock() == self.digest {
            return true;
        }
        let chain: Vec<CertificateDer<'_>> = match &facts.certificate {
            Some(own) => {
                let intermediates = own.intermediates.iter().map(|one| CertificateDer::from(&**one));
                std::iter::once(CertificateDer::from(&*own.der)).chain(intermediates).collect()
            }
            None => Vec::new(),
        };
        let accepted = self.verify(&chain).is_ok();
        if accepted {
            *facts.verified_by.lock() = self.digest;
        }
        accepted
    }
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    read_file(path, MAX_MATERIAL).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn build(
    roots: RootCertStore,
    lists: Vec<CertificateRevocationListDer<'static>>,
    files: &ClientVerificationFiles<'_>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut builder = WebPkiClientVerifier::builder(Arc::new(roots)).with_crls(lists);
    if !files.required {
        builder = builder.allow_unauthenticated();
    }
    if !files.accept_expired_crl {
        builder = builder.enforce_revocation_expiration();
    }
    if files.accept_unknown_revocation {
        builder = builder.allow_unknown_revocation_status();
    }
    builder.build().map_err(|e| format!("client certificates cannot be verified: {e}"))
}

/// Returns the revocation lists in a file, in PEM or one in DER, and when the first of them expires.
fn revocation_lists(
    path: &Path,
    bytes: &[u8],
) -> Result<(Vec<CertificateRevocationListDer<'static>>, Option<i64>), String> {
    let none = || format!("{} holds no revocation list in PEM or DER", path.display());
    let mut lists: Vec<CertificateRevocationListDer<'static>> =
        rustls_pemfile::crls(&mut &bytes[..]).collect::<Result<_, _>>().map_err(|_| none())?;
    if lists.is_empty() {
        lists.push(bytes.to_vec().into());
    }
    let mut expires = None;
    for list in &lists {
        let (_, parsed) = CertificateRevocationList::from_der(list).map_err(|_| none())?;
        expires = [expires, parsed.next_update().map(|at| at.timestamp())].into_iter().flatten().min();
    }
    Ok((lists, expires))
}
