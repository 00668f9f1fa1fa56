//! TLS towards targets at layer 4, which Pingora's connectors have no part in.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::own_certificate::verify_named;
use super::{PeerIdentity, PeerRoots, trusted_roots};

/// Verifies the certificates of targets: with CA certificates, one of which may be that of the target itself, or not
/// at all.
#[derive(Debug)]
struct TargetVerifier {
    provider: Arc<CryptoProvider>,
    /// The usual verification; `None` where certificates are not verified.
    usual: Option<Arc<WebPkiServerVerifier>>,
    /// The configured CA certificates.
    ca: Option<PeerRoots>,
}

impl ServerCertVerifier for TargetVerifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(usual) = &self.usual else { return Ok(ServerCertVerified::assertion()) };
        let certificates = self.ca.iter().flat_map(|ca| ca.certificates.iter());
        let mut trusted = certificates.filter(|certificate| certificate.borrow_raw_cert().as_slice() == own.as_ref());
        if let Some(trusted) = trusted.next() {
            // webpki accepts no CA certificate as that of a server; OpenSSL and Go accept one that is trusted itself.
            return match verify_named(trusted, &name.to_str()) {
                Ok(()) => Ok(ServerCertVerified::assertion()),
                Err(why) => Err(Error::General(why)),
            };
        }
        usual.verify_server_cert(own, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns the settings of TLS towards the targets of an upstream: sessions are resumed among its connections.
///
/// # Errors
/// When there is nothing to verify certificates with, or the gateway's own certificate cannot be used.
pub fn target_config(
    verify: bool,
    ca: Option<&PeerRoots>,
    identity: Option<&PeerIdentity>,
) -> Result<Arc<ClientConfig>, String> {
    super::install_provider();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let usual = if verify { Some(usual_verifier(ca, &provider)?) } else { None };
    let verifier = TargetVerifier { provider, usual, ca: ca.cloned() };
    let builder = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let Some(identity) = identity else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let own = identity.key();
    let chain = std::iter::once(own.leaf()).chain(own.intermediates());
    let chain = chain.map(|one| CertificateDer::from(one.borrow_raw_cert().clone())).collect();
    let key = PrivateKeyDer::try_from(own.key().clone()).map_err(str::to_owned)?;
    Ok(Arc::new(builder.with_client_auth_cert(chain, key).map_err(|e| e.to_string())?))
}

fn usual_verifier(ca: Option<&PeerRoots>, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let roots = match ca {
        None => trusted_roots(None)?,
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in ca.certificates.iter() {
                let certificate = CertificateDer::from(certificate.borrow_raw_cert().clone());
                roots.add(certificate).map_err(|e| e.to_string())?;
            }
            roots
        }
    };
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|e| format!("no CA certificate can be used: {e}"))
}
