//! The operators' listener: health, readiness, metrics, state, reload.

mod targets;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::filters::consumer_digest;
use crate::snapshot::{Serving, Upstream};
use crate::telemetry::metrics::{METRICS, UpstreamState};

/// Connections at a time: operators are few.
const MAX_CONNECTIONS: usize = 64;

/// What is operated: the process, as this room sees it.
#[async_trait]
pub trait Operated: Send + Sync {
    /// The configuration that serves.
    fn serving(&self) -> Arc<Serving>;
    /// Whether requests are taken.
    fn is_ready(&self) -> bool;
    /// When the last reload was, and its mistakes if it was refused.
    fn last_reload(&self) -> (SystemTime, Option<String>);
    /// Reloads.
    ///
    /// # Errors
    /// The mistakes, a line each.
    async fn reload(&self) -> Result<(), Vec<String>>;
}

/// Serves operators for as long as the process lives.
pub async fn serve(listener: TcpListener, operated: Arc<dyn Operated>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let operated = Arc::clone(&operated);
        tokio::spawn(async move {
            let _place = place;
            let answer = service_fn(|request| {
                let operated = Arc::clone(&operated);
                async move { Ok::<_, Infallible>(answer(request, &*operated).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
            let _ = http.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// What there is to ask for.
const KNOWN: &[&str] = &[
    "/healthz",
    "/readyz",
    "/metrics",
    "/upstreams",
    "POST /upstreams/{name}/targets",
    "PATCH /upstreams/{name}/targets/{address}",
    "DELETE /upstreams/{name}/targets/{address}",
    "POST /reload",
];

type Answer = Response<Full<Bytes>>;

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}

fn document(status: StatusCode, body: &serde_json::Value) -> Answer {
    text(status, "application/json", format!("{body}\n"))
}

async fn answer(request: Request<Incoming>, operated: &dyn Operated) -> Answer {
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::GET, "/healthz") => return text(StatusCode::OK, "text/plain", "ok\n"),
        (&Method::GET, "/readyz") => return ready(operated),
        _ => {}
    }
    if !is_allowed(request.headers(), operated) {
        return document(StatusCode::UNAUTHORIZED, &json!({"error": "send Authorization: Bearer with the admin token"}));
    }
    match (request.method(), path) {
        (&Method::GET, "/metrics") => metrics(operated),
        (&Method::GET, "/upstreams") => document(StatusCode::OK, &upstreams(operated)),
        (&Method::POST, "/reload") => match operated.reload().await {
            Ok(()) => document(StatusCode::OK, &json!({"reloaded": true})),
            Err(mistakes) => document(StatusCode::UNPROCESSABLE_ENTITY, &json!({"reloaded": false, "mistakes": mistakes})),
        },
        (_, path) if path.starts_with("/upstreams/") => targets::answer(request, operated).await,
        (_, "/metrics" | "/upstreams" | "/reload" | "/healthz" | "/readyz") => {
            document(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "GET, and POST for /reload"}))
        }
        _ => document(StatusCode::NOT_FOUND, &json!({"known": KNOWN})),
    }
}

/// Compared by digest, so that the time tells nothing. A request that a browser made for some page is
/// refused: a page could otherwise reload the gateway of whoever looks at it.
fn is_allowed(headers: &HeaderMap, operated: &dyn Operated) -> bool {
    if headers.contains_key(http::header::ORIGIN) {
        return false;
    }
    let serving = operated.serving();
    let Some(token) = &serving.snapshot.admin.token else { return true };
    let came = headers.get(AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
    came.is_some_and(|came| consumer_digest(came) == consumer_digest(token.reveal().as_bytes()))
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn ready(operated: &dyn Operated) -> Answer {
    let (at, refused) = operated.last_reload();
    let ready = operated.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Mistakes may quote the configuration: how many is told to everyone, what they are to operators.
    let mistakes = refused.map(|r| r.lines().last().unwrap_or_default().to_owned());
    document(status, &json!({"ready": ready, "last_reload": {"at": unix(at), "refused": mistakes}}))
}

fn metrics(operated: &dyn Operated) -> Answer {
    let serving = operated.serving();
    let states = serving.snapshot.upstreams.iter().map(|upstream| {
        let pool = &upstream.pool;
        let gate = pool.gate();
        let targets = pool.targets().into_iter();
        UpstreamState {
            name: upstream.name.clone(),
            gate: [gate.active(), gate.waiting(), gate.limit()],
            breaker: pool.breaker().map(|b| match b.phase() {
                "closed" => 0.0,
                "open" => 1.0,
                _ => 0.5,
            }),
            targets: targets.map(|t| (t.address.to_string(), t.eligible, t.in_flight, t.ejected.is_some())).collect(),
        }
    });
    text(StatusCode::OK, "text/plain; version=0.0.4", METRICS.render(states))
}

fn upstreams(operated: &dyn Operated) -> serde_json::Value {
    operated.serving().snapshot.upstreams.iter().map(|u| view(u)).collect()
}

fn view(upstream: &Upstream) -> serde_json::Value {
    let pool = &upstream.pool;
    let choice = pool.choice();
    json!({
        "name": upstream.name,
        "eligible": choice.eligible,
        "panic": choice.panic,
        "breaker": pool.breaker().map(crate::upstreams::SharedBreaker::phase),
        "requests": {"active": pool.gate().active(), "pending": pool.gate().waiting(), "limit": pool.gate().limit()},
        "targets": pool.targets(),
    })
}
