//! The admin listener: health, readiness, metrics, state, reload.

mod caches;
mod connections;
mod consumers;
mod endpoints;
mod listener;
mod targets;
mod views;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

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
use tokio::sync::{Semaphore, watch};

use self::connections::{AdminConnection, AdminConnections};
use crate::config::{Change, Flat, ShownLater};
use crate::live::consumer_digest;
use crate::notation::Mistakes;
use crate::snapshot::Serving;

pub use endpoints::ENDPOINTS;
pub use listener::{AdminListener, AdminStream};

/// The maximum number of connections: operators are few.
const MAX_CONNECTIONS: usize = 256;

/// The maximum lifetime of a connection, after which a client that reuses it has to open another. It is longer than
/// any reload, which waits for earlier ones, its files, and the first probes of new upstreams.
const MAX_CONNECTION_TIME: Duration = Duration::from_secs(110);

/// The time for which a first request may still arrive when another process takes over.
const HANDOVER_LINGER: Duration = Duration::from_millis(300);

/// The time-out for a body, and for comparisons in progress.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The error where other comparisons are under way.
const BUSY: &str = "other comparisons are under way: try again";

/// The number of concurrent comparisons, and of other documents of the size of the configuration.
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
    /// Returns what operators see of the configuration that serves, and the part of the start's that stays in use.
    fn shown(&self) -> (ShownLater, Arc<Flat>);
    /// Returns names and addresses of the listeners, as they are bound.
    fn listeners(&self) -> Vec<(String, SocketAddr)>;
    /// Returns the time of the start.
    fn started(&self) -> SystemTime;
    /// Reads the files as for a reload, and returns what it would change.
    ///
    /// # Errors
    /// When the configuration has errors.
    async fn compare_files(&self) -> Result<Vec<Change>, Mistakes>;
    /// Returns the file that is read at a reload; `None` for a configuration that is part of the command.
    fn file(&self) -> Option<String>;
    /// Returns the name of the configuration that is read at a reload, be it a file or not.
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
    listener: AdminListener,
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
        let Ok(stream) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let process = Arc::clone(&process);
        let mut state = state.clone();
        let (connection, is_local) = (connections.add(), listener.is_local());
        tokio::spawn(async move {
            let _place = place;
            let response = service_fn(|request| {
                let (process, connection) = (Arc::clone(&process), Arc::clone(&connection));
                async move {
                    let pretty = is_pretty(&request);
                    let response = respond(request, process, &connection, is_local).await;
                    let response = if pretty { indented(response).await } else { response };
                    Ok::<_, Infallible>(response.map(Full::new))
                }
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

type AdminResponse = Response<Bytes>;

/// Returns whether the query asks for JSON that is easy to read.
fn is_pretty(request: &Request<Incoming>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|one| matches!(one, "pretty" | "pretty=" | "pretty=true" | "pretty=1"))
}

/// Returns the response with its JSON on several lines.
async fn indented(response: AdminResponse) -> AdminResponse {
    if response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != JSON) {
        return response;
    }
    let (head, body) = response.into_parts();
    let compact = body.clone();
    let indent =
        move || serde_json::from_slice::<serde_json::Value>(&compact).map(|document| format!("{document:#}\n"));
    // In a thread of its own, since health checks and signals are handled in this one.
    let body = match tokio::task::spawn_blocking(indent).await {
        Ok(Ok(text)) => text.into(),
        _ => body,
    };
    Response::from_parts(head, body)
}

/// The media type of JSON (RFC 8259, section 11).
const JSON: &str = "application/json";

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn document(status: StatusCode, body: &serde_json::Value) -> AdminResponse {
    text(status, JSON, format!("{body}\n"))
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
    is_local: bool,
) -> AdminResponse {
    let process = &*shared;
    let path = request.uri().path();
    // HEAD is handled as GET; hyper omits the body.
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    match (method, path) {
        (&Method::GET, "/healthz") => return text(StatusCode::OK, "text/plain", "ok\n"),
        (&Method::GET, "/readyz") => return views::ready(process),
        _ => {}
    }
    if !is_allowed(request.headers(), process, is_local) {
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
        (&Method::GET, "/metrics") => views::metrics(process),
        (&Method::GET, "/upstreams") => document(StatusCode::OK, &views::upstreams(process)),
        (&Method::GET, "/key_sets") => document(StatusCode::OK, &views::key_sets(process)),
        (&Method::GET, "/routes") => large(shared, views::routes).await,
        (&Method::GET, "/streams") => large(shared, views::streams).await,
        (&Method::GET, "/config") => large(shared, |process| process.shown().0.document()).await,
        (&Method::GET, "/reasons") => document(StatusCode::OK, &views::reasons()),
        (&Method::GET, "/process") => document(StatusCode::OK, &views::process(process)),
        (&Method::GET, "/") => document(StatusCode::OK, &endpoints::list()),
        (&Method::POST, "/reload") => reload(shared).await,
        (&Method::POST, "/diff") => diff(request, process).await,
        (_, path) if path == "/consumers" || path.starts_with("/consumers/") => {
            consumers::respond(request, process).await
        }
        (_, path) if path == "/caches" || path.starts_with("/caches/") => caches::respond(request, process).await,
        (_, path) if path.starts_with("/upstreams/") => targets::respond(request, process).await,
        (_, path) => match endpoints::methods(path) {
            Some(methods) => not_allowed(methods),
            None => document(StatusCode::NOT_FOUND, &json!({"known": endpoints::list()})),
        },
    }
}

/// Returns a document that takes a while to make of a large configuration.
async fn large(process: Arc<dyn ManagedProcess>, view: fn(&dyn ManagedProcess) -> serde_json::Value) -> AdminResponse {
    let Ok(_turn) = tokio::time::timeout(BODY_TIMEOUT, DIFFS.acquire()).await else {
        return document(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": BUSY}));
    };
    // In a thread of its own, since health checks and signals are handled in this one.
    let made = tokio::task::spawn_blocking(move || document(StatusCode::OK, &view(&*process))).await;
    made.unwrap_or_else(|_| document(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "a defect of the gateway"})))
}

async fn reload(process: Arc<dyn ManagedProcess>) -> AdminResponse {
    match Arc::clone(&process).reload().await {
        Ok(notes) => {
            let (file, source) = (process.file(), process.source());
            let body = json!({"reloaded": true, "file": file, "source": source, "notes": notes});
            document(StatusCode::OK, &body)
        }
        Err(ReloadError::Mistakes(mistakes)) => unprocessable(&mistakes),
        Err(ReloadError::NotNow(why)) => {
            document(StatusCode::SERVICE_UNAVAILABLE, &json!({"reloaded": false, "error": why}))
        }
    }
}

/// Returns the response to a request for which the configuration was read, and has errors.
fn unprocessable(mistakes: &Mistakes) -> AdminResponse {
    let body = json!({"reloaded": false, "count": mistakes.count(), "mistakes": mistakes.lines()});
    document(StatusCode::UNPROCESSABLE_ENTITY, &body)
}

/// Returns whether a request is authorised. Tokens are compared by digest, so that the time reveals nothing. A
/// request from a web page is rejected: a page could otherwise reload the gateway of its visitor.
fn is_allowed(headers: &HeaderMap, process: &dyn ManagedProcess, is_local: bool) -> bool {
    let fetched = headers.get("sec-fetch-site").is_some_and(|site| site != "none" && site != "same-origin");
    if fetched || headers.contains_key(http::header::ORIGIN) {
        return false;
    }
    let serving = process.serving();
    let Some(token) = &serving.snapshot.admin.token else { return is_local || is_by_address(headers) };
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

/// Rejects a request after its body was read: a client that is still sending may not read the response otherwise.
async fn reject(request: Request<Incoming>, status: StatusCode, why: &str) -> AdminResponse {
    let mut body = http_body_util::Limited::new(request.into_body(), MAX_CONFIGURATION);
    let read_past = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(BODY_TIMEOUT, read_past).await;
    document(status, &json!({"error": why}))
}

/// Compares the configuration that serves with the one that was sent, both flat; without a body, with the one that a
/// reload would read. Secrets are sent as digests, and none is returned.
async fn diff(request: Request<Incoming>, process: &dyn ManagedProcess) -> AdminResponse {
    // A large one takes a hundred times its size for a while.
    let Ok(_turn) = tokio::time::timeout(BODY_TIMEOUT, DIFFS.acquire()).await else {
        return reject(request, StatusCode::SERVICE_UNAVAILABLE, BUSY).await;
    };
    let body = http_body_util::Limited::new(request.into_body(), MAX_CONFIGURATION).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, body)
        .await
        .ok()
        .and_then(Result::ok)
        .map(http_body_util::Collected::to_bytes);
    let (serving, file, source, (shown, started)) =
        (process.serving(), process.file(), process.source(), process.shown());
    let listeners: Vec<_> = serving.snapshot.listeners.iter().map(|l| l.address).collect();
    let response = move |changes: Vec<Change>| {
        let body = json!({"changes": changes, "listeners": listeners, "file": file, "source": source});
        document(StatusCode::OK, &body)
    };
    if body.as_ref().is_some_and(Bytes::is_empty) {
        return match process.compare_files().await {
            Ok(changes) => response(changes),
            Err(mistakes) => unprocessable(&mistakes),
        };
    }
    // In a thread of its own, since health checks and signals are handled in this one.
    let compare = move || {
        let other = serde_json::from_slice::<Flat>(&body?).ok()?;
        Some(response(shown.flat.changes(&other, &started)))
    };
    let compared = tokio::task::spawn_blocking(compare).await.ok().flatten();
    compared.unwrap_or_else(|| {
        document(StatusCode::BAD_REQUEST, &json!({"error": "no flat configuration, as `portcullis diff` sends it"}))
    })
}
