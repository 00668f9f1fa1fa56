//! The filters of a route, in their order.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderName, HeaderValue, SET_COOKIE, WWW_AUTHENTICATE,
};
use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use super::{CachePolicy, Condition, Filter, Memory, ResponseView, Stage, Unauthenticated, Verdict};
use crate::exchange::{Edit, Exchange, Reason, Rejection, WouldReject};
use crate::rules::payload::{BodyChain, Decoder};
use crate::telemetry::metrics::METRICS;

/// The fields of a head that describe a body and no longer hold once it is changed, except its length.
static BODY_FIELDS: [HeaderName; 5] = [
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// A filter in a chain.
#[derive(Clone, Debug)]
pub struct ChainLink {
    /// The filter.
    pub filter: Arc<Filter>,
    /// Whether requests that it rejects are rejected, and not only counted.
    pub enforced: bool,
    /// The condition under which it runs.
    pub condition: Option<Arc<Condition>>,
}

/// The filters of a route in the order in which they run on requests.
#[derive(Debug, Default)]
pub struct Chain {
    links: Vec<ChainLink>,
    /// Whether a filter needs whole bodies of requests.
    needs_bodies: bool,
    /// For authenticators that are not enforced, the edits of a request that they do not accept: its credentials may be
    /// for the target, but what only an authenticator may set is removed.
    trial_edits: Vec<(usize, Arc<[Edit]>)>,
    /// Whether a filter may wait for a long time.
    may_wait: bool,
    /// Whether a filter reads the parameters of the path.
    reads_params: bool,
    /// Whether a filter has a condition.
    has_conditions: bool,
    /// The place of the cache.
    cache: Option<usize>,
    /// Whether a filter may replace a response once it has seen the body.
    judges_responses: bool,
    /// Whether a filter is given whole responses only.
    needs_whole_responses: bool,
}

/// The memories of the filters of a chain for one request. Most filters remember nothing, and cost nothing.
#[derive(Debug, Default)]
pub struct Memories {
    list: SmallVec<[(usize, Memory); 1]>,
    /// Of the filters with conditions, bits of those whose condition was evaluated, and of those that are skipped.
    evaluated: u64,
    skipped: u64,
}

impl Memories {
    /// Forgets what filters remember: the response ends, and what was held for it is free before the client knows.
    pub fn clear(&mut self) {
        self.list.clear();
    }
}

/// The place of one filter's memory.
pub(super) struct Slot<'m> {
    memories: &'m mut Memories,
    index: usize,
}

impl<'m> Slot<'m> {
    /// Returns the memory of the filter, which `make` creates.
    pub(super) fn get(self, make: impl FnOnce() -> Memory) -> &'m mut Memory {
        let list = &mut self.memories.list;
        let place = list.iter().position(|(index, _)| *index == self.index).unwrap_or_else(|| {
            list.push((self.index, make()));
            list.len() - 1
        });
        &mut list[place].1
    }
}

/// Returns how many bytes of a request body the filter needs whole, if it does.
fn body_needed(filter: &Filter) -> Option<u64> {
    filter.needs().request_body()
}

impl Chain {
    /// The most filters in a chain, if one of them has a condition.
    pub const MAX_WITH_CONDITIONS: usize = 64;

    /// Orders filters by their stages; within a stage they keep their order.
    pub fn new(mut links: Vec<ChainLink>) -> Self {
        links.sort_by_key(|link| link.filter.stage());
        let may_wait = links.iter().any(|link| link.filter.may_wait());
        let reads_params = links.iter().any(|link| link.filter.reads_params());
        let needs_bodies = links.iter().any(|link| body_needed(&link.filter).is_some());
        let on_trial = links.iter().enumerate().filter(|(_, link)| !link.enforced);
        let trial_edits =
            on_trial.filter(|(_, link)| link.filter.stage() == Stage::Authenticate).map(|(place, link)| {
                let credentials = link.filter.credentials();
                let edits = link.filter.edits().into_iter().flat_map(|edits| edits.iter());
                (place, edits.filter(|edit| !credentials.contains(edit)).cloned().collect())
            });
        let trial_edits = trial_edits.collect();
        let has_conditions = links.iter().any(|link| link.condition.is_some());
        let judges_responses = links.iter().any(|link| link.filter.judges_responses());
        let needs_whole_responses = links.iter().any(|link| link.filter.needs_whole_responses());
        let cache = links.iter().position(|link| link.filter.cache_policy().is_some());
        Self {
            links,
            needs_bodies,
            trial_edits,
            may_wait,
            reads_params,
            has_conditions,
            cache,
            judges_responses,
            needs_whole_responses,
        }
    }

    /// Returns the policy of the cache, if there is one.
    pub fn cache_policy(&self) -> Option<&Arc<CachePolicy>> {
        self.links[self.cache?].filter.cache_policy()
    }

    /// Returns the policy of the cache for a request, if the route has one for it.
    pub fn cache(
        &self,
        request: &RequestHeader,
        exchange: &Exchange,
        memories: &mut Memories,
    ) -> Option<&Arc<CachePolicy>> {
        let place = self.cache?;
        self.runs(place, request, exchange, memories).then(|| self.links[place].filter.cache_policy())?
    }

    /// Returns whether the filter at that place runs for the request. Its condition is evaluated once, when that is
    /// first asked.
    fn runs(&self, place: usize, request: &RequestHeader, exchange: &Exchange, memories: &mut Memories) -> bool {
        if !self.has_conditions {
            return true;
        }
        let link = &self.links[place];
        let Some(condition) = &link.condition else { return true };
        let bit = 1_u64.checked_shl(place as u32).unwrap_or(0);
        if memories.evaluated & bit == 0 {
            memories.evaluated |= bit;
            memories.skipped |= if condition.holds(request, exchange, link.filter.runs_in_doubt()) { 0 } else { bit };
        }
        memories.skipped & bit == 0
    }

    /// Returns whether requests that the filter at that place rejects are rejected, and not only counted.
    pub fn is_enforced(&self, place: usize) -> bool {
        self.links.get(place).is_none_or(|link| link.enforced)
    }

    /// Returns the rejection of the filter at that place, unless it is only to be counted.
    fn enforce(&self, place: usize, verdict: Verdict, exchange: &mut Exchange) -> Verdict {
        match verdict {
            Err(rejection) if !self.is_enforced(place) => {
                let filter = self.links[place].filter.key();
                METRICS.would_reject(filter, rejection.reason);
                let Rejection { reason, detail, log, .. } = *rejection;
                let detail = log.unwrap_or_else(|| detail.into_owned());
                // The first is logged; all are counted.
                exchange.would_reject.get_or_insert_with(|| Box::new(WouldReject { reason, filter, detail }));
                Ok(())
            }
            verdict => verdict,
        }
    }

    /// Returns the filters in the order in which they run on requests.
    pub fn filters(&self) -> impl Iterator<Item = &Arc<Filter>> {
        self.links.iter().map(|link| &link.filter)
    }

    /// Returns whether the chain has a filter of that stage.
    pub fn has(&self, stage: Stage) -> bool {
        self.filters().any(|filter| filter.stage() == stage)
    }

    /// Returns whether a filter that identifies clients runs for the request, whether it has identified this one or
    /// not.
    pub fn authenticates(&self, request: &RequestHeader, exchange: &Exchange, memories: &mut Memories) -> bool {
        let mut places = self.links.iter().enumerate();
        places.any(|(place, link)| {
            link.filter.stage() == Stage::Authenticate && self.runs(place, request, exchange, memories)
        })
    }

    /// Returns whether a filter may replace a response once it has seen the body.
    pub fn judges_responses(&self) -> bool {
        self.judges_responses
    }

    /// Returns whether a filter that runs for the request is given whole responses only.
    pub fn needs_whole_response(&self, request: &RequestHeader, exchange: &Exchange, memories: &mut Memories) -> bool {
        self.needs_whole_responses
            && self.links.iter().enumerate().any(|(place, link)| {
                link.filter.needs_whole_responses() && self.runs(place, request, exchange, memories)
            })
    }

    /// Returns whether the decision on a request may take a long time.
    pub fn may_wait(&self) -> bool {
        self.may_wait
    }

    /// Returns whether a filter reads the parameters of the path, which are noted in the exchange then.
    pub fn reads_params(&self) -> bool {
        self.reads_params
    }

    /// Returns how many bytes of the body of a request the chain needs whole, if it does. `is_empty` says that the
    /// request has none. A body that only filters on trial need is not needed if it is longer, or may be.
    pub fn request_body(
        &self,
        request: &RequestHeader,
        is_empty: bool,
        exchange: &Exchange,
        memories: &mut Memories,
    ) -> Option<u64> {
        if !self.needs_bodies {
            return None;
        }
        let (mut enforced, mut on_trial) = (None::<u64>, None::<u64>);
        for (place, link) in self.links.iter().enumerate() {
            let Some(most) = body_needed(&link.filter) else { continue };
            if link.filter.wants_body(request, exchange) && self.runs(place, request, exchange, memories) {
                let of_kind = if link.enforced { &mut enforced } else { &mut on_trial };
                *of_kind = Some(of_kind.unwrap_or(most).min(most));
            }
        }
        let length = || request.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok();
        let fits = |most: &u64| is_empty || length().is_some_and(|length| length <= *most);
        enforced.or_else(|| on_trial.filter(fits))
    }

    /// Decides on a request, in the order of the stages. The identity of the client and the edits for the target are
    /// noted in `exchange`.
    ///
    /// # Errors
    /// Returns the response to send instead of going on.
    pub async fn on_request(
        &self,
        request: &RequestHeader,
        exchange: &mut Exchange,
        memories: &mut Memories,
    ) -> Verdict {
        for (index, ChainLink { filter, enforced, .. }) in self.links.iter().enumerate() {
            if !self.runs(index, request, exchange, memories) {
                continue;
            }
            if !enforced {
                self.try_out(index, request, exchange, memories).await;
                continue;
            }
            if let Some(edits) = filter.edits() {
                exchange.edits.push(edits);
            }
            let verdict = if filter.stage() == Stage::Authenticate {
                let authenticated = filter.authenticate(request, exchange).await;
                authenticated.map_err(Unauthenticated::into_rejection).map(|found| found.note(exchange))
            } else {
                filter.on_request(request, exchange, Slot { memories, index }).await
            };
            verdict.map_err(|rejection| self.challenge(rejection))?;
        }
        Ok(())
    }

    /// Runs a filter that is not enforced. An authenticator gives the request an identity only where the head alone
    /// proves it: what the body has to prove is not known before other filters use it.
    async fn try_out(&self, index: usize, request: &RequestHeader, exchange: &mut Exchange, memories: &mut Memories) {
        let filter = &self.links[index].filter;
        let verdict = if filter.stage() == Stage::Authenticate {
            match filter.authenticate(request, exchange).await {
                Ok(found) if body_needed(filter).is_none() => {
                    filter.edits().into_iter().for_each(|edits| exchange.edits.push(edits));
                    found.note(exchange);
                    return;
                }
                outcome => {
                    let edits = self.trial_edits.iter().find(|(place, _)| *place == index);
                    edits.into_iter().for_each(|(_, edits)| exchange.edits.push(edits));
                    outcome.map(drop).map_err(Unauthenticated::into_rejection)
                }
            }
        } else {
            filter.edits().into_iter().for_each(|edits| exchange.edits.push(edits));
            // Clients are not told of a limit that does not hold.
            let limit = exchange.limit.clone();
            let verdict = filter.on_request(request, exchange, Slot { memories, index }).await;
            exchange.limit = limit;
            verdict
        };
        let _ = self.enforce(index, verdict, exchange);
    }

    /// Adds to a rejection for want of an identity how one can be proven: a 401 has a challenge (RFC 9110, section
    /// 15.5.2), and only authenticators know theirs.
    fn challenge(&self, mut rejection: Box<Rejection>) -> Box<Rejection> {
        if rejection.reason == Reason::IdentityMissing {
            let challenges = self.filters().flat_map(|filter| filter.challenges());
            rejection.headers.extend(challenges.map(|challenge| (WWW_AUTHENTICATE, challenge)));
        }
        rejection
    }

    /// Lets pages of other origins read the rejection that follows.
    ///
    /// # Errors
    /// Returns the response to a preflight.
    pub async fn before_rejection(
        &self,
        request: &RequestHeader,
        exchange: &mut Exchange,
        memories: &mut Memories,
    ) -> Verdict {
        for (index, ChainLink { filter, .. }) in self.links.iter().enumerate() {
            if filter.stage() == Stage::Cors && self.runs(index, request, exchange, memories) {
                filter.on_request(request, exchange, Slot { memories, index }).await?;
            }
        }
        Ok(())
    }

    /// Decides on the whole body of a request, and returns it as filters have changed it.
    ///
    /// # Errors
    /// Returns the response to send instead of going on.
    pub fn on_request_body(
        &self,
        body: &Bytes,
        request: &RequestHeader,
        exchange: &mut Exchange,
        memories: &mut Memories,
    ) -> Result<Bytes, Box<Rejection>> {
        let mut current = body.clone();
        for (place, ChainLink { filter, .. }) in self.links.iter().enumerate() {
            if !self.runs(place, request, exchange, memories) {
                continue;
            }
            // What is authenticated is what the client sent.
            let seen = if filter.stage() == Stage::Authenticate { body } else { &current };
            let verdict = filter.on_request_body(seen, request, exchange);
            self.enforce(place, verdict, exchange)?;
            if let Some(edited) = filter.edit_request_body(&current, request, exchange)? {
                current = edited;
            }
        }
        Ok(current)
    }

    /// Edits the head of a response whose body is unchanged, in the reverse order.
    pub fn on_head(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, memories: &mut Memories) {
        for (index, ChainLink { filter, .. }) in self.links.iter().enumerate().rev() {
            if self.runs(index, view.request, view.exchange, memories) {
                filter.on_response(response, view, Slot { memories, index });
            }
        }
        add_fields(response, view);
    }

    /// Edits the head of a target's response in the reverse order, and returns the changes of its body. The fields
    /// that describe a changed body are repaired: it is decoded, and its length, digests and ranges are removed.
    ///
    /// # Errors
    /// Returns the response to send instead, when the body cannot be decoded or parsed.
    pub fn on_response(
        &self,
        response: &mut ResponseHeader,
        view: &ResponseView<'_>,
        memories: &mut Memories,
    ) -> Result<BodyChain, Box<Rejection>> {
        let mut body = BodyChain::default();
        for (index, ChainLink { filter, .. }) in self.links.iter().enumerate().rev() {
            if !self.runs(index, view.request, view.exchange, memories) {
                continue;
            }
            filter.on_response(response, view, Slot { memories, index });
            // The target's coding; a filter that encodes sets its own.
            let encoded = !body.changes() && response.headers.contains_key(CONTENT_ENCODING);
            let Some(step) = filter.on_response_body(response, view)? else { continue };
            if encoded
                && !step.observes()
                && let Some(decoder) = decoder(response)?
            {
                body.decode(decoder);
            }
            body.add(step);
        }
        if body.changes() {
            repair(response);
        }
        add_fields(response, view);
        Ok(body)
    }
}

/// Sets the cookies that filters have set while the request was decided on, and makes the edits that do not come from
/// filters.
fn add_fields(response: &mut ResponseHeader, view: &ResponseView<'_>) {
    for cookie in &view.exchange.set_cookies {
        let _ = response.append_header(SET_COOKIE, cookie.clone());
    }
    for edits in &view.exchange.response_edits {
        Edit::apply_to_response(edits, response, &view.request_view());
    }
}

/// Returns the decoder of the response's content coding, and removes the coding from the head.
fn decoder(response: &mut ResponseHeader) -> Result<Option<Decoder>, Box<Rejection>> {
    let opaque =
        || Rejection::new(Reason::ResponseOpaque, "").log("the response has a content coding that cannot be decoded");
    let mut codings = Vec::new();
    for value in response.headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| opaque())?;
        codings.extend(text.split(',').map(str::trim).filter(|c| !c.is_empty() && !c.eq_ignore_ascii_case("identity")));
    }
    let decoder = match codings.as_slice() {
        [] => None,
        [one] => Some(Decoder::of(one).ok_or_else(opaque)?),
        _ => return Err(opaque()),
    };
    response.remove_header(&CONTENT_ENCODING);
    Ok(decoder)
}

/// Prepares a head for a body of another length than the target's.
fn repair(response: &mut ResponseHeader) {
    response.remove_header(&CONTENT_LENGTH);
    // A response has few fields, and seldom one of these: one scan costs less than a search for each of these.
    if response.headers.keys().any(|name| BODY_FIELDS.contains(name)) {
        for name in &BODY_FIELDS {
            response.remove_header(name);
        }
    }
    weaken_etag(response);
}

/// Weakens the validator: a strong one does not hold for a changed body (RFC 9110, section 8.8.1).
pub(super) fn weaken_etag(response: &mut ResponseHeader) {
    let Some(etag) = response.headers.get(ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat()) {
        let _ = response.insert_header(ETAG, weak);
    }
}
