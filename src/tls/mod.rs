//! TLS: everything that uses rustls or reads a PEM file.
//!
//! Certificates are read and checked when a configuration is compiled, so that no connection can fail because of a
//! missing one.

mod certificates;
mod client;
mod file;
mod own_certificate;
mod roots;
mod server;
mod tickets;
mod validity;

pub use certificates::{PeerRoots, chain_and_key, trusted_roots};
pub use client::client_config;
pub use file::{FileVersion, MAX_MATERIAL, read_file, read_text};
pub use own_certificate::{is_verified_later, verify_own_certificate};
pub use roots::{connector_options, system_roots};
pub use server::{CertificateTable, ServerSettings, server_config};
pub use tickets::{SavedTicketKeys, TicketKeys, Tickets};
pub use validity::validity;

/// The TLS stream of a client's connection.
pub type TlsStream<S> = pingora::tls::ServerTlsStream<S>;

/// Installs the cryptography provider of the process. Further calls do nothing.
pub fn install_provider() {
    let _ = rustls::crypto::CryptoProvider::install_default(rustls::crypto::ring::default_provider());
}
