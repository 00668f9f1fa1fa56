//! The system's CA certificates, in the form that Pingora's connectors need.
//!
//! Pingora's rustls connector unwraps the system's certificates when it is built (pingora-core 0.9.1,
//! `connectors/tls/rustls`): without any, as in a minimal image, or with a malformed one, the process panics at its
//! start, even if no target uses TLS. So connectors get a file with the usable certificates.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::memfd::{MFdFlags, memfd_create};
use pingora::connectors::ConnectorOptions;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// A PEM file without a certificate.
const EMPTY_FILE: &str = "/dev/null";

/// The number of unused connections that a connector of the gateway's own keeps; Pingora's default.
const MAX_IDLE: usize = 128;

/// The system's usable CA certificates, as they were when the process started.
#[derive(Debug)]
pub struct SystemRoots {
    /// A file in memory; its path is valid for as long as it is open. `None` if there are no certificates.
    file: Option<std::fs::File>,
}

static ROOTS: LazyLock<SystemRoots> = LazyLock::new(SystemRoots::load);

/// Returns the system's CA certificates.
pub fn system_roots() -> &'static SystemRoots {
    &ROOTS
}

/// Returns the options of a connector, with the system's CA certificates where they can be used.
pub fn connector_options() -> Option<ConnectorOptions> {
    let mut options = ConnectorOptions::new(MAX_IDLE);
    options.ca_file = Some(system_roots().pem_path());
    Some(options)
}

impl SystemRoots {
    fn load() -> Self {
        let mut store = RootCertStore::empty();
        let all = pingora::tls::load_native_certs().unwrap_or_default();
        let usable: Vec<_> = all.into_iter().filter(|certificate| store.add(certificate.clone()).is_ok()).collect();
        let file = if usable.is_empty() { Ok(None) } else { in_memory(&usable).map(Some) };
        let file = file.unwrap_or_else(|error| {
            log::error!("the system's CA certificates cannot be used: {error}");
            None
        });
        Self { file }
    }

    /// Returns whether there are none, so that no certificate can be verified with them.
    pub fn is_empty(&self) -> bool {
        self.file.is_none()
    }

    /// Returns the path of a PEM file with them.
    pub fn pem_path(&self) -> String {
        self.file.as_ref().map_or_else(|| EMPTY_FILE.to_owned(), |file| format!("/proc/self/fd/{}", file.as_raw_fd()))
    }
}

fn in_memory(certificates: &[CertificateDer<'_>]) -> std::io::Result<std::fs::File> {
    let mut file = std::fs::File::from(memfd_create(c"ca-certificates", MFdFlags::MFD_CLOEXEC)?);
    for certificate in certificates {
        let text = STANDARD.encode(certificate.as_ref());
        file.write_all(b"-----BEGIN CERTIFICATE-----\n")?;
        for line in text.as_bytes().chunks(64) {
            file.write_all(line)?;
            file.write_all(b"\n")?;
        }
        file.write_all(b"-----END CERTIFICATE-----\n")?;
    }
    Ok(file)
}
