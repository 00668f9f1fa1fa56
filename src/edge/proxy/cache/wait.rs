//! What happens to a request for which nothing that can be used is stored: it fetches the response, waits for another
//! one that does, or goes on to its target.

use std::sync::Arc;

use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;

use super::fetch::{Fetch, FetchClient, FetchResult, FetchedFrom, StaleEntry, fetched_head};
use super::flights::{Flight, FlightGuard, FlightKey, FlightPart, FlightState};
use super::own::OwnFill;
use super::serve::CachedResponse;
use super::{CacheUse, CachedRequest, flight_key, is_head};
use crate::edge::proxy::interim::{self, MAX_INTERIM_RESPONSES};
use crate::edge::proxy::pick::fail_with;
use crate::edge::proxy::waiting::{Waited, wait};
use crate::edge::proxy::{Context, Gateway};
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
        let guard = if self.flights.is_unshared(&key) || cached.store.directives.no_store {
            self.flights.alone()
        } else {
            match self.flights.join(key) {
                FlightPart::Leader(guard) => guard,
                FlightPart::Follower(flight) => {
                    return self.follow(session, ctx, policy, (&flight, missing)).await;
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
        (flight, missing): (&Flight, CacheMiss),
    ) -> Result<AfterMiss> {
        let waiting = tokio::time::timeout(policy.lock_timeout, flight.wait());
        let state = match wait(&ctx.downstream, None, waiting).await {
            Waited::Done(Ok(state)) => state,
            Waited::Done(Err(_)) => return Ok(forward(ctx, policy, missing.reason, Some("lock-timeout"))),
            Waited::Late | Waited::Gone => return self.end_gone(session, ctx).await,
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
        if ctx.forward().is_none() {
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
        self.spawn_fetch(session.req_header(), ctx, policy, cached, (key, guard, stale, Some(client)));
        let Some((result, from)) = self.receive(session, ctx, (received, interims)).await? else {
            return self.end_gone(session, ctx).await;
        };
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
                let found = CachedResponse { stored, outcome: CacheOutcome::Miss, handling, from, fetched: Some(head) };
                self.send_stored(session, ctx, policy, found).await
            }
            (FetchResult::Confirmed(head), Some(stored)) => {
                let handling = CacheHandling { stored: true, forward_status: Some(304), ..handling };
                let stored = StoredResponse { head, stale_since: None, ..stored };
                let found =
                    CachedResponse { stored, outcome: CacheOutcome::Revalidated, handling, from, fetched: None };
                self.send_stored(session, ctx, policy, found).await
            }
            (FetchResult::OriginFailed(status), Some(stored)) => {
                let found = stale_found(stored, reason, from, Some(status));
                self.send_stored(session, ctx, policy, found).await
            }
            (FetchResult::Passed(passed, why), _) => {
                let (response, visit) = *passed;
                ctx.visit = Some(visit);
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
                        self.send_stored(session, ctx, policy, found).await
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

    fn spawn_fetch(
        &self,
        request: &RequestHeader,
        ctx: &Context,
        policy: &Arc<CachePolicy>,
        cached: &CachedRequest,
        parts: (FlightKey, FlightGuard, Option<StaleEntry>, Option<FetchClient>),
    ) {
        tokio::spawn(self.new_fetch(request, ctx, policy, cached, parts).run());
    }

    fn new_fetch(
        &self,
        request: &RequestHeader,
        ctx: &Context,
        policy: &Arc<CachePolicy>,
        cached: &CachedRequest,
        (flight, guard, stale, client): (FlightKey, FlightGuard, Option<StaleEntry>, Option<FetchClient>),
    ) -> Fetch {
        Fetch {
            gateway: self.clone(),
            ctx: Box::new(ctx.for_fetch()),
            head: fetched_head(request),
            policy: Arc::clone(policy),
            request: cached.clone(),
            started: policy.store.generation(),
            stale,
            flight,
            guard,
            client,
        }
    }

    /// Waits for the result of a fetch, and sends interim responses to the client meanwhile. Returns `None` when the
    /// client is gone.
    async fn receive(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (mut received, mut interims): (oneshot::Receiver<Fetched>, Receiver<ResponseHeader>),
    ) -> Result<Option<Fetched>> {
        enum Event {
            Interim(ResponseHeader),
            Result(Fetched),
        }
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    Some(head) = interims.recv() => Event::Interim(head),
                    result = &mut received => Event::Result(result.unwrap_or_else(|_| lost())),
                }
            };
            match wait(&ctx.downstream, None, next).await {
                Waited::Done(Event::Result(result)) => return Ok(Some(result)),
                Waited::Done(Event::Interim(head)) => {
                    interim::forward_interim(session, head, &mut ctx.interims).await?;
                }
                Waited::Late | Waited::Gone => return Ok(None),
            }
        }
    }

    /// Ends a request whose client is gone.
    async fn end_gone(&self, session: &mut Session, ctx: &mut Context) -> Result<AfterMiss> {
        let error = fail_with(ctx, Rejection::new(Reason::ClientGone, ""));
        Box::pin(self.respond_to_failure(session, &error, ctx)).await;
        ctx.close_after(session);
        Ok(AfterMiss::Responded)
    }
}

/// Returns the result of a fetch that has ended without one: a fault of the gateway.
fn lost() -> Fetched {
    (FetchResult::Failed(Rejection::new(Reason::Internal, "").log("a fetch for the cache was lost")), None)
}

/// Lets a request go on to its target.
fn forward(
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
    CachedResponse { stored, outcome: CacheOutcome::Stale, handling, from, fetched: None }
}
