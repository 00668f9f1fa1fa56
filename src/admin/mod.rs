//! The admin listener: health, readiness, metrics, state, reload.

mod connections;
mod targets;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use self::connections::{AdminConnection, AdminConnections};
use crate::config::{Flat, FlatLater};
use crate::filters::consumer_digest;
use crate::notation::Mistakes;
use crate::snapshot::Serving;
use crate::telemetry::metrics::{METRICS, UpstreamState};
use crate::upstreams::Upstream;

/// The maximum number of connections: operators are few.
const MAX_CONNECTIONS: usize = 256;

/// The maximum lifetime of a connection, after which a client that reuses it has to open another. It is longer than
/// any reload, which waits for earlier ones, its files, and the first probes of new upstreams.
const MAX_CONNECTION_TIME: Duration = Duration::from_secs(110);

/// The time for which a first request may still arrive when another process takes over.
const HANDOVER_LINGER: Duration = Duration::from_millis(300);

/// The time-out for a body, and for comparisons in progress.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The number of concurrent comparisons.
static DIFFS: Semaphore = Semaphore::const_new(1);

/// The maximum size of a configuration that is sent for comparison.
pub const MAX_CONFIGURATION: usize = 64 << 20;

/// The process, as the admin listener uses it.
#[async_trait]
pub trait ManagedProcess: Send + Sync {
    /// Returns the configuration that serves.
    fn serving(&self) -> Arc<Serving>;
    /// Returns whether requests are accepted.
    fn is_ready(&self) -> bool;
    /// Returns the time of the last reload, its errors if it was rejected, and the files with the errors.
    fn last_reload(&self) -> (SystemTime, Option<String>, Vec<String>);
    /// Returns the configuration that serves, flat, and the part of the start's that stays in use.
    fn flat(&self) -> (FlatLater, Arc<Flat>);
    /// Returns the name of the file that is read at a reload.
    fn source(&self) -> String;
    /// Reloads. Returns notes about what does not take effect yet.
    ///
    /// # Errors
    /// When the reload is rejected.
    async fn reload(self: Arc<Self>) -> Result<Vec<String>, ReloadError>;
}

/// The reason for which a reload was rejected.
#[derive(Debug)]
pub enum ReloadError {
    /// The configuration has errors.
    Mistakes(Mistakes),
    /// No reload is possible now.
    NotNow(String),
}

/// The state of the admin listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminListenerState {
    /// It accepts connections.
    Open,
    /// It is paused: a successor has the socket too.
    Paused,
    /// It is closed for good.
    Closed,
}

/// Serves operators until the listener is closed.
pub async fn serve(
    listener: TcpListener,
    process: Arc<dyn ManagedProcess>,
    mut state: watch::Receiver<AdminListenerState>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = AdminConnections::default();
    loop {
        if places.available_permits() == 0 {
            connections.end_oldest();
        }
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match state.wait_for(|state| *state != AdminListenerState::Paused).await {
            Ok(now) if *now == AdminListenerState::Open => {}
            _ => return,
        }
        let accepted = tokio::select! {
            biased;
            _ = state.wait_for(|state| *state != AdminListenerState::Open) => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let process = Arc::clone(&process);
        let mut state = state.clone();
        let connection = connections.add();
        tokio::spawn(async move {
            let _place = place;
            let response = service_fn(|request| {
                let (process, connection) = (Arc::clone(&process), Arc::clone(&connection));
                async move { Ok::<_, Infallible>(respond(request, process, &connection).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
            let serving = http.serve_connection(TokioIo::new(stream), response);
            tokio::pin!(serving);
            let work = async {
                tokio::select! {
                    _ = &mut serving => return,
                    () = connection.close.notified() => return,
                    // A client that sends another request has to reach the process that serves then.
                    () = async {
                        let _ = state.wait_for(|state| *state != AdminListenerState::Open).await;
                        tokio::time::sleep(HANDOVER_LINGER).await;
                    } => serving.as_mut().graceful_shutdown(),
                }
                let _ = serving.await;
            };
            // A connection is limited in time, whatever is or is not read or sent.
            let _ = tokio::time::timeout(MAX_CONNECTION_TIME, work).await;
        });
    }
}

/// The paths that exist.
const KNOWN_PATHS: &[&str] = &[
    "/healthz",
    "/readyz",
    "/metrics",
    "/upstreams",
    "/key_sets",
    "POST /upstreams/{name}/targets",
    "PATCH /upstreams/{name}/targets/{address}",
    "DELETE /upstreams/{name}/targets/{address}",
    "POST /reload",
    "POST /diff",
];

type AdminResponse = Response<Full<Bytes>>;

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn document(status: StatusCode, body: &serde_json::Value) -> AdminResponse {
    text(status, "application/json", format!("{body}\n"))
}

/// Returns a response that allows these methods.
fn not_allowed(methods: &'static str) -> AdminResponse {
    let mut response = document(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": format!("expected {methods}")}));
    response.headers_mut().insert(ALLOW, http::HeaderValue::from_static(methods));
    response
}

async fn respond(
    request: Request<Incoming>,
    shared: Arc<dyn ManagedProcess>,
    connection: &AdminConnection,
) -> AdminResponse {
    let process = &*shared;
    let path = request.uri().path();
    // HEAD is handled as GET; hyper omits the body.
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    match (method, path) {
        (&Method::GET, "/healthz") => return text(StatusCode::OK, "text/plain", "ok\n"),
        (&Method::GET, "/readyz") => return ready(process),
        _ => {}
    }
    if !is_allowed(request.headers(), process) {
        let error = match request.headers().contains_key(http::header::ORIGIN) {
            true => "requests of web pages, with an Origin, are rejected",
            false if process.serving().snapshot.admin.token.is_none() => {
                "without an admin token, use an IP address or localhost as host"
            }
            false => "send Authorization: Bearer with the admin token",
        };
        return reject(request, StatusCode::UNAUTHORIZED, error).await;
    }
    // Without a token every request is allowed: a client that delays its body is not treated as an operator yet.
    let known = process.serving().snapshot.admin.token.is_some() || request.body().is_end_stream();
    connection.known.store(known, Ordering::Relaxed);
    match (method, path) {
        (&Method::GET, "/metrics") => metrics(process),
        (&Method::GET, "/upstreams") => document(StatusCode::OK, &upstreams(process)),
        (&Method::GET, "/key_sets") => document(StatusCode::OK, &key_sets(process)),
        (&Method::POST, "/reload") => match Arc::clone(&shared).reload().await {
            Ok(notes) => document(StatusCode::OK, &json!({"reloaded": true, "file": process.source(), "notes": notes})),
            Err(ReloadError::Mistakes(mistakes)) => {
                let body = json!({"reloaded": false, "count": mistakes.count(), "mistakes": mistakes.lines()});
                document(StatusCode::UNPROCESSABLE_ENTITY, &body)
            }
            Err(ReloadError::NotNow(why)) => {
                document(StatusCode::SERVICE_UNAVAILABLE, &json!({"reloaded": false, "error": why}))
            }
        },
        (&Method::POST, "/diff") => diff(request, process).await,
        (_, path) if path.starts_with("/upstreams/") => targets::respond(request, process).await,
        (_, "/metrics" | "/upstreams" | "/key_sets" | "/healthz" | "/readyz") => not_allowed("GET, HEAD"),
        (_, "/reload" | "/diff") => not_allowed("POST"),
        _ => document(StatusCode::NOT_FOUND, &json!({"known": KNOWN_PATHS})),
    }
}

/// Returns whether a request is authorised. Tokens are compared by digest, so that the time reveals nothing. A
/// request from a web page is rejected: a page could otherwise reload the gateway of its visitor.
fn is_allowed(headers: &HeaderMap, process: &dyn ManagedProcess) -> bool {
    if headers.contains_key(http::header::ORIGIN) {
        return false;
    }
    let serving = process.serving();
    let Some(token) = &serving.snapshot.admin.token else { return is_by_address(headers) };
    let came = headers.get(AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
    came.is_some_and(|came| consumer_digest(came) == consumer_digest(token.reveal().as_bytes()))
}

/// Returns whether the request's host is an IP address or localhost: a web page could make a name of its own resolve
/// to this address (DNS rebinding), and then read the responses.
fn is_by_address(headers: &HeaderMap) -> bool {
    // No browser omits it.
    let Some(host) = headers.get(http::header::HOST) else { return true };
    let authority = host.to_str().ok().and_then(|host| host.parse::<http::uri::Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
    })
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn ready(process: &dyn ManagedProcess) -> AdminResponse {
    let (at, refused, files) = process.last_reload();
    let ready = process.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Errors may quote the configuration: their number is public, their text is for operators.
    let mistakes = refused.map(|r| r.lines().last().unwrap_or_default().to_owned());
    document(status, &json!({"ready": ready, "last_reload": {"at": unix(at), "refused": mistakes, "files": files}}))
}

/// Rejects a request after its body was read: a client that is still sending may not read the response otherwise.
async fn reject(request: Request<Incoming>, status: StatusCode, why: &str) -> AdminResponse {
    let mut body = http_body_util::Limited::new(request.into_body(), MAX_CONFIGURATION);
    let read_past = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(BODY_TIMEOUT, read_past).await;
    document(status, &json!({"error": why}))
}

/// Compares the configuration that serves with the one that was sent, both flat. Secrets are sent as digests, and
/// none is returned.
async fn diff(request: Request<Incoming>, process: &dyn ManagedProcess) -> AdminResponse {
    // A large one takes a hundred times its size for a while.
    let Ok(_turn) = tokio::time::timeout(BODY_TIMEOUT, DIFFS.acquire()).await else {
        return reject(request, StatusCode::SERVICE_UNAVAILABLE, "other comparisons are under way: try again").await;
    };
    let body = http_body_util::Limited::new(request.into_body(), MAX_CONFIGURATION).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, body)
        .await
        .ok()
        .and_then(Result::ok)
        .map(http_body_util::Collected::to_bytes);
    let (serving, file, (flat, started)) = (process.serving(), process.source(), process.flat());
    // In a thread of its own, since health checks and signals are handled in this one.
    let compare = move || {
        let other = serde_json::from_slice::<Flat>(&body?).ok()?;
        let listeners: Vec<_> = serving.snapshot.listeners.iter().map(|l| l.address).collect();
        let response = json!({"changes": flat.changes(&other, &started), "listeners": listeners, "file": file});
        Some(document(StatusCode::OK, &response))
    };
    let response = tokio::task::spawn_blocking(compare).await.ok().flatten();
    response.unwrap_or_else(|| {
        document(StatusCode::BAD_REQUEST, &json!({"error": "no flat configuration, as `portcullis diff` sends it"}))
    })
}

fn metrics(process: &dyn ManagedProcess) -> AdminResponse {
    let serving = process.serving();
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
    let ages = serving.snapshot.kept.iter().filter(|kept| kept.kind() == "key_set").filter_map(|kept| kept.age());
    text(StatusCode::OK, "text/plain; version=0.0.4", METRICS.render(states, ages))
}

fn key_sets(process: &dyn ManagedProcess) -> serde_json::Value {
    let serving = process.serving();
    serving.snapshot.kept.iter().filter(|kept| kept.kind() == "key_set").map(|kept| kept.view()).collect()
}

fn upstreams(process: &dyn ManagedProcess) -> serde_json::Value {
    process.serving().snapshot.upstreams.iter().map(|u| view(u)).collect()
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
