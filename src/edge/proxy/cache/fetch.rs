//! A fetch of a response for the cache: a task of its own, which goes on when the client that has begun it is gone, as
//! long as others wait for it, or once its response has begun to come.
//!
//! It sends the request of one client to the targets of a visit, and streams the response into the store, from which
//! that client and all others are served. A response that may not be stored goes to the one client alone.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE,
    TRANSFER_ENCODING,
};
use pingora::http::{RequestHeader, ResponseHeader};
use tokio::sync::mpsc::Sender;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::timeout_at;

use super::flights::{FlightGuard, FlightKey, FlightState};
use super::key::{check_stored, stored_url, variance};
use super::{CachedRequest, millis, time_of};
use crate::edge::proxy::failure::is_method_repeatable;
use crate::edge::proxy::hop_by_hop::drop_from_request;
use crate::edge::proxy::pick::connecting_caller;
use crate::edge::proxy::response::edit_response;
use crate::edge::proxy::{Context, Gateway};
use crate::exchange::{Edit, Reason, Rejection};
use crate::filters::CachePolicy;
use crate::live::{Filling, Generation, HeadMemo, StoredHead, StoredKey, StoredResponse};
use crate::rules::caching::{
    Freshness, NotStored, decide_storing, is_confirmed, merge_confirmed, prepare_stored, validation_fields,
};
use crate::upstreams::{Member, OutgoingRequest, Response, Upstream, Visit};

/// For how long it is remembered that responses for a key are not stored.
pub const UNSHARED_TIME: Duration = Duration::from_secs(10);

/// The same, of failures.
const FAILED_TIME: Duration = Duration::from_secs(1);

/// What may be unread of a response that is only passed on.
const MAX_UNREAD: u64 = 1 << 20;

/// The longest that the fetch waits for readers of such a response.
const MAX_READER_WAIT: Duration = Duration::from_secs(60);

/// The responses that are received at a time although no client reads them; further ones end with their last client.
static DETACHED: Semaphore = Semaphore::const_new(256);

/// The time after which it is looked again whether anybody reads a response of which nothing comes.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The result of a fetch, for the client that has begun it.
pub enum FetchResult {
    /// The response is being stored. The head is as the target has sent it.
    Stored(StoredResponse, Box<ResponseHeader>),
    /// The stored response was confirmed, and this is its new head.
    Confirmed(Arc<StoredHead>),
    /// The response is not stored. With it are the edits of its head that the share of the split makes.
    Passed(Box<(Response, Visit, Vec<Arc<[Edit]>>)>, NotStored),
    /// There is none.
    Failed(Box<Rejection>),
    /// The target has failed with that status, and a stale response can be used.
    OriginFailed(u16),
}

/// From where a response was fetched, for the log.
#[derive(Debug)]
pub struct FetchedFrom {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The target.
    pub member: Option<Arc<Member>>,
    /// The number of tries.
    pub tries: u32,
    /// How long it took to the head of the response.
    pub time: Option<Duration>,
    /// The edits of its head that the share of the split makes.
    pub edits: Vec<Arc<[Edit]>>,
    /// The cookie that binds the client to the target.
    pub cookie: Option<HeaderValue>,
}

/// The client that has begun a fetch.
pub struct FetchClient {
    /// Gets the result.
    pub result: oneshot::Sender<(FetchResult, Option<FetchedFrom>)>,
    /// Gets the heads of interim responses.
    pub interim: Sender<ResponseHeader>,
}

/// A stored response that is validated.
#[derive(Debug)]
pub struct StaleEntry {
    /// Its head.
    pub head: Arc<StoredHead>,
    /// Its place among the variants.
    pub variant: Option<StoredKey>,
    /// Whether it can be used if the targets fail.
    pub is_usable: bool,
}

/// A fetch.
pub struct Fetch {
    /// The gateway.
    pub gateway: Gateway,
    /// The context of the request to the targets.
    pub ctx: Box<Context>,
    /// The request's head as the client has sent it, without what is for this cache.
    pub head: RequestHeader,
    /// The policy of the route.
    pub policy: Arc<CachePolicy>,
    /// What is requested.
    pub request: CachedRequest,
    /// The time of the request, for purges.
    pub started: Generation,
    /// The stored response that is validated.
    pub stale: Option<StaleEntry>,
    /// The key of the flight.
    pub flight: FlightKey,
    /// What publishes the result.
    pub guard: FlightGuard,
    /// The client that waits.
    pub client: Option<FetchClient>,
}

/// Returns the head of a request for a whole response: without the fields of the client's connection, and without
/// conditions and ranges, which are evaluated here.
pub fn fetched_head(request: &RequestHeader) -> RequestHeader {
    let mut head = request.clone();
    drop_from_request(&mut head);
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE, EXPECT, CONTENT_LENGTH, TRANSFER_ENCODING] {
        head.remove_header(&name);
    }
    head.set_method(http::Method::GET);
    head
}

impl Fetch {
    /// Fetches the response.
    pub async fn run(mut self) {
        let mut validates = self.stale.is_some();
        loop {
            let sent = millis(SystemTime::now());
            let visit = match self.enter().await {
                Ok(visit) => visit,
                Err(rejection) => return self.fail(rejection, None),
            };
            let mut visit = visit;
            let response = self.send(&mut visit, validates).await;
            let response = match response {
                Ok(response) => response,
                Err(rejection) => {
                    let from = self.fetched_from(&visit);
                    return self.fail(rejection, Some(from));
                }
            };
            self.guard.note_response();
            let came = millis(SystemTime::now());
            if validates && response.head.status == http::StatusCode::NOT_MODIFIED {
                if let Some(stale) = &self.stale
                    && is_confirmed(&stale.head.response.headers, &response.head.headers)
                {
                    return self.confirm(response, visit, (sent, came)).await;
                }
                // It confirms another response than the stored one (RFC 9111, section 4.3.4).
                self.gateway.calls.release(response).await;
                validates = false;
                continue;
            }
            return self.take(response, visit, (sent, came)).await;
        }
    }

    /// Begins the visit.
    async fn enter(&mut self) -> Result<Visit, Box<Rejection>> {
        let internal = || Rejection::new(Reason::Internal, "");
        let serving = Arc::clone(&self.ctx.serving);
        let operation = self.ctx.exchange.operation;
        let forward = serving.route(self.ctx.matched.route).and_then(|route| route.action.forward(operation));
        let forward = forward.ok_or_else(internal)?;
        self.ctx.exchange.response_edits.clear();
        self.gateway.enter_upstream(&self.head, forward, None, &mut self.ctx).await?;
        self.ctx.visit.take().ok_or_else(internal)
    }

    async fn send(&mut self, visit: &mut Visit, validates: bool) -> Result<Response, Box<Rejection>> {
        let conditions: Vec<_> = match &self.stale {
            Some(stale) if validates => validation_fields(&stale.head.response.headers).collect(),
            _ => Vec::new(),
        };
        if self.client.is_some() {
            let mirrored = self.gateway.mirror_relayed(&self.head, &Bytes::new(), visit, &mut self.ctx);
            mirrored.map_err(|error| Rejection::new(Reason::Internal, "").log(error.to_string()))?;
        }
        let (gateway, ctx, head) = (&self.gateway, &*self.ctx, &self.head);
        let outgoing = OutgoingRequest {
            head,
            body: Bytes::new(),
            caller: connecting_caller(head, ctx),
            safe: is_method_repeatable(&head.method, ctx),
            hedged: is_method_repeatable(&head.method, ctx),
            upgrade: false,
            grpc: false,
            edit: &|request, member, deadline| {
                gateway.prepare(head, request, member, deadline, ctx)?;
                for (name, value) in &conditions {
                    request.insert_header(name.clone(), value.clone())?;
                }
                Ok(())
            },
            interim: self.client.as_ref().map(|client| client.interim.clone()),
            is_wanted: &|| true,
        };
        self.gateway.calls.send(visit, &outgoing).await
    }

    /// Publishes a failure.
    fn fail(self, rejection: Box<Rejection>, from: Option<FetchedFrom>) {
        from.iter().for_each(|from| count(from, rejection.reason.status()));
        self.guard.publish(match rejection.reason {
            // That is the matter of one client.
            Reason::ClientGone => FlightState::NotShared,
            _ => FlightState::Failed(rejection.clone()),
        });
        send_result(self.client, FetchResult::Failed(rejection), from);
    }

    /// Updates the stored response that a 304 has confirmed (RFC 9111, section 4.3.4).
    async fn confirm(self, response: Response, mut visit: Visit, times: (i64, i64)) {
        let from = self.fetched_from(&visit);
        count(&from, response.head.status.as_u16());
        visit.count_traffic([0, 0]);
        let Some(stale) = &self.stale else { return };
        let mut head = (*stale.head).clone();
        let rules = &self.policy.rules;
        let confirming = response.head.headers.clone();
        let age = confirming.get(AGE).cloned();
        edit_response(&mut head.response, |headers| {
            merge_confirmed(headers, confirming, rules.cookies);
            if let Some(age) = age {
                headers.insert(AGE, age);
            }
        });
        let status = head.response.status.as_u16();
        let decided = decide_storing(&self.request.store, status, &head.response.headers, rules, times);
        edit_response(&mut head.response, |headers| _ = headers.remove(AGE));
        head.memo = HeadMemo::default();
        let mut is_shared = false;
        let tagged = decided.and_then(|freshness| Ok((freshness, self.policy.tags(&head.response.headers)?)));
        if let Ok((freshness, tags)) = tagged {
            set_freshness(&mut head, &freshness, times.1);
            head.tags = tags;
            is_shared = freshness.fresh_until(times.1) > times.1;
            let key = &self.request.key;
            self.policy.store.replace_head(key, stale.variant.as_ref(), head.clone(), self.started);
        }
        self.publish_shared(is_shared);
        send_result(self.client, FetchResult::Confirmed(Arc::new(head)), Some(from));
        self.gateway.calls.release(response).await;
        visit.end();
    }

    /// Publishes whether a response can be used for others.
    fn publish_shared(&self, is_shared: bool) {
        let flights = &self.gateway.flights;
        if is_shared {
            flights.forget_unshared(&self.flight);
            self.guard.publish(FlightState::Stored);
        } else {
            flights.remember_unshared(&self.flight, UNSHARED_TIME);
            self.guard.publish(FlightState::NotShared);
        }
    }

    /// Stores a response, or passes it on.
    async fn take(self, mut response: Response, visit: Visit, times: (i64, i64)) {
        let status = response.head.status.as_u16();
        let is_failure = matches!(status, 500 | 502 | 503 | 504);
        if is_failure && self.stale.as_ref().is_some_and(|stale| stale.is_usable) {
            let from = self.fetched_from(&visit);
            count(&from, status);
            self.guard.publish(FlightState::NotShared);
            send_result(self.client, FetchResult::OriginFailed(status), Some(from));
            let _ = response.read(MAX_UNREAD as usize).await;
            return self.gateway.calls.release(response).await;
        }
        let headers = &response.head.headers;
        let decided = decide_storing(&self.request.store, status, headers, &self.policy.rules, times);
        let decided = decided.and_then(|freshness| match length_of(headers) {
            Some(length) if length > self.policy.max_object() => Err(NotStored::TooLarge),
            _ => check_stored(&self.policy, &response.head, &self.ctx).map(|names| (freshness, names)),
        });
        match decided {
            Ok((freshness, names)) => {
                let variance = (!names.is_empty()).then(|| variance(&names, &self.head, &self.ctx));
                self.store(response, visit, (freshness, variance), times).await;
            }
            Err(why) => self.pass(response, visit, why, is_failure),
        }
    }

    /// Hands a response to the client alone.
    fn pass(mut self, response: Response, visit: Visit, why: NotStored, is_failure: bool) {
        if why.is_lasting() {
            let time = if is_failure { FAILED_TIME } else { UNSHARED_TIME };
            self.gateway.flights.remember_unshared(&self.flight, time);
        }
        self.guard.publish(FlightState::NotShared);
        if let Some(client) = self.client.take() {
            // Where the client is gone, the response is dropped with its connection.
            let edits = std::mem::take(&mut self.ctx.exchange.response_edits);
            let _ = client.result.send((FetchResult::Passed(Box::new((response, visit, edits)), why), None));
        }
    }

    fn fetched_from(&self, visit: &Visit) -> FetchedFrom {
        let exchange = &self.ctx.exchange;
        FetchedFrom {
            upstream: Arc::clone(visit.upstream()),
            member: visit.member().cloned(),
            tries: visit.tries(),
            time: visit.response_time(),
            edits: exchange.response_edits.clone(),
            cookie: visit.session_cookie(exchange.peer.is_secure()),
        }
    }

    async fn store(
        mut self,
        mut response: Response,
        mut visit: Visit,
        (freshness, variance): (Freshness, Option<[u8; 16]>),
        times: (i64, i64),
    ) {
        let from = self.fetched_from(&visit);
        count(&from, response.head.status.as_u16());
        let url = stored_url(&self.request, &self.head.uri, &self.policy, &self.ctx);
        let head = new_head(&self.policy, url, &response.head, (&freshness, variance), times.1);
        let is_shared = freshness.fresh_until(times.1) > times.1;
        let store = Arc::clone(&self.policy.store);
        let variant = variant_for(&self.policy, &self.request.key, &head).await;
        let mut filling = store.begin(self.request.key, variant, head, self.started);
        // Of a body whose length is not known the others wait for the end: it may turn out to be too large, and is then
        // read at the pace of one client alone.
        let is_open = length_of(&response.head.headers).is_none();
        if is_open {
            filling.keep_private();
        } else {
            self.publish_shared(is_shared);
        }
        let (followed, is_refresh) = (filling.follow(), self.client.is_none());
        if let (Some(client), Some(followed)) = (self.client.take(), followed) {
            let result = FetchResult::Stored(followed, Box::new(response.head.clone()));
            let _ = client.result.send((result, Some(from)));
        }
        let mut length = 0;
        let is_whole = self.fill(&mut response, &visit, (&mut filling, is_refresh), &mut length).await;
        visit.count_traffic([0, length]);
        if is_whole {
            let is_stored = filling.finish().is_some();
            if is_open {
                self.publish_shared(is_shared && is_stored);
            }
            self.gateway.calls.release(response).await;
        }
        visit.end();
    }

    /// Streams the body into the store, and adds its bytes to `length`. Returns whether it is complete.
    async fn fill(
        &self,
        response: &mut Response,
        visit: &Visit,
        (filling, is_refresh): (&mut Filling, bool),
        length: &mut u64,
    ) -> bool {
        let (mut detached, mut is_given_up) = (None, false);
        loop {
            let Some(part) = next_part(response, visit, filling, (is_refresh, &mut detached)).await else {
                return false;
            };
            match part {
                Ok(Some(part)) => {
                    *length += part.len() as u64;
                    if *length > self.policy.max_object() {
                        filling.keep_no_longer();
                    }
                    filling.write(&part);
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
            if !filling.is_kept() {
                if !std::mem::replace(&mut is_given_up, true) {
                    self.publish_shared(false);
                }
                // Only those who read it already need the rest.
                let deadline = Instant::now() + MAX_READER_WAIT;
                match timeout_at(deadline.into(), filling.wait_for_readers(MAX_UNREAD)).await {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return false,
                }
            }
        }
    }
}

/// Reads the next part of a body. Returns `None` when the time of the route is over, or when nobody reads the body and
/// too many others are read for nobody.
async fn next_part(
    response: &mut Response,
    visit: &Visit,
    filling: &Filling,
    (is_refresh, detached): (bool, &mut Option<SemaphorePermit<'static>>),
) -> Option<pingora::Result<Option<Bytes>>> {
    let mut reading = std::pin::pin!(response.part());
    loop {
        if is_refresh || filling.has_readers() {
            *detached = None;
        } else if detached.is_none() {
            *detached = Some(DETACHED.try_acquire().ok()?);
        }
        let now = Instant::now();
        let look = visit.deadline().map_or(LOOK_INTERVAL, |at| at.saturating_duration_since(now).min(LOOK_INTERVAL));
        match timeout_at((now + look).into(), &mut reading).await {
            Ok(part) => return Some(part),
            Err(_) if visit.deadline().is_some_and(|at| Instant::now() >= at) => return None,
            Err(_) => {}
        }
    }
}

/// Returns the head of a response as it is stored; it came at `came`.
pub fn new_head(
    policy: &CachePolicy,
    url: Box<str>,
    response: &ResponseHeader,
    (freshness, variance): (&Freshness, Option<[u8; 16]>),
    came: i64,
) -> StoredHead {
    let time = time_of(came);
    let mut head = StoredHead {
        response: response.clone(),
        url,
        // What has others was not let through.
        tags: policy.tags(&response.headers).unwrap_or_default(),
        created: time,
        updated: time,
        age_from: time,
        fresh_until: time,
        stale_while_revalidate: 0,
        stale_if_error: 0,
        variance,
        memo: HeadMemo::default(),
    };
    edit_response(&mut head.response, |headers| prepare_stored(headers, policy.rules.cookies));
    set_freshness(&mut head, freshness, came);
    head
}

/// Returns the place of a response among the variants of its key: the first, unless that holds another variant.
pub async fn variant_for(policy: &CachePolicy, key: &StoredKey, head: &StoredHead) -> Option<StoredKey> {
    let variance = head.variance?;
    let first = policy.store.find(key, None).await?;
    let names = |head: &StoredHead| policy.vary_names(&head.response.headers);
    let replaces = first.head.variance == Some(variance) || names(&first.head) != names(head);
    (!replaces).then_some(StoredKey(variance))
}

/// Sends a result to the client that has begun a fetch, if it is still there.
fn send_result(client: Option<FetchClient>, result: FetchResult, from: Option<FetchedFrom>) {
    if let Some(client) = client {
        let _ = client.result.send((result, from));
    }
}

/// Counts a response of the upstream that is not sent to a client as it is.
fn count(from: &FetchedFrom, status: u16) {
    from.upstream.metrics().by_class.count(status);
}

fn set_freshness(head: &mut StoredHead, freshness: &Freshness, came: i64) {
    head.updated = time_of(came);
    head.age_from = time_of(came - i64::try_from(freshness.initial_age).unwrap_or(0) * 1_000);
    head.fresh_until = time_of(freshness.fresh_until(came));
    let seconds = |seconds: u64| u32::try_from(seconds).unwrap_or(u32::MAX);
    head.stale_while_revalidate = seconds(freshness.stale_while_revalidate);
    head.stale_if_error = seconds(freshness.stale_if_error);
}

fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
