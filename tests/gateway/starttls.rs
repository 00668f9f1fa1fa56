//! PostgreSQL's request for TLS before the hello, at listeners that choose by server name.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, ServerConnection, StreamOwned};

use super::harness::bytes::ByteTarget;
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::tls::{certificate, write};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
/// The start of a session, in a few bytes.
const STARTUP: &[u8] = b"\0\0\0\x09\0\x03\0\0\0";
/// A request to cancel.
const CANCEL: &[u8] = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02";

/// A server that responds to its first message with its name and that message.
fn server(name: &'static str, tls: Option<&(String, String)>) -> ByteTarget {
    portcullis::parts::install_provider();
    let config = tls.map(|(cert, key)| {
        let chain = rustls_pemfile::certs(&mut cert.as_bytes()).map(|c| c.expect("a certificate")).collect();
        let key = rustls_pemfile::private_key(&mut key.as_bytes()).expect("readable").expect("a key");
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a configuration");
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Arc::new(config)
    });
    ByteTarget::new(move |mut stream| {
        let mut first = [0];
        stream.peek(&mut first)?;
        if first[0] == 0 {
            let mut message = [0; 8];
            stream.read_exact(&mut message)?;
            if message != SSL_REQUEST {
                stream.write_all(&[name.as_bytes(), &message].concat())?;
                return Ok(());
            }
            stream.write_all(if config.is_some() { b"S" } else { b"N" })?;
        }
        let Some(config) = &config else { return Ok(()) };
        let session = ServerConnection::new(Arc::clone(config)).expect("a session");
        let mut stream = StreamOwned::new(session, stream);
        let mut message = [0; 8];
        stream.read_exact(&mut message)?;
        stream.write_all(&[name.as_bytes(), b" in TLS", &message].concat())?;
        stream.conn.send_close_notify();
        stream.flush()
    })
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

/// Begins TLS with that name on a stream, and sends the start of a session.
fn start_session(stream: TcpStream, name: &str, trusted: &str, alpn: &[&[u8]]) -> std::io::Result<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut trusted.as_bytes()) {
        roots.add(certificate?).expect("an authority");
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let session = ClientConnection::new(Arc::new(config), name.to_owned().try_into().expect("a name"));
    let mut stream = StreamOwned::new(session.expect("a session"), stream);
    stream.write_all(STARTUP)?;
    let mut came = Vec::new();
    let _ = stream.read_to_end(&mut came);
    if alpn.is_empty() || stream.conn.alpn_protocol() == Some(b"postgresql") {
        return Ok(came);
    }
    Err(std::io::Error::other("the protocol was not accepted"))
}

/// Sends a request for encryption, and returns the response to it.
fn request(stream: &mut TcpStream, message: &[u8]) -> u8 {
    stream.write_all(message).expect("sent");
    let mut response = [0];
    stream.read_exact(&mut response).map_or(0, |()| response[0])
}

struct Scene {
    gateway: Gateway,
    passed: (String, String),
    ended: (String, String),
    servers: [ByteTarget; 3],
}

/// A gateway that passes TLS for one name on, ends it for another, and sends the rest to a third server.
fn scene() -> Scene {
    let folder = tempfile::tempdir().expect("a folder");
    let (passed, ended) = (certificate(&["passed.test"]), certificate(&["ended.test"]));
    write(folder.path(), "ended", &ended);
    let servers = [server("passed", Some(&passed)), server("ended", None), server("rest", None)];
    let [a, b, c] = [0, 1, 2].map(|at| servers[at].address);
    let gateway = Gateway::start_in(
        folder,
        &format!(
            "listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp, tls: {{certificates: [{{cert: ended.pem, key: \
             ended.key}}]}}}}]\nupstreams:\n  passed: {{targets: [\"{a}\"]}}\n  ended: {{targets: [\"{b}\"]}}\n  rest: \
             {{targets: [\"{c}\"]}}\nstreams:\n  - {{name: passed, match: {{server_name: passed.test}}, tls: pass, \
             action: {{forward: passed}}}}\n  - {{name: ended, match: {{server_name: ended.test}}, action: {{forward: \
             ended}}}}\n  - {{name: lost, match: {{server_name: lost.test}}, tls: pass, action: {{forward: rest}}}}\n  - \
             {{name: rest, tls: pass, action: {{forward: rest}}}}\n"
        ),
        &[],
    );
    Scene { gateway, passed, ended, servers }
}

#[test]
fn a_request_for_tls_is_responded_to_and_made_of_the_target() {
    let Scene { gateway, passed, ended, servers } = scene();
    let to = gateway.address();
    // As libpq does it: GSSAPI first, if that is built in.
    for with_gss in [false, true] {
        let begun = || {
            let mut stream = connect(to);
            if with_gss {
                assert_eq!(request(&mut stream, &GSS_REQUEST), b'N');
            }
            assert_eq!(request(&mut stream, &SSL_REQUEST), b'S');
            stream
        };
        let came = start_session(begun(), "passed.test", &passed.0, &[]).expect("a session");
        assert_eq!(came, [b"passed in TLS", &STARTUP[..8]].concat());
        let came = start_session(begun(), "ended.test", &ended.0, &[]).expect("a session");
        assert_eq!(came, [b"ended", &STARTUP[..8]].concat());
    }
    // As libpq 17 can: without a request, with the protocol in the hello.
    let direct = |name: &str, trusted: &str| start_session(connect(to), name, trusted, &[b"postgresql"]);
    assert_eq!(direct("passed.test", &passed.0).expect("a session"), [b"passed in TLS", &STARTUP[..8]].concat());
    assert_eq!(direct("ended.test", &ended.0).expect("a session"), [b"ended", &STARTUP[..8]].concat());
    assert_eq!(servers[2].count(), 0);
}

#[test]
fn plain_sessions_and_requests_to_cancel_take_the_rule_without_conditions() {
    let Scene { gateway, servers, .. } = scene();
    for message in [STARTUP, CANCEL] {
        let mut stream = connect(gateway.address());
        stream.write_all(message).expect("sent");
        let mut came = Vec::new();
        let _ = stream.read_to_end(&mut came);
        assert_eq!(came, [b"rest", &message[..8]].concat());
    }
    let mut stream = connect(gateway.address());
    assert_eq!(request(&mut stream, &GSS_REQUEST), b'N');
    stream.write_all(STARTUP).expect("sent");
    let mut came = Vec::new();
    let _ = stream.read_to_end(&mut came);
    assert_eq!(came, [b"rest", &STARTUP[..8]].concat());
    assert_eq!((servers[0].count(), servers[1].count()), (0, 0));
}

#[test]
fn what_is_no_request_for_tls_ends_the_connection() {
    let Scene { gateway, passed, servers, .. } = scene();
    let to = gateway.address();
    let refused = |cause: &str| gateway.metric(&format!("portcullis_connections_refused_total{{cause=\"{cause}\"}}"));
    // More behind the request, a second one, and no hello behind the response.
    let mut injected = connect(to);
    assert_ne!(request(&mut injected, &[&SSL_REQUEST[..], STARTUP].concat()), b'S');
    for second in [&SSL_REQUEST[..], STARTUP] {
        let mut stream = connect(to);
        assert_eq!(request(&mut stream, &SSL_REQUEST), b'S');
        stream.write_all(second).expect("sent");
        let mut came = Vec::new();
        let _ = stream.read_to_end(&mut came);
        assert_eq!(came, [21, 3, 3, 0, 2, 2, 50]);
    }
    eventually("they are counted", || refused("opening") >= 3.0);
    assert!(servers.iter().all(|server| server.count() == 0));
    // The target offers no TLS.
    let mut stream = connect(to);
    assert_eq!(request(&mut stream, &SSL_REQUEST), b'S');
    assert!(start_session(stream, "lost.test", &passed.0, &[]).is_err());
    assert!(servers[2].count() >= 1);
}

#[test]
fn a_listener_without_names_leaves_the_request_to_the_target() {
    let own = certificate(&["own.test"]);
    let target = server("own", Some(&own));
    let gateway = Gateway::start(&format!(
        "listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp}}]\nupstreams: {{one: {{targets: [\"{}\"]}}}}\nstreams: \
         [{{name: all, action: {{forward: one}}}}]\n",
        target.address
    ));
    let mut stream = connect(gateway.address());
    assert_eq!(request(&mut stream, &SSL_REQUEST), b'S');
    let came = start_session(stream, "own.test", &own.0, &[]).expect("a session");
    assert_eq!(came, [b"own in TLS", &STARTUP[..8]].concat());
}
