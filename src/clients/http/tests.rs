//! Tests of calls against servers that behave well and badly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{CallError, HttpClient, HttpClientSettings, Repeatable};
use crate::telemetry::metrics::CallKind;

/// Serves each connection with `serve`, and counts them.
async fn server<F, Fut>(serve: F) -> (String, Arc<AtomicUsize>)
where
    F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    (url, count)
}

/// Reads one request with its body, if its length is given.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        text.extend_from_slice(&part[..count]);
        let all = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = all.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(all);
        }
    }
}

/// Responds to every request of a connection with a text.
async fn respond(mut stream: TcpStream, response: &'static str) {
    while read_request(&mut stream).await.is_some() {
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello";

fn client(change: impl FnOnce(&mut HttpClientSettings)) -> HttpClient {
    let mut settings = HttpClientSettings::new(CallKind::KeySet, "test");
    settings.timeout = Duration::from_secs(10);
    change(&mut settings);
    HttpClient::new(settings).expect("a client")
}

fn post(url: &str, body: &'static str) -> Request<Bytes> {
    Request::post(url).header("x-b", "c").body(Bytes::from_static(body.as_bytes())).expect("a request")
}

#[tokio::test]
async fn a_request_is_sent_as_it_is_and_the_connection_used_again() {
    let (url, connections) = server(|mut stream: TcpStream| async move {
        while let Some(request) = read_request(&mut stream).await {
            let response = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{request}", request.len());
            let _ = stream.write_all(response.as_bytes()).await;
        }
    })
    .await;
    let client = client(|_| {});
    for _ in 0..3 {
        let response = client.send(post(&format!("{url}/a/b?c=d"), "the body")).await.expect("a response");
        assert_eq!(response.status(), 201);
        let seen = String::from_utf8_lossy(response.body()).into_owned();
        assert!(seen.starts_with("POST /a/b?c=d HTTP/1.1\r\n"), "{seen}");
        let host = url.strip_prefix("http://").expect("a host");
        assert!(seen.contains(&format!("host: {host}\r\n")) && seen.contains("x-b: c\r\n"), "{seen}");
        assert!(seen.ends_with("\r\n\r\nthe body"), "{seen}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_response_that_is_too_large_slow_or_broken_is_an_error() {
    let (large, _) = server(|stream| respond(stream, HELLO)).await;
    let small = client(|s| s.max_response = 4);
    assert_eq!(small.get(&large).await, Err(CallError::TooLarge(4)));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    let (large, _) = server(move |stream| respond(stream, chunked)).await;
    assert_eq!(small.get(&large).await, Err(CallError::TooLarge(4)));
    assert_eq!(client(|_| {}).get(&large).await.as_deref(), Ok(b"abcdef".as_slice()));

    let (silent, _) = server(|stream| respond(stream, "")).await;
    let (half, _) = server(|stream| respond(stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")).await;
    for url in [silent, half] {
        let limit = Duration::from_millis(100);
        assert_eq!(client(|s| s.timeout = limit).get(&url).await, Err(CallError::TimedOut(limit)));
    }
    let (broken, _) = server(|mut stream: TcpStream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe").await;
    })
    .await;
    assert!(matches!(client(|_| {}).get(&broken).await, Err(CallError::Broken(_))));
    let (other, _) = server(|stream| respond(stream, "SSH-2.0-x\r\n\r\n")).await;
    assert!(matches!(client(|_| {}).get(&other).await, Err(CallError::Broken(_))));
    let (moved, _) =
        server(|stream| respond(stream, "HTTP/1.1 302 Found\r\nlocation: /a\r\ncontent-length: 0\r\n\r\n")).await;
    assert_eq!(client(|_| {}).get(&moved).await, Err(CallError::Status(302)));
    for url in ["ftp://127.0.0.1/", "/a", "127.0.0.1"] {
        assert!(matches!(client(|_| {}).get(url).await, Err(CallError::Request(_))), "{url}");
    }
}

/// Serves one request on each connection, and closes it silently once the next one has come.
async fn close_at_second(mut stream: TcpStream) {
    read_request(&mut stream).await;
    let _ = stream.write_all(HELLO.as_bytes()).await;
    read_request(&mut stream).await;
}

#[tokio::test]
async fn only_what_may_be_repeated_is_sent_again_when_a_reused_connection_is_closed() {
    let (url, connections) = server(close_at_second).await;
    let client = client(|_| {});
    for expected in 1..=3 {
        assert!(client.get(&url).await.is_ok());
        assert_eq!(connections.load(Ordering::SeqCst), expected);
    }
    let mut repeatable = post(&url, "x");
    repeatable.extensions_mut().insert(Repeatable);
    assert!(client.send(repeatable).await.is_ok());
    assert!(matches!(client.send(post(&url, "x")).await, Err(CallError::Broken(_))));
    assert!(client.send(post(&url, "x")).await.is_ok());
}

#[tokio::test]
async fn a_dead_server_costs_no_time_once_the_breaker_is_open() {
    // A port on which nothing listens.
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let (dead, client) = (format!("http://{port}"), client(|_| {}));
    for _ in 0..5 {
        assert!(matches!(client.get(&dead).await, Err(CallError::Connect(_))));
    }
    let begun = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(client.get(&dead).await, Err(CallError::Open));
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_caller_that_leaves_counts_neither_as_success_nor_as_failure() {
    let (silent, _) = server(|stream| respond(stream, "")).await;
    let client = client(|_| {});
    for _ in 0..10 {
        assert!(tokio::time::timeout(Duration::from_millis(5), client.get(&silent)).await.is_err());
    }
    let (url, _) = server(|stream| respond(stream, HELLO)).await;
    assert!(client.get(&url).await.is_ok());
}

#[tokio::test]
async fn calls_in_progress_and_those_that_wait_are_bounded() {
    let (silent, connections) = server(|stream| respond(stream, "")).await;
    let client = client(|s| {
        (s.max_concurrent, s.max_waiting, s.timeout) = (2, 3, Duration::from_millis(300));
    });
    let results = futures::future::join_all((0..10).map(|_| client.get(&silent))).await;
    let count = |wanted: &CallError| results.iter().filter(|r| r.as_ref().err() == Some(wanted)).count();
    // Two are in progress and three wait; five are rejected at once. Of those that wait, some may get a place just
    // before their own time is over.
    assert!(
        count(&CallError::Busy) >= 5 && count(&CallError::TimedOut(Duration::from_millis(300))) >= 2,
        "{results:?}"
    );
    assert_eq!(count(&CallError::Busy) + count(&CallError::TimedOut(Duration::from_millis(300))), 10);
    assert!(connections.load(Ordering::SeqCst) <= 5);
}

#[tokio::test]
async fn bodies_are_streamed_in_both_directions() {
    let (url, _) = server(|mut stream: TcpStream| async move {
        let _ = read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n").await;
        let mut rest = [0; 1];
        let _ = stream.read(&mut rest).await;
        let _ = stream.write_all(b"1\r\nc\r\n0\r\n\r\n").await;
        let _ = stream.read(&mut rest).await;
    })
    .await;
    let client = client(|s| s.max_concurrent = 1);
    let body = Full::new(Bytes::from_static(b"x")).map_err(|never| match never {}).boxed_unsync();
    let mut response = client.open(Request::put(&url).body(body).expect("a request")).await.expect("a response");
    assert_eq!(response.head.status, 200);
    assert_eq!(response.next_part(Duration::from_secs(5)).await, Ok(Some(Bytes::from_static(b"ab"))));
    let limit = Duration::from_millis(20);
    assert_eq!(response.next_part(limit).await, Err(CallError::TimedOut(limit)));
}

#[tokio::test]
async fn a_server_is_verified_and_gets_the_client_certificate() {
    crate::tls::install_provider();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let make = |names: &[&str], cert: &str, key: &str| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        std::fs::write(path(cert), made.cert.pem()).expect("written");
        std::fs::write(path(key), made.signing_key.serialize_pem()).expect("written");
    };
    make(&["127.0.0.1"], "server.pem", "server.key");
    make(&["client"], "client.pem", "client.key");
    let roots = Arc::new(crate::tls::trusted_roots(Some(&path("client.pem"))).expect("roots"));
    let verifier = rustls::server::WebPkiClientVerifier::builder(roots).build().expect("a verifier");
    let certified = crate::tls::chain_and_key(&path("server.pem"), &path("server.key")).expect("a pair");
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let settings = rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_cert_resolver(resolver);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(settings));
    let (url, _) = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(HELLO.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let url = url.replace("http:", "https:");
    let version = |name: &str| crate::tls::FileVersion::of(path(name));
    let with = |ca: Option<&str>, identity: bool| {
        client(|s| {
            s.ca = ca.map(version);
            s.identity = identity.then(|| (version("client.pem"), version("client.key")));
        })
    };
    assert_eq!(with(Some("server.pem"), true).get(&url).await.as_deref(), Ok(b"hello".as_slice()));
    assert!(with(Some("server.pem"), false).get(&url).await.is_err(), "the server wants a certificate");
    for ca in [Some("client.pem"), None] {
        assert!(matches!(with(ca, true).get(&url).await, Err(CallError::Connect(_))), "{ca:?}");
    }
    let mut settings = HttpClientSettings::new(CallKind::KeySet, "test");
    settings.identity = Some((version("client.pem"), version("server.key")));
    assert!(HttpClient::new(settings).is_err_and(|error| error.contains("does not belong")));
}
