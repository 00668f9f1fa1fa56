//! The filter `mtls`, and the gateway's own certificate towards targets.

use std::sync::Arc;

use base64::Engine;
use rcgen::SanType;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client_certificates::{Authority, BOTH, ClientPair, client, connect};
use super::harness::gateway::{Gateway, run};
use super::tls::{block, certificate, write};

fn request(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{more}\r\n")
}

/// One request over TLS; the response as text.
fn ask(gateway: &Gateway, own: &str, pair: Option<&ClientPair>, path: &str, more: &str) -> String {
    block(async {
        let config = client(own, pair, BOTH, &[]);
        let mut stream = connect(&config, gateway.address(), "a.test").await.expect("a connection");
        stream.write_all(request(path, more).as_bytes()).await.expect("sent");
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("a URI"))
}

fn fingerprint(pair: &ClientPair) -> String {
    let der = rustls_pemfile::certs(&mut pair.cert.as_bytes()).next().expect("one").expect("a certificate");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[test]
fn certificates_identify_consumers_and_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = certificate(&["a.test"]);
    write(folder.path(), "own", &own);
    let ours = Authority::new("ours");
    std::fs::write(folder.path().join("ca.pem"), &ours.pem).expect("written");
    let by_print = ours.issue("print", 1, vec![uri("spiffe://test/machine")]);
    let by_san = ours.issue("san", 2, vec![uri("spiffe://test/machine")]);
    let by_subject = ours.issue("subject", 3, vec![]);
    let nobody = ours.issue("nobody", 4, vec![uri("spiffe://test/other")]);
    let nameless = ours.issue("", 5, vec![]);
    let print = fingerprint(&by_print);
    let route = |name: &str, filters: &str| {
        format!(
            "  - {{name: {name}, match: {{path: /{name}}}, filters: [{filters}], action: {{respond: {{body: \
             \"{{consumer|-}}\"}}}}}}\n"
        )
    };
    let condition = "'URI:spiffe://test/machine' in tls.client.san && tls.client.subject == 'CN=print,O=Example'";
    let routes = [
        route("known", "mtls: {known_consumers: true}"),
        route("uri", "mtls: {identity: uri, san: [\"spiffe://test/oth*\"]}"),
        route("only", &format!("mtls: {{}}, authorize: {{condition: \"{condition}\"}}")),
        route("any", "mtls: {}"),
    ];
    let yaml = format!(
        "consumers:\n  print: {{credentials: [mtls: {{fingerprint: \"{print}\"}}]}}\n  san: {{credentials: [mtls: {{san: \
         \"spiffe://test/machine\"}}]}}\n  subject: {{credentials: [mtls: {{subject: \"CN=subject,O=Example\"}}]}}\n\
         routes:\n{}listeners: [{{name: main, address: 127.0.0.1:0, tls: {{certificates: [{{cert: own.pem, key: \
         own.key}}], client: {{ca: ca.pem, mode: optional}}}}}}]\n",
        routes.concat()
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    for (pair, path, body) in [
        (&by_print, "/known", "print"),
        (&by_san, "/known", "san"),
        (&by_subject, "/known", "subject"),
        (&by_print, "/only", "print"),
        (&nobody, "/any", "ours#nobody"),
        (&nobody, "/uri", "ours#spiffe://test/other"),
    ] {
        let text = ask(&gateway, &own.0, Some(pair), path, "");
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with(body), "{body}: {text}");
    }
    assert!(ask(&gateway, &own.0, Some(&by_san), "/only", "").starts_with("HTTP/1.1 403 "));
    for (pair, path, reason) in [
        (None, "/any", "certificate_missing"),
        (Some(&nobody), "/known", "certificate_invalid"),
        (Some(&by_san), "/uri", "certificate_invalid"),
        (Some(&nameless), "/any", "certificate_invalid"),
    ] {
        let text = ask(&gateway, &own.0, pair, path, "");
        assert!(text.starts_with("HTTP/1.1 401 ") && text.contains(reason), "{reason}: {text}");
        assert!(text.to_ascii_lowercase().contains("\r\nwww-authenticate: clientcertificate"), "{text}");
    }
}

#[test]
fn a_trusted_proxy_may_name_the_certificate_of_its_client() {
    let ours = Authority::new("ours");
    let der = rustls_pemfile::certs(&mut ours.issue("one", 1, vec![]).cert.as_bytes()).next().expect("one");
    let value = format!(":{}:", base64::engine::general_purpose::STANDARD.encode(der.expect("a certificate")));
    let gateway = Gateway::start(
        "routes: [{name: all, filters: [mtls: {header: client-cert}], action: {respond: {body: \"{consumer}\"}}}]\n\
         listeners:\n  - {name: behind, address: 127.0.0.1:0, trusted_proxies: 127.0.0.1}\n  - {name: open, address: \
         127.0.0.1:0}\n",
    );
    let ask = |listener: usize, value: &str| {
        let to = gateway.listeners[listener].1;
        super::harness::client::request(to, "GET", "/", &[("client-cert", value)])
    };
    assert!(ask(0, &value).text().ends_with("CN=ours#one"));
    assert_eq!(ask(0, &value.replace(':', "")).reason(), "certificate_invalid");
    assert_eq!(ask(1, &value).reason(), "certificate_missing");
}

/// A target that requires a client certificate of that authority.
fn target(pair: &(String, String), clients: &str) -> std::net::SocketAddr {
    portcullis::parts::install_provider();
    let chain: Vec<_> = rustls_pemfile::certs(&mut pair.0.as_bytes()).map(|c| c.expect("a certificate")).collect();
    let key = rustls_pemfile::private_key(&mut pair.1.as_bytes()).expect("PEM").expect("a key");
    let mut roots = rustls::RootCertStore::empty();
    for ca in rustls_pemfile::certs(&mut clients.as_bytes()) {
        roots.add(ca.expect("a certificate")).expect("an authority");
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("a pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        block(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut seen = Vec::new();
                    while !seen.ends_with(b"\r\n\r\n") {
                        if !matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
                            return;
                        }
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nknown";
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
    });
    address
}

#[test]
fn the_gateway_has_a_certificate_for_its_targets() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let own = certificate(&["target.test"]);
    write(folder.path(), "target", &own);
    for (name, authority) in [("good", &ours), ("bad", &others)] {
        let pair = authority.issue("gateway", 1, vec![]);
        write(folder.path(), name, &(pair.cert, pair.key));
    }
    let address = target(&own, &ours.pem);
    let upstream = |name: &str, more: &str| {
        format!("  {name}: {{targets: [\"{address}\"], tls: {{ca: target.pem, name: target.test{more}}}}}\n")
    };
    let route = |name: &str| format!("  - {{name: {name}, match: {{path: /{name}}}, action: {{forward: {name}}}}}\n");
    let yaml = format!(
        "upstreams:\n{}{}{}routes:\n{}{}{}",
        upstream("with", ", cert: good.pem, key: good.key"),
        upstream("foreign", ", cert: bad.pem, key: bad.key"),
        upstream("without", ""),
        route("with"),
        route("foreign"),
        route("without")
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    // Whichever comes first: no connection of another identity is used again.
    for (path, status) in [("/without", 502), ("/with", 200), ("/foreign", 502), ("/with", 200)] {
        let answer = gateway.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let half =
        "upstreams: {u: {targets: [127.0.0.1:1], tls: {cert: good.pem}}}\nroutes: [{name: a, action: {forward: u}}]";
    std::fs::write(gateway.folder.path().join("half.yaml"), super::harness::gateway::complete(half)).expect("written");
    let (code, _, text) = run(&["check", "-c", "half.yaml"], Some(gateway.folder.path()));
    assert!(code == 2 && text.contains("the key \"key\" is missing"), "{text}");
}
