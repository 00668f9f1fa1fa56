//! One call of an aggregated response: its request, its way through the upstream, and its result.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};
use tokio::time::timeout_at;

use super::aggregate::CallScene;
use super::forward::{requested_host, write_forwarding_fields};
use super::intake::{TRACEPARENT, edit_headers};
use super::pick::connecting_caller;
use super::whole::BudgetShare;
use super::{Context, Gateway};
use crate::actions::{Call, CallBody, CallFault, CallPart, CallRequest, FaultKind};
use crate::exchange::{Reason, Trace};
use crate::rules::aggregation::is_json;
use crate::rules::payload::{Decoder, Opaque, Step};
use crate::rules::routing::raw_parameters;
use crate::upstreams::{Class, OutgoingRequest, Response, Visit, error_text};

/// The fields that trusted proxies before the gateway set, and the state of a trace.
pub(super) const FORWARDING_FIELDS: [HeaderName; 5] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("tracestate"),
];

/// A call that can be made.
pub(super) struct PreparedCall {
    /// The place of the call.
    pub index: usize,
    /// The place of the element that it is made for.
    pub item: Option<usize>,
    /// Its request.
    pub request: CallRequest,
}

/// A call that has ended.
pub(super) struct EndedCall {
    /// The place of the call.
    pub index: usize,
    /// The place of the element that it was made for.
    pub item: Option<usize>,
    /// How long it took.
    pub seconds: f64,
    /// Its result.
    pub result: std::result::Result<CallPart, CallFault>,
}

/// The memory that is left for the results of one request.
pub(super) struct CallBudget {
    /// The bytes that all results may still have.
    pub left: Mutex<usize>,
    /// The request's share of the memory for bodies.
    pub share: Mutex<BudgetShare>,
    /// The most memory for the bodies of all requests.
    pub memory: u64,
}

impl CallBudget {
    /// Takes memory for further bytes of a result.
    fn take(&self, bytes: usize) -> bool {
        let mut left = self.left.lock();
        let Some(rest) = left.checked_sub(bytes) else { return false };
        *left = rest;
        self.share.lock().grow(bytes as u64, self.memory)
    }
}

impl Gateway {
    /// Makes a call.
    pub(super) async fn call_part(&self, scene: &CallScene<'_>, prepared: PreparedCall) -> EndedCall {
        let PreparedCall { index, item, request } = prepared;
        let begun = Instant::now();
        let call = &scene.aggregate.calls[index];
        let deadline = call.timeout.map_or(scene.deadline, |timeout| scene.deadline.min(begun + timeout));
        let mut visit = Visit::new(Arc::clone(&call.upstream), Class::Normal, Some(deadline));
        let result = self.visit_for_part(scene, call, request, (&mut visit, deadline)).await;
        let status = match &result {
            Ok(part) => part.status,
            Err(fault) => fault.status.unwrap_or(502),
        };
        call.upstream.metrics().by_class.count(status);
        visit.end();
        EndedCall { index, item, seconds: begun.elapsed().as_secs_f64(), result }
    }

    async fn visit_for_part(
        &self,
        scene: &CallScene<'_>,
        call: &Call,
        request: CallRequest,
        (visit, deadline): (&mut Visit, Instant),
    ) -> std::result::Result<CallPart, CallFault> {
        let body = match (&call.body, &request.body) {
            (CallBody::Client, _) => scene.body.clone(),
            (_, body) => body.clone().unwrap_or_default(),
        };
        let head = head(scene, call, request, body.len())
            .map_err(|error| CallFault::new(FaultKind::InputInvalid).log(error_text(&error)))?;
        let safe = call.method.is_idempotent();
        let outgoing = OutgoingRequest {
            head: &head,
            safe,
            hedged: safe && body.is_empty(),
            body,
            caller: connecting_caller(scene.came, scene.ctx),
            upgrade: false,
            grpc: false,
            edit: &|request, member, _| request.insert_header(HOST, member.authority.clone()),
            interim: None,
            is_wanted: &|| !scene.ctx.downstream.is_gone(),
        };
        let sent = outgoing.body.len() as u64;
        let mut response = self.calls.send(visit, &outgoing).await.map_err(|rejection| {
            let kind = match rejection.reason {
                Reason::RouteTimeout => FaultKind::TimedOut,
                reason => FaultKind::Upstream(reason),
            };
            CallFault::new(kind).log(rejection.log.unwrap_or_default())
        })?;
        let status = response.head.status.as_u16();
        if !call.accept.contains(status) {
            self.calls.release(response).await;
            return Err(CallFault::of_response(FaultKind::Status, status));
        }
        let most = scene.aggregate.max_part;
        let text = match timeout_at(deadline.into(), read_text(&mut response, most, scene.budget)).await {
            Ok(read) => read,
            Err(_) => Err(FaultKind::TimedOut),
        };
        // The next calls need not wait for the place of this one.
        visit.leave();
        visit.count_traffic([sent, text.as_ref().map_or(0, |text| text.len() as u64)]);
        let text = text.map_err(|kind| CallFault::of_response(kind, status));
        let headers = kept_headers(call, &response.head);
        self.calls.release(response).await;
        let json = take(call, &text?, scene.aggregate.needs_object(call))
            .map_err(|kind| CallFault::of_response(kind, status))?;
        Ok(CallPart { status, headers, json })
    }
}

/// Returns the head of a call's request.
fn head(scene: &CallScene<'_>, call: &Call, request: CallRequest, length: usize) -> Result<RequestHeader> {
    let CallRequest { path, query, headers, body } = request;
    let (came, ctx) = (scene.came, scene.ctx);
    let target = target(came, call, ctx, path, &query)?;
    let mut head = RequestHeader::build(call.method.clone(), target.as_bytes(), Some(24))?;
    edit_headers(&mut head, |fields| {
        let is_body = matches!(call.body, CallBody::Client) && body.is_none();
        let of_body = [CONTENT_TYPE, CONTENT_ENCODING];
        let of_body = of_body.iter().filter(|_| is_body && length > 0);
        for name in call.forward_headers.iter().chain(&FORWARDING_FIELDS).chain(of_body) {
            if fields.contains_key(name) {
                continue;
            }
            came.headers.get_all(name).iter().for_each(|value| _ = fields.append(name.clone(), value.clone()));
        }
        if !fields.contains_key(ACCEPT) {
            fields.insert(ACCEPT, HeaderValue::from_static("application/json"));
        }
        write_forwarding_fields(fields, requested_host(came), ctx);
        // Each call is a span of its own.
        let trace = Trace { span_id: fastrand::u64(1..), ..ctx.exchange.trace };
        fields.insert(TRACEPARENT, trace.header());
        ctx.exchange.edits.apply_to_headers(fields, &ctx.view(came));
        headers.into_iter().for_each(|(name, value)| _ = fields.insert(name, value));
        let has_body = !matches!(call.method, http::Method::GET | http::Method::HEAD | http::Method::DELETE);
        if length == 0 && has_body {
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    });
    Ok(head)
}

/// Returns the target of a call's request: the path, the client's parameters that are sent on, and those of the
/// configuration.
fn target(came: &RequestHeader, call: &Call, ctx: &Context, path: String, query: &str) -> Result<String> {
    let mut target = path;
    let mut sign = '?';
    let mut edited = (!call.forward_query.is_empty()).then(|| came.clone());
    if let Some(edited) = &mut edited {
        let done = ctx.exchange.edits.apply_to_target(edited, &ctx.view(came));
        done.map_err(|why| Error::explain(ErrorType::InternalError, why))?;
    }
    for name in &call.forward_query {
        for value in raw_parameters(edited.as_ref().and_then(|request| request.uri.query()), name) {
            let encoded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
            target.push(sign);
            target.push_str(&encoded);
            target.push('=');
            target.push_str(&String::from_utf8_lossy(value));
            sign = '&';
        }
    }
    if !query.is_empty() {
        target.push(sign);
        target.push_str(query);
    }
    Ok(target)
}

/// Returns the headers of a response that others use.
fn kept_headers(call: &Call, head: &ResponseHeader) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in &call.kept_headers {
        head.headers.get_all(name).iter().for_each(|value| _ = kept.append(name.clone(), value.clone()));
    }
    kept
}

/// Reads the body of a response, decoded.
pub(super) async fn read_text(
    response: &mut Response,
    most: usize,
    budget: &CallBudget,
) -> std::result::Result<String, FaultKind> {
    let mut decoder = decoder(&response.head)?;
    let (mut whole, mut decoded) = (Vec::new(), Vec::new());
    loop {
        let part = response.part().await.map_err(|_| FaultKind::Upstream(Reason::TargetReset))?;
        let end = part.is_none();
        let part = part.unwrap_or_else(Bytes::new);
        decoded.clear();
        match &mut decoder {
            Some(decoder) => decoder.push(&part, end, &mut decoded).map_err(|why| match why {
                Opaque::TooDense => FaultKind::TooLarge,
                _ => FaultKind::Undecodable,
            })?,
            None => decoded.extend_from_slice(&part),
        }
        if whole.len() + decoded.len() > most {
            return Err(FaultKind::TooLarge);
        }
        if !budget.take(decoded.len()) {
            return Err(FaultKind::TooLargeTogether);
        }
        whole.extend_from_slice(&decoded);
        if end {
            return String::from_utf8(whole).map_err(|_| FaultKind::NotJson);
        }
    }
}

/// Returns the decoder of the content coding of a response, if it has one.
fn decoder(head: &ResponseHeader) -> std::result::Result<Option<Decoder>, FaultKind> {
    let mut codings = Vec::new();
    for value in head.headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| FaultKind::Undecodable)?;
        codings.extend(text.split(',').map(str::trim).filter(|c| !c.is_empty() && !c.eq_ignore_ascii_case("identity")));
    }
    match codings.as_slice() {
        [] => Ok(None),
        [one] => Decoder::of(one).map(Some).ok_or(FaultKind::Undecodable),
        _ => Err(FaultKind::Undecodable),
    }
}

/// Returns the result of a call: its document, or what is taken of it. An empty body is `null`.
fn take(call: &Call, text: &str, needs_object: bool) -> std::result::Result<Box<str>, FaultKind> {
    let text = if text.trim_ascii().is_empty() { "null" } else { text };
    let json = is_json(text).ok_or(FaultKind::NotJson)?;
    let json = match &call.take {
        Some(path) => path.find(json).ok_or(FaultKind::ValueMissing)?,
        None => json,
    };
    if needs_object && !json.starts_with('{') { Err(FaultKind::NotAnObject) } else { Ok(json.into()) }
}
