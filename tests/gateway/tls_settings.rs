//! Versions, cipher suites, kinds of keys and stapled responses on listeners.

use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion, version};

use super::client_certificates::{BOTH, client, connect};
use super::harness::gateway::{Gateway, run};
use super::tls::{block, certificate, write};

const ROUTES: &str = "routes: [{name: all, action: {respond: {body: x}}}]\n";

fn yaml(tls: &str) -> String {
    format!("{ROUTES}listeners: [{{name: main, address: 127.0.0.1:0, tls: {{{tls}}}}}]\n")
}

#[test]
fn versions_and_suites_are_those_of_the_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = certificate(&["a.test", "b.test", "c.test"]);
    write(folder.path(), "own", &own);
    let gateway = Gateway::start_in(
        folder,
        &yaml(
            "certificates: [{cert: own.pem, key: own.key}], hosts: [{names: [b.test], preset: modern}, {names: [c.test], \
             ciphers: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]}]",
        ),
        &[],
    );
    let suite = |name: &str, versions: &[&'static SupportedProtocolVersion]| {
        block(async {
            let stream = connect(&client(&own.0, None, versions, &[]), gateway.address(), name).await.ok()?;
            stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite())
        })
    };
    assert!(suite("a.test", &[&version::TLS12]).is_some());
    assert_eq!(suite("b.test", &[&version::TLS12]), None);
    assert!(suite("b.test", &[&version::TLS13]).is_some());
    assert_eq!(suite("c.test", &[&version::TLS13]), Some(CipherSuite::TLS13_AES_128_GCM_SHA256));
    assert_eq!(suite("c.test", &[&version::TLS12]), Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256));
}

/// A client's verifier that notes what it is shown, and supports some signature schemes alone.
#[derive(Debug)]
struct Noting {
    inner: Arc<WebPkiServerVerifier>,
    schemes: Vec<SignatureScheme>,
    seen: Mutex<(Vec<u8>, Vec<u8>)>,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().expect("unpoisoned") = (leaf.to_vec(), ocsp.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[test]
fn of_two_certificates_of_one_name_that_is_used_which_the_client_supports() {
    let folder = tempfile::tempdir().expect("a folder");
    let ecdsa = certificate(&["a.test"]);
    let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
    let der = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&key).expect("DER");
    let key = KeyPair::try_from(der.as_ref()).expect("a key");
    let rsa = CertificateParams::new(["a.test".to_owned()]).expect("a name").self_signed(&key).expect("a certificate");
    write(folder.path(), "ecdsa", &ecdsa);
    write(folder.path(), "rsa", &(rsa.pem(), key.serialize_pem()));
    // A sequence whose status is "successful", with a part of response bytes: what it says is for the client.
    let staple = [0x30, 0x05, 0x0a, 0x01, 0x00, 0xa0, 0x00];
    std::fs::write(folder.path().join("ecdsa.ocsp"), staple).expect("written");
    let pairs = "{cert: rsa.pem, key: rsa.key}, {cert: ecdsa.pem, key: ecdsa.key, ocsp: ecdsa.ocsp}";
    let gateway = Gateway::start_in(folder, &yaml(&format!("certificates: [{pairs}]")), &[]);
    let shown = |name: &str, schemes: &[SignatureScheme]| {
        portcullis::parts::install_provider();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rsa.der().clone()).expect("an authority");
        let inner = WebPkiServerVerifier::builder(Arc::new(roots)).build().expect("a verifier");
        let noting = Arc::new(Noting { inner, schemes: schemes.to_vec(), seen: Mutex::default() });
        let config = ClientConfig::builder_with_protocol_versions(BOTH)
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&noting) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        block(connect(&Arc::new(config), gateway.address(), name)).expect("a handshake");
        noting.seen.lock().expect("unpoisoned").clone()
    };
    let (modern, old) = (
        [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256],
        [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256],
    );
    for name in ["a.test", "unknown.test"] {
        let (leaf, ocsp) = shown(name, &modern);
        assert!(leaf != rsa.der().to_vec(), "{name}");
        assert_eq!(ocsp, staple, "{name}");
        assert_eq!(shown(name, &old), (rsa.der().to_vec(), Vec::new()), "{name}");
    }
}

#[test]
fn settings_without_an_effect_are_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "own", &certificate(&["a.test"]));
    std::fs::write(folder.path().join("ca.pem"), certificate(&["ca"]).0).expect("written");
    let check = |tls: &str| {
        let text = super::harness::gateway::complete(&yaml(&format!(
            "certificates: [{{cert: own.pem, key: own.key}}], {tls}"
        )));
        std::fs::write(folder.path().join("c.yaml"), text).expect("written");
        let (code, _, text) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
        assert_eq!(code, 2, "{tls}: {text}");
        text
    };
    for (tls, expected) in [
        ("client: {}", "the key \"ca\" is missing"),
        ("client: {mode: none}", "leave out client"),
        ("client: {ca: ca.pem, expired_crl: accept}", "has no effect without crl"),
        ("client: {ca: ca.pem, crl: own.pem}", "holds no revocation list"),
        ("client: {ca: own.key}", "holds no certificate"),
        ("hosts: [{names: [a.test]}]", "without them it has no effect"),
        ("hosts: [{names: [\"*\"], preset: modern}]", "are those of the listener"),
        ("hosts: [{names: [192.0.2.1], preset: modern}]", "never addresses"),
        (
            "hosts: [{names: [a.test], preset: modern}, {names: [A.test], preset: modern}]",
            "a.test has settings already",
        ),
        ("preset: modern, min_version: \"1.2\"", "has no TLS 1.2"),
        ("ciphers: TLS_AES_128_GCM_SHA256", "no cipher suite of TLS 1.2"),
        ("ciphers: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "no cipher suite of TLS 1.3"),
        (
            "preset: modern, ciphers: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
            "cipher suites of TLS 1.2, which the settings reject",
        ),
    ] {
        let text = check(tls);
        assert!(text.contains(expected), "{tls}: {text}");
    }
}
