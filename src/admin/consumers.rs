//! Consumers at run time: they are created, changed and removed, and their API keys are created, rotated and revoked.
//! Every change is written to the file of consumers, and noted in the process's log.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{AdminResponse, BODY_TIMEOUT, ManagedProcess, document, not_allowed};
use crate::filters::Consumers;
use crate::live::{ChangeError, ConsumerFile, consumer_digest, key_id};
use crate::notation::{Duration, Name, Timestamp};

/// The maximum size of a body.
const MAX_CONSUMER_BODY: usize = 64 * 1024;

/// The most names in a list.
const MAX_LISTED: usize = 1_000;

/// The bytes of a generated key: 256 bits of the system's generator.
const KEY_BYTES: usize = 32;

/// The scopes and the end of a new key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeyRequest {
    scopes: Option<Vec<String>>,
    /// The time from which on it is rejected.
    expires: Option<Timestamp>,
    /// When a key is rotated: how long the old one is still accepted.
    grace: Option<Duration>,
}

fn reject(status: StatusCode, why: impl Into<String>) -> AdminResponse {
    document(status, &json!({"error": why.into()}))
}

/// Handles `/consumers…`.
pub(super) async fn respond(request: Request<Incoming>, process: &dyn ManagedProcess) -> AdminResponse {
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let parts: Vec<&str> = path.split('/').skip(2).collect();
    let methods = match parts.as_slice() {
        [] => "GET, HEAD",
        [_] => "GET, HEAD, PUT, PATCH, DELETE",
        [_, "keys"] => "POST",
        [_, "keys", _] => "DELETE",
        [_, "keys", _, "rotate"] => "POST",
        _ => return reject(StatusCode::NOT_FOUND, "expected /consumers/{name} or /consumers/{name}/keys"),
    };
    if !methods.split(", ").any(|one| one == method) {
        return not_allowed(methods);
    }
    let serving = process.serving();
    let consumers = &serving.snapshot.consumers;
    if let ([], _) | ([_], &Method::GET) = (parts.as_slice(), &method) {
        return read(consumers, parts.first().copied(), &query).await;
    }
    let Some(file) = consumers.file().cloned() else {
        return reject(StatusCode::CONFLICT, "set consumers_file: consumers of the configuration change by a reload");
    };
    let name = parts.first().copied().unwrap_or_default().to_owned();
    if let Err(expected) = name.parse::<Name>() {
        return reject(StatusCode::UNPROCESSABLE_ENTITY, format!("expected {expected}"));
    }
    if consumers.configured().by_name(&name).is_some() {
        return reject(StatusCode::CONFLICT, format!("{name} is in the configuration: change it there"));
    }
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(why) => return reject(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    let result = match (parts.as_slice(), &method) {
        ([_], &Method::PUT | &Method::PATCH) => {
            let wanted = parse_consumer(&body, consumers);
            match wanted {
                Ok(wanted) => put(file, name.clone(), wanted, method == Method::PATCH).await,
                Err(error) => Err(error),
            }
        }
        ([_], _) => delete(file, name.clone()).await,
        ([_, "keys"], _) => new_key(file, name.clone(), None, &body).await,
        ([_, "keys", id], &Method::DELETE) => revoke(file, name.clone(), (*id).to_owned()).await,
        ([_, "keys", id, ..], _) => new_key(file, name.clone(), Some((*id).to_owned()), &body).await,
        _ => return reject(StatusCode::NOT_FOUND, "expected /consumers/{name}"),
    };
    match result {
        Ok((status, body)) => {
            let id = body.get("id").and_then(Value::as_str).map(|id| format!(", key {id}")).unwrap_or_default();
            log::info!("audit: {method} {path} by an operator: {status}{id}");
            document(status, &body)
        }
        Err(error) => {
            let (status, why) = match error {
                ChangeError::NotFound(why) => (StatusCode::NOT_FOUND, why),
                ChangeError::Conflict(why) => (StatusCode::CONFLICT, why),
                ChangeError::Invalid(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
                ChangeError::Failed(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
            };
            log::warn!("audit: {method} {path} by an operator: rejected with {status}");
            reject(status, why)
        }
    }
}

type Changed = Result<(StatusCode, Value), ChangeError>;

async fn read_body(request: Request<Incoming>) -> Result<Vec<u8>, String> {
    let body = Limited::new(request.into_body(), MAX_CONSUMER_BODY).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, body).await.map_err(|_| "the body did not arrive in time")?;
    body.map(|body| body.to_bytes().to_vec()).map_err(|error| error.to_string())
}

/// Makes a change in a thread of its own, since it waits for the disk.
async fn change<T: Send + 'static>(
    file: Arc<ConsumerFile>,
    edit: impl FnOnce(&mut Map<String, Value>) -> Result<T, ChangeError> + Send + 'static,
) -> Result<T, ChangeError> {
    let work = tokio::task::spawn_blocking(move || file.change(edit)).await;
    work.unwrap_or_else(|error| Err(ChangeError::Failed(error.to_string())))
}

/// Returns a consumer without its secrets, or the names of all after `?after=NAME`.
async fn read(consumers: &Arc<Consumers>, name: Option<&str>, query: &str) -> AdminResponse {
    let file = consumers.file().cloned();
    if let Some(name) = name {
        let Some(facts) = consumers.by_name(name) else {
            return reject(StatusCode::NOT_FOUND, format!("there is no consumer \"{name}\""));
        };
        let of_file = consumers.configured().by_name(name).is_none();
        let key = name.to_owned();
        let document_of = move || file.and_then(|file| file.document().ok()?.remove(&key));
        let written = tokio::task::spawn_blocking(document_of).await.ok().flatten().filter(|_| of_file);
        let own = facts.allowance.as_deref();
        let body = json!({
            "name": name, "groups": facts.groups, "plan": facts.plan.as_deref(),
            "source": if of_file { "file" } else { "configuration" },
            "rate_limit": own.map(|own| own.rate_limit.iter().map(ToString::to_string).collect::<Vec<_>>()),
            "quota": own.and_then(|own| own.quota).map(|quota| quota.to_string()),
            "concurrency": own.and_then(|own| own.concurrency),
            "credentials": written.map(|written| summary(&written)),
        });
        return document(StatusCode::OK, &body);
    }
    let after = query.split('&').find_map(|one| one.strip_prefix("after=")).unwrap_or_default();
    let (names, count) = consumers.names(after);
    let more = names.len() > MAX_LISTED;
    let names: Vec<&str> = names.iter().take(MAX_LISTED).map(|name| &**name).collect();
    document(StatusCode::OK, &json!({"count": count, "names": names, "more": more}))
}

/// Returns the credentials of a consumer without anything that is secret.
fn summary(written: &Value) -> Vec<Value> {
    let all = written.get("credentials").and_then(Value::as_array).into_iter().flatten();
    all.map(|credential| match (credential.get("api_key"), credential.as_object()) {
        (Some(key), _) => json!({
            "api_key": {"id": id_of(key), "scopes": key.get("scopes"), "expires": key.get("expires")},
        }),
        (None, Some(other)) => json!({"kind": other.keys().next()}),
        (None, None) => Value::Null,
    })
    .collect()
}

/// Returns the id of an API key as it is written.
fn id_of(key: &Value) -> Option<String> {
    let digest = key.get("sha256").and_then(Value::as_str).map(str::to_ascii_lowercase);
    let of_value = || key.get("value").and_then(Value::as_str).map(|value| key_id(&consumer_digest(value.as_bytes())));
    digest.and_then(|digest| digest.get(..12).map(str::to_owned)).or_else(of_value)
}

/// Parses a consumer, whose plan has to be known.
fn parse_consumer(body: &[u8], consumers: &Consumers) -> Result<Map<String, Value>, ChangeError> {
    let wanted: Value = serde_json::from_slice(body)
        .map_err(|error| ChangeError::Invalid(format!("expected a consumer in JSON: line {}", error.line())))?;
    let Value::Object(wanted) = wanted else {
        return Err(ChangeError::Invalid("expected {groups, plan, credentials, …}".to_owned()));
    };
    match wanted.get("plan").and_then(Value::as_str).filter(|plan| consumers.plan(plan).is_none()) {
        Some(plan) => Err(ChangeError::Invalid(format!("there is no plan {plan:?} in the configuration"))),
        None => Ok(wanted),
    }
}

/// Creates or replaces a consumer; without `credentials` it keeps those that it has. With `merge` an existing one keeps
/// whatever `wanted` does not have, and loses what is null there (RFC 7396).
async fn put(file: Arc<ConsumerFile>, name: String, mut wanted: Map<String, Value>, merge: bool) -> Changed {
    change(file, move |all| {
        let before = all.get(&name).and_then(Value::as_object);
        let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
        if merge {
            let Some(before) = before else {
                return Err(ChangeError::NotFound(format!("there is no consumer \"{name}\"")));
            };
            before.iter().for_each(|(key, value)| _ = wanted.entry(key.clone()).or_insert(value.clone()));
            wanted.retain(|_, value| !value.is_null());
        }
        let kept = before.and_then(|before| before.get("credentials")).cloned().unwrap_or_else(|| json!([]));
        wanted.entry("credentials").or_insert(kept);
        all.insert(name.clone(), Value::Object(wanted));
        Ok((status, json!({"name": name})))
    })
    .await
}

async fn delete(file: Arc<ConsumerFile>, name: String) -> Changed {
    change(file, move |all| {
        all.remove(&name).ok_or_else(|| ChangeError::NotFound(format!("there is no consumer \"{name}\"")))?;
        Ok((StatusCode::OK, json!({"name": name, "removed": true})))
    })
    .await
}

fn credentials<'a>(all: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Vec<Value>, ChangeError> {
    let consumer = all.get_mut(name).and_then(Value::as_object_mut);
    let consumer = consumer.ok_or_else(|| ChangeError::NotFound(format!("there is no consumer \"{name}\"")))?;
    let list = consumer.entry("credentials").or_insert_with(|| json!([])).as_array_mut();
    list.ok_or_else(|| ChangeError::Invalid("its credentials are no list".to_owned()))
}

fn position(list: &[Value], id: &str) -> Result<usize, ChangeError> {
    let is_it = |one: &Value| one.get("api_key").and_then(id_of).is_some_and(|known| known == id);
    list.iter().position(is_it).ok_or_else(|| ChangeError::NotFound(format!("there is no key {id}")))
}

async fn revoke(file: Arc<ConsumerFile>, name: String, id: String) -> Changed {
    change(file, move |all| {
        let list = credentials(all, &name)?;
        let place = position(list, &id)?;
        list.remove(place);
        Ok((StatusCode::OK, json!({"name": name, "id": id, "revoked": true})))
    })
    .await
}

/// Creates a key, or replaces the one of that id; the response alone has the key itself.
async fn new_key(file: Arc<ConsumerFile>, name: String, replaces: Option<String>, body: &[u8]) -> Changed {
    let body = if body.is_empty() { b"{}" } else { body };
    let wanted: KeyRequest = serde_json::from_slice(body)
        .map_err(|error| ChangeError::Invalid(format!("expected {{scopes, expires, grace}}: {error}")))?;
    if wanted.grace.is_some() && replaces.is_none() {
        return Err(ChangeError::Invalid("grace is for the rotation of a key".to_owned()));
    }
    let mut random = [0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| ChangeError::Failed("no random numbers".to_owned()))?;
    let key: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = consumer_digest(key.as_bytes());
    let id = key_id(&digest);
    change(file, move |all| {
        let list = credentials(all, &name)?;
        let mut scopes = wanted.scopes.map(Value::from);
        let mut expires = wanted.expires.map(|time| UNIX_EPOCH + std::time::Duration::from_secs(time.0));
        if let Some(old) = replaces {
            let place = position(list, &old)?;
            let kept = &mut list[place]["api_key"];
            scopes = scopes.or_else(|| kept.get("scopes").cloned());
            let ends = kept.get("expires").and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
            let ends = ends.map(|time| UNIX_EPOCH + std::time::Duration::from_secs(time.0));
            // What has an end keeps one: the old key is not accepted for longer than it would have been.
            let now = SystemTime::now();
            expires = expires.or(ends.filter(|ends| *ends > now));
            match wanted.grace {
                Some(grace) => {
                    let grace = now + grace.0;
                    kept["expires"] = timestamp(ends.map_or(grace, |ends| ends.min(grace))).into();
                }
                None => _ = list.remove(place),
            }
        }
        let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut written = json!({"sha256": sha256});
        if let Some(scopes) = scopes {
            written["scopes"] = scopes;
        }
        if let Some(expires) = expires {
            written["expires"] = timestamp(expires).into();
        }
        list.push(json!({"api_key": written}));
        Ok((StatusCode::CREATED, json!({"name": name, "id": id, "key": key})))
    })
    .await
}

fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time = i64::try_from(seconds).ok().and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    time.unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
