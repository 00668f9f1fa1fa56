//! The filters of a route, in their order.

use std::sync::Arc;

use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use super::{Filter, Memory, Needs, Refusal, ResponseView, Stage, Verdict};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::rules::payload::{BodyChain, Decoder};

/// What a head says of a body and is no longer right once that is changed, but for its length.
static SPOILED: [HeaderName; 5] = [
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
    /// Bytes of a request's body that filters have to be given whole.
    request_body: Option<u64>,
}

/// What the filters of a chain remember of one request. Most remember nothing, and cost nothing.
#[derive(Debug, Default)]
pub struct Memories(SmallVec<[(usize, Memory); 1]>);

/// Where one filter of a chain remembers.
pub(super) struct Slot<'m> {
    memories: &'m mut Memories,
    index: usize,
}

impl<'m> Slot<'m> {
    /// Returns what the filter remembers; `make` begins it.
    pub(super) fn get(self, make: impl FnOnce() -> Memory) -> &'m mut Memory {
        let list = &mut self.memories.0;
        let place = list.iter().position(|(index, _)| *index == self.index).unwrap_or_else(|| {
            list.push((self.index, make()));
            list.len() - 1
        });
        &mut list[place].1
    }
}

impl Chain {
    /// Arranges filters by their stages; within a stage they stay in their order.
    pub fn new(mut filters: Vec<Arc<Filter>>) -> Self {
        filters.sort_by_key(|filter| filter.stage());
        let most = |filter: &Arc<Filter>| if let Needs::RequestBody(most) = filter.needs() { Some(most) } else { None };
        Self { request_body: filters.iter().filter_map(most).min(), filters }
    }

    /// Returns the filters in the order in which they run on requests.
    pub fn filters(&self) -> &[Arc<Filter>] {
        &self.filters
    }

    /// Returns whether it has a filter of that stage.
    pub fn has(&self, stage: Stage) -> bool {
        self.filters.iter().any(|filter| filter.stage() == stage)
    }

    /// Returns how many bytes of a request's body it has to be given whole, if it has to.
    pub fn request_body(&self) -> Option<u64> {
        self.request_body
    }

    /// Decides on a request, in the order of the stages. Who calls, and the edits for the target, are noted in `exchange`.
    ///
    /// # Errors
    /// The response to give instead of going on.
    pub async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, memories: &mut Memories) -> Verdict {
        for (index, filter) in self.filters.iter().enumerate() {
            if let Some(edits) = filter.edits() {
                exchange.edits.push(edits);
            }
            if filter.stage() == Stage::Authenticate {
                let authenticated = filter.authenticate(request, exchange).await.map_err(Refusal::into_rejection)?;
                authenticated.note(exchange);
            } else {
                filter.on_request(request, exchange, Slot { memories, index }).await?;
            }
        }
        Ok(())
    }

    /// Lets pages of other origins read the rejection that follows.
    ///
    /// # Errors
    /// The response to a preflight.
    pub async fn before_rejection(&self, request: &RequestHeader, exchange: &mut Exchange, memories: &mut Memories) -> Verdict {
        for (index, filter) in self.filters.iter().enumerate().filter(|(_, filter)| filter.stage() == Stage::Cors) {
            filter.on_request(request, exchange, Slot { memories, index }).await?;
        }
        Ok(())
    }

    /// Decides on the whole body of a request.
    ///
    /// # Errors
    /// The response to give instead of going on.
    pub fn on_request_body(&self, body: &[u8], request: &RequestHeader, exchange: &mut Exchange) -> Verdict {
        self.filters.iter().try_for_each(|filter| filter.on_request_body(body, request, exchange))
    }

    /// Edits the head of a response whose body stays as it is, in the reverse order.
    pub fn on_head(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, memories: &mut Memories) {
        for (index, filter) in self.filters.iter().enumerate().rev() {
            filter.on_response(response, view, Slot { memories, index });
        }
    }

    /// Edits the head of a target's response in the reverse order, and returns the changes of its body. What the head says
    /// of a body that is changed is repaired: its coding is taken off, and its length, digests and ranges go.
    ///
    /// # Errors
    /// The response to give instead, when the body cannot be looked into.
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
        Ok(body)
    }
}

/// Returns what takes the response's coding off, and removes the coding from the head.
fn decoder(response: &mut ResponseHeader) -> Result<Option<Decoder>, Box<Rejection>> {
    let opaque = || Rejection::new(Reason::ResponseOpaque, "").log("the response has a content coding that cannot be decoded");
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

/// Makes a head ready for a body of another length than the target's.
fn repair(response: &mut ResponseHeader) {
    response.remove_header(&CONTENT_LENGTH);
    // A response has few headers, and seldom one of these: one look at each of them is less than a search for each of these.
    if response.headers.keys().any(|name| SPOILED.contains(name)) {
        for name in &SPOILED {
            response.remove_header(name);
        }
    }
    weaken_etag(response);
}

/// Weakens the validator: the body is another than the target's, so its strong one does not hold (RFC 9110, section 8.8.1).
pub(super) fn weaken_etag(response: &mut ResponseHeader) {
    let Some(etag) = response.headers.get(ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat()) {
        let _ = response.insert_header(ETAG, weak);
    }
}
