//! The target of measurements: answers every request on a connection with the same bytes.
//!
//! `origin LISTEN [json]`: 1 KiB of text, or a JSON document of 1 KiB. It reads whole heads and no
//! bodies, so it is for GET alone, and costs as little as a target can. /ws is a WebSocket.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn answer(json: bool) -> Vec<u8> {
    let body = if json {
        let mut text = String::from(r#"{"id":42,"name":"Ada","ssn":"078-05-1120","items":["#);
        let mut count = 0;
        while text.len() < 940 {
            let comma = if count > 0 { "," } else { "" };
            text.push_str(&format!(r#"{comma}{{"id":{count},"title":"item {count}","internal":{{"cost":{count}}}}}"#));
            count += 1;
        }
        format!("{text}]}}{}", " ".repeat(1024_usize.saturating_sub(text.len() + 2)))
    } else {
        "x".repeat(1024)
    };
    let kind = if json { "application/json" } else { "text/plain" };
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nserver: origin\r\nx-internal: 1\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// A WebSocket that sends everything back.
async fn reflect(mut stream: tokio::net::TcpStream) {
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n";
    if stream.write_all(answer).await.is_ok() {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().expect("LISTEN");
    let answer: &'static [u8] = answer(arguments.next().as_deref() == Some("json")).leak();
    let listener = TcpListener::bind(listen).await.expect("a free address");
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let mut head = Vec::with_capacity(4096);
            loop {
                match stream.read_buf(&mut head).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                while let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
                    if head.starts_with(b"GET /ws ") {
                        return reflect(stream).await;
                    }
                    head.drain(..end + 4);
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}
