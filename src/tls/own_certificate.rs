//! Verification of targets whose certificate is its own CA, as created by `openssl req -x509`.
//!
//! OpenSSL and Go accept a certificate that is itself trusted, whatever its constraints. webpki accepts no CA
//! certificate as that of a server (`CaUsedAsEndEntity`), and Pingora's rustls connector has no hook for a custom
//! verifier (pingora-core 0.9.1, `connectors/tls/rustls`). So connections to targets whose `ca` may be such a
//! certificate are made without verification, and are verified here before anything is sent: the presented
//! certificate, for which the handshake has proved possession of the key, either is one of `ca` itself, or is
//! verified as usual, by a second handshake.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256, digest};
use parking_lot::Mutex;
use pingora::protocols::Digest;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::WrappedX509;
use pingora::{Error, ErrorType, Result};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use super::PeerRoots;

/// The time for which a certificate that was verified as usual is cached.
const VERIFIED_FOR: Duration = Duration::from_secs(300);

/// The maximum number of cached certificates.
const MAX_VERIFIED: usize = 10_000;

/// Certificates that were verified as usual, by the digest of all inputs of the verification.
static VERIFIED: LazyLock<Mutex<HashMap<[u8; 32], Instant>>> = LazyLock::new(Mutex::default);

/// Returns whether a certificate of `ca` may be that of a server itself: it is marked as a CA, is self-signed, and
/// has a name.
pub fn may_be_own(certificate: &WrappedX509) -> bool {
    let certificate = certificate.borrow_cert();
    let named = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .is_some_and(|names| !names.value.general_names.is_empty());
    certificate.is_ca() && certificate.subject() == certificate.issuer() && named
}

/// Returns whether connections to the peer are made without verification, and [`verify_own_certificate`] has to
/// verify them: the settings that `TargetTransport::apply` gives such a peer.
pub fn is_verified_later(peer: &HttpPeer) -> bool {
    !peer.options.verify_cert && peer.options.ca.as_ref().is_some_and(|ca| !PeerRoots::is_placeholder(ca))
}

/// Verifies the certificate of a new or reused connection, if the connection was made without verification.
///
/// # Errors
/// When the certificate is not valid. Nothing must be sent then.
pub async fn verify_own_certificate(peer: &HttpPeer, digest: Option<&Digest>) -> Result<()> {
    let Some(ca) = peer.options.ca.as_ref().filter(|_| is_verified_later(peer)) else { return Ok(()) };
    let shown = digest.and_then(|digest| digest.ssl_digest.as_ref()).map(|tls| tls.cert_digest.as_slice());
    let Some(shown) = shown.filter(|shown| !shown.is_empty()) else {
        return reject("the target has presented no certificate");
    };
    if let Some(own) = ca.iter().find(|certificate| sha256(certificate.borrow_raw_cert()) == shown) {
        return verify_named(own, &peer.sni).or_else(|why| reject(&why));
    }
    let key = cache_key(ca, &peer.sni, shown);
    let now = Instant::now();
    if VERIFIED.lock().get(&key).is_some_and(|until| *until > now) {
        return Ok(());
    }
    let time = peer.options.total_connection_timeout.unwrap_or(Duration::from_secs(5));
    let verified = tokio::time::timeout(time, verify_as_usual(peer, ca, shown)).await;
    verified
        .unwrap_or_else(|_| Err("the target's certificate could not be verified in time".to_owned()))
        .or_else(|why| reject(&why))?;
    let mut known = VERIFIED.lock();
    if known.len() >= MAX_VERIFIED {
        known.clear();
    }
    known.insert(key, now + VERIFIED_FOR);
    Ok(())
}

fn reject(why: &str) -> Result<()> {
    Error::e_explain(ErrorType::InvalidCert, why.to_owned())
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

/// Verifies name and validity period of a certificate that is itself trusted.
pub(super) fn verify_named(own: &WrappedX509, name: &str) -> std::result::Result<(), String> {
    let certificate = CertificateDer::from(own.borrow_raw_cert().as_slice());
    let parsed = ParsedCertificate::try_from(&certificate).map_err(|e| e.to_string())?;
    let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
    verify_server_name(&parsed, &name).map_err(|e| e.to_string())?;
    let validity = own.borrow_cert().validity();
    if validity.is_valid() {
        Ok(())
    } else {
        Err(format!("invalid peer certificate: it is valid from {} to {}", validity.not_before, validity.not_after))
    }
}

fn cache_key(ca: &CaType, name: &str, shown: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    ca.iter().for_each(|certificate| context.update(&sha256(certificate.borrow_raw_cert())));
    context.update(shown);
    context.update(name.as_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// Verifies, with a separate connection, that the target has a certificate of those CAs, and that it is the presented
/// one.
async fn verify_as_usual(peer: &HttpPeer, ca: &CaType, shown: &[u8]) -> std::result::Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        roots.add(CertificateDer::from(certificate.borrow_raw_cert().clone())).map_err(|e| e.to_string())?;
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match &peer.client_cert_key {
        Some(own) => {
            let chain = std::iter::once(own.leaf()).chain(own.intermediates());
            let chain = chain.map(|one| CertificateDer::from(one.borrow_raw_cert().clone())).collect();
            let key = PrivateKeyDer::try_from(own.key().clone()).map_err(str::to_owned)?;
            builder.with_client_auth_cert(chain, key).map_err(|e| e.to_string())?
        }
        None => builder.with_no_client_auth(),
    };
    let address = peer._address.as_inet().ok_or("the target has no address")?;
    let name = ServerName::try_from(peer.sni.clone()).map_err(|e| e.to_string())?;
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let stream =
        pingora::tls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| e.to_string())?;
    let own = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    if own.is_some_and(|own| sha256(own.as_ref()) == shown) {
        Ok(())
    } else {
        Err("the target has presented another certificate before".to_owned())
    }
}
