//! TLS both ways.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::gateway::Gateway;

/// A certificate for those names, with its key, in PEM; it is its own authority.
pub(super) fn certificate(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

pub(super) fn write(folder: &std::path::Path, name: &str, pair: &(String, String)) {
    std::fs::write(folder.join(format!("{name}.pem")), &pair.0).expect("written");
    std::fs::write(folder.join(format!("{name}.key")), &pair.1).expect("written");
}

/// One request over TLS: the answer, and the certificate that was shown.
pub(super) async fn get(
    address: std::net::SocketAddr,
    name: &str,
    alpn: &[&[u8]],
    trusted: &[&str],
) -> std::io::Result<(String, Vec<u8>, Option<Vec<u8>>)> {
    portcullis::parts::install_provider();
    let mut roots = rustls::RootCertStore::empty();
    for pem in trusted {
        for certificate in rustls_pemfile::certs(&mut pem.as_bytes()) {
            roots.add(certificate?).expect("an authority");
        }
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let stream = tokio::net::TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.to_vec()).unwrap_or_default();
    let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    if protocol.as_deref() == Some(b"h2") {
        return Ok((String::new(), shown, protocol));
    }
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    Ok((String::from_utf8_lossy(&text).into_owned(), shown, protocol))
}

pub(super) fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

#[test]
fn certificates_by_name_and_by_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two, wild) =
        (certificate(&["one.example"]), certificate(&["two.example"]), certificate(&["*.wild.example"]));
    write(folder.path(), "one", &one);
    write(folder.path(), "two", &two);
    write(folder.path(), "wild", &wild);
    let yaml = "routes: [{name: all, action: {respond: {body: secure}}}]\n\
        listeners: [{name: main, address: 127.0.0.1:0, tls: {certificates: [{cert: one.pem, key: one.key}, {cert: two.pem, key: two.key}, {cert: wild.pem, key: wild.key}]}}]";
    let gateway = Gateway::start_in(folder, yaml, &[]);
    let address = gateway.address();
    for (name, pair) in [("one.example", &one), ("two.example", &two), ("TWO.example", &two), ("a.wild.example", &wild)]
    {
        let (text, ..) = block(get(address, name, &[b"http/1.1"], &[&pair.0])).expect("an answer");
        assert!(text.ends_with("secure"), "{name}: {text}");
    }
    assert!(
        block(get(address, "unknown.example", &[], &[&one.0])).is_err(),
        "the first certificate is not for this name"
    );
    let (_, _, protocol) = block(get(address, "one.example", &[b"h2", b"http/1.1"], &[&one.0])).expect("a handshake");
    assert_eq!(protocol.as_deref(), Some(b"h2".as_slice()));
    // The file is exchanged: new handshakes see the new one.
    let renewed = certificate(&["one.example"]);
    write(gateway.folder.path(), "one", &renewed);
    let (_, before, _) = block(get(address, "one.example", &[], &[&one.0])).expect("the old one, still");
    assert_eq!(gateway.reload().status, 200);
    let (_, after, _) = block(get(address, "one.example", &[], &[&renewed.0])).expect("the new one");
    assert_ne!(before, after);
    // A key that does not belong to its certificate changes nothing.
    std::fs::write(gateway.folder.path().join("one.key"), &two.1).expect("written");
    let refused = gateway.reload();
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("does not belong to the certificate"), "{}", refused.text());
    assert!(block(get(address, "one.example", &[], &[&renewed.0])).is_ok());
    // What is no TLS is counted.
    let mut plain = super::harness::client::Connection::open(address);
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    plain.rest();
    super::harness::eventually("it is counted", || {
        gateway.metric("portcullis_connections_refused_total{cause=\"tls\"}") >= 1.0
    });
}

/// A target that speaks TLS with that certificate.
pub(super) fn tls_target(pair: &(String, String)) -> std::net::SocketAddr {
    portcullis::parts::install_provider();
    let chain: Vec<_> = rustls_pemfile::certs(&mut pair.0.as_bytes()).map(|c| c.expect("a certificate")).collect();
    let key = rustls_pemfile::private_key(&mut pair.1.as_bytes()).expect("PEM").expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
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
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nencrypted")
                        .await;
                    let _ = stream.shutdown().await;
                });
            }
        });
    });
    address
}

#[test]
fn targets_are_verified_unless_it_is_said_otherwise() {
    let folder = tempfile::tempdir().expect("a folder");
    let (right, other) = (certificate(&["target.example", "127.0.0.1"]), certificate(&["other.example"]));
    write(folder.path(), "right", &right);
    let (good, bad) = (tls_target(&right), tls_target(&other));
    let yaml = format!(
        "upstreams:\n  by-name: {{targets: [\"{good}\"], tls: {{ca: right.pem, name: target.example}}}}\n  by-ip: {{targets: [\"{good}\"], tls: {{ca: right.pem}}}}\n  \
         system: {{targets: [\"{good}\"], tls: {{}}}}\n  wrong-name: {{targets: [\"{good}\"], tls: {{ca: right.pem, name: else.example}}}}\n  \
         impostor: {{targets: [\"{bad}\"], tls: {{ca: right.pem, name: target.example}}}}\n  anything: {{targets: [\"{bad}\"], tls: {{verify: false}}}}\n  \
         probed: {{targets: [\"{good}\"], tls: {{ca: right.pem, name: target.example}}, health: {{active: {{path: /, interval: 1h}}}}}}\n\
         routes:\n{}",
        ["by-name", "by-ip", "system", "wrong-name", "impostor", "anything", "probed"]
            .map(|n| format!("  - {{name: {n}, match: {{path: /{n}}}, action: {{forward: {n}}}}}\n"))
            .concat()
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    for (path, status) in [
        ("/by-name", 200),
        ("/by-ip", 200),
        ("/system", 502),
        ("/wrong-name", 502),
        ("/impostor", 502),
        ("/anything", 200),
        ("/probed", 200),
    ] {
        let answer = gateway.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(answer.reason(), if status == 502 { "target_tls" } else { "" }, "{path}");
    }
}

#[test]
fn a_plain_target_behind_tls_is_its_own_failure() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        use std::io::Write;
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{address}\"], tls: {{verify: false}}}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]"
    ));
    assert_eq!(gateway.get("/").reason(), "target_tls");
}
