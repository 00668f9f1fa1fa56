//! The filters of a route, in their order.

use std::sync::Arc;

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderName, HeaderValue, SET_COOKIE, WWW_AUTHENTICATE,
};
use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use super::{Filter, Memory, Needs, ResponseView, Stage, Unauthenticated, Verdict};
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

/// The filters of a route in the order in which they run on requests.
#[derive(Debug, Default)]
pub struct Chain {
    filters: Vec<Arc<Filter>>,
    /// For each, whether requests that it rejects are rejected, and not only counted.
    enforced: Vec<bool>,
    /// How many bytes of a request body filters need whole.
    request_body: Option<u64>,
    /// The same of filters that are not enforced: a longer body is not inspected.
    trial_body: Option<u64>,
    /// For authenticators that are not enforced, the edits of a request that they do not accept: its credentials may be
    /// for the target, but what only an authenticator may set is removed.
    trial_edits: Vec<(usize, Arc<[Edit]>)>,
    /// Whether a filter may wait for a long time.
    may_wait: bool,
}

/// The memories of the filters of a chain for one request. Most filters remember nothing, and cost nothing.
#[derive(Debug, Default)]
pub struct Memories(SmallVec<[(usize, Memory); 1]>);

impl Memories {
    /// Forgets all: the response ends, and what was held for it is free before the client knows.
    pub fn clear(&mut self) {
        self.0.clear();
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
        let list = &mut self.memories.0;
        let place = list.iter().position(|(index, _)| *index == self.index).unwrap_or_else(|| {
            list.push((self.index, make()));
            list.len() - 1
        });
        &mut list[place].1
    }
}

/// Returns how many bytes of a request body the filter needs whole, if it does.
fn body_needed(filter: &Filter) -> Option<u64> {
    if let Needs::RequestBody(most) = filter.needs() { Some(most) } else { None }
}

impl Chain {
    /// Orders filters by their stages; within a stage they keep their order. Beside each stands whether requests that
    /// it rejects are rejected, and not only counted.
    pub fn new(mut filters: Vec<(Arc<Filter>, bool)>) -> Self {
        filters.sort_by_key(|(filter, _)| filter.stage());
        let (filters, enforced): (Vec<Arc<Filter>>, Vec<bool>) = filters.into_iter().unzip();
        let may_wait = filters.iter().any(|filter| filter.may_wait());
        let most = |wanted: bool| {
            let of_kind = filters.iter().zip(&enforced).filter(|(_, enforced)| **enforced == wanted);
            of_kind.filter_map(|(filter, _)| body_needed(filter)).min()
        };
        let (request_body, trial_body) = (most(true), most(false));
        let on_trial = filters.iter().enumerate().filter(|(place, _)| !enforced[*place]);
        let trial_edits =
            on_trial.filter(|(_, filter)| filter.stage() == Stage::Authenticate).map(|(place, filter)| {
                let credentials = filter.credentials();
                let edits = filter.edits().into_iter().flat_map(|edits| edits.iter());
                (place, edits.filter(|edit| !credentials.contains(edit)).cloned().collect())
            });
        Self { request_body, trial_body, trial_edits: trial_edits.collect(), may_wait, filters, enforced }
    }

    /// Returns whether requests that the filter at that place rejects are rejected, and not only counted.
    pub fn is_enforced(&self, place: usize) -> bool {
        self.enforced.get(place).copied().unwrap_or(true)
    }

    /// Returns the rejection of the filter at that place, unless it is only to be counted.
    fn enforce(&self, place: usize, verdict: Verdict, exchange: &mut Exchange) -> Verdict {
        match verdict {
            Err(rejection) if !self.is_enforced(place) => {
                let filter = self.filters[place].key();
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
    pub fn filters(&self) -> &[Arc<Filter>] {
        &self.filters
    }

    /// Returns whether the chain has a filter of that stage.
    pub fn has(&self, stage: Stage) -> bool {
        self.filters.iter().any(|filter| filter.stage() == stage)
    }

    /// Returns whether the decision on a request may take a long time.
    pub fn may_wait(&self) -> bool {
        self.may_wait
    }

    /// Returns how many bytes of the body of a request the chain needs whole, if it does. `is_empty` says that the
    /// request has none. A body that only filters on trial need is not needed if it is longer, or may be.
    pub fn request_body(&self, request: &RequestHeader, is_empty: bool) -> Option<u64> {
        let length = || request.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok();
        let fits = |most: &u64| is_empty || length().is_some_and(|length| length <= *most);
        self.request_body.or_else(|| self.trial_body.filter(fits))
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
        for (index, filter) in self.filters.iter().enumerate() {
            if !self.is_enforced(index) {
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
        let filter = &self.filters[index];
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
            let challenges = self.filters.iter().flat_map(|filter| filter.challenges());
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
        for (index, filter) in self.filters.iter().enumerate().filter(|(_, filter)| filter.stage() == Stage::Cors) {
            filter.on_request(request, exchange, Slot { memories, index }).await?;
        }
        Ok(())
    }

    /// Decides on the whole body of a request.
    ///
    /// # Errors
    /// Returns the response to send instead of going on.
    pub fn on_request_body(&self, body: &[u8], request: &RequestHeader, exchange: &mut Exchange) -> Verdict {
        self.filters.iter().enumerate().try_for_each(|(place, filter)| {
            let verdict = filter.on_request_body(body, request, exchange);
            self.enforce(place, verdict, exchange)
        })
    }

    /// Edits the head of a response whose body is unchanged, in the reverse order.
    pub fn on_head(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, memories: &mut Memories) {
        for (index, filter) in self.filters.iter().enumerate().rev() {
            filter.on_response(response, view, Slot { memories, index });
        }
        set_cookies(response, view);
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
        for (index, filter) in self.filters.iter().enumerate().rev() {
            filter.on_response(response, view, Slot { memories, index });
            // The target's coding; a filter that encodes sets its own.
            let encoded = body.is_empty() && response.headers.contains_key(CONTENT_ENCODING);
            let Some(step) = filter.on_response_body(response, view)? else { continue };
            if encoded && let Some(decoder) = decoder(response)? {
                body.decode(decoder);
            }
            body.add(step);
        }
        if !body.is_empty() {
            repair(response);
        }
        set_cookies(response, view);
        Ok(body)
    }
}

/// Sets the cookies that filters have set while the request was decided on.
fn set_cookies(response: &mut ResponseHeader, view: &ResponseView<'_>) {
    for cookie in &view.exchange.set_cookies {
        let _ = response.append_header(SET_COOKIE, cookie.clone());
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
