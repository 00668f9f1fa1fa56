//! The sample targets: users and products, two of each, and one that echoes requests.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The targets, in the order in which they start.
pub const NAMES: [&str; 5] = ["users-1", "users-2", "products-1", "products-2", "echo"];

/// Starts them; returns the addresses in the sample configuration and the actual ones.
pub async fn start() -> std::io::Result<Vec<(String, SocketAddr)>> {
    let mut out = Vec::new();
    for (index, name) in NAMES.into_iter().enumerate() {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        out.push((format!("127.0.0.1:{}", 9001 + index), listener.local_addr()?));
        tokio::spawn(serve(listener, name));
    }
    Ok(out)
}

async fn serve(listener: TcpListener, name: &'static str) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let response = service_fn(move |request| async move { Ok::<_, Infallible>(response(request, name).await) });
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), response).await;
        });
    }
}

async fn response(request: Request<Incoming>, name: &'static str) -> Response<Full<Bytes>> {
    let body = match name.split('-').next() {
        Some("users") => user(name),
        Some("products") => json!({
            "served_by": name,
            "products": [
                {"id": 1, "name": "Portcullis", "price": 250, "internal": {"cost": 90}},
                {"id": 2, "name": "Drawbridge", "price": 900, "internal": {"cost": 310}},
            ],
        }),
        _ => echo(request, name).await,
    };
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response.headers_mut().insert("x-served-by", http::HeaderValue::from_static(name));
    response
}

fn user(name: &str) -> Value {
    json!({
        "served_by": name,
        "id": 42,
        "name": "Ada",
        "ssn": "078-05-1120",
        "address": {"city": "London", "internal": {"verified_by": "agent 7"}},
        "orders": [{"id": 1, "internal": {"margin": 0.4}}, {"id": 2, "internal": {"margin": 0.6}}],
    })
}

async fn echo(request: Request<Incoming>, name: &str) -> Value {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let headers: serde_json::Map<String, Value> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into()))
        .collect();
    json!({
        "served_by": name,
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    })
}
