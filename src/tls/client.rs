//! TLS for calls that the gateway makes for itself.

use std::path::Path;

use rustls::ClientConfig;

/// Returns the settings to verify servers with a CA file, or with the system's CA certificates.
///
/// # Errors
/// When the CA file is wrong.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    super::install_provider();
    let roots = super::trusted_roots(ca)?;
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
