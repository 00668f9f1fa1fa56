//! Certificates of clients: verification by listener and by host, revocation, resumption, and what targets learn of
//! them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::harness::gateway::Gateway;
use super::tls::{block, certificate, write};

/// A certification authority.
pub(super) struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A client's certificate and its key.
#[derive(Clone)]
pub(super) struct ClientPair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate of that common name and serial number.
    pub(super) fn issue(&self, name: &str, serial: u64, names: Vec<SanType>) -> ClientPair {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names;
        params.serial_number = Some(SerialNumber::from(serial));
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        ClientPair { cert, key: key.serialize_pem() }
    }

    /// A revocation list with those serial numbers that is valid until that year.
    pub(super) fn revoke(&self, serials: &[u64], until: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(serials.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

/// The settings of a client that trusts that certificate, and has one of its own.
pub(super) fn client(
    trusted: &str,
    own: Option<&ClientPair>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    portcullis::parts::install_provider();
    let mut roots = rustls::RootCertStore::empty();
    for pem in rustls_pemfile::certs(&mut trusted.as_bytes()) {
        roots.add(pem.expect("a certificate")).expect("an authority");
    }
    let builder = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
    let mut config = match own {
        Some(own) => {
            let chain = rustls_pemfile::certs(&mut own.cert.as_bytes()).map(|c| c.expect("a certificate")).collect();
            let key: PrivateKeyDer<'static> =
                rustls_pemfile::private_key(&mut own.key.as_bytes()).expect("PEM").expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Arc::new(config)
}

pub(super) async fn connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// One request: the kind of handshake, and the response as text. In TLS 1.3 a client learns only here that it was
/// rejected.
async fn get(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
    host: &str,
) -> std::io::Result<(HandshakeKind, String)> {
    let mut stream = connect(config, address, name).await?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text).await;
    if text.is_empty() {
        read?;
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let kind = stream.get_ref().1.handshake_kind().expect("a handshake");
    Ok((kind, String::from_utf8_lossy(&text).into_owned()))
}

pub(super) const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];

/// The folder of a gateway for the hosts `a.test` and `admin.test`, and the certificate that it shows.
fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let own = certificate(&["a.test", "admin.test"]);
    write(folder.path(), "own", &own);
    (folder, own.0)
}

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("written");
}

const ROUTES: &str = "routes: [{name: all, action: {respond: {body: \"{tls.client.subject|nobody} {tls.client.san|-} \
    {tls.client.serial|-}\"}}}]\n";

#[test]
fn clients_are_verified_and_revoked_ones_are_rejected() {
    let (folder, own) = folder();
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    put(folder.path(), "ca.pem", &ours.pem);
    put(folder.path(), "crl.pem", &ours.revoke(&[9], 2099));
    let yaml = format!(
        "{ROUTES}listeners: [{{name: main, address: 127.0.0.1:0, tls: {{certificates: [{{cert: own.pem, key: own.key}}], \
         client: {{ca: ca.pem, crl: crl.pem}}}}}}]\n"
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let address = gateway.address();
    let san = vec![
        SanType::DnsName("one.test".try_into().expect("a name")),
        SanType::URI("spiffe://test/one".try_into().expect("a URI")),
    ];
    let (good, revoked, foreign) =
        (ours.issue("one, and only", 7, san), ours.issue("two", 9, vec![]), others.issue("one", 7, vec![]));
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        let ask =
            |pair: Option<&ClientPair>| block(get(&client(&own, pair, versions, &[]), address, "a.test", "a.test"));
        let (_, text) = ask(Some(&good)).expect("a response");
        assert!(text.ends_with("CN=one\\, and only,O=Example DNS:one.test, URI:spiffe://test/one 07"), "{text}");
        for rejected in [None, Some(&revoked), Some(&foreign)] {
            assert!(ask(rejected).is_err());
        }
    }
    super::harness::eventually("all are counted", || {
        gateway.metric("portcullis_connections_refused_total{cause=\"client_certificate\"}") == 6.0
    });
    assert_eq!(gateway.metric("portcullis_connections_refused_total{cause=\"tls\"}"), 0.0);
    super::harness::eventually("a line is written", || gateway.log().contains("is rejected by its certificate"));
    let log = gateway.log();
    let lines = log.lines().filter(|line| line.contains("is rejected by its certificate: "));
    let first = lines.clone().next().expect("a rejected certificate leaves a line");
    assert!(first.contains("WARN") && first.contains("listener main: the client 127.0.0.1:"), "{first}");
    assert!(lines.count() < 6, "one a second: {log}");
}

#[test]
fn a_revoked_client_cannot_resume_its_session() {
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        let (folder, own) = folder();
        let ours = Authority::new("ours");
        put(folder.path(), "ca.pem", &ours.pem);
        put(folder.path(), "crl.pem", &ours.revoke(&[], 2099));
        let yaml = format!(
            "{ROUTES}listeners: [{{name: main, address: 127.0.0.1:0, tls: {{certificates: [{{cert: own.pem, key: \
             own.key}}], client: {{ca: ca.pem, crl: crl.pem}}}}}}]\nprocess: {{threads: 2, watch: 100ms}}\n"
        );
        let gateway = Gateway::start_in(folder, &yaml, &[]);
        let address = gateway.address();
        let (one, two) = (ours.issue("one", 1, vec![]), ours.issue("two", 2, vec![]));
        let (one, two) = (client(&own, Some(&one), versions, &[]), client(&own, Some(&two), versions, &[]));
        let ask = |config: &Arc<ClientConfig>| block(get(config, address, "a.test", "a.test"));
        for config in [&one, &two] {
            assert_eq!(ask(config).expect("a response").0, HandshakeKind::Full);
            let (kind, text) = ask(config).expect("a response");
            assert_eq!(kind, HandshakeKind::Resumed);
            assert!(text.contains("CN="), "{text}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut open = runtime.block_on(connect(&one, address, "a.test")).expect("a connection");
        // A changed list is loaded without a reload.
        put(gateway.folder.path(), "crl.pem", &ours.revoke(&[1], 2099));
        super::harness::eventually("the list is loaded", || {
            gateway.metric("portcullis_reloads_total{outcome=\"taken\"}") >= 1.0
        });
        assert!(ask(&one).is_err());
        assert!(ask(&one).is_err());
        // Nor does a connection that it has already help.
        let text = runtime.block_on(async {
            open.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.expect("sent");
            let mut text = Vec::new();
            let _ = open.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        assert!(text.starts_with("HTTP/1.1 401 ") && text.contains("certificate_invalid"), "{text}");
        assert_eq!(ask(&two).expect("a response").0, HandshakeKind::Full);
        assert_eq!(ask(&two).expect("a response").0, HandshakeKind::Resumed);
    }
}

#[test]
fn an_expired_list_rejects_all_unless_it_is_accepted() {
    let (folder, own) = folder();
    let ours = Authority::new("ours");
    put(folder.path(), "ca.pem", &ours.pem);
    put(folder.path(), "old.pem", &ours.revoke(&[9], 2025));
    let listener = |name: &str, more: &str| {
        format!(
            "  - {{name: {name}, address: 127.0.0.1:0, tls: {{certificates: [{{cert: own.pem, key: own.key}}], client: \
             {{ca: ca.pem, crl: [old.pem]{more}}}}}}}\n"
        )
    };
    let yaml = format!("{ROUTES}listeners:\n{}{}", listener("strict", ""), listener("lax", ", expired_crl: accept"));
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let one = client(&own, Some(&ours.issue("one", 1, vec![])), BOTH, &[]);
    let nine = client(&own, Some(&ours.issue("nine", 9, vec![])), BOTH, &[]);
    let (strict, lax) = (gateway.listeners[0].1, gateway.listeners[1].1);
    assert!(block(get(&one, strict, "a.test", "a.test")).is_err());
    assert!(block(get(&one, lax, "a.test", "a.test")).is_ok());
    assert!(block(get(&nine, lax, "a.test", "a.test")).is_err());
}

#[test]
fn a_host_may_require_certificates_and_no_other_name_evades_that() {
    let (folder, own) = folder();
    let ours = Authority::new("ours");
    put(folder.path(), "ca.pem", &ours.pem);
    let yaml = format!(
        "{ROUTES}listeners: [{{name: main, address: 127.0.0.1:0, tls: {{certificates: [{{cert: own.pem, key: own.key}}], \
         hosts: [{{names: [admin.test, \"*.admin.test\"], client: {{ca: ca.pem}}}}]}}}}]\n"
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let address = gateway.address();
    let (stranger, known) =
        (client(&own, None, BOTH, &[]), client(&own, Some(&ours.issue("one", 1, vec![])), BOTH, &[]));
    let ask = |config: &Arc<ClientConfig>, name: &str, host: &str| block(get(config, address, name, host));
    assert!(ask(&stranger, "a.test", "a.test").expect("a response").1.contains("nobody"));
    assert!(ask(&stranger, "admin.test", "admin.test").is_err());
    assert!(ask(&known, "admin.test", "ADMIN.test:443").expect("a response").1.contains("CN=one"));
    for (config, name, host) in [
        (&stranger, "a.test", "admin.test"),
        (&stranger, "a.test", "Admin.Test."),
        (&stranger, "a.test", "x.y.admin.test"),
        (&known, "a.test", "admin.test"),
        (&known, "admin.test", "a.test"),
    ] {
        let (_, text) = ask(config, name, host).expect("a response");
        assert!(text.starts_with("HTTP/1.1 421 ") && text.contains("misdirected"), "{name} {host}: {text}");
    }
    // A session of one host is none of the other.
    let (kind, _) = ask(&stranger, "a.test", "a.test").expect("a response");
    assert_eq!(kind, HandshakeKind::Resumed);
    // The connection that a browser uses for several hosts of a certificate (RFC 9113, section 9.1.1).
    let h2 = client(&own, None, BOTH, &[b"h2"]);
    let status = |host: &'static str| {
        block(async {
            let stream = connect(&h2, address, "a.test").await.expect("a connection");
            let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            let request = http::Request::get(format!("https://{host}/")).body(()).expect("a request");
            let (response, _) = sender.ready().await.expect("ready").send_request(request, true).expect("sent");
            response.await.expect("a response").status().as_u16()
        })
    };
    assert_eq!((status("a.test"), status("admin.test")), (200, 421));
}

#[test]
fn optional_certificates_are_verified_where_there_are_any() {
    let (folder, own) = folder();
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    put(folder.path(), "ca.pem", &ours.pem);
    let yaml = format!(
        "{ROUTES}listeners: [{{name: main, address: 127.0.0.1:0, tls: {{certificates: [{{cert: own.pem, key: own.key}}], \
         client: {{ca: ca.pem, mode: optional}}, hosts: [{{names: [a.test], client: {{mode: none}}}}]}}}}]\n"
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let ask = |pair: Option<&ClientPair>, host: &str| {
        block(get(&client(&own, pair, BOTH, &[]), gateway.address(), host, host))
    };
    let (good, foreign) = (ours.issue("one", 1, vec![]), others.issue("one", 1, vec![]));
    assert!(ask(None, "admin.test").expect("a response").1.contains("nobody"));
    assert!(ask(Some(&good), "admin.test").expect("a response").1.contains("CN=one"));
    assert!(ask(Some(&foreign), "admin.test").is_err());
    assert!(ask(Some(&foreign), "a.test").expect("a response").1.contains("nobody"));
}
