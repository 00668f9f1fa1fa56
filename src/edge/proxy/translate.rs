//! Translated requests: the request is read whole, translated and sent through the same admission, balancing and
//! retries as others; what the target sends is translated part by part.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Method, Version};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;

use super::context::Side;
use super::deadline::deadline;
use super::forward::{add_fields_for_target, edit_target, requested_host};
use super::hop_by_hop::drop_from_request;
use super::intake::edit_headers;
use super::pick::fail_with;
use super::relay::RelayRequest;
use super::waiting::{Waited, pause, wait};
use super::whole::BudgetShare;
use super::{Context, Gateway};
use crate::actions::{ClientResponse, Forward, IncomingRequest, Translate, TranslateResponse, TranslatedRequest};
use crate::exchange::{Reason, Rejection, TranslationNote};
use crate::rules::payload::{Decoder, Opaque, Step};
use crate::upstreams::{Response, error_text};

/// The time in which a request has to be there where the route has none.
const READ_TIME: Duration = Duration::from_secs(300);

/// The fields of a request that are not sent on with a translated one.
pub(super) const DROPPED: [HeaderName; 5] =
    [ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING];

type OrRejection<T> = std::result::Result<T, Box<Rejection>>;

impl Gateway {
    /// Translates a request, sends it, and translates the response.
    ///
    /// # Errors
    /// Fails where the response has begun and cannot be completed, which the client is to see.
    pub(super) async fn translate(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        forward: &Forward,
        translation: &dyn Translate,
    ) -> Result<()> {
        ctx.exchange.translation = Some(Box::new(TranslationNote::new(translation.protocols().words())));
        if let Some(sockets) = translation.sockets() {
            return Box::pin(self.translate_sockets(session, ctx, (forward, sockets))).await;
        }
        let came = session.req_header().clone();
        let until = deadline(&came.headers, forward, ctx.exchange.started, ctx.exchange.grpc)
            .unwrap_or_else(|| ctx.exchange.started + READ_TIME);
        let mut share = BudgetShare::new(&self.bodies);
        let bounds = (translation.max_request_body(), until);
        let prepared = match self.read_body_for_calls(session, ctx, bounds, &mut share).await? {
            Ok(body) => translated_request(&came, body, (forward, translation), ctx),
            Err(rejection) => Err(rejection),
        };
        let sent = match prepared {
            Ok((head, translated)) => {
                self.send_translated(session, ctx, (&came, forward, translation), (head, translated)).await
            }
            Err(rejection) => Ok(Err(rejection)),
        };
        match sent {
            Ok(Ok((response, reading))) => {
                self.return_translated(session, ctx, response, (reading, &came, translation)).await
            }
            Ok(Err(rejection)) if rejection.reason != Reason::ClientGone => {
                ctx.leave_upstream();
                let rejection = translation.rejection(rejection, &ctx.view(&came));
                self.reject(session, &rejection, ctx).await
            }
            Ok(Err(rejection)) => {
                let error = fail_with(ctx, rejection);
                self.respond_to_failure(session, &error, ctx).await;
                ctx.close_after(session);
                Ok(())
            }
            Err(error) => {
                self.respond_to_failure(session, &error, ctx).await;
                Ok(())
            }
        }
    }

    /// Sends a translated request to the targets of its upstream.
    async fn send_translated(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (came, forward, translation): (&RequestHeader, &Forward, &dyn Translate),
        (head, translated): (RequestHeader, TranslatedRequest),
    ) -> Result<OrRejection<(Response, Box<dyn TranslateResponse>)>> {
        if let Err(rejection) = self.enter_upstream(came, forward, translated.wait, ctx).await {
            return Ok(Err(rejection));
        }
        let Some(mut visit) = ctx.visit.take() else { return Ok(Err(Rejection::new(Reason::Internal, ""))) };
        let has_own_head = translation.replaces_head();
        let asking = RelayRequest {
            head: &head,
            came,
            body: translated.body,
            is_safe: translated.is_safe,
            hedged: false,
            upgrade: false,
            translated: Some(translated.is_grpc),
            has_own_head,
        };
        let mut interims = std::mem::take(&mut ctx.interims);
        let fetched = self.fetch_for(session, &*ctx, (&mut visit, &mut interims), &asking).await;
        (ctx.visit, ctx.interims) = (Some(visit), interims);
        Ok(match fetched {
            Ok(response) => Ok((response?, translated.response)),
            Err(rejection) => Err(rejection),
        })
    }

    async fn return_translated(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        response: Response,
        (reading, came, translation): (Box<dyn TranslateResponse>, &RequestHeader, &dyn Translate),
    ) -> Result<()> {
        ctx.end_of(Side::Request);
        let mut writing = TranslatedWriting::default();
        let Err(error) = self.pass_translated(session, ctx, response, (reading, &mut writing)).await else {
            return Ok(());
        };
        if session.response_written().is_some_and(|head| !head.status.is_informational()) {
            return Err(error);
        }
        if let Some(rejection) = ctx.rejection.take() {
            ctx.rejection = Some(translation.rejection(rejection, &ctx.view(came)));
        }
        self.respond_to_failure(session, &error, ctx).await;
        ctx.close_after(session);
        Ok(())
    }

    /// Passes the response on, as it comes.
    async fn pass_translated(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        mut response: Response,
        (mut translation, writing): (Box<dyn TranslateResponse>, &mut TranslatedWriting),
    ) -> Result<()> {
        let mut out = ClientResponse::default();
        let mut decoder = decoder(&response.head.headers).map_err(|rejection| fail_with(ctx, rejection))?;
        translation.head(&response.head, &mut out).map_err(|rejection| fail_with(ctx, rejection))?;
        loop {
            self.write_translated(session, ctx, &mut out, (writing, false)).await?;
            let read = match wait(&ctx.downstream, ctx.deadline(), response.part()).await {
                Waited::Done(read) => read.map_err(|error| (Reason::TargetReset, error_text(&error))),
                Waited::Late => Err((Reason::RouteTimeout, String::new())),
                Waited::Gone => return Err(fail_with(ctx, Rejection::new(Reason::ClientGone, ""))),
            };
            let part = match read {
                Ok(part) => part,
                Err((reason, why)) => {
                    let rejection = Rejection::new(reason, "").log(why);
                    if writing.is_begun() && translation.broken(&rejection, &mut out) {
                        writing.untimed = true;
                        ctx.exchange.detail.clone_from(&rejection.log);
                        self.write_translated(session, ctx, &mut out, (writing, true)).await?;
                        ctx.exchange.reason = reason;
                        return Ok(());
                    }
                    return Err(fail_with(ctx, rejection));
                }
            };
            let end = part.is_none();
            let part = decode(decoder.as_mut(), part.unwrap_or_default(), end);
            let part = part.map_err(|rejection| fail_with(ctx, rejection))?;
            if !part.is_empty() {
                translation.part(&part, &mut out).map_err(|rejection| fail_with(ctx, rejection))?;
            }
            if end {
                break;
            }
        }
        let trailers = response.trailers().await?;
        translation.end(trailers.as_ref(), &mut out).map_err(|rejection| fail_with(ctx, rejection))?;
        self.calls.release(response).await;
        self.write_translated(session, ctx, &mut out, (writing, true)).await
    }

    /// Writes what is known of the response.
    pub(super) async fn write_translated(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        out: &mut ClientResponse,
        (writing, end): (&mut TranslatedWriting, bool),
    ) -> Result<()> {
        if let (Some(status), Some(note)) = (out.target_status.take(), &mut ctx.exchange.translation) {
            note.target_status = Some(status);
        }
        if let Some(mut head) = out.head.take().filter(|_| !writing.is_begun()) {
            let request = session.req_header().clone();
            if end {
                return self.write_whole(session, ctx, head, out).await;
            }
            writing.bodiless = request.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
            if request.version == Version::HTTP_11 && !writing.bodiless {
                head.insert_header(TRANSFER_ENCODING, "chunked")?;
            }
            self.edit_response_head(&request, &mut head, ctx)?;
            ctx.end_with_the_listener(session);
            if request.version == Version::HTTP_10 {
                // The end of the connection is the end of the body.
                ctx.close_after(session);
            }
            if ctx.body.holds_head() {
                writing.held = Some((head, Vec::new()));
            } else {
                ctx.downstream.connection.iter().for_each(|connection| connection.clear_corks());
                session.write_response_header(Box::new(head), false).await?;
                writing.begun = true;
            }
        }
        if !writing.is_begun() || (out.body.is_empty() && !end) {
            return Ok(());
        }
        let mut body = Some(out.body.split().freeze()).filter(|body| !body.is_empty() && !writing.bodiless);
        let edited = if writing.untimed {
            self.edit_body_untimed(&mut body, end, ctx)
        } else {
            self.edit_body(&mut body, end, ctx)
        };
        if let Some(delay) = edited? {
            pause(ctx, delay).await?;
        }
        if let Some((_, held)) = &mut writing.held {
            held.extend_from_slice(&body.unwrap_or_default());
            return if end { write_held(session, writing).await } else { Ok(()) };
        }
        let trailers = out.trailers.take().filter(|_| session.req_header().version == Version::HTTP_2);
        session.write_response_body(body, end && trailers.is_none()).await?;
        if let Some(trailers) = trailers {
            session.write_response_tasks(vec![HttpTask::Trailer(Some(Box::new(trailers)))]).await?;
        }
        Ok(())
    }

    /// Writes a response whose head was decided at its end.
    async fn write_whole(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        mut head: pingora::http::ResponseHeader,
        out: &mut ClientResponse,
    ) -> Result<()> {
        let body = out.body.split().freeze();
        if !matches!(head.status.as_u16(), 204 | 304) {
            head.insert_header(CONTENT_LENGTH, body.len())?;
        }
        self.keep_own(ctx, session.req_header(), &head, &body).await;
        self.write_made(session, ctx, head, body, Reason::Forwarded).await
    }
}

/// How far the response is written.
#[derive(Default)]
pub(super) struct TranslatedWriting {
    /// Whether the head was written.
    begun: bool,
    /// The head and the body that wait for the end, since a filter may replace them.
    held: Option<(pingora::http::ResponseHeader, Vec<u8>)>,
    /// Whether it has no body, whatever the translation writes (RFC 9112, section 6.3).
    bodiless: bool,
    /// Whether the time of the route no longer counts, since only the end of the response is written.
    untimed: bool,
}

impl TranslatedWriting {
    fn is_begun(&self) -> bool {
        self.begun || self.held.is_some()
    }
}

async fn write_held(session: &mut Session, writing: &mut TranslatedWriting) -> Result<()> {
    let Some((mut head, body)) = writing.held.take() else { return Ok(()) };
    writing.begun = true;
    head.remove_header(&TRANSFER_ENCODING);
    head.insert_header(CONTENT_LENGTH, body.len())?;
    session.write_response_header(Box::new(head), false).await?;
    session.write_response_body(Some(body.into()), true).await
}

/// Returns the request in the protocol of the target, and its head.
fn translated_request(
    came: &RequestHeader,
    body: Bytes,
    (forward, translation): (&Forward, &dyn Translate),
    ctx: &mut Context,
) -> OrRejection<(RequestHeader, TranslatedRequest)> {
    let internal = |error: Box<pingora::Error>| Rejection::new(Reason::Internal, "").log(error_text(&error));
    let body = match decoder(&came.headers).map_err(|_| translation.unknown_coding())? {
        Some(_) if ctx.exchange.is_decoded => body,
        Some(mut decoder) => decode_whole(&mut decoder, &body, translation.max_request_body())?,
        None => body,
    };
    let mut edited = came.clone();
    edit_target(came, &mut edited, forward, ctx).map_err(internal)?;
    let (path, query) = (edited.uri.path(), edited.uri.query());
    let view = ctx.view(came);
    let for_target = translation.replaces_head().then(|| fields_for_target(came, &body, forward, ctx));
    let headers = for_target.as_ref().unwrap_or(&came.headers);
    let translated = translation.translate(&IncomingRequest { view, path, query, headers, body })?;
    if let Some(note) = &mut ctx.exchange.translation {
        note.operation.clone_from(&translated.operation);
    }
    if translation.replaces_head() {
        return Ok((new_head(&translated).map_err(internal)?, translated));
    }
    let mut head = came.clone();
    drop_from_request(&mut head);
    head.set_method(translated.method.clone());
    let target = translated.target.parse().map_err(|_| Rejection::new(Reason::RequestUntranslatable, "its path"))?;
    head.set_uri(target);
    edit_headers(&mut head, |fields| {
        DROPPED.iter().chain(&translated.removed).for_each(|name| _ = fields.remove(name));
        requested_host(came).into_iter().for_each(|host| _ = fields.insert(HOST, host));
        for (name, value) in &translated.headers {
            fields.insert(name.clone(), value.clone());
        }
        if translated.body.is_empty() && matches!(translated.method, Method::POST | Method::PUT | Method::PATCH) {
            fields.insert(CONTENT_LENGTH, 0.into());
        }
    });
    Ok((head, translated))
}

/// Returns the fields that a target would be sent, for a translation that writes them into a body.
fn fields_for_target(came: &RequestHeader, body: &Bytes, forward: &Forward, ctx: &Context) -> HeaderMap {
    let mut head = came.clone();
    drop_from_request(&mut head);
    edit_headers(&mut head, |fields| {
        [TRANSFER_ENCODING, EXPECT, CONTENT_ENCODING].iter().for_each(|name| _ = fields.remove(name));
        if fields.contains_key(CONTENT_LENGTH) || !body.is_empty() {
            fields.insert(CONTENT_LENGTH, body.len().into());
        }
    });
    add_fields_for_target(came, &mut head, forward, ctx);
    head.headers.clone()
}

/// Returns the head of a request that has nothing of the client's.
fn new_head(translated: &TranslatedRequest) -> Result<RequestHeader> {
    let fields = translated.headers.len() + 1;
    let mut head = RequestHeader::build(translated.method.clone(), translated.target.as_bytes(), Some(fields))?;
    for (name, value) in &translated.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    Ok(head)
}

/// Returns the decoder of a content coding, if there is one.
fn decoder(headers: &HeaderMap) -> OrRejection<Option<Decoder>> {
    let unknown = || Rejection::new(Reason::ResponseUntranslatable, "").log("its content coding is not known");
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| unknown())?;
        codings.extend(text.split(',').map(str::trim).filter(|c| !c.is_empty() && !c.eq_ignore_ascii_case("identity")));
    }
    match codings.as_slice() {
        [] => Ok(None),
        [one] => Decoder::of(one).map(Some).ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

fn decode_whole(decoder: &mut Decoder, body: &[u8], most: u64) -> OrRejection<Bytes> {
    let mut out = Vec::new();
    let too_large = || Rejection::new(Reason::BodyTooLarge, format!("at most {most} bytes are accepted, decoded"));
    decoder.push(body, true, &mut out).map_err(|why| match why {
        Opaque::TooDense => too_large(),
        _ => Rejection::new(Reason::RequestUntranslatable, "its body cannot be decoded"),
    })?;
    if out.len() as u64 > most { Err(too_large()) } else { Ok(out.into()) }
}

fn decode(decoder: Option<&mut Decoder>, part: Bytes, end: bool) -> OrRejection<Bytes> {
    let Some(decoder) = decoder else { return Ok(part) };
    let mut out = Vec::new();
    decoder
        .push(&part, end, &mut out)
        .map_err(|why| Rejection::new(Reason::ResponseUntranslatable, "").log(why.to_string()))?;
    Ok(out.into())
}

/// Returns the time at which a request ends, by the time that its client says it waits.
pub(super) fn earlier(one: Option<Instant>, started: Instant, wait: Option<Duration>) -> Option<Instant> {
    one.into_iter().chain(wait.and_then(|wait| started.checked_add(wait))).min()
}
