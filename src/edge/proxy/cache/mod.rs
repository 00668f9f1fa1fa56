//! The cache of a route: looks a request up, serves it from the store, or has a response fetched into it.
//!
//! This is a way of its own beside Pingora's cache, whose state machine ties a fill to the client that begins it: when
//! that client's request is dropped, a debug build panics in the drop of the write lock ("dangling"), and all others
//! begin anew. It also answers the first client from the stored head, so that cookies and interim responses are lost;
//! never refreshes for HTTP/2 clients (the background request is parsed from its HTTP/2 form and rejected); merges five
//! fields of a 304; forwards HEAD as GET; and costs a hit two more copies of its head. Here a fetch is a task that goes
//! on while anybody waits for it, over the visits, retries and connections of the relay, and a hit is a look-up and one
//! write.

mod fetch;
mod flights;
mod invalidate;
mod key;
mod own;
mod serve;
mod wait;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use http::header::{DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::{Context, Gateway};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::filters::CachePolicy;
use crate::live::{StoredHead, StoredKey, StoredResponse};
use crate::rules::caching::{
    CacheHandling, CacheOutcome, ForwardReason, RequestDirectives, Reuse, StaleLimits, StoreRequest, StoredFacts,
    cache_status, date_of, is_invalidating,
};
use crate::rules::files::Validators;

use fetch::{FetchedFrom, StaleEntry};
pub use flights::Flights;
pub use invalidate::invalidate;

use flights::FlightKey;
use key::{cached_request, variance};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// How often a request that has waited for another one looks again.
const MAX_ROUNDS: u32 = 3;

/// What a request asks the cache for.
#[derive(Clone, Debug)]
pub struct CachedRequest {
    /// The key.
    pub key: StoredKey,
    scheme: &'static str,
    authority: String,
    /// The facts that decide on the storage of its response.
    pub store: StoreRequest,
    /// The directives that it is served by.
    directives: RequestDirectives,
}

/// What the cache has to do with a request that goes on.
#[derive(Debug)]
pub struct CacheUse {
    policy: Arc<CachePolicy>,
    /// What `Cache-Status` says.
    handling: CacheHandling,
    /// From where the response was fetched.
    pub from: Option<FetchedFrom>,
    /// Whether the request invalidates what is stored.
    invalidates: bool,
    /// What the action has to hand over, where it makes the response itself.
    own: Option<own::OwnFill>,
}

impl CacheUse {
    fn forwarded(policy: &Arc<CachePolicy>, reason: ForwardReason) -> Box<Self> {
        let handling = CacheHandling { forwarded: Some(reason), ..CacheHandling::default() };
        Box::new(Self { policy: Arc::clone(policy), handling, from: None, invalidates: false, own: None })
    }

    /// Adds what the response says of the cache, and removes what is for it alone.
    pub fn edit_head(&self, headers: &mut HeaderMap) {
        self.policy.removed.iter().for_each(|name| _ = headers.remove(name));
        if !self.policy.has_status_header {
            return;
        }
        if let Ok(value) = HeaderValue::try_from(cache_status(&self.handling)) {
            headers.append(CACHE_STATUS, value);
        }
    }
}

/// What is derived from a stored head once.
#[derive(Debug)]
struct HeadFacts {
    limits: StaleLimits,
    vary: Option<Vec<HeaderName>>,
    /// Those for the conditions of requests: where it is not said when the response was modified, that is when it was
    /// made (RFC 9111, section 4.3.2).
    validators: Validators,
    /// Those for ranges.
    range_validators: Validators,
}

impl HeadFacts {
    fn of(head: &StoredHead, policy: &CachePolicy) -> Self {
        let headers = &head.response.headers;
        let limits = match policy.rules.ttl.fixed {
            // A configured lifetime stands for what the response says of its use.
            Some(_) => StaleLimits::default(),
            None => StaleLimits::of(headers),
        };
        let (etag, modified) = (headers.get(ETAG).cloned(), date_of(headers, &LAST_MODIFIED));
        let made = date_of(headers, &DATE).unwrap_or(millis(head.created) / 1_000);
        Self {
            limits,
            vary: policy.vary_names(headers),
            validators: Validators { etag: etag.clone(), modified: modified.or(Some(made)) },
            range_validators: Validators { etag, modified },
        }
    }
}

/// Returns a time as milliseconds of Unix time.
fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Returns the time of milliseconds of Unix time.
fn time_of(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// What became of a stored response.
enum StoredUse {
    /// It was sent.
    Sent,
    /// It cannot be used as it is.
    Missing(wait::CacheMiss),
    /// It is being received, and nothing more of it comes.
    Stalled,
}

/// What was found for a request.
enum CacheLookup {
    /// A response, and its place among the variants.
    Found(StoredResponse, Option<StoredKey>),
    /// Nothing, and why; with the variant, if it is known which one is missing.
    Missing(ForwardReason, Option<StoredKey>),
}

impl Gateway {
    /// Serves a request from the cache of its route, or has its response fetched into it. Returns whether the request
    /// was responded to; otherwise it goes on to its target.
    ///
    /// # Errors
    /// Fails where a response has begun and cannot be completed.
    pub(super) async fn serve_cached(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        policy: &Arc<CachePolicy>,
    ) -> Result<bool> {
        let is_empty = session.is_body_empty();
        let is_upgrade = session.is_upgrade_req();
        let request = session.req_header();
        if let Some(reason) = reason_to_forward(request, &ctx.exchange, policy, is_empty && !is_upgrade) {
            let mut passed = CacheUse::forwarded(policy, reason);
            passed.invalidates = is_invalidating(&request.method);
            ctx.exchange.cache = Some(CacheOutcome::Bypass);
            ctx.cache = Some(passed);
            return Ok(false);
        }
        let serving = Arc::clone(&ctx.serving);
        let chain = serving.route(ctx.matched.route).map(|route| route.filters(ctx.listener));
        let authenticates = chain.is_some_and(|it| it.authenticates(request, &ctx.exchange, &mut ctx.memories));
        let Some(cached) = cached_request(request, ctx, policy, authenticates) else {
            ctx.exchange.cache = Some(CacheOutcome::Bypass);
            ctx.cache = Some(CacheUse::forwarded(policy, ForwardReason::Bypass));
            return Ok(false);
        };
        let mut has_waited = false;
        for _ in 0..MAX_ROUNDS {
            let missing = match look_up(policy, &cached, session.req_header(), ctx).await {
                CacheLookup::Found(stored, variant) => {
                    match self.use_stored(session, ctx, policy, (&cached, stored, variant, has_waited)).await? {
                        StoredUse::Missing(missing) => missing,
                        StoredUse::Sent => return Ok(true),
                        StoredUse::Stalled => {
                            wait::forward(ctx, policy, ForwardReason::UriMiss, Some("lock-timeout"));
                            return Ok(false);
                        }
                    }
                }
                CacheLookup::Missing(reason, variant) => wait::CacheMiss { reason, variant, stale: None },
            };
            match self.fetch_or_wait(session, ctx, policy, &cached, missing).await? {
                wait::AfterMiss::Responded => return Ok(true),
                wait::AfterMiss::Forward => return Ok(false),
                wait::AfterMiss::LookAgain => has_waited = true,
            }
        }
        ctx.exchange.cache = Some(CacheOutcome::Pass);
        ctx.cache = Some(CacheUse::forwarded(policy, ForwardReason::UriMiss));
        Ok(false)
    }

    /// Sends a stored response if it may be used as it is; otherwise returns what the request lacks.
    async fn use_stored(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        policy: &Arc<CachePolicy>,
        (cached, stored, variant, has_waited): (&CachedRequest, StoredResponse, Option<StoredKey>, bool),
    ) -> Result<StoredUse> {
        let now = millis(SystemTime::now());
        let facts = stored_facts(&stored, policy);
        let outcome = match facts.reuse(&cached.directives, now) {
            Reuse::Validate { by_request, unless_error } => {
                let reason = if by_request { ForwardReason::Request } else { ForwardReason::Stale };
                let stale = StaleEntry { head: Arc::clone(&stored.head), variant, is_usable: unless_error };
                return Ok(StoredUse::Missing(wait::CacheMiss { reason, variant, stale: Some((stale, stored)) }));
            }
            _ if has_waited => CacheOutcome::Collapsed,
            Reuse::Fresh => CacheOutcome::Hit,
            Reuse::AcceptedStale => CacheOutcome::Stale,
            Reuse::WhileRevalidating if ctx.makes_response() => {
                // Nothing makes the response but this request itself.
                let missing = wait::CacheMiss { reason: ForwardReason::Stale, variant, stale: None };
                return Ok(StoredUse::Missing(missing));
            }
            Reuse::WhileRevalidating => {
                self.refresh(session.req_header(), ctx, policy, (cached, &stored, variant));
                CacheOutcome::Stale
            }
        };
        let handling = CacheHandling {
            ttl: Some(facts.ttl(now)),
            forwarded: has_waited.then_some(ForwardReason::UriMiss),
            collapsed: has_waited,
            ..CacheHandling::default()
        };
        let found =
            serve::CachedResponse { stored, outcome, handling, from: None, fetched: None, has_alternative: true };
        let is_sent = self.send_stored(session, ctx, policy, found).await?;
        Ok(if is_sent { StoredUse::Sent } else { StoredUse::Stalled })
    }

    /// Rejects a request that wants a response from the cache alone (RFC 9111, section 5.2.1.7).
    async fn reject_not_cached(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let rejection = Rejection::new(Reason::NotCached, "");
        Box::pin(self.reject(session, &rejection, ctx)).await
    }
}

/// Returns why a request has nothing to do with the cache, if it has not.
fn reason_to_forward(
    request: &RequestHeader,
    exchange: &Exchange,
    policy: &CachePolicy,
    is_plain: bool,
) -> Option<ForwardReason> {
    if !policy.has_method(&request.method) {
        return Some(ForwardReason::Method);
    }
    // These are for the origin (RFC 9110, section 13.1.1 and 13.1.4).
    let is_for_origin = request.headers.contains_key(IF_MATCH) || request.headers.contains_key(IF_UNMODIFIED_SINCE);
    let passes = !is_plain || exchange.is_grpc() || is_for_origin || policy.is_bypassed(request, exchange);
    passes.then_some(ForwardReason::Bypass)
}

/// Returns the facts of a stored response, which are derived once.
fn head_facts(head: &StoredHead, policy: &CachePolicy) -> Arc<HeadFacts> {
    head.memo.get_or_make(|| HeadFacts::of(head, policy)).unwrap_or_else(|| Arc::new(HeadFacts::of(head, policy)))
}

fn stored_facts(stored: &StoredResponse, policy: &CachePolicy) -> StoredFacts {
    let head = &stored.head;
    let purged = stored.stale_since.map_or(i64::MAX, millis);
    StoredFacts {
        age_from: millis(head.age_from),
        fresh_until: millis(head.fresh_until).min(purged),
        stale_while_revalidate: head.stale_while_revalidate,
        stale_if_error: head.stale_if_error,
        limits: head_facts(head, policy).limits,
    }
}

/// Finds the stored response for a request: the first variant of its key, or the one that the request's fields select.
async fn look_up(policy: &CachePolicy, cached: &CachedRequest, request: &RequestHeader, ctx: &Context) -> CacheLookup {
    let Some(first) = policy.store.find(&cached.key, None).await else {
        return CacheLookup::Missing(ForwardReason::UriMiss, None);
    };
    let facts = head_facts(&first.head, policy);
    // Nothing that varies with anything is stored, but the configuration may have changed.
    let Some(names) = &facts.vary else { return CacheLookup::Missing(ForwardReason::VaryMiss, None) };
    if names.is_empty() {
        return CacheLookup::Found(first, None);
    }
    let variance = variance(names, request, ctx);
    if first.head.variance == Some(variance) {
        return CacheLookup::Found(first, None);
    }
    let variant = StoredKey(variance);
    match policy.store.find(&cached.key, Some(&variant)).await {
        Some(found) => CacheLookup::Found(found, Some(variant)),
        None => CacheLookup::Missing(ForwardReason::VaryMiss, Some(variant)),
    }
}

/// Returns whether a fresh response to a request is stored, or is being received.
async fn has_fresh(policy: &CachePolicy, cached: &CachedRequest, request: &RequestHeader, ctx: &Context) -> bool {
    let CacheLookup::Found(stored, _) = look_up(policy, cached, request, ctx).await else { return false };
    stored_facts(&stored, policy).reuse(&cached.directives, millis(SystemTime::now())) == Reuse::Fresh
}

/// Returns the key of the fetch for a request.
fn flight_key(cached: &CachedRequest, variant: Option<StoredKey>) -> FlightKey {
    (cached.key, variant, cached.store.is_authorized)
}

/// Returns whether a request is one for the head alone.
fn is_head(request: &RequestHeader) -> bool {
    request.method == Method::HEAD
}

/// Adds to the head of a response what it says of the cache.
pub(super) fn edit_head(ctx: &Context, response: &mut ResponseHeader) {
    if let Some(cache) = &ctx.cache {
        super::response::edit_response(response, |headers| cache.edit_head(headers));
    }
}
