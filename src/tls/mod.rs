//! TLS, behind one door: whatever names rustls or reads a PEM file is here.
//!
//! Certificates are read and proved when a configuration is compiled, so that nothing on a
//! connection's path can fail for want of one.

mod certificates;
mod client;
mod file;
mod own_certificate;
mod roots;
mod server;
mod tickets;

pub use certificates::{PeerAuthorities, authorities, chain_and_key};
pub use client::client_config;
pub use file::{FileVersion, MAX_MATERIAL, read_file, read_text};
pub use own_certificate::{is_verified_later, verify_own_certificate};
pub use roots::{connector_options, system_roots};
pub use server::{CertificateTable, ServerSettings, server_config};
pub use tickets::{GivenKeys, TicketKeys, Tickets};

/// A client's TLS connection.
pub type TlsStream<S> = pingora::tls::ServerTlsStream<S>;

/// Chooses the cryptography for the whole process. Called once at the start; again it does nothing.
pub fn install_provider() {
    let _ = rustls::crypto::CryptoProvider::install_default(rustls::crypto::ring::default_provider());
}
