//! The response to a request whose calls have ended, and the rejection where one failed that is required.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING, VARY};
use http::{Method, Version};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use serde_json::json;

use super::aggregate::{GatheredParts, PartFault};
use super::respond::drain_short_rest;
use super::waiting::pause;
use super::{Context, Gateway};
use crate::actions::{Aggregate, FailureStatus, FaultKind};
use crate::exchange::{Reason, Rejection, RelayedResponse};

/// The most faults that the access log names.
const MAX_LOGGED: usize = 8;

impl Gateway {
    /// Sends the merged results through the route's filters.
    ///
    /// # Errors
    /// Fails where the response has begun and cannot be completed, which the client is to see.
    pub(super) async fn send_aggregated(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        aggregate: &Aggregate,
        gathered: &GatheredParts,
    ) -> Result<()> {
        let merged = merge(aggregate, gathered);
        let (head, body) = match merged {
            Ok(body) => (head(aggregate, gathered, body.len())?, Bytes::from(body)),
            Err(why) => {
                let detail = "the results cannot be merged";
                let rejection = Rejection::new(Reason::CallFailed, detail).log(format!("{detail}: {why}"));
                return self.reject(session, &rejection, ctx).await;
            }
        };
        ctx.exchange.detail = (!gathered.faults.is_empty()).then(|| log_of(aggregate, &gathered.faults));
        let reason = if gathered.faults.is_empty() { Reason::Aggregated } else { Reason::AggregatedInPart };
        self.keep_own(ctx, session.req_header(), &head, &body).await;
        let Err(error) = self.write_made(session, ctx, head, body, reason).await else { return Ok(()) };
        if session.response_written().is_some() {
            return Err(error);
        }
        self.respond_to_failure(session, &error, ctx).await;
        ctx.close_after(session);
        Ok(())
    }

    /// Writes a response of the gateway's own through the route's filters, as if a target had sent it.
    pub(super) async fn write_made(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        mut head: ResponseHeader,
        body: Bytes,
        reason: Reason,
    ) -> Result<()> {
        self.edit_response_head(session.req_header(), &mut head, ctx)?;
        ctx.exchange.reason = reason;
        if session.req_header().version == Version::HTTP_10 && !head.headers.contains_key(CONTENT_LENGTH) {
            // The end of the connection is the end of the body.
            ctx.close_after(session);
        }
        ctx.end_with_the_listener(session);
        ctx.downstream.connection.iter().for_each(|connection| connection.clear_corks());
        drain_short_rest(session);
        let bodiless = session.req_header().method == Method::HEAD;
        if !bodiless && ctx.body.holds_head() {
            // A filter may replace the response at the end of its body.
            let mut body = Some(body);
            let delay = self.edit_body(&mut body, true, ctx)?;
            head.remove_header(&TRANSFER_ENCODING);
            head.insert_header(CONTENT_LENGTH, body.as_ref().map_or(0, Bytes::len))?;
            ctx.downstream.connection.iter().for_each(|connection| connection.clear_corks());
            if let Some(delay) = delay {
                pause(ctx, delay).await?;
            }
            session
                .write_response_tasks(vec![HttpTask::Header(Box::new(head), false), HttpTask::Body(body, true)])
                .await?;
            return Ok(());
        }
        session.write_response_tasks(vec![HttpTask::Header(Box::new(head), bodiless)]).await?;
        if bodiless {
            return Ok(());
        }
        let mut body = Some(body);
        if let Some(delay) = self.edit_body(&mut body, true, ctx)? {
            pause(ctx, delay).await?;
        }
        session.write_response_tasks(vec![HttpTask::Body(body, true)]).await?;
        Ok(())
    }
}

/// Returns the merged results, with the list of failed calls.
fn merge(aggregate: &Aggregate, gathered: &GatheredParts) -> std::result::Result<String, String> {
    let parts: Vec<Option<(u16, &str)>> =
        gathered.parts.iter().map(|part| part.as_ref().map(|part| (part.status, &*part.json))).collect();
    let errors: Vec<serde_json::Value> = gathered
        .faults
        .iter()
        .map(|PartFault { call, item, fault }| {
            let mut error = json!({"call": aggregate.calls[*call].name});
            item.iter().for_each(|item| error["item"] = (*item).into());
            fault.status.iter().for_each(|status| error["status"] = (*status).into());
            error["reason"] = fault.kind.code().into();
            error
        })
        .collect();
    let errors = (!errors.is_empty()).then(|| serde_json::Value::from(errors).to_string());
    aggregate.merge(&parts, errors.as_deref())
}

/// Returns the head of the response.
fn head(aggregate: &Aggregate, gathered: &GatheredParts, length: usize) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(aggregate.response_headers.len() + 8))?;
    head.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
    head.insert_header(CONTENT_LENGTH, length)?;
    if let Some(vary) = &aggregate.vary {
        head.insert_header(VARY, vary)?;
    }
    let mut terms = gathered.terms.clone();
    if aggregate.is_private {
        terms.make_private();
    }
    if let Some(value) = terms.value() {
        head.insert_header(CACHE_CONTROL, value)?;
    }
    for (call, name, own) in &aggregate.response_headers {
        // That of one call is in that of all.
        if *name == CACHE_CONTROL && *own == CACHE_CONTROL {
            continue;
        }
        let Some(Some(part)) = gathered.parts.get(*call) else { continue };
        for value in part.headers.get_all(name) {
            head.append_header(own.clone(), value.clone())?;
        }
    }
    if !gathered.faults.is_empty() {
        let mut names: Vec<&str> =
            gathered.faults.iter().map(|fault| aggregate.calls[fault.call].name.as_str()).collect();
        names.dedup();
        head.insert_header(aggregate.errors_header.clone(), names.join(", "))?;
        // What is missing now may be there with the next request.
        head.insert_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    }
    Ok(head)
}

/// Returns the faults for the access log.
fn log_of(aggregate: &Aggregate, faults: &[PartFault]) -> String {
    let texts = faults.iter().take(MAX_LOGGED).map(|fault| fault.text(aggregate));
    let more = faults.len().saturating_sub(MAX_LOGGED);
    let more = (more > 0).then(|| format!("{more} more"));
    texts.chain(more).collect::<Vec<_>>().join("; ")
}

impl PartFault {
    fn text(&self, aggregate: &Aggregate) -> String {
        let name = &aggregate.calls[self.call].name;
        match self.item {
            Some(item) => format!("{name}[{item}]: {}", self.fault),
            None => format!("{name}: {}", self.fault),
        }
    }

    /// Returns the response where the call is required.
    pub(super) fn into_rejection(self, aggregate: &Aggregate) -> Box<Rejection> {
        let reason = self.fault.kind.reason();
        let detail = format!("call {}: {}", aggregate.calls[self.call].name, self.fault.kind.code());
        let log = self.text(aggregate);
        let status = self.fault.status.filter(|status| {
            let is_own = aggregate.failure_status == FailureStatus::Call && self.fault.kind == FaultKind::Status;
            is_own && *status >= 400
        });
        let mut rejection = Rejection::new(reason, detail.clone()).log(log);
        rejection.headers.push((CACHE_CONTROL, HeaderValue::from_static("no-store")));
        if let Some(status) = status {
            let problem = json!({
                "type": format!("urn:portcullis:{}", reason.code()),
                "title": reason.title(),
                "status": status,
                "reason": reason.code(),
                "detail": detail,
            });
            rejection.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/problem+json")));
            rejection.relayed = Some(RelayedResponse { status, body: Bytes::from(problem.to_string()) });
        }
        rejection
    }
}
