//! HTTP/2 and gRPC, both ways.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::harness::client::Connection;
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::Target;

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

const H2C: &str = "\nlisteners: [{name: main, address: 127.0.0.1:0, protocols: [http1, http2], limits: {header_time: 500ms, idle_time: 700ms, body_idle_time: 700ms, streams: 8}}]";

fn gateway(address: SocketAddr, upstream: &str, route: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{address}\"]{upstream}}}}}\nroutes: [{{name: all, {route} action: {{forward: one}}}}]{H2C}"
    ))
}

type Got = (http::StatusCode, HeaderMap, Vec<u8>, Option<HeaderMap>);

/// One request with that body over h2c with prior knowledge.
async fn ask(address: SocketAddr, request: Request<()>, body: &[&'static [u8]]) -> Result<Got, h2::Error> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let (answer, mut send) = client.send_request(request, body.is_empty())?;
    for (index, part) in body.iter().enumerate() {
        send.send_data(Bytes::from_static(part), index + 1 == body.len())?;
    }
    let (head, mut stream) = answer.await?.into_parts();
    let mut all = Vec::new();
    while let Some(part) = stream.data().await {
        let part = part?;
        let _ = stream.flow_control().release_capacity(part.len());
        all.extend_from_slice(&part);
    }
    let trailers = stream.trailers().await?;
    Ok((head.status, head.headers, all, trailers))
}

/// A gRPC target: sends each message back as it comes, and its status in trailers.
pub fn grpc_target() -> SocketAddr {
    grpc_target_of_health(&Arc::new(AtomicU8::new(1)))
}

/// A gRPC target whose `grpc.health.v1.Health/Check` says that number; 1 is SERVING.
fn grpc_target_of_health(health: &Arc<AtomicU8>) -> SocketAddr {
    let health = Arc::clone(health);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        block(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let health = Arc::clone(&health);
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, answer))) = connection.accept().await {
                        if request.uri().path() == "/grpc.health.v1.Health/Check" {
                            tokio::spawn(check(request, answer, health.load(Ordering::Acquire)));
                        } else {
                            tokio::spawn(reflect(request, answer));
                        }
                    }
                });
            }
        });
    });
    address
}

async fn check(request: Request<h2::RecvStream>, mut answer: h2::server::SendResponse<Bytes>, health: u8) {
    let mut body = request.into_body();
    let mut question = Vec::new();
    while let Some(Ok(part)) = body.data().await {
        question.extend_from_slice(&part);
    }
    assert_eq!(question, b"\0\0\0\0\x05\x0a\x03abc");
    let head = Response::builder().header("content-type", "application/grpc");
    let Ok(mut send) = answer.send_response(head.body(()).expect("a head"), false) else { return };
    let _ = send.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, health]), false);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let _ = send.send_trailers(trailers);
}

async fn reflect(request: Request<h2::RecvStream>, mut answer: h2::server::SendResponse<Bytes>) {
    let te = request.headers().get("te").cloned();
    let mut body = request.into_body();
    let mut head = Response::builder().header("content-type", "application/grpc");
    if let Some(te) = te {
        head = head.header("x-te", te);
    }
    let Ok(mut send) = answer.send_response(head.body(()).expect("a head"), false) else { return };
    while let Some(Ok(part)) = body.data().await {
        let _ = body.flow_control().release_capacity(part.len());
        let _ = send.send_data(part, false);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let _ = send.send_trailers(trailers);
}

fn grpc(address: SocketAddr) -> Request<()> {
    Request::builder()
        .method("POST")
        .uri(format!("http://{address}/package.Service/Method"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

#[test]
fn http2_to_http1_targets() {
    let target = Target::echo("a");
    let gateway = gateway(target.address, "", "");
    let address = gateway.address();
    let request = Request::builder()
        .uri(format!("http://shop.example.com:{}/x/../y?z=1", address.port()))
        .body(())
        .expect("a request");
    let (status, headers, body, _) = block(ask(address, request, &[])).expect("an answer");
    assert_eq!(status, 200);
    assert!(headers.contains_key("x-request-id") && !headers.contains_key("transfer-encoding"));
    let seen: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(seen["target"], "/y?z=1");
    assert_eq!(seen["headers"]["x-forwarded-host"], format!("shop.example.com:{}", address.port()));
    let post = Request::builder().method("POST").uri(format!("http://{address}/p")).body(()).expect("a request");
    let (_, _, body, _) = block(ask(address, post, &[b"hello ", b"world"])).expect("an answer");
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).expect("JSON")["body"], "hello world");
    // A key in the query is taken out, and the host stays.
    let keyed = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nconsumers: {{a: {{credentials: [{{api_key: {{value: key-of-a}}}}]}}}}\nroutes: [{{name: all, filters: [{{api_key: {{query: key}}}}], action: {{forward: one}}}}]{H2C}",
        target.address
    ));
    let request =
        Request::builder().uri(format!("http://{}/x?key=key-of-a&z=1", keyed.address())).body(()).expect("a request");
    let (_, _, body, _) = block(ask(keyed.address(), request, &[])).expect("an answer");
    let seen: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(
        (seen["target"].as_str(), seen["headers"]["host"].as_str()),
        (Some("/x?z=1"), Some(keyed.address().to_string().as_str()))
    );
    // HTTP/1 on the same port.
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.access_log(3).iter().filter(|line| line["protocol"] == "HTTP/2").count() == 2);
}

#[test]
fn grpc_health_is_asked_for() {
    let health = Arc::new(AtomicU8::new(1));
    let target = grpc_target_of_health(&health);
    let gateway =
        gateway(target, ", protocol: http2, health: {active: {grpc: abc, interval: 50ms, fall: 1, rise: 1}}", "");
    let status = || {
        let (_, headers, _, trailers) =
            block(ask(gateway.address(), grpc(gateway.address()), &[b"\0\0\0\0\0"])).expect("an answer");
        let status =
            trailers.as_ref().and_then(|t| t.get("grpc-status")).or_else(|| headers.get("grpc-status")).cloned();
        status.and_then(|s| s.to_str().ok().map(str::to_owned))
    };
    assert_eq!(status().as_deref(), Some("0"));
    health.store(2, Ordering::Release);
    eventually("it is not serving", || status().as_deref() == Some("14"));
    let state = super::harness::client::get(gateway.admin, "/upstreams").text();
    assert!(state.contains("not serving, health status 2"), "{state}");
    health.store(1, Ordering::Release);
    eventually("it serves again", || status().as_deref() == Some("0"));
}

#[test]
fn grpc_passes_with_its_trailers() {
    let target = grpc_target();
    let gateway = gateway(target, ", protocol: http2", "filters: [{headers: {response: {set: {x-edge: here}}}}],");
    let address = gateway.address();
    let (status, headers, body, trailers) = block(ask(address, grpc(address), &[b"one", b"two"])).expect("an answer");
    assert_eq!((status.as_u16(), body.as_slice()), (200, b"onetwo".as_slice()));
    assert_eq!(headers["x-edge"], "here");
    assert_eq!(headers["x-te"], "trailers", "the target did not see te: trailers");
    assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
}

#[test]
fn grpc_streams_both_ways_at_once() {
    let target = grpc_target();
    let gateway = gateway(target, ", protocol: http2", "");
    let address = gateway.address();
    block(async {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        let (answer, mut send) = client.send_request(grpc(address), false).expect("sent");
        let mut body = answer.await.expect("the head comes before the request has ended").into_body();
        for message in [&b"first"[..], b"second", b"third"] {
            send.send_data(Bytes::from_static(message), false).expect("sent");
            let part = body.data().await.expect("an echo").expect("an echo");
            let _ = body.flow_control().release_capacity(part.len());
            assert_eq!(part, message);
        }
        send.send_data(Bytes::new(), true).expect("sent");
        while body.data().await.is_some() {}
        assert_eq!(body.trailers().await.expect("trailers").expect("trailers")["grpc-status"], "0");
    });
}

#[test]
fn refusals_speak_the_callers_protocol() {
    let target = grpc_target();
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{target}\"], protocol: http2}}}}\nroutes: [{{name: all, match: {{path: /known/*}}, action: {{forward: one}}}}]{H2C}"
    ));
    let address = gateway.address();
    let (status, headers, _, _) = block(ask(address, grpc(address), &[b"x"])).expect("an answer");
    assert_eq!((status.as_u16(), headers["grpc-status"].as_bytes()), (200, b"12".as_slice()));
    let plain = Request::builder().uri(format!("http://{address}/unknown")).body(()).expect("a request");
    let (status, headers, body, _) = block(ask(address, plain, &[])).expect("an answer");
    assert_eq!((status.as_u16(), headers["content-type"].as_bytes()), (404, b"application/problem+json".as_slice()));
    assert!(String::from_utf8_lossy(&body).contains("route_not_found"));
}

#[test]
fn silent_idle_and_stalled_connections_end() {
    let target = Target::echo("a");
    let gateway = gateway(target.address, "", "");
    let address = gateway.address();
    // Nothing at all, and a preface with nothing behind it.
    let mut silent = Connection::open(address);
    assert!(silent.is_closed());
    let mut preface = Connection::open(address);
    preface.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut rest = Vec::new();
    let _ = preface.stream.read_to_end(&mut rest);
    // Idle after its handshake: GOAWAY and the end.
    block(async {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
        let ended = tokio::time::timeout(Duration::from_secs(10), connection).await;
        assert!(ended.is_ok(), "an idle connection stayed");
        drop(client);
    });
    // A body that stops: its stream ends, its connection does not.
    block(async {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        let post = || Request::builder().method("POST").uri(format!("http://{address}/p")).body(()).expect("a request");
        let (answer, mut send) = client.send_request(post(), false).expect("sent");
        send.send_data(Bytes::from_static(b"half"), false).expect("sent");
        let ended = tokio::time::timeout(Duration::from_secs(10), answer).await.expect("the stream ends");
        assert!(ended.map_or(true, |a| a.status() == 408));
        let (answer, _) = client
            .send_request(Request::builder().uri(format!("http://{address}/ok")).body(()).expect("a request"), true)
            .expect("sent");
        assert_eq!(answer.await.expect("an answer").status(), 200);
    });
}

#[test]
fn hedged_requests_cross_versions() {
    // To HTTP/2 from HTTP/1, and to HTTP/1.0 from HTTP/1.1: the framing is the client's.
    let target = grpc_target();
    let gateway = gateway(target, ", protocol: http2, retry: {hedge_after: 1s}", "");
    let answer = gateway.get("/");
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Trailers are for clients of HTTP/2.
    let request = Request::builder().uri(format!("http://{}/", gateway.address())).body(()).expect("a request");
    let (status, _, _, trailers) = block(ask(gateway.address(), request, &[])).expect("a response");
    let status_of_grpc = trailers.and_then(|trailers| trailers.get("grpc-status").cloned()).expect("trailers");
    assert_eq!((status.as_u16(), status_of_grpc.as_bytes()), (200, b"0".as_slice()));
    let old = Target::raw(b"HTTP/1.0 200 OK\r\n\r\nold");
    let gateway = self::gateway(old.address, ", retry: {hedge_after: 1s}", "");
    let answer = gateway.get("/");
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.header("transfer-encoding")),
        (200, "old", Some("chunked"))
    );
}

/// Frames of HTTP/2 (RFC 9113, section 4.1), for what no client does.
mod frames {
    pub const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    pub const GOAWAY: u8 = 7;

    /// A whole request for `/`.
    pub fn get(stream: u32) -> Vec<u8> {
        // :method GET, :scheme http, :path / and :authority a, by the tables of HPACK.
        let fields = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
        let mut frame = vec![0, 0, fields.len() as u8, 1, 5];
        frame.extend(stream.to_be_bytes());
        frame.extend(fields);
        frame
    }
}

/// Opens another stream every so often, answers no PING, and gives the kinds of all frames that came.
fn open_streams_until_closed(address: SocketAddr) -> Vec<u8> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a time");
    stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frames::SETTINGS].concat()).expect("sent");
    let (mut came, mut buffer, mut kinds) = (Vec::new(), [0; 4096], Vec::new());
    let began = Instant::now();
    let mut id = 1;
    'open: while stream.write_all(&frames::get(id)).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(30), "the connection lives for ever");
        id += 2;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break 'open,
                Ok(count) => came.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => break 'open,
            }
        }
        while came.len() >= 9 {
            let length = usize::from(came[0]) << 16 | usize::from(came[1]) << 8 | usize::from(came[2]);
            if came.len() < 9 + length {
                break;
            }
            kinds.push(came[3]);
            came.drain(..9 + length);
        }
    }
    kinds
}

#[test]
fn a_client_that_ignores_goaway_is_not_served_for_ever() {
    let target = Target::fixed(200, &[], b"");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]\nlisteners: [{{name: main, address: 127.0.0.1:0, protocols: [http2], limits: {{requests_per_connection: 3}}}}]",
        target.address
    ));
    let kinds = open_streams_until_closed(gateway.address());
    assert!(kinds.contains(&frames::GOAWAY), "{kinds:?}");
    // Those that may have crossed the GOAWAY were answered, and what came after its time was not.
    assert!(target.count() >= 3);
    eventually("its place is free", || gateway.metric("portcullis_connections_open{listener=\"main\"}") < 0.5);
}

/// Resets 20 requests of one connection, and waits with the connection still open.
fn reset_many(address: SocketAddr, is_over: impl Fn() -> bool) {
    block(async {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
        let connection = tokio::spawn(connection);
        let mut client = client.ready().await.expect("ready");
        let answers: Vec<_> = (0..20)
            .map(|_| {
                client
                    .send_request(Request::get(format!("http://{address}/hold")).body(()).expect("a request"), true)
                    .expect("sent")
                    .0
            })
            .collect();
        tokio::time::timeout(Duration::from_millis(300), futures::future::select_all(answers))
            .await
            .expect_err("all are held");
        // Dropped, they were reset.
        let began = Instant::now();
        while !is_over() {
            assert!(began.elapsed() < Duration::from_secs(10), "what was reset is still under way");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!connection.is_finished());
    });
}

#[test]
fn a_reset_stream_ends_what_is_done_for_it() {
    for upstream in ["retry: {hedge_after: 30s}", "limits: {requests: 1, pending: 100, pending_time: 60s}"] {
        let target = Target::named("echo", "a");
        let gateway = Gateway::start(&format!(
            "upstreams: {{one: {{targets: [\"{}\"], {upstream}}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]\nlisteners: [{{name: main, address: 127.0.0.1:0, protocols: [http2], limits: {{idle_time: 20s}}}}]",
            target.address
        ));
        reset_many(gateway.address(), || gateway.metric("portcullis_requests_in_flight{route=\"all\"}") < 0.5);
        target.release();
    }
}
