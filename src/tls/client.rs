//! TLS for calls that the gateway makes for itself.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;

/// Returns the settings to verify servers with a CA file, or with the system's CA certificates, and to present the
/// certificate with its key to those that ask for one.
///
/// # Errors
/// When a file is wrong.
pub fn client_config(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<ClientConfig, String> {
    super::install_provider();
    let roots = super::trusted_roots(ca)?;
    let settings = ClientConfig::builder().with_root_certificates(roots);
    Ok(match identity {
        Some((cert, key)) => {
            let pair = super::chain_and_key(cert, key)?;
            settings.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
        }
        None => settings.with_no_client_auth(),
    })
}
