//! The caches at run time: what is in them, and purges.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AdminResponse, BODY_TIMEOUT, BUSY, DIFFS, ManagedProcess, document, not_allowed};
use crate::live::{Cache, CacheView, EntryView, Purge};
use crate::notation::OneOrMany;
use crate::rules::caching::purge_url;
use crate::telemetry::rfc3339;

/// The maximum size of a body.
const MAX_PURGE_BODY: usize = 1 << 20;

/// The most URLs, prefixes and tags of one request.
const MAX_PURGES: usize = 10_000;

/// What is purged.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PurgeRequest {
    url: Option<OneOrMany<String>>,
    prefix: Option<OneOrMany<String>>,
    tag: Option<OneOrMany<String>>,
    all: bool,
    /// Whether it is only marked as stale, and validated with the next request.
    soft: bool,
}

fn reject(status: StatusCode, why: impl Into<String>) -> AdminResponse {
    document(status, &json!({"error": why.into()}))
}

/// Handles `/caches…`.
pub(super) async fn respond(request: Request<Incoming>, process: &dyn ManagedProcess) -> AdminResponse {
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(2).collect();
    let (name, is_purge) = match parts.as_slice() {
        ["purge"] => (None, true),
        [name, "purge"] => (Some(*name), true),
        [] => (None, false),
        [name] | [name, "entries"] => (Some(*name), false),
        _ => return reject(StatusCode::NOT_FOUND, "expected /caches/{name}, /caches/{name}/purge or /caches/purge"),
    };
    let (methods, allowed) = if is_purge { ("POST", Method::POST) } else { ("GET, HEAD", Method::GET) };
    if method != allowed {
        return not_allowed(methods);
    }
    let serving = process.serving();
    let all = serving.snapshot.caches.iter().map(|used| &used.cache);
    let caches: Vec<Arc<Cache>> = all.filter(|cache| name.is_none_or(|name| cache.name() == name)).cloned().collect();
    let Some(first) = caches.first().filter(|_| name.is_some()).or_else(|| caches.first()).cloned() else {
        return match name {
            Some(name) => reject(StatusCode::NOT_FOUND, format!("no filter uses a cache \"{name}\"")),
            None if is_purge => reject(StatusCode::NOT_FOUND, "no filter uses a cache"),
            None => document(StatusCode::OK, &json!([])),
        };
    };
    match (is_purge, parts.as_slice()) {
        (true, _) => purge(request, &caches).await,
        (false, [_, "entries"]) => entries(first, request.uri()).await,
        (false, [_]) => document(StatusCode::OK, &view(&first.view())),
        (false, _) => {
            let views: Value = caches.iter().map(|cache| view(&cache.view())).collect();
            document(StatusCode::OK, &views)
        }
    }
}

fn view(view: &CacheView) -> Value {
    let tier = |(entries, bytes, limit): (usize, u64, u64)| json!({"entries": entries, "bytes": bytes, "limit": limit});
    let lookups: serde_json::Map<String, Value> =
        view.lookups.iter().map(|(outcome, count)| ((*outcome).to_owned(), json!(count))).collect();
    let [evicted, damaged, failures, not_written] = view.disk_counts;
    let disk = view.disk.map(|disk| {
        let mut disk = tier(disk);
        disk["evicted"] = json!(evicted);
        disk["damaged"] = json!(damaged);
        disk["failures"] = json!(failures);
        disk["not_written"] = json!(not_written);
        disk["waiting"] = json!(view.waiting);
        disk["scanned"] = json!(view.is_scanned);
        disk
    });
    let mut memory = tier(view.memory);
    memory["evicted"] = json!(view.evicted);
    json!({
        "name": view.name, "memory": memory, "disk": disk, "fills": view.fills, "lookups": lookups,
        "stored": view.stored, "purges": view.purges,
    })
}

/// Returns the entries of the URL in the query.
async fn entries(cache: Arc<Cache>, uri: &Uri) -> AdminResponse {
    let query = uri.query().unwrap_or_default();
    let url = form_urlencoded::parse(query.as_bytes()).find_map(|(name, value)| (name == "url").then_some(value));
    let url = match url.map(|url| normal_url(&url)) {
        Some(Ok(url)) => url,
        Some(Err(why)) => return reject(StatusCode::UNPROCESSABLE_ENTITY, why),
        None => return reject(StatusCode::UNPROCESSABLE_ENTITY, "expected the query ?url=URL"),
    };
    // It looks at all entries, which takes a while: one at a time, in a thread of its own.
    let Ok(_turn) = tokio::time::timeout(BODY_TIMEOUT, DIFFS.acquire()).await else {
        return reject(StatusCode::SERVICE_UNAVAILABLE, BUSY);
    };
    let found = tokio::task::spawn_blocking(move || {
        let all: Value = cache.entries_of(&url).iter().map(entry).collect();
        json!({"url": url, "entries": all})
    });
    match found.await {
        Ok(body) => document(StatusCode::OK, &body),
        Err(_) => reject(StatusCode::INTERNAL_SERVER_ERROR, "a defect of the gateway"),
    }
}

/// Returns an entry: its head, its age, and for how long it is fresh.
fn entry(entry: &EntryView) -> Value {
    let (now, head) = (SystemTime::now(), &entry.head);
    let seconds = |from: SystemTime, to: SystemTime| to.duration_since(from).map_or(0, |time| time.as_secs());
    let is_stale = entry.stale_since.is_some() || head.fresh_until <= now;
    let fields: Vec<Value> = head
        .response
        .headers
        .iter()
        .filter(|(name, _)| *name != http::header::SET_COOKIE)
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    json!({
        "key": entry.key.to_string(),
        "variant": entry.variant.map(|variant| variant.to_string()),
        "status": head.response.status.as_u16(),
        "headers": fields,
        "tags": head.tags,
        "length": entry.length,
        "stored": rfc3339(head.created),
        "validated": rfc3339(head.updated),
        "age": seconds(head.age_from, now),
        "fresh_until": rfc3339(head.fresh_until),
        "fresh_for": if is_stale { 0 } else { seconds(now, head.fresh_until) },
        "stale": is_stale,
        "purged_softly": entry.stale_since.map(rfc3339),
        "stale_while_revalidate": head.stale_while_revalidate,
        "stale_if_error": head.stale_if_error,
    })
}

/// Returns a URL as stored responses have it: scheme and host in lower case, without the default port.
fn normal_url(text: &str) -> Result<String, String> {
    let wanted = || format!("expected a URL such as https://api.example.com/users?id=1, not \"{text}\"");
    let url = text.parse::<Uri>().map_err(|_| wanted())?;
    let (Some(scheme), Some(host)) = (url.scheme_str(), url.host().filter(|host| !host.is_empty())) else {
        return Err(wanted());
    };
    if !matches!(scheme, "http" | "https") || url.authority().is_some_and(|all| all.as_str().contains('@')) {
        return Err(wanted());
    }
    let port = match (url.port_u16(), scheme) {
        (Some(80), "http") | (Some(443), "https") | (None, _) => String::new(),
        (Some(port), _) => format!(":{port}"),
    };
    let path = if url.path().is_empty() { "/" } else { url.path() };
    let authority = format!("{}{port}", host.to_ascii_lowercase());
    Ok(purge_url(scheme, &authority, path, url.query()).into())
}

/// Returns the purges of a request.
fn purges(request: PurgeRequest) -> Result<Vec<Purge>, String> {
    let texts = |texts: Option<OneOrMany<String>>| texts.map(|texts| texts.as_slice().to_vec()).unwrap_or_default();
    let mut all: Vec<Purge> = Vec::new();
    for url in texts(request.url) {
        all.push(Purge::Url(normal_url(&url)?.into()));
    }
    for prefix in texts(request.prefix) {
        all.push(Purge::Prefix(normal_url(&prefix)?.into()));
    }
    for tag in texts(request.tag) {
        if tag.is_empty() || tag.contains(char::is_whitespace) {
            return Err(format!("a tag has no spaces and is not empty: \"{tag}\""));
        }
        all.push(Purge::Tag(tag.into()));
    }
    if request.all {
        all.push(Purge::All);
    }
    match all.len() {
        0 => Err("expected url, prefix, tag or all".to_owned()),
        1..=MAX_PURGES => Ok(all),
        _ => Err(format!("expected at most {MAX_PURGES} URLs, prefixes and tags")),
    }
}

async fn purge(request: Request<Incoming>, caches: &[Arc<Cache>]) -> AdminResponse {
    let path = request.uri().path().to_owned();
    let body = Limited::new(request.into_body(), MAX_PURGE_BODY).collect();
    let Ok(Ok(body)) = tokio::time::timeout(BODY_TIMEOUT, body).await else {
        return reject(StatusCode::UNPROCESSABLE_ENTITY, "the body did not arrive in time, or is too large");
    };
    let wanted = match serde_json::from_slice::<PurgeRequest>(&body.to_bytes()) {
        Ok(wanted) => wanted,
        Err(error) => return reject(StatusCode::UNPROCESSABLE_ENTITY, format!("the body: {error}")),
    };
    let soft = wanted.soft;
    let all = match purges(wanted) {
        Ok(all) => all,
        Err(why) => return reject(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    let begun = std::time::Instant::now();
    // All of them at once: one step on disk is enough.
    let each = caches.iter().flat_map(|cache| all.iter().map(move |purge| cache.purge(purge, soft)));
    let failed = futures::future::join_all(each).await.into_iter().find_map(Result::err);
    caches.iter().filter(|_| !soft).for_each(Cache::sweep_soon);
    let (count, names) = (all.len(), caches.iter().map(|cache| cache.name()).collect::<Vec<_>>());
    let took: Duration = begun.elapsed();
    log::info!("audit: POST {path} by an operator: {count} purges of {} in {took:?}", names.join(", "));
    match failed {
        None => document(StatusCode::OK, &json!({"purged": count, "caches": names, "soft": soft})),
        Some(why) => reject(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_normal() {
        for (text, wanted) in [
            ("https://API.example.com", "https://api.example.com/"),
            ("HTTPS://a.test:443/X?Y=z", "https://a.test/X?Y=z"),
            ("http://a.test:8080/x/", "http://a.test:8080/x/"),
            ("http://[::1]:80/", "http://[::1]/"),
            ("http://a.test/%7eb/../c?", "http://a.test/c"),
            ("http://a.test/?q=%7e%2f", "http://a.test/?q=~%2F"),
        ] {
            assert_eq!(normal_url(text).as_deref(), Ok(wanted), "{text}");
        }
        for wrong in ["", "/x", "a.test/x", "ftp://a.test/", "http://u:p@a.test/", "http:///x"] {
            assert!(normal_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn requests_have_something_to_purge() {
        let parse = |text: &str| {
            let request = serde_json::from_str(text).map_err(|error| error.to_string())?;
            purges(request)
        };
        let all = parse(r#"{"url": "http://A.test", "tag": ["a", "b"], "prefix": "http://a.test/x", "all": true}"#);
        assert_eq!(all.map(|all| all.len()), Ok(5));
        for wrong in ["{}", r#"{"soft": true}"#, r#"{"tag": ""}"#, r#"{"tag": "a b"}"#, r#"{"tags": "a"}"#, "[]"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
