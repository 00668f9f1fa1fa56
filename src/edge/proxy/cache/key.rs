//! What tells the requests of a route apart: their keys, the fields that responses vary with as the target gets them,
//! and the URLs by which responses are purged.

use std::cell::RefCell;

use http::Uri;
use http::header::{HOST, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use super::CachedRequest;
use crate::actions::PathEdit;
use crate::edge::proxy::Context;
use crate::edge::proxy::pick::consumer;
use crate::exchange::Edit;
use crate::filters::CachePolicy;
use crate::live::StoredKey;
use crate::rules::caching::{
    KeyDigest, KeyFacts, KeyRules, NotStored, RequestDirectives, StoreRequest, kept_query, normal_authority,
    primary_key, purge_url, variant_key,
};

thread_local! {
    /// The text of keys, which is written for every request.
    static KEY_TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Returns what a request asks the cache for; `None` if it has no host, or would share the responses of all clients
/// without a name where each consumer has its own. `authenticates` says that its client may be known.
pub fn cached_request(
    request: &RequestHeader,
    ctx: &Context,
    policy: &CachePolicy,
    authenticates: bool,
) -> Option<CachedRequest> {
    let consumer = consumer(&ctx.exchange);
    if policy.key.consumer && consumer.is_none_or(str::is_empty) {
        return None;
    }
    let scheme = ctx.exchange.scheme();
    let authority = authority_of(request, scheme)?;
    let removed: SmallVec<[&str; 2]> = match request.uri.query() {
        Some(_) => secrets(ctx).filter(|name| ctx.exchange.edits.remove_parameter(name)).collect(),
        None => SmallVec::new(),
    };
    let query = kept_query(request.uri.query(), &policy.key, &removed);
    let sent = sent_target(request, query.as_deref(), ctx).ok()?;
    let facts = KeyFacts {
        scope: ctx.route().map_or("", |route| route.name.as_str()),
        listener: ctx.listener().map_or("", |listener| listener.name.as_str()),
        version: ctx.matched.version.as_ref().map_or("", |version| version.get().name.as_str()),
        scheme,
        authority: &authority,
        path: request.uri.path(),
        query: query.as_deref(),
        sent: sent.as_deref(),
        headers: &request.headers,
        trusts_proxy: ctx.exchange.peer_trusted,
        consumer,
    };
    let key = StoredKey(KEY_TEXT.with_borrow_mut(|text| primary_key(&facts, &policy.key, text)));
    let is_identified = authenticates || ctx.exchange.identity.is_some();
    let store = StoreRequest::of(&request.headers, is_identified, &policy.rules);
    let said = store.directives;
    let directives = if policy.obeys_clients {
        said
    } else {
        RequestDirectives { only_if_cached: said.only_if_cached, no_store: said.no_store, ..Default::default() }
    };
    Some(CachedRequest { key, scheme, authority, store, directives })
}

/// Returns the names of the query parameters that hold credentials.
fn secrets(ctx: &Context) -> impl Iterator<Item = &str> {
    ctx.serving.snapshot.secret_parameters.iter().map(String::as_str)
}

/// Returns the host with its port, unless that is the scheme's own.
pub fn authority_of(request: &RequestHeader, scheme: &str) -> Option<String> {
    let text = match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => request.headers.get(HOST)?.to_str().ok()?,
    };
    (!text.is_empty()).then(|| normal_authority(text, scheme))
}

/// Returns the method and the target that the request is sent with, as they would be without the parameters that are
/// not part of the key; `None` where they are the client's, or follow from its path.
///
/// # Errors
/// When it cannot be sent.
fn sent_target(request: &RequestHeader, query: Option<&str>, ctx: &Context) -> Result<Option<String>, ()> {
    let forward = ctx.forward();
    let is_rewritten = forward.is_some_and(|forward| matches!(forward.path, PathEdit::Rewrite(_)));
    if !is_rewritten && !ctx.exchange.edits.touch_target() {
        return Ok(None);
    }
    let path = request.uri.path();
    let kept = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut sent = RequestHeader::build_no_case(request.method.clone(), kept.as_bytes(), None).map_err(drop)?;
    let view = ctx.view(request);
    ctx.exchange.edits.apply_to_target(&mut sent, &view).map_err(drop)?;
    let changed = forward.and_then(|forward| forward.changed_target(sent.uri.path(), sent.uri.query(), &view));
    let target = changed.unwrap_or_else(|| sent.uri.to_string());
    Ok(Some(format!("{} {target}", sent.method)))
}

/// Returns the digest of the values of those fields that the target gets.
pub fn variance(names: &[HeaderName], request: &RequestHeader, ctx: &Context) -> KeyDigest {
    let edits = &ctx.exchange.edits;
    let own = ctx.serving.snapshot.identity_headers.consumer.as_ref();
    let of = |headers| KEY_TEXT.with_borrow_mut(|text| variant_key(names, headers, text));
    if !names.iter().any(|name| own == Some(name) || edits.touch_header(name)) {
        return of(&request.headers);
    }
    let mut headers = request.headers.clone();
    if let (Some(name), Some(consumer)) = (own, consumer(&ctx.exchange))
        && let Ok(value) = HeaderValue::from_bytes(consumer.as_bytes())
    {
        headers.insert(name.clone(), value);
    }
    edits.apply_to_headers(&mut headers, &ctx.view(request));
    of(&headers)
}

/// Returns the names of the fields that a response varies with.
///
/// # Errors
/// When it cannot be found by them, or purged by its tags.
pub fn check_stored(
    policy: &CachePolicy,
    response: &ResponseHeader,
    ctx: &Context,
) -> Result<Vec<HeaderName>, NotStored> {
    policy.tags(&response.headers)?;
    let names = policy.vary_names(&response.headers).ok_or(NotStored::Varies)?;
    // Which upstream of a split a request gets is not known when it is looked up.
    let shares = ctx.forward().map_or(&[][..], |forward| &forward.share_edits);
    let is_of_share = |name: &HeaderName| shares.iter().any(|share| Edit::touch_header(&share.request, name));
    if names.iter().any(is_of_share) { Err(NotStored::Varies) } else { Ok(names) }
}

/// Returns the URL by which the response to a request is purged: without the parameters that are not part of its key,
/// and without credentials.
pub fn stored_url(request: &CachedRequest, target: &Uri, policy: &CachePolicy, ctx: &Context) -> Box<str> {
    url_of((request.scheme, &request.authority), target, &policy.key, ctx)
}

/// Returns the URL of a request by some rules, without credentials.
pub fn url_of((scheme, authority): (&str, &str), target: &Uri, rules: &KeyRules, ctx: &Context) -> Box<str> {
    let secrets: SmallVec<[&str; 2]> = secrets(ctx).collect();
    let query = kept_query(target.query(), rules, &secrets);
    purge_url(scheme, authority, target.path(), query.as_deref())
}
