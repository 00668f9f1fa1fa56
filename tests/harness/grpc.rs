//! A gRPC target on HTTP/2 that behaves as the name of the called method says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// A call as the target sees it.
#[derive(Clone, Debug)]
pub struct Called {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// A gRPC target. Its methods, in any service, are those of [`respond`].
pub struct GrpcTarget {
    pub address: SocketAddr,
    /// The calls so far.
    pub calls: Arc<Mutex<Vec<Called>>>,
    /// How many calls the gateway has cancelled.
    pub cancelled: Arc<AtomicUsize>,
    /// Lets `Step` go on.
    pub step: Arc<Notify>,
}

/// Returns the frame of a message.
pub fn frame(flags: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flags];
    frame.extend(u32::try_from(message.len()).expect("a length").to_be_bytes());
    frame.extend(message);
    frame
}

/// Returns the frames in bytes, each with its flags.
#[track_caller]
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[1..5].try_into().expect("a length")) as usize;
        frames.push((bytes[0], bytes[5..5 + length].to_vec()));
        bytes = &bytes[5 + length..];
    }
    frames
}

impl GrpcTarget {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("set");
        let address = listener.local_addr().expect("an address");
        let target = Self { address, calls: Arc::default(), cancelled: Arc::default(), step: Arc::default() };
        let shared = (Arc::clone(&target.calls), Arc::clone(&target.cancelled), Arc::clone(&target.step));
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    let shared = shared.clone();
                    tokio::spawn(async move {
                        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                        while let Some(Ok((request, response))) = connection.accept().await {
                            tokio::spawn(take(request, response, shared.clone()));
                        }
                    });
                }
            });
        });
        target
    }

    /// The last call.
    #[track_caller]
    pub fn last(&self) -> Called {
        self.calls.lock().expect("the calls").last().expect("a call").clone()
    }

    pub fn count(&self) -> usize {
        self.calls.lock().expect("the calls").len()
    }
}

type Shared = (Arc<Mutex<Vec<Called>>>, Arc<AtomicUsize>, Arc<Notify>);

async fn take(request: Request<h2::RecvStream>, response: h2::server::SendResponse<Bytes>, shared: Shared) {
    let (parts, mut stream) = request.into_parts();
    if parts.uri.path().ends_with("/Early") {
        // It responds before it has read the body, which resets the stream in order.
        let called = Called { path: parts.uri.path().to_owned(), headers: parts.headers, body: Vec::new() };
        shared.0.lock().expect("the calls").push(called);
        let head = Response::builder().header("content-type", "application/grpc").header("grpc-status", "12");
        let mut response = response;
        let _ = response.send_response(head.body(()).expect("a head"), true);
        return;
    }
    let mut body = Vec::new();
    while let Some(part) = stream.data().await {
        let Ok(part) = part else { return };
        body.extend_from_slice(&part);
        let _ = stream.flow_control().release_capacity(part.len());
    }
    let called = Called { path: parts.uri.path().to_owned(), headers: parts.headers, body };
    shared.0.lock().expect("the calls").push(called.clone());
    respond(called, response, shared).await;
}

fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
    list.iter().map(|(n, v)| (n.parse::<http::HeaderName>().expect("a name"), v.parse().expect("a value"))).collect()
}

/// `google.rpc.Status` with one detail: `Any {type_url: "type.googleapis.com/test.Detail", value: 08 01}`.
const DETAILS: &str = "CAUSBGxhdGUaJQofdHlwZS5nb29nbGVhcGlzLmNvbS90ZXN0LkRldGFpbBICCAE";

async fn respond(called: Called, mut response: h2::server::SendResponse<Bytes>, (_, cancelled, step): Shared) {
    let method = called.path.rsplit('/').next().unwrap_or_default().to_owned();
    let kind = called.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("none").to_owned();
    let only = |list: &[(&'static str, &'static str)], status: u16, kind: &str| {
        let mut head = Response::builder().status(status).header("content-type", kind).body(()).expect("a head");
        head.headers_mut().extend(fields(list));
        head
    };
    match method.as_str() {
        "Fail" => {
            let list = [("grpc-status", "9"), ("grpc-message", "no %E2%98%BA"), ("x-fail", "yes")];
            let _ = response.send_response(only(&list, 200, &kind), true);
            return;
        }
        "Done" => {
            let list = [("grpc-status", "0"), ("grpc-message", ""), ("x-done", "yes")];
            let _ = response.send_response(only(&list, 200, &kind), true);
            return;
        }
        "Http" => {
            if let Ok(mut stream) = response.send_response(only(&[], 404, "text/html"), false) {
                let _ = stream.send_data(Bytes::from_static(b"<p>nothing here</p>"), true);
            }
            return;
        }
        "Silent" => {
            let _ = std::future::poll_fn(|context| response.poll_reset(context)).await;
            cancelled.fetch_add(1, Ordering::AcqRel);
            return;
        }
        _ => {}
    }
    let head = only(&[("x-initial", "first"), ("grpc-encoding", "identity")], 200, &kind);
    let Ok(mut stream) = response.send_response(head, false) else { return };
    let messages: Vec<Vec<u8>> = frames(&called.body).into_iter().map(|(_, message)| message).collect();
    let mut trailers = fields(&[("grpc-status", "0"), ("x-trailer", "last"), ("x-raw-bin", "AP8")]);
    match method.as_str() {
        "Echo" => {
            for message in messages {
                send(&mut stream, frame(0, &message));
            }
        }
        "Joined" => send(&mut stream, frame(0, &messages.join(&b'|'))),
        "Headers" => {
            let all: serde_json::Map<String, serde_json::Value> = called
                .headers
                .iter()
                .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned().into()))
                .collect();
            send(&mut stream, frame(0, serde_json::Value::Object(all).to_string().as_bytes()));
        }
        "Stream" => {
            let count = messages.first().and_then(|m| String::from_utf8_lossy(m).parse().ok()).unwrap_or(3);
            for number in 0..count {
                send(&mut stream, frame(0, format!("part {number}").as_bytes()));
            }
        }
        "Step" => {
            for number in 0..3 {
                send(&mut stream, frame(0, format!("step {number}").as_bytes()));
                step.notified().await;
            }
        }
        "FailLate" => {
            send(&mut stream, frame(0, b"before"));
            trailers = fields(&[("grpc-status", "5"), ("grpc-message", "late"), ("x-trailer", "last")]);
            trailers.insert("grpc-status-details-bin", DETAILS.parse().expect("a value"));
        }
        "NoStatus" => {
            send(&mut stream, frame(0, b"before"));
            trailers = fields(&[("x-trailer", "last")]);
        }
        "Reset" | "ResetWithin" => {
            let whole = frame(0, b"before");
            let end = if method == "Reset" { whole.len() } else { whole.len() - 2 };
            send(&mut stream, whole[..end].to_vec());
            step.notified().await;
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
            return;
        }
        "Waits" => {
            send(&mut stream, frame(0, b"before"));
            let _ = std::future::poll_fn(|context| stream.poll_reset(context)).await;
            cancelled.fetch_add(1, Ordering::AcqRel);
            return;
        }
        "Compressed" => send(&mut stream, frame(1, b"packed")),
        "Cut" => send(&mut stream, frame(0, b"before")[..8].to_vec()),
        "Big" => send(&mut stream, frame(0, &vec![b'x'; 5 << 20])),
        "Empty" => {}
        _ => trailers = fields(&[("grpc-status", "12"), ("grpc-message", "no such method")]),
    }
    let _ = stream.send_trailers(trailers);
}

fn send(stream: &mut h2::SendStream<Bytes>, bytes: Vec<u8>) {
    let _ = stream.send_data(bytes.into(), false);
}
