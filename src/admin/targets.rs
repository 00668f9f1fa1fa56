//! Changes of targets at run time: they are added, removed, drained, or given another weight. A change outlives
//! reloads and ends with the process; a change to a target that its source no longer has is kept until the target
//! returns.

use std::net::SocketAddr;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::views;
use super::{AdminResponse, BODY_TIMEOUT, ManagedProcess, document, not_allowed};
use crate::upstreams::TargetChange;

/// The maximum size of a body.
const MAX_CHANGE_BODY: usize = 64 * 1024;

/// The maximum number of targets that operators may add to an upstream.
const MAX_ADDED_TARGETS: usize = 10_000;

/// The body of a request: a target to add, or changes of one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    address: Option<String>,
    weight: Option<u32>,
    draining: Option<bool>,
}

struct ParsedChange {
    address: Option<SocketAddr>,
    weight: Option<u32>,
    draining: Option<bool>,
}

fn reject(status: StatusCode, why: impl Into<String>) -> AdminResponse {
    document(status, &json!({"error": why.into()}))
}

/// Handles `/upstreams/{name}/targets…`.
pub(super) async fn respond(request: Request<Incoming>, process: &dyn ManagedProcess) -> AdminResponse {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(2).collect();
    let (name, address) = match parts.as_slice() {
        [name, "targets"] => (*name, None),
        [name, "targets", address] => (*name, Some(*address)),
        _ => return reject(StatusCode::NOT_FOUND, "expected /upstreams/{name}/targets"),
    };
    let serving = process.serving();
    let Some(upstream) = serving.snapshot.upstreams.iter().find(|u| u.name == name) else {
        return reject(StatusCode::NOT_FOUND, format!("there is no upstream \"{name}\""));
    };
    let known = |address: &SocketAddr| upstream.pool.targets().iter().any(|t| t.address == *address);
    let method = request.method().clone();
    let Ok(address) = address.map(str::parse::<SocketAddr>).transpose() else {
        return reject(StatusCode::UNPROCESSABLE_ENTITY, "expected an address with a port, such as 10.0.0.11:9001");
    };
    match (&method, address) {
        (&Method::DELETE, Some(address)) if known(&address) => {
            upstream.pool.change(address, |c| *c = TargetChange { removed: !c.added, ..TargetChange::default() }).await;
        }
        (&Method::POST, None) | (&Method::PATCH, Some(_)) => {
            let wanted = match read_change(request).await {
                Ok(wanted) => wanted,
                Err(why) => return reject(StatusCode::UNPROCESSABLE_ENTITY, why),
            };
            let Some(address) = address.or(wanted.address) else {
                return reject(StatusCode::UNPROCESSABLE_ENTITY, "the address is missing");
            };
            let adds = method == Method::POST;
            if !adds && !known(&address) {
                return reject(StatusCode::NOT_FOUND, format!("there is no target {address}"));
            }
            let add = adds && !known(&address);
            if address.port() == 0 || (add && upstream.pool.targets().len() >= MAX_ADDED_TARGETS) {
                return reject(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    format!("expected a port, and at most {MAX_ADDED_TARGETS} targets"),
                );
            }
            upstream.pool.change(address, |change| apply_change(change, &wanted, add)).await;
        }
        (&Method::DELETE, Some(address)) => {
            return reject(StatusCode::NOT_FOUND, format!("there is no target {address}"));
        }
        (_, None) => return not_allowed("POST"),
        (_, Some(_)) => return not_allowed("PATCH, DELETE"),
    }
    log::info!("upstream {name}: {method} {path} by an operator");
    document(StatusCode::OK, &views::upstream(upstream))
}

fn apply_change(change: &mut TargetChange, wanted: &ParsedChange, add: bool) {
    if add {
        // A target that was removed before is restored; one that no source has is added.
        change.added = !std::mem::take(&mut change.removed);
    }
    change.weight = wanted.weight.or(change.weight);
    change.draining = wanted.draining.or(change.draining).filter(|draining| *draining);
}

async fn read_change(request: Request<Incoming>) -> Result<ParsedChange, String> {
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(request.into_body(), MAX_CHANGE_BODY).collect()).await;
    let body = body.map_err(|_| "the body did not arrive in time".to_owned())?.map_err(|e| e.to_string())?.to_bytes();
    let wanted: ChangeBody =
        serde_json::from_slice(&body).map_err(|e| format!("expected {{address, weight, draining}}: {e}"))?;
    let address =
        |a: &String| a.parse::<SocketAddr>().map_err(|_| format!("expected an IP address with a port, found \"{a}\""));
    let wanted = ParsedChange {
        address: wanted.address.as_ref().map(address).transpose()?,
        weight: wanted.weight,
        draining: wanted.draining,
    };
    match wanted.weight {
        Some(weight) if !(1..=1_000).contains(&weight) => Err("expected a weight from 1 to 1000".to_owned()),
        _ => Ok(wanted),
    }
}
