//! A target that speaks gRPC, with the methods of `protos/books.proto`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::net::TcpListener;

/// A target with the methods of `books.proto`, and the heads of the calls that it gets.
pub struct Target {
    pub address: SocketAddr,
    pub calls: Arc<Mutex<Vec<http::request::Parts>>>,
    /// Calls that were cancelled.
    pub cancelled: Arc<Mutex<u32>>,
}

/// Starts one.
pub fn target() -> Target {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("an address");
    let (calls, cancelled) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let noted = (Arc::clone(&calls), Arc::clone(&cancelled));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let noted = noted.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, answer))) = connection.accept().await {
                        let noted = noted.clone();
                        tokio::spawn(async move {
                            let (parts, body) = request.into_parts();
                            let method = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
                            noted.0.lock().unwrap().push(parts);
                            if serve(&method, body, answer).await.is_none() {
                                *noted.1.lock().unwrap() += 1;
                            }
                        });
                    }
                });
            }
        });
    });
    Target { address, calls, cancelled }
}

fn frame(message: &[u8]) -> Bytes {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat().into()
}

fn trailers(status: &str, more: &[(&'static str, &str)]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().expect("a value"));
    more.iter().for_each(|(name, value)| _ = trailers.insert(*name, value.parse().expect("a value")));
    trailers
}

/// Sends all of it, at the pace of the reader; `None` where the call was cancelled.
async fn send(stream: &mut h2::SendStream<Bytes>, mut data: Bytes) -> Option<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len().min(65_536));
        let ready = std::future::poll_fn(|context| stream.poll_capacity(context)).await?.ok()?;
        stream.send_data(data.split_to(ready.min(data.len())), false).ok()?;
    }
    Some(())
}

/// The name (field 1) and the pages (field 2) of the first message.
fn book(body: &[u8]) -> (String, usize) {
    let mut message = body.get(5..).unwrap_or_default();
    let (mut name, mut pages) = (String::new(), 0);
    if let Some(rest) = message.strip_prefix(&[0x0a]) {
        let length = usize::from(rest[0]);
        name = String::from_utf8_lossy(&rest[1..=length]).into_owned();
        message = &rest[1 + length..];
    }
    if let Some(rest) = message.strip_prefix(&[0x10]) {
        let octets = rest.iter().position(|octet| octet & 0x80 == 0).unwrap_or_default();
        pages = rest[..=octets].iter().rev().fold(0, |pages, octet| pages << 7 | usize::from(octet & 0x7f));
    }
    (name, pages)
}

async fn serve(method: &str, mut body: h2::RecvStream, mut answer: h2::server::SendResponse<Bytes>) -> Option<()> {
    let mut got = Vec::new();
    while let Some(Ok(part)) = body.data().await {
        let _ = body.flow_control().release_capacity(part.len());
        got.extend_from_slice(&part);
    }
    let (name, pages) = book(&got);
    let head = || Response::builder().header("content-type", "application/grpc");
    let mut begin = |head: http::response::Builder| answer.send_response(head.body(()).expect("a head"), false).ok();
    match method {
        "Fail" => {
            let head = head().header("grpc-status", &name).header("grpc-message", "100%25 %C3%BCml");
            answer.send_response(head.body(()).expect("a head"), true).ok()?;
        }
        "Html" => {
            let head = Response::builder().status(name.as_str()).header("content-type", "text/html");
            let mut stream = begin(head)?;
            stream.send_data(Bytes::from_static(b"<p>"), true).ok()?;
        }
        "NoStatus" => begin(head())?.send_data(frame(b"\x0a\x01a"), true).ok()?,
        "Wait" => {
            let mut stream = begin(head())?;
            let _ = std::future::poll_fn(|context| stream.poll_reset(context)).await;
            return None;
        }
        "Metadata" => {
            let head = head().header("x-one", "1").header("x-bin-bin", "AP8").header("grpc-accept-encoding", "gzip");
            let mut stream = begin(head)?;
            stream.send_data(frame(b""), false).ok()?;
            stream.send_trailers(trailers("0", &[("x-two", "2")])).ok()?;
        }
        "Reset" => {
            let mut stream = begin(head())?;
            send(&mut stream, frame(b"\x0a\x01a")).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        _ => {
            let mut stream = begin(head())?;
            let end = match method {
                "Echo" | "Unruled" | "Collect" => {
                    send(&mut stream, got.into()).await?;
                    trailers("0", &[])
                }
                "FailLate" => {
                    send(&mut stream, frame(b"\x0a\x01a")).await?;
                    trailers("9", &[("grpc-message", "late")])
                }
                "Details" => trailers("5", &[("grpc-message", "x"), ("grpc-status-details-bin", &details())]),
                "Two" => {
                    send(&mut stream, frame(b"\x0a\x01a")).await?;
                    send(&mut stream, frame(b"\x0a\x01b")).await?;
                    trailers("0", &[])
                }
                "None" => trailers("0", &[]),
                "Cut" => {
                    send(&mut stream, Bytes::from_static(&[0, 0, 0, 0, 9, 0x0a])).await?;
                    trailers("0", &[])
                }
                "Compressed" => {
                    send(&mut stream, Bytes::from_static(&[1, 0, 0, 0, 1, 0])).await?;
                    trailers("0", &[])
                }
                "List" => {
                    let text = "x".repeat(if pages > 100 { 262_144 } else { 1 });
                    let mut message = vec![0x1a];
                    let mut length = text.len();
                    while length >= 0x80 {
                        message.push(length as u8 | 0x80);
                        length >>= 7;
                    }
                    message.push(length as u8);
                    message.extend_from_slice(text.as_bytes());
                    let message = frame(&message);
                    for _ in 0..pages {
                        send(&mut stream, message.clone()).await?;
                    }
                    trailers(if name.is_empty() { "0" } else { &name }, &[("grpc-message", "at the end")])
                }
                // google.api.HttpBody: content_type = 1, data = 2.
                "Data" | "Page" => {
                    send(&mut stream, frame(b"\x0a\x08text/csv\x12\x03a,b")).await?;
                    if method == "Data" {
                        send(&mut stream, frame(b"\x12\x03,c\n")).await?;
                    }
                    trailers("0", &[])
                }
                _ => trailers("12", &[]),
            };
            stream.send_trailers(end).ok()?;
        }
    }
    Some(())
}

/// `google.rpc.Status` with an `ErrorInfo` and a type that is not known.
fn details() -> String {
    let any = |url: &str, value: &[u8]| {
        let mut any = vec![0x0a, url.len() as u8];
        any.extend_from_slice(url.as_bytes());
        any.extend_from_slice(&[0x12, value.len() as u8]);
        any.extend_from_slice(value);
        [&[0x1a, any.len() as u8][..], &any].concat()
    };
    let mut status = b"\x08\x05\x12\x06no\xc3\xbc x".to_vec();
    status.extend(any("type.googleapis.com/google.rpc.ErrorInfo", b"\x0a\x04GONE"));
    status.extend(any("type.googleapis.com/not.Known", b"\x08\x07"));
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(status)
}
