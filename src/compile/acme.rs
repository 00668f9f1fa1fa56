//! `acme`: certificates from an ACME server.

use std::sync::Arc;

use crate::config::{AcmeChallengeConfig, ListenerConfig, ListenerKind, Loaded};
use crate::live::{AcmeChallenge, AcmeManager, AcmeShape, Live};
use crate::notation::{Mistakes, OneOrMany, Place};
use crate::tls::FileVersion;

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Returns the manager of the certificates, with every error in the section among `mistakes`.
pub fn compile(
    loaded: &Loaded,
    live: &Live,
    mistakes: &mut Mistakes,
    warnings: &mut Mistakes,
) -> Option<Arc<AcmeManager>> {
    let acme = loaded.config.acme.as_ref()?;
    let place = Place::default().key("acme");
    if !acme.terms_of_service_agreed {
        mistakes.add(
            &place.key("terms_of_service_agreed"),
            "the server requires that you agree: read them, and write true",
        );
    }
    let directory = acme.directory.as_deref().unwrap_or(LETS_ENCRYPT);
    let url = directory.parse::<http::Uri>().ok();
    if !url.is_some_and(|url| url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty())) {
        mistakes.add(&place.key("directory"), "expected a URL of https");
        return None;
    }
    let contact = acme.contact.as_ref().map_or(&[][..], OneOrMany::as_slice);
    if let Some(wrong) = contact.iter().position(|address| !address.contains('@')) {
        mistakes.add(&place.key("contact").index(wrong), "expected an address for mail");
    }
    let uri = |address: &String| if address.contains(':') { address.clone() } else { format!("mailto:{address}") };
    let shape = AcmeShape {
        directory: directory.to_owned(),
        ca: acme.ca.as_ref().map(|ca| FileVersion::of(loaded.base.join(ca))),
        contact: contact.iter().map(uri).collect(),
        state: loaded.base.join(&acme.state),
        challenge: match acme.challenge {
            AcmeChallengeConfig::Http01 => AcmeChallenge::Http01,
            AcmeChallengeConfig::TlsAlpn01 => AcmeChallenge::TlsAlpn01,
        },
    };
    let listeners = &loaded.config.listeners;
    let is_plain_http = |one: &ListenerConfig| one.kind == ListenerKind::Http && one.tls.is_none();
    let certificates = listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificates);
    if !certificates.into_iter().any(|certificate| certificate.acme.is_some()) {
        warnings.add(&place, "no certificate is obtained by it: write `certificates: [{acme: [NAME]}]` in a listener");
    }
    if acme.challenge == AcmeChallengeConfig::Http01 && !listeners.iter().any(is_plain_http) {
        let text = "there is no listener without TLS, so that no challenge over HTTP can be met: add one, or write \
                    tls_alpn_01";
        mistakes.add(&place.key("challenge"), text);
    }
    mistakes.take(&place, live.acme(&shape))
}
