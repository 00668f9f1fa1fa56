//! Versions and cipher suites of listeners.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

/// Returns the crypto provider with those suites alone, in that order; with all of them for an empty list.
pub fn provider_with(suites: &[CipherSuite]) -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    if !suites.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        let find = |wanted: &CipherSuite| all.iter().find(|known| known.suite() == *wanted).copied();
        provider.cipher_suites = suites.iter().filter_map(find).collect();
    }
    Arc::new(provider)
}

/// Returns the versions of TLS.
pub fn versions(only_13: bool) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_13: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];
    if only_13 { &ONLY_13 } else { &BOTH }
}

/// Returns whether a suite is one of TLS 1.3.
pub fn is_of_13(suite: CipherSuite) -> bool {
    let known = rustls::crypto::ring::ALL_CIPHER_SUITES.iter().find(|known| known.suite() == suite);
    known.is_some_and(|known| matches!(known, SupportedCipherSuite::Tls13(_)))
}
