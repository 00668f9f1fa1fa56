//! TLS for calls that the gateway makes for itself.

use std::path::Path;

use rustls::ClientConfig;

/// Verifies against the authorities in a file, or the system's.
///
/// # Errors
/// Says what is wrong with the file.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    super::install_provider();
    let roots = super::authorities(ca)?;
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
