//! What happens to a request for which nothing that can be used is stored: it fetches the response, waits for another
//! one that does, or goes on to its target.

use std::sync::Arc;
use std::time::Instant;

use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;

use super::fetch::{Fetch, FetchClient, FetchResult, FetchedFrom, StaleEntry, fetched_head};
use super::flights::{FlightGuard, FlightKey, FlightPart, FlightState, FlightWaiter};
use super::own::OwnFill;
use super::serve::CachedResponse;
use super::{CacheUse, CachedRequest, flight_key, has_fresh, is_head};
use crate::edge::proxy::interim::{self, MAX_INTERIM_RESPONSES};
use crate::edge::proxy::pick::fail_with;
use crate::edge::proxy::waiting::{Waited, wait};
use crate::edge::proxy::{Context, Gateway, deadline};
use crate::exchange::{Reason, Rejection};
use crate::filters::CachePolicy;
use crate::live::{StoredKey, StoredResponse};
use crate::rules::caching::{CacheHandling, CacheOutcome, ForwardReason};

/// The most refreshes in the background at a time; further ones wait for the next request.
static REFRESHES: Semaphore = Semaphore::const_new(256);

/// What a request lacks.
pub struct CacheMiss {
    /// Why it is forwarded.
    pub reason: ForwardReason,
    /// The variant, if it is known.
    pub variant: Option<StoredKey>,
    /// The stored response, which has to be validated.
    pub stale: Option<(StaleEntry, StoredResponse)>,
}

/// What follows.
pub enum AfterMiss {
    /// The request was responded to.
    Responded,
    /// It goes on to its target.
    Forward,
    /// There may be a response in the store now.
    LookAgain,
}

/// The result of a fetch with its origin, as the client gets it.
type Fetched = (FetchResult, Option<FetchedFrom>);

impl Gateway {
    /// Fetches a response, or waits for the fetch of another request.
    pub(super) async fn fetch_or_wait(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        policy: &Arc<CachePolicy>,
        cached: &CachedRequest,
        missing: CacheMiss,
    ) -> Result<AfterMiss> {
        if cached.directives.only_if_cached {
            ctx.exchange.cache = Some(CacheOutcome::Bypass);
            ctx.cache = Some(CacheUse::forwarded(policy, missing.reason));
            self.reject_not_cached(session, ctx).await?;
            return Ok(AfterMiss::Responded);
        }
        if missing.stale.is_none() && (cached.store.directives.no_store || is_head(session.req_header())) {
            // What comes could not be stored.
            return Ok(forward(ctx, policy, missing.reason, None));
        }
        let key = flight_key(cached, missing.variant);
        let is_unshared = self.flights.is_unshared(&key);
        if is_unshared && missing.stale.is_none() && is_conditional(session.req_header()) {
            // What comes is not stored, so that the target can respond to the request as it is.
            return Ok(forward(ctx, policy, missing.reason, None));
        }
        let guard = if is_unshared || cached.store.directives.no_store {
            self.flights.alone()
        } else {
            match self.flights.join(key) {
                // Another one may have stored a response since this one looked. Those who wait look again.
                FlightPart::Leader(_) if has_fresh(policy, cached, session.req_header(), ctx).await => {
                    return Ok(AfterMiss::LookAgain);
                }
                FlightPart::Leader(guard) => guard,
                FlightPart::Follower(waiter) => {
                    return self.follow(session, ctx, policy, (&waiter, missing)).await;
                }
            }
        };
        self.lead(session, ctx, policy, cached, (key, guard, missing)).await
    }

    /// Waits for the fetch of another request.
    async fn follow(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        policy: &Arc<CachePolicy>,
        (waiter, missing): (&FlightWaiter, CacheMiss),
    ) -> Result<AfterMiss> {
        let waiting = tokio::time::timeout(policy.lock_timeout, waiter.wait());
        let state = match wait(&ctx.downstream, client_deadline(ctx, session.req_header()), waiting).await {
            Waited::Done(Ok(state)) => state,
            Waited::Done(Err(_)) => return Ok(forward(ctx, policy, missing.reason, Some("lock-timeout"))),
            Waited::Late => return self.end_waiting(session, ctx, Reason::RouteTimeout).await,
            Waited::Gone => return self.end_waiting(session, ctx, Reason::ClientGone).await,
        };
        let stale = missing.stale.filter(|(stale, _)| stale.is_usable);
        match (state, stale) {
            (FlightState::Failed(rejection), None) => {
                ctx.exchange.cache = Some(CacheOutcome::Collapsed);
                ctx.cache = Some(CacheUse::forwarded(policy, missing.reason));
                Box::pin(self.reject(session, &rejection, ctx)).await?;
                Ok(AfterMiss::Responded)
            }
            (FlightState::Failed(_), Some((_, stored))) => {
                let found = stale_found(stored, missing.reason, None, None);
                self.send_stored(session, ctx, policy, found).await?;
                Ok(AfterMiss::Responded)
            }
            _ => Ok(AfterMiss::LookAgain),
        }
    }

    /// Begins a fetch, and serves its response.
    async fn lead(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        policy: &Arc<CachePolicy>,
        cached: &CachedRequest,
        (key, guard, missing): (FlightKey, FlightGuard, CacheMiss),
    ) -> Result<AfterMiss> {
        if ctx.makes_response() {
            let started = policy.store.generation();
            let mut made = CacheUse::forwarded(policy, missing.reason);
            made.own = Some(OwnFill { guard, flight: key, request: cached.clone(), started });
            ctx.cache = Some(made);
            ctx.exchange.cache = Some(CacheOutcome::Pass);
            return Ok(AfterMiss::Forward);
        }
        let (result, received) = oneshot::channel();
        let (interim, interims) = channel(MAX_INTERIM_RESPONSES as usize);
        let (stale, stored) = missing.stale.unzip();
        let client = FetchClient { result, interim };
        // Dropped where the client goes, which ends the fetch if nobody else waits for it.
        let waiter = guard.waiter();
        let fetch = self.new_fetch(session.req_header(), ctx, policy, cached, (key, guard, stale, Some(client)));
        waiter.ends(&tokio::spawn(fetch.run()));
        let (result, from) = match self.receive(session, ctx, (received, interims)).await? {
            Ok(fetched) => fetched,
            Err(reason) => {
                drop(waiter);
                return self.end_waiting(session, ctx, reason).await;
            }
        };
        drop(waiter);
        self.serve_result(session, ctx, policy, (result, from, stored, missing.reason)).await?;
        Ok(AfterMiss::Responded)
    }

    /// Serves the result of a fetch to the client that has begun it.
    async fn serve_result(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        policy: &Arc<CachePolicy>,
        (result, from, stored, reason): (FetchResult, Option<FetchedFrom>, Option<StoredResponse>, ForwardReason),
    ) -> Result<()> {
        let handling = CacheHandling { forwarded: Some(reason), ..CacheHandling::default() };
        match (result, stored) {
            (FetchResult::Stored(stored, head), _) => {
                let handling = CacheHandling { stored: true, ..handling };
                let (outcome, fetched) = (CacheOutcome::Miss, Some(head));
                let found = CachedResponse { stored, outcome, handling, from, fetched, has_alternative: false };
                self.send_stored(session, ctx, policy, found).await.map(drop)
            }
            (FetchResult::Confirmed(head), Some(stored)) => {
                let handling = CacheHandling { stored: true, forward_status: Some(304), ..handling };
                let stored = StoredResponse { head, stale_since: None, ..stored };
                let found = CachedResponse {
                    stored,
                    outcome: CacheOutcome::Revalidated,
                    handling,
                    from,
                    fetched: None,
                    has_alternative: false,
                };
                self.send_stored(session, ctx, policy, found).await.map(drop)
            }
            (FetchResult::OriginFailed(status), Some(stored)) => {
                let found = stale_found(stored, reason, from, Some(status));
                self.send_stored(session, ctx, policy, found).await.map(drop)
            }
            (FetchResult::Passed(passed, why), _) => {
                let (response, visit, mut edits) = *passed;
                ctx.visit = Some(visit);
                ctx.exchange.response_edits.append(&mut edits);
                let mut passed = CacheUse::forwarded(policy, reason);
                passed.handling.detail = Some(why.word());
                ctx.cache = Some(passed);
                ctx.exchange.cache = Some(CacheOutcome::Pass);
                Box::pin(self.send_response(session, ctx, response)).await
            }
            (FetchResult::Failed(rejection), stored) => {
                match stored.filter(|stored| self.is_usable_on_error(stored, policy, session)) {
                    Some(stored) => {
                        let found = stale_found(stored, reason, from, None);
                        self.send_stored(session, ctx, policy, found).await.map(drop)
                    }
                    None => {
                        let mut failed = CacheUse::forwarded(policy, reason);
                        failed.from = from;
                        ctx.cache = Some(failed);
                        ctx.exchange.cache = Some(CacheOutcome::Pass);
                        Box::pin(self.reject(session, &rejection, ctx)).await
                    }
                }
            }
            (FetchResult::Confirmed(_) | FetchResult::OriginFailed(_), None) => {
                let rejection = Rejection::new(Reason::Internal, "").log("a validation without a stored response");
                Box::pin(self.reject(session, &rejection, ctx)).await
            }
        }
    }

    /// Begins a refresh in the background, unless one is under way.
    pub(super) fn refresh(
        &self,
        request: &RequestHeader,
        ctx: &Context,
        policy: &Arc<CachePolicy>,
        (cached, stored, variant): (&CachedRequest, &StoredResponse, Option<StoredKey>),
    ) {
        let Ok(permit) = REFRESHES.try_acquire() else { return };
        let key = flight_key(cached, variant);
        let FlightPart::Leader(guard) = self.flights.join(key) else { return };
        let stale = StaleEntry { head: Arc::clone(&stored.head), variant, is_usable: true };
        let fetch = self.new_fetch(request, ctx, policy, cached, (key, guard, Some(stale), None));
        tokio::spawn(async move {
            fetch.run().await;
            drop(permit);
        });
    }

    fn new_fetch(
        &self,
        request: &RequestHeader,
        ctx: &Context,
        policy: &Arc<CachePolicy>,
        cached: &CachedRequest,
        (flight, guard, stale, client): (FlightKey, FlightGuard, Option<StaleEntry>, Option<FetchClient>),
    ) -> Fetch {
        let mut head = fetched_head(request);
        if let (true, Some(name)) =
            (guard.is_shared(), ctx.forward().and_then(|forward| forward.deadline_header.as_ref()))
        {
            // The others may wait longer than this client.
            head.remove_header(name);
        }
        Fetch {
            gateway: self.clone(),
            ctx: Box::new(ctx.for_fetch()),
            head,
            policy: Arc::clone(policy),
            request: cached.clone(),
            started: policy.store.generation(),
            stale,
            flight,
            guard,
            client,
        }
    }

    /// Waits for the result of a fetch, and sends interim responses to the client meanwhile. Returns the reason when
    /// the client is gone, or its time is over.
    async fn receive(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (mut received, mut interims): (oneshot::Receiver<Fetched>, Receiver<ResponseHeader>),
    ) -> Result<std::result::Result<Fetched, Reason>> {
        enum Event {
            Interim(ResponseHeader),
            Result(Fetched),
        }
        let until = client_deadline(ctx, session.req_header());
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    Some(head) = interims.recv() => Event::Interim(head),
                    result = &mut received => Event::Result(result.unwrap_or_else(|_| lost())),
                }
            };
            match wait(&ctx.downstream, until, next).await {
                Waited::Done(Event::Result(result)) => return Ok(Ok(result)),
                Waited::Done(Event::Interim(head)) => {
                    interim::forward_interim(session, head, &mut ctx.interims).await?;
                }
                Waited::Late => return Ok(Err(Reason::RouteTimeout)),
                Waited::Gone => return Ok(Err(Reason::ClientGone)),
            }
        }
    }

    /// Ends a request whose client is gone, or whose time is over.
    async fn end_waiting(&self, session: &mut Session, ctx: &mut Context, reason: Reason) -> Result<AfterMiss> {
        if reason != Reason::ClientGone {
            Box::pin(self.reject(session, &Rejection::new(reason, ""), ctx)).await?;
            return Ok(AfterMiss::Responded);
        }
        let error = fail_with(ctx, Rejection::new(reason, ""));
        Box::pin(self.respond_to_failure(session, &error, ctx)).await;
        ctx.close_after(session);
        Ok(AfterMiss::Responded)
    }
}

/// Returns the result of a fetch that has ended without one: a fault of the gateway.
fn lost() -> Fetched {
    (FetchResult::Failed(Rejection::new(Reason::Internal, "").log("a fetch for the cache was lost")), None)
}

/// Returns the end of the time that the client of a request waits. The route's own time holds for the fetch.
pub(super) fn client_deadline(ctx: &Context, request: &RequestHeader) -> Option<Instant> {
    deadline::client_deadline(&request.headers, ctx.forward()?, ctx.exchange.started, ctx.exchange.grpc)
}

/// Returns whether a request wants a part of a response, or none of it if it has not changed.
fn is_conditional(request: &RequestHeader) -> bool {
    [RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE].iter().any(|name| request.headers.contains_key(name))
}

/// Lets a request go on to its target.
pub(super) fn forward(
    ctx: &mut Context,
    policy: &Arc<CachePolicy>,
    reason: ForwardReason,
    detail: Option<&'static str>,
) -> AfterMiss {
    let mut passed = CacheUse::forwarded(policy, reason);
    passed.handling.detail = detail;
    ctx.cache = Some(passed);
    ctx.exchange.cache = Some(CacheOutcome::Pass);
    AfterMiss::Forward
}

/// Returns a stale response that is used because the targets fail.
fn stale_found(
    stored: StoredResponse,
    reason: ForwardReason,
    from: Option<FetchedFrom>,
    status: Option<u16>,
) -> CachedResponse {
    let handling = CacheHandling { forwarded: Some(reason), forward_status: status, ..CacheHandling::default() };
    let handling = CacheHandling { detail: Some("stale-if-error"), ..handling };
    CachedResponse { stored, outcome: CacheOutcome::Stale, handling, from, fetched: None, has_alternative: false }
}
