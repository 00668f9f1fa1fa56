//! The system's authorities, as Pingora's connectors take them.
//!
//! Pingora's rustls connector unwraps the system's certificates when it is built (pingora-core 0.9.1,
//! `connectors/tls/rustls`): without any, as in a minimal image, or with one that is malformed, the process panics at its
//! start, although it may speak to no target over TLS. So connectors are given a file, which has those that can be used.

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
const EMPTY: &str = "/dev/null";

/// Connections that a connector of our own keeps for reuse, as Pingora's default is.
const KEPT: usize = 128;

/// The system's authorities that can be used, as they were when the process started.
#[derive(Debug)]
pub struct SystemRoots {
    /// In memory alone; the path of the file leads to it for as long as it is open. `None` if there are none.
    file: Option<std::fs::File>,
}

static ROOTS: LazyLock<SystemRoots> = LazyLock::new(SystemRoots::load);

/// Returns the system's authorities.
pub fn system_roots() -> &'static SystemRoots {
    &ROOTS
}

/// Returns the options of a connector, which finds the system's authorities where they can be used.
pub fn connector_options() -> Option<ConnectorOptions> {
    let mut options = ConnectorOptions::new(KEPT);
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

    /// Whether there are none, so that no certificate can be verified with them.
    pub fn is_empty(&self) -> bool {
        self.file.is_none()
    }

    /// Returns the path of a file with them in PEM.
    pub fn pem_path(&self) -> String {
        self.file.as_ref().map_or_else(|| EMPTY.to_owned(), |file| format!("/proc/self/fd/{}", file.as_raw_fd()))
    }
}

fn in_memory(certificates: &[CertificateDer<'_>]) -> std::io::Result<std::fs::File> {
    let mut file = std::fs::File::from(memfd_create(c"authorities", MFdFlags::MFD_CLOEXEC)?);
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
