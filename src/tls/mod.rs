//! TLS: everything that uses rustls or reads a PEM file.
//!
//! Certificates are read and checked when a configuration is compiled, so that no connection can fail because of a
//! missing one.

mod acme_certificate;
mod certificate_table;
mod certificates;
mod client;
mod client_certificate;
mod client_verification;
mod file;
mod hosts;
mod own_certificate;
mod peer_identity;
mod roots;
mod server;
mod suites;
mod target;
mod tickets;
mod validity;

pub use acme_certificate::{ACME_PROTOCOL, AcmeCertificate, certificate_request};
pub use certificate_table::{CertificateSource, CertificateTable};
pub use certificates::{PeerRoots, chain_and_key, stapled_chain_and_key, trusted_roots};
pub use client::client_config;
pub use client_certificate::peer_certificate;
pub use client_verification::{ClientVerification, ClientVerificationFiles};
pub use file::{FileVersion, MAX_MATERIAL, read_file, read_text};
pub use hosts::{HostGroup, HostName, TlsHosts};
pub use own_certificate::{is_verified_later, verify_own_certificate};
pub use peer_identity::PeerIdentity;
pub use roots::{connector_options, system_roots};
pub use server::{ServerSettings, challenge_config, server_config};
pub use suites::is_of_13;
pub use target::target_config;
pub use tickets::{SavedTicketKeys, TicketKeys, Tickets};
pub use validity::validity;

/// The TLS stream of a client's connection.
pub type TlsStream<S> = pingora::tls::ServerTlsStream<S>;

/// Installs the cryptography provider of the process. Further calls do nothing.
pub fn install_provider() {
    let _ = rustls::crypto::CryptoProvider::install_default(rustls::crypto::ring::default_provider());
}
