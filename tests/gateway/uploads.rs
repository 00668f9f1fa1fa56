//! Bodies of requests on their way to targets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::Target;

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// An HTTP/2 target that answers a body once it is whole, with its length, and counts those that are broken off.
struct Http2Target {
    address: SocketAddr,
    broken: Arc<AtomicUsize>,
    whole: Arc<AtomicUsize>,
}

impl Http2Target {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("set");
        let address = listener.local_addr().expect("an address");
        let (broken, whole) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (Arc::clone(&broken), Arc::clone(&whole));
        std::thread::spawn(move || {
            block(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    let counters = counters.clone();
                    tokio::spawn(async move {
                        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                        while let Some(Ok((request, answer))) = connection.accept().await {
                            tokio::spawn(take(request, answer, counters.clone()));
                        }
                    });
                }
            });
        });
        Self { address, broken, whole }
    }
}

async fn take(
    request: Request<h2::RecvStream>,
    mut answer: h2::server::SendResponse<Bytes>,
    (broken, whole): (Arc<AtomicUsize>, Arc<AtomicUsize>),
) {
    let expect = request.headers().contains_key("expect");
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(part) = body.data().await {
        let Ok(part) = part else {
            broken.fetch_add(1, Ordering::AcqRel);
            return;
        };
        length += part.len();
        let _ = body.flow_control().release_capacity(part.len());
    }
    whole.fetch_add(1, Ordering::AcqRel);
    let head = Response::builder().header("x-length", length).header("x-expect", expect.to_string());
    let _ = answer.send_response(head.body(()).expect("a head"), true);
}

fn config(upstream: &str, rest: &str) -> String {
    format!(
        "upstreams: {{one: {{{upstream}, limits: {{requests: 1, pending: 0}}}}}}
routes: [{{name: all, {rest} action: {{forward: one}}}}]
listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}}]"
    )
}

/// The status of an upload over HTTP/2, of so many parts that are followed by nothing.
fn upload2(to: SocketAddr, parts: usize) -> u16 {
    block(async {
        let stream = TcpStream::connect(to).await.expect("a connection");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = Request::builder().method("POST").uri(format!("http://{to}/")).body(()).expect("a request");
        let (answer, mut send) = client.send_request(request, false).expect("sent");
        for _ in 0..parts {
            let _ = send.send_data(Bytes::from_static(&[b'x'; 600]), false);
        }
        answer.await.expect("an answer").status().as_u16()
    })
}

#[test]
fn a_body_over_its_limit_ends_the_exchange_at_once() {
    let (http1, http2) = (Target::echo("a"), Http2Target::new());
    let upstreams =
        [format!("targets: [\"{}\"]", http1.address), format!("targets: [\"{}\"], protocol: http2", http2.address)];
    for upstream in &upstreams {
        let gateway = Gateway::start(&config(upstream, "body: 1000B,"));
        for _ in 0..3 {
            let mut client = Connection::open(gateway.address());
            client.send(head("POST", "/", &[("transfer-encoding", "chunked")]));
            for _ in 0..2 {
                client.send(format!("258\r\n{}\r\n", "x".repeat(600)));
            }
            let answer = client.receive();
            assert_eq!((answer.status, answer.reason().as_str()), (413, "body_too_large"), "{upstream}");
            assert_eq!(upload2(gateway.address(), 2), 413, "{upstream}");
        }
        // Both the places are free, and so is the connection to the target.
        assert_eq!(gateway.request("POST", "/", &[("content-length", "0")]).status, 200, "{upstream}");
    }
    eventually("the streams are reset", || http2.broken.load(Ordering::Acquire) == 6);
    assert_eq!(http2.whole.load(Ordering::Acquire), 1);
}

#[test]
fn who_leaves_within_an_upload_frees_its_place() {
    let (http1, http2) = (Target::echo("a"), Http2Target::new());
    let upstreams =
        [format!("targets: [\"{}\"]", http1.address), format!("targets: [\"{}\"], protocol: http2", http2.address)];
    for upstream in &upstreams {
        let gateway = Gateway::start(&config(upstream, ""));
        let under_way = || gateway.metric("portcullis_upstream_requests_in_flight{upstream=\"one\"}");
        let mut client = Connection::open(gateway.address());
        client.send(head("POST", "/", &[("transfer-encoding", "chunked")]) + "5\r\nhello\r\n");
        eventually("the place is taken", || under_way() > 0.5);
        drop(client);
        eventually("the place is free", || under_way() < 0.5);
        block(async {
            let stream = TcpStream::connect(gateway.address()).await.expect("a connection");
            let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            let request = Request::builder()
                .method("POST")
                .uri(format!("http://{}/", gateway.address()))
                .body(())
                .expect("a request");
            let (_answer, mut send) = client.send_request(request, false).expect("sent");
            send.send_data(Bytes::from_static(b"hello"), false).expect("sent");
            while under_way() < 0.5 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            send.send_reset(h2::Reason::CANCEL);
            while under_way() > 0.5 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
    }
}
