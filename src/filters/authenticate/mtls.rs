//! `mtls`: requires a client certificate, which the listener has verified.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Authenticated, Unauthenticated};
use crate::exchange::{Edit, Exchange, Identity, PeerCertificate, Reason, Rejection};
use crate::filters::{CompileContext, Consumers, HttpFilter, Stage};
use crate::notation::{AlternativeName, Fingerprint, Header, OneOrMany};
use crate::tls::peer_certificate;

/// The longest certificate in a header.
const MAX_CERTIFICATE: usize = 16 * 1024;

/// Which certificates are accepted, and who it is that they identify.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The alternative names of which a certificate has to have one; a `*` at the end stands for any rest. Default: any
    /// certificate that the listener's CA has issued is accepted.
    pub san: Option<OneOrMany<AlternativeName>>,
    /// The subjects (RFC 4514, such as `CN=app,O=Example`) of which it has to have one.
    pub subject: Option<OneOrMany<String>>,
    /// The fingerprints of which it has to have one.
    pub fingerprint: Option<OneOrMany<Fingerprint>>,
    /// What identifies a client whose certificate no consumer has: it is known as `ISSUER#NAME`, such as
    /// `CN=clients#alice`. Default `common_name`.
    pub identity: CertificateIdentity,
    /// Whether only configured consumers pass. Default false.
    pub known_consumers: bool,
    /// The header in which a trusted proxy that ends TLS names the certificate (RFC 9440): `client-cert`. The proxy's
    /// own certificate then identifies nobody. The header of other clients is ignored and removed. Default: none.
    pub header: Option<Header>,
}

/// What of a certificate identifies a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateIdentity {
    /// The common name of its subject.
    #[default]
    CommonName,
    /// Its subject.
    Subject,
    /// Its first DNS name.
    Dns,
    /// Its first URI, such as a SPIFFE identity.
    Uri,
    /// Its first address for mail.
    Email,
    /// Its SHA-256 fingerprint.
    Fingerprint,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    accepted: Accepted,
    identity: CertificateIdentity,
    known_consumers: bool,
    header: Option<HeaderName>,
    edits: Arc<[Edit]>,
    consumers: Arc<Consumers>,
}

/// The certificates that are accepted; without any property it is all.
#[derive(Debug, Default)]
struct Accepted {
    names: Vec<String>,
    subjects: Vec<String>,
    fingerprints: Vec<[u8; 32]>,
}

impl Accepted {
    fn contains(&self, certificate: &PeerCertificate) -> bool {
        if self.names.is_empty() && self.subjects.is_empty() && self.fingerprints.is_empty() {
            return true;
        }
        let is_named = |wanted: &String| match wanted.strip_suffix('*') {
            Some(start) => certificate.names.iter().any(|name| name.starts_with(start)),
            None => certificate.names.iter().any(|name| **name == **wanted),
        };
        self.fingerprints.contains(&certificate.fingerprint)
            || self.names.iter().any(is_named)
            || self.subjects.contains(&certificate.subject)
    }
}

fn list<T>(list: Option<&OneOrMany<T>>) -> &[T] {
    list.map_or(&[], OneOrMany::as_slice)
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        if config.known_consumers && !context.consumers.has_certificates() && !context.is_partial {
            context.mistakes.add(&place, "no consumer has an mtls credential, so this would reject everyone");
            return None;
        }
        let empty = [
            ("san", config.san.as_ref().is_some_and(|list| list.as_slice().is_empty())),
            ("subject", config.subject.as_ref().is_some_and(|list| list.as_slice().is_empty())),
            ("fingerprint", config.fingerprint.as_ref().is_some_and(|list| list.as_slice().is_empty())),
        ];
        for (key, _) in empty.into_iter().filter(|(_, is_empty)| *is_empty) {
            context.mistakes.add(&place.key(key), "an empty list accepts nobody: leave it out to accept all");
        }
        check_sources(config, context);
        let header = config.header.as_ref().map(|header| header.0.clone());
        Some(Self {
            accepted: Accepted {
                names: list(config.san.as_ref()).iter().map(|name| name.0.clone()).collect(),
                subjects: list(config.subject.as_ref()).to_vec(),
                fingerprints: list(config.fingerprint.as_ref()).iter().map(|one| one.0).collect(),
            },
            identity: config.identity,
            known_consumers: config.known_consumers,
            edits: header.iter().map(|name| Edit::Remove(name.clone())).collect(),
            header,
            consumers: Arc::clone(context.consumers),
        })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        config.header.iter().map(|header| (header.0.clone(), vec!["header".to_owned()])).collect()
    }

    fn credentials(&self) -> Vec<Edit> {
        self.edits.to_vec()
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    async fn authenticate(
        &self,
        request: &RequestHeader,
        exchange: &Exchange,
    ) -> Result<Authenticated, Unauthenticated> {
        let of_header;
        let certificate = match &self.header {
            // The connection's certificate is the proxy's own, also where the client of the proxy has none.
            Some(name) if exchange.peer_trusted => {
                of_header = match request.headers.contains_key(name) {
                    true => Some(in_header(request, name).ok_or_else(|| invalid("its header is malformed"))?),
                    false => None,
                };
                of_header.as_ref()
            }
            _ => exchange.peer.tls().and_then(|tls| tls.certificate.as_deref()),
        };
        let Some(certificate) = certificate else {
            let detail = "connect with a client certificate";
            return Err(Unauthenticated::missing(challenge(Reason::CertificateMissing, detail)));
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if certificate.not_after < i64::try_from(now).unwrap_or(i64::MAX) {
            // The connection is older than that.
            return Err(invalid("it has expired"));
        }
        if !self.accepted.contains(certificate) {
            return Err(invalid("it is none of those that are accepted here"));
        }
        if let Some(consumer) = self.consumers.by_certificate(certificate) {
            let identity = Some(Identity::of(consumer, None));
            return Ok(Authenticated { identity, ..Authenticated::default() });
        }
        if self.known_consumers {
            return Err(invalid("it belongs to no consumer"));
        }
        let name = self.identity.of(certificate).ok_or_else(|| invalid("it has no name that identifies the client"))?;
        // A client without a consumer is distinct from all consumers: no consumer's name has a #.
        let name = Arc::from(format!("{}#{name}", certificate.issuer));
        let identity = Some(Identity { name, consumer: None, claims: None, scopes: None });
        Ok(Authenticated { identity, ..Authenticated::default() })
    }
}

impl CertificateIdentity {
    fn of(self, certificate: &PeerCertificate) -> Option<&str> {
        match self {
            Self::CommonName => certificate.common_name.as_deref(),
            Self::Subject => Some(certificate.subject.as_str()).filter(|subject| !subject.is_empty()),
            Self::Dns => certificate.name_of("DNS:"),
            Self::Uri => certificate.name_of("URI:"),
            Self::Email => certificate.name_of("email:"),
            Self::Fingerprint => Some(&certificate.fingerprint_text),
        }
    }
}

/// Notes that no certificate can reach the filter, or none by its header.
fn check_sources(config: &Config, context: &mut CompileContext<'_>) {
    let sources = context.route.certificate_sources();
    if config.header.is_some() && !sources.trusted_proxies {
        let text = "no listener of this route has trusted_proxies, whose header it would be";
        context.mistakes.add(&context.place.key("header"), text);
    } else if config.header.is_none() && !sources.connections {
        let text = "no listener of this route requests certificates of clients, so this accepts nobody: set `tls: \
                    {client: {ca: …}}` there";
        context.mistakes.add(&context.place, text);
    }
}

/// Returns the certificate in a header (RFC 9440, section 2.2): a byte sequence, its Base64 between colons.
fn in_header(request: &RequestHeader, name: &HeaderName) -> Option<PeerCertificate> {
    let mut values = request.headers.get_all(name).iter();
    let value = values.next()?.as_bytes().trim_ascii();
    if values.next().is_some() || value.len() > MAX_CERTIFICATE {
        return None;
    }
    let encoded = value.strip_prefix(b":")?.strip_suffix(b":")?;
    peer_certificate(&[STANDARD.decode(encoded).ok()?.into()])
}

fn invalid(detail: &'static str) -> Unauthenticated {
    Unauthenticated::invalid(challenge(Reason::CertificateInvalid, "").log(detail))
}

/// Returns a rejection with a challenge, which a 401 has to have (RFC 9110, section 15.5.2); no scheme is registered
/// for certificates of the connection.
fn challenge(reason: Reason, detail: &'static str) -> Box<Rejection> {
    Rejection::new(reason, detail).header(WWW_AUTHENTICATE, HeaderValue::from_static("ClientCertificate"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

    use super::*;
    use crate::exchange::{Client, ConnectionFacts, TlsFacts};
    use crate::filters::test_kit::{Kit, compile, request};

    /// Returns a certificate of that common name in DER.
    fn issued(name: &str) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "ca");
        let issuer = Issuer::new(params.clone(), KeyPair::generate().expect("a key"));
        params.distinguished_name.push(DnType::CommonName, name);
        params.signed_by(&key, &issuer).expect("a certificate").der().to_vec()
    }

    /// Returns the filter, and an exchange on a connection with a certificate of that common name.
    fn kit(yaml: &str, name: Option<&str>) -> Kit {
        let mut kit = compile(yaml).expect("a filter");
        let certificate = name.map(|name| Arc::new(peer_certificate(&[issued(name).into()]).expect("a certificate")));
        let verified_by = parking_lot::Mutex::default();
        let tls = TlsFacts { version: "1.3", server_name: None, certificate, client_policy: None, verified_by };
        kit.exchange = Exchange::new(Client::new(
            std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
            ConnectionFacts { tls: Some(tls), proxy: None },
        ));
        kit
    }

    fn name(kit: &Kit) -> Option<&str> {
        kit.exchange.identity.as_ref().map(|identity| &*identity.name)
    }

    #[test]
    fn a_certificate_cannot_name_a_consumer() {
        let mut kit = kit("[{mtls: {}}]", Some("one"));
        kit.on_request(request("GET /", &[])).expect("accepted");
        assert_eq!(name(&kit), Some("CN=ca#one"));
        assert!(kit.exchange.identity.as_ref().is_some_and(|identity| identity.consumer.is_none()));
    }

    #[test]
    fn the_certificate_of_a_proxy_is_not_that_of_its_client() {
        let yaml = "[{mtls: {header: client-cert}}]";
        let value = format!(":{}:", STANDARD.encode(issued("client")));
        let with = || request("GET /", &[("client-cert", &value)]);
        let mut trusted = kit(yaml, Some("proxy"));
        trusted.exchange.peer_trusted = true;
        let rejected = trusted.on_request(request("GET /", &[])).expect_err("the client has no certificate");
        assert_eq!(rejected.reason, Reason::CertificateMissing);
        trusted.on_request(with()).expect("accepted");
        assert_eq!(name(&trusted), Some("CN=ca#client"));
        let mut other = kit(yaml, Some("other"));
        other.on_request(with()).expect("accepted by its own certificate");
        assert_eq!(name(&other), Some("CN=ca#other"));
        let mut nobody = kit(yaml, None);
        assert!(nobody.on_request(with()).is_err(), "only proxies name the certificates of others");
    }
}
