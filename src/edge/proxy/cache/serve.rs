//! A stored response as the response to a request: conditions, ranges, age, and the body part by part.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use http::header::{
    ACCEPT_RANGES, AGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};
use http::{Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::fetch::FetchedFrom;
use super::wait::client_deadline;
use super::{CacheUse, HeadFacts, head_facts, is_head, millis, stored_facts};
use crate::edge::proxy::pick::fail_with;
use crate::edge::proxy::response::edit_response;
use crate::edge::proxy::waiting::{Waited, pause, wait};
use crate::edge::proxy::{Context, Gateway};
use crate::exchange::{Reason, Rejection};
use crate::filters::CachePolicy;
use crate::live::{BodyError, StoredBody, StoredResponse};
use crate::rules::caching::{CacheHandling, CacheOutcome, RequestDirectives, Reuse};
use crate::rules::files::{Precondition, RangeChoice, choose_range, evaluate_conditions};
use crate::rules::payload::BodyChain;

/// The fields that a 304 does not have: they describe a body (RFC 9110, section 15.4.5).
static NOT_OF_304: [HeaderName; 6] = [
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CONTENT_RANGE,
    http::header::CONTENT_ENCODING,
    http::header::CONTENT_LANGUAGE,
    ACCEPT_RANGES,
];

/// A stored response to be sent.
pub struct CachedResponse {
    /// The response.
    pub stored: StoredResponse,
    /// What the cache did for the request.
    pub outcome: CacheOutcome,
    /// What the response says of that.
    pub handling: CacheHandling,
    /// From where it was fetched just now.
    pub from: Option<FetchedFrom>,
    /// Its head as the target has sent it just now.
    pub fetched: Option<Box<ResponseHeader>>,
    /// Whether the request can go to its target instead, where nothing more comes of a response that is being received.
    pub has_alternative: bool,
}

/// The part of a body that is sent.
enum SentRange {
    /// None of it.
    Nothing,
    /// None of it if the response stays what it is once filters have edited its head: the client has it.
    NotModified,
    /// All of it, of that length if it is known.
    Whole(Option<u64>),
    /// These bytes.
    Part(u64, u64),
}

impl Gateway {
    /// Returns whether a stored response may be used for a request because the targets fail.
    pub(super) fn is_usable_on_error(&self, stored: &StoredResponse, policy: &CachePolicy, session: &Session) -> bool {
        let directives = RequestDirectives::of(&session.req_header().headers);
        let reuse = stored_facts(stored, policy).reuse(&directives, millis(SystemTime::now()));
        !matches!(reuse, Reuse::Validate { unless_error: false, .. })
    }

    /// Sends a stored response. Returns false if it is still being received and nothing more of it comes, so that
    /// nothing was sent.
    ///
    /// # Errors
    /// Fails where it has begun and cannot be completed, which the client is to see.
    pub(super) async fn send_stored(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        policy: &Arc<CachePolicy>,
        found: CachedResponse,
    ) -> Result<bool> {
        let error = match self.stream_stored(session, ctx, policy, found).await {
            Ok(is_sent) => return Ok(is_sent),
            Err(error) => error,
        };
        if session.response_written().is_some_and(|head| !head.status.is_informational()) {
            return Err(error);
        }
        Box::pin(self.respond_to_failure(session, &error, ctx)).await;
        ctx.close_after(session);
        Ok(true)
    }

    async fn stream_stored(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        policy: &Arc<CachePolicy>,
        found: CachedResponse,
    ) -> Result<bool> {
        let CachedResponse { stored, outcome, handling, from, fetched, has_alternative } = found;
        let facts = head_facts(&stored.head, policy);
        let is_fetched = fetched.is_some();
        let age = stored_facts(&stored, policy).age(millis(SystemTime::now()));
        let StoredResponse { head: stored_head, body, .. } = stored;
        let mut body = SentBody { body, first: None };
        let mut head = fetched.map_or_else(|| stored_head.response.clone(), |head| *head);
        edit_response(&mut head, |headers| {
            headers.remove(TRANSFER_ENCODING);
            if !is_fetched || age > 0 {
                headers.insert(AGE, HeaderValue::from(age));
            }
            if let (Some(length), false) = (body.body.length(), headers.contains_key(CONTENT_LENGTH)) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        });
        let has_ranges = !needs_whole(ctx, session.req_header());
        let mut sent = choose_sent(session.req_header(), &mut head, &facts, has_ranges);
        if let SentRange::Part(from, to) = sent {
            body.body.seek(from, Some(to));
        }
        let has_body = !matches!(sent, SentRange::Nothing | SentRange::NotModified) && !is_head(session.req_header());
        if has_alternative && has_body && !body.begin(ctx, policy.lock_timeout).await? {
            return Ok(false);
        }
        ctx.exchange.cache = Some(outcome);
        ctx.cache =
            Some(Box::new(CacheUse { policy: Arc::clone(policy), handling, from, invalidates: false, own: None }));
        if let Some(from) = ctx.cache.as_mut().and_then(|cache| cache.from.as_mut()).filter(|_| is_fetched) {
            // These are for the client whose request was sent, and are not stored.
            ctx.exchange.response_edits.append(&mut from.edits);
            ctx.exchange.set_cookies.extend(from.cookie.take());
        }
        if session.req_header().version == Version::HTTP_11 && has_body && !head.headers.contains_key(CONTENT_LENGTH) {
            head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        self.edit_response_head(session.req_header(), &mut head, ctx)?;
        if matches!(sent, SentRange::NotModified) {
            sent = self.end_unmodified(session.req_header(), &mut head, ctx)?;
        }
        if !is_fetched {
            ctx.exchange.reason = Reason::Cached;
        }
        if session.req_header().version == Version::HTTP_10 && !head.headers.contains_key(CONTENT_LENGTH) {
            // The end of the connection is the end of the body.
            ctx.close_after(session);
        }
        ctx.end_with_the_listener(session);
        ctx.downstream.connection.iter().for_each(|connection| connection.clear_corks());
        self.send_body(session, ctx, head, (body, sent)).await?;
        send_at_once(ctx, false);
        Ok(true)
    }

    /// Makes a head of a 304 of the head of a whole response that filters have edited, unless they have made another
    /// one of it, or have to see the body first. Returns what is sent of the body.
    fn end_unmodified(
        &self,
        request: &RequestHeader,
        head: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<SentRange> {
        if head.status != StatusCode::OK || ctx.body.holds_head() {
            let is_chunked = request.version == Version::HTTP_11 && !head.headers.contains_key(CONTENT_LENGTH);
            if is_chunked && !is_head(request) {
                head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
            }
            return Ok(SentRange::Whole(None));
        }
        to_not_modified(head);
        ctx.status = head.status.as_u16();
        ctx.body = BodyChain::default();
        Ok(SentRange::Nothing)
    }

    /// Sends the head, and the body part by part. The first part goes with the head.
    async fn send_body(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        head: ResponseHeader,
        (mut body, sent): (SentBody, SentRange),
    ) -> Result<()> {
        if is_head(session.req_header()) || matches!(sent, SentRange::Nothing) && ctx.body.is_empty() {
            let mut none = None;
            self.edit_body(&mut none, true, ctx)?;
            session.write_response_tasks(vec![HttpTask::Header(Box::new(head), true)]).await?;
            return Ok(());
        }
        // Where a filter may replace the response at the end of its body, nothing is sent before.
        let is_held = ctx.body.holds_head();
        let mut tasks = vec![HttpTask::Header(Box::new(head), false)];
        let mut left = match sent {
            SentRange::Part(from, to) => Some(to - from),
            SentRange::Nothing | SentRange::NotModified => Some(0),
            SentRange::Whole(length) => length,
        };
        loop {
            let mut part = if left == Some(0) { None } else { next_part(ctx, &mut body, &mut tasks, session).await? };
            let read = part.as_ref().map_or(0, |part: &Bytes| part.len() as u64);
            left = left.map(|left| left.saturating_sub(read));
            let end = part.is_none() || left == Some(0);
            if let Some(delay) = self.edit_body(&mut part, end, ctx)? {
                if !is_held {
                    send_at_once(ctx, true);
                    flush(session, &mut tasks).await?;
                }
                pause(ctx, delay).await?;
            }
            if end || part.as_ref().is_some_and(|part| !part.is_empty()) {
                tasks.push(HttpTask::Body(part, end));
                if end {
                    flush(session, &mut tasks).await?;
                }
            }
            if end {
                return Ok(());
            }
        }
    }
}

/// Writes what is ready.
async fn flush(session: &mut Session, tasks: &mut Vec<HttpTask>) -> Result<()> {
    if !tasks.is_empty() {
        session.write_response_tasks(std::mem::take(tasks)).await?;
    }
    Ok(())
}

/// Lets what is written be sent at once, because what follows has not come yet, or be gathered again.
fn send_at_once(ctx: &Context, is_direct: bool) {
    ctx.downstream.connection.iter().for_each(|connection| connection.send_at_once(is_direct));
}

/// Returns the next part of a body. What is ready is written before; where it has to be waited for, it is also sent.
async fn next_part(
    ctx: &mut Context,
    body: &mut SentBody,
    tasks: &mut Vec<HttpTask>,
    session: &mut Session,
) -> Result<Option<Bytes>> {
    if let Some(first) = body.first.take() {
        return Ok(Some(first));
    }
    let ready = body.body.next_part().now_or_never();
    if !ctx.body.holds_head() && (ready.is_none() || tasks.len() > 1) {
        if ready.is_none() {
            send_at_once(ctx, true);
        }
        flush(session, tasks).await?;
    }
    let read = match ready {
        Some(read) => read,
        None => match wait(&ctx.downstream, client_deadline(ctx, session.req_header()), body.body.next_part()).await {
            Waited::Done(read) => read,
            Waited::Late => return Err(fail_with(ctx, Rejection::new(Reason::RouteTimeout, ""))),
            Waited::Gone => return Err(fail_with(ctx, Rejection::new(Reason::ClientGone, ""))),
        },
    };
    read.map_err(|why| broken(ctx, &why))
}

/// Returns the error of a body that ends early.
fn broken(ctx: &mut Context, why: &BodyError) -> Box<Error> {
    ctx.exchange.reason = Reason::TargetReset;
    Error::explain(ErrorType::ReadError, why.to_string()).into_up()
}

/// A stored body of which the first part may have been read before the head is sent.
struct SentBody {
    body: StoredBody,
    first: Option<Bytes>,
}

impl SentBody {
    /// Waits for the first part of a body that is being received by another request. Returns false if none comes in
    /// that time.
    async fn begin(&mut self, ctx: &mut Context, time: Duration) -> Result<bool> {
        if self.body.length().is_some() {
            return Ok(true);
        }
        let read = match self.body.next_part().now_or_never() {
            Some(read) => read,
            None => match wait(&ctx.downstream, Some(Instant::now() + time), self.body.next_part()).await {
                Waited::Done(read) => read,
                Waited::Late => return Ok(false),
                Waited::Gone => return Err(fail_with(ctx, Rejection::new(Reason::ClientGone, ""))),
            },
        };
        // A fill that has failed before anything was sent is no loss.
        self.first = read.ok().flatten();
        Ok(self.first.is_some() || self.body.length().is_some())
    }
}

/// Evaluates the conditions and the range of a request, by which the head is changed.
fn choose_sent(request: &RequestHeader, head: &mut ResponseHeader, facts: &HeadFacts, has_ranges: bool) -> SentRange {
    if head.status != StatusCode::OK {
        let is_bodiless = matches!(head.status.as_u16(), 204 | 304);
        return if is_bodiless { SentRange::Nothing } else { SentRange::Whole(length_of(&head.headers)) };
    }
    if evaluate_conditions(&request.headers, &facts.validators) == Precondition::NotModified {
        return SentRange::NotModified;
    }
    let whole = SentRange::Whole(length_of(&head.headers));
    let length = length_of(&head.headers).filter(|_| request.method == Method::GET && has_ranges);
    let Some(length) = length else { return whole };
    match choose_range(&request.headers, &facts.range_validators, length) {
        RangeChoice::Whole => whole,
        RangeChoice::Part(from, to) => {
            let range = HeaderValue::try_from(format!("bytes {from}-{}/{length}", to - 1));
            set_status(head, StatusCode::PARTIAL_CONTENT);
            edit_response(head, |headers| {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(to - from));
                range.into_iter().for_each(|range| _ = headers.insert(CONTENT_RANGE, range));
            });
            SentRange::Part(from, to)
        }
        RangeChoice::Unsatisfiable => {
            let range = HeaderValue::try_from(format!("bytes */{length}"));
            set_status(head, StatusCode::RANGE_NOT_SATISFIABLE);
            edit_response(head, |headers| {
                NOT_OF_304.iter().for_each(|name| _ = headers.remove(name));
                headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
                range.into_iter().for_each(|range| _ = headers.insert(CONTENT_RANGE, range));
            });
            SentRange::Nothing
        }
    }
}

/// Sets the status, with its usual phrase.
fn set_status(head: &mut ResponseHeader, status: StatusCode) {
    // Neither fails: the status is valid, and there is no phrase.
    let _ = head.set_status(status);
    let _ = head.set_reason_phrase(None);
}

/// Makes the head of a 304 (RFC 9110, section 15.4.5).
fn to_not_modified(head: &mut ResponseHeader) {
    set_status(head, StatusCode::NOT_MODIFIED);
    edit_response(head, |headers| {
        NOT_OF_304.iter().for_each(|name| _ = headers.remove(name));
        headers.remove(TRANSFER_ENCODING);
    });
}

fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns whether a filter of the route is given whole responses only: ranges are of the body that is sent (RFC 9110,
/// section 14.2), which is another one, and what is done by the status of a response holds for its parts.
fn needs_whole(ctx: &mut Context, request: &RequestHeader) -> bool {
    let serving = Arc::clone(&ctx.serving);
    let chain = serving.route(ctx.matched.route).map(|route| route.filters(ctx.listener));
    chain.is_some_and(|chain| chain.needs_whole_response(request, &ctx.exchange, &mut ctx.memories))
}
