//! GraphQL operations over calls to upstreams: the rounds of [`crate::rules::graphql`], and the calls between them. All
//! of them run in the request's own task, so that none outlives the request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::Method;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, VARY,
};
use parking_lot::Mutex;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use serde_json::Value;
use tokio::time::timeout_at;

use super::aggregate_calls::{CallBudget, FORWARDING_FIELDS, read_text};
use super::forward::{requested_host, write_forwarding_fields};
use super::intake::{TRACEPARENT, edit_headers};
use super::pick::{connecting_caller, fail_with};
use super::waiting::{Waited, wait};
use super::whole::BudgetShare;
use super::{Context, Gateway};
use crate::actions::{Graphql, graphql_response};
use crate::exchange::{Reason, Rejection, Trace, TranslationNote};
use crate::rules::graphql::{
    CallKey, FieldCall, GraphqlError, OperationBatch, Prepared, ResolvedCall, Round, parse_body, parse_query,
};
use crate::upstreams::{Class, OutgoingRequest, Visit, error_text};

/// The media type of responses whose status is that of the operation (GraphQL over HTTP, section 6).
const GRAPHQL_RESPONSE: &str = "application/graphql-response+json";

type OrRejection<T> = std::result::Result<T, Box<Rejection>>;

impl Gateway {
    /// Executes the operations of a request.
    pub(super) async fn execute_graphql(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        graphql: &Graphql,
    ) -> Result<()> {
        ctx.exchange.translation = Some(Box::new(TranslationNote::new(("graphql", "http"))));
        if let (Some(route), false) = (ctx.serving.route(ctx.matched.route), ctx.matched.counted) {
            route.metrics().in_flight.inc();
            ctx.matched.counted = true;
        }
        let deadline = ctx.exchange.started + graphql.timeout;
        let mut share = BudgetShare::new(&self.bodies);
        let body = self.read_body_for_calls(session, ctx, (graphql.request_body, deadline), &mut share).await?;
        let came = session.req_header().clone();
        let batch = match body.and_then(|body| batch_of(&came, &body, graphql)) {
            Ok(batch) => batch,
            Err(rejection) => return self.reject(session, &rejection, ctx).await,
        };
        let operation = batch.requests.iter().find_map(|request| request.operation_name.as_deref());
        if let (Some(note), Some(operation)) = (&mut ctx.exchange.translation, operation) {
            // It is the client's word, which the log bounds.
            note.operation = Some(operation.chars().take(MAX_LOGGED_NAME).collect());
        }
        let budget = CallBudget {
            left: Mutex::new(graphql.size),
            share: Mutex::new(share),
            memory: ctx.serving.snapshot.process.body_memory,
        };
        let executed = {
            let scene = GraphqlScene { gateway: self, ctx, came: &came, graphql, deadline, budget: &budget };
            wait(&ctx.downstream, None, scene.execute_all(&batch)).await
        };
        match executed {
            Waited::Done((responses, are_executed)) => {
                self.send_graphql(session, ctx, (responses, batch.is_list), are_executed).await
            }
            Waited::Late | Waited::Gone => {
                let error = fail_with(ctx, Rejection::new(Reason::ClientGone, ""));
                self.respond_to_failure(session, &error, ctx).await;
                ctx.close_after(session);
                Ok(())
            }
        }
    }

    async fn send_graphql(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (responses, is_list): (Vec<Value>, bool),
        are_executed: bool,
    ) -> Result<()> {
        let is_new = accepts_new(&session.req_header().headers);
        let has_errors = responses.iter().any(|response| response.get("errors").is_some());
        // Clients of the older form read errors only where the status is 200.
        let status = if is_new && !are_executed { 400 } else { 200 };
        let body = Bytes::from(graphql_response(responses, is_list).to_string());
        let mut head = ResponseHeader::build(status, Some(8))?;
        let kind = if is_new { "application/graphql-response+json; charset=utf-8" } else { "application/json" };
        head.insert_header(CONTENT_TYPE, HeaderValue::from_static(kind))?;
        head.insert_header(CONTENT_LENGTH, body.len())?;
        head.insert_header(VARY, HeaderValue::from_static("accept"))?;
        if has_errors || session.req_header().method != Method::GET {
            head.insert_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
        }
        self.keep_own(ctx, session.req_header(), &head, &body).await;
        let reason = if has_errors { Reason::AggregatedInPart } else { Reason::Aggregated };
        let Err(error) = self.write_made(session, ctx, head, body, reason).await else { return Ok(()) };
        if session.response_written().is_some() {
            return Err(error);
        }
        self.respond_to_failure(session, &error, ctx).await;
        ctx.close_after(session);
        Ok(())
    }
}

/// How long rounds may go on once the time of all calls is over: the last has their errors.
const EXECUTION_GRACE: Duration = Duration::from_secs(1);

/// The longest name of an operation in the log.
const MAX_LOGGED_NAME: usize = 64;

/// Returns the requests of GraphQL in a request of HTTP.
fn batch_of(came: &RequestHeader, body: &[u8], graphql: &Graphql) -> OrRejection<OperationBatch> {
    let bad = |why| Rejection::new(Reason::RequestUntranslatable, why);
    let batch = match came.method {
        Method::GET | Method::HEAD => {
            let request = parse_query(came.uri.query().unwrap_or_default()).map_err(|fault| bad(fault.0))?;
            OperationBatch { requests: vec![request], is_list: false }
        }
        Method::POST => {
            let kind = came.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
            let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            // Any other type could be sent by a page of another site without a preflight.
            if !kind.eq_ignore_ascii_case(b"application/json") {
                return Err(Rejection::new(Reason::MediaType, "expected application/json"));
            }
            parse_body(body).map_err(|fault| bad(fault.0))?
        }
        _ => {
            let rejection = Rejection::new(Reason::MethodNotAllowed, "allowed here: GET, POST");
            return Err(rejection.header(ALLOW, HeaderValue::from_static("GET, POST")));
        }
    };
    if batch.requests.len() > graphql.batch {
        let detail = format!("at most {} operations are accepted in one request", graphql.batch);
        return Err(Rejection::new(Reason::RequestUntranslatable, detail));
    }
    Ok(batch)
}

fn accepts_new(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.any(|line| line.contains(GRAPHQL_RESPONSE))
}

/// The facts that all calls of a request share.
struct GraphqlScene<'s> {
    gateway: &'s Gateway,
    ctx: &'s Context,
    came: &'s RequestHeader,
    graphql: &'s Graphql,
    deadline: Instant,
    budget: &'s CallBudget,
}

impl GraphqlScene<'_> {
    /// Executes the operations one after the other. Returns the responses, and whether any was executed.
    async fn execute_all(&self, batch: &OperationBatch) -> (Vec<Value>, bool) {
        let is_get = self.came.method != Method::POST;
        let (mut responses, mut are_executed) = (Vec::with_capacity(batch.requests.len()), false);
        for request in &batch.requests {
            let executed = match self.graphql.prepare(request, is_get) {
                Ok(prepared) => {
                    are_executed = true;
                    self.execute(&prepared).await
                }
                Err(error) => Err(error),
            };
            responses.push(executed.unwrap_or_else(|error| error.response()));
        }
        (responses, are_executed)
    }

    async fn execute(&self, prepared: &Prepared) -> std::result::Result<Value, GraphqlError> {
        let mut results: HashMap<CallKey, ResolvedCall> = HashMap::new();
        loop {
            if Instant::now() > self.deadline + EXECUTION_GRACE {
                return Err(GraphqlError::new("the operation took too long"));
            }
            match self.graphql.engine.round(prepared, &results)? {
                Round::Done(response) => return Ok(response),
                Round::Calls(calls) => {
                    let made = stream::iter(calls.into_iter().map(|call| self.call(call)));
                    let mut made = made.buffer_unordered(self.graphql.concurrency);
                    while let Some((key, result)) = made.next().await {
                        results.insert(key, result);
                    }
                }
            }
        }
    }

    /// Makes a call. The client is told the reason of a failure, and nothing more.
    async fn call(&self, call: FieldCall) -> (CallKey, ResolvedCall) {
        let (upstream, not_found_is_null) = &self.graphql.upstreams[call.number];
        let mut visit = Visit::new(Arc::clone(upstream), Class::Normal, Some(self.deadline));
        let called = self.visit(&call, &mut visit).await;
        upstream.metrics().by_class.count(called.as_ref().map_or(502, |(status, _)| *status));
        visit.end();
        let result = match called {
            Ok((404, _)) if *not_found_is_null => Ok(serde_json::from_str("null").unwrap_or_default()),
            Ok((status, _)) if !(200..300).contains(&status) => Err(format!("a call was responded to with {status}")),
            Ok((_, text)) if text.trim_ascii().is_empty() => Ok(serde_json::from_str("null").unwrap_or_default()),
            Ok((_, text)) => serde_json::from_str(&text).map_err(|_| "the response to a call is no JSON".to_owned()),
            Err(reason) => Err(format!("a call failed: {}", reason.code())),
        };
        (call.key, result)
    }

    async fn visit(&self, call: &FieldCall, visit: &mut Visit) -> std::result::Result<(u16, String), Reason> {
        let head = self.head(call).map_err(|_| Reason::Internal)?;
        let body = call.body.clone().map(Bytes::from).unwrap_or_default();
        let (sent, safe) = (body.len() as u64, call.method.is_idempotent());
        let outgoing = OutgoingRequest {
            head: &head,
            body,
            caller: connecting_caller(self.came, self.ctx),
            safe,
            hedged: call.method == Method::GET,
            upgrade: false,
            grpc: false,
            edit: &|request, member, _| request.insert_header(HOST, member.authority.clone()),
            interim: None,
            is_wanted: &|| !self.ctx.downstream.is_gone(),
        };
        let sending = self.gateway.calls.send(visit, &outgoing).await;
        let mut response = sending.map_err(|rejection| {
            log::debug!("a call of GraphQL failed: {}", rejection.log.as_deref().unwrap_or_default());
            rejection.reason
        })?;
        let status = response.head.status.as_u16();
        let reading = read_text(&mut response, self.graphql.call_size, self.budget);
        let text = match timeout_at(self.deadline.into(), reading).await {
            Ok(read) => read.map_err(crate::actions::FaultKind::reason),
            Err(_) => Err(Reason::RouteTimeout),
        };
        visit.leave();
        visit.count_traffic([sent, text.as_ref().map_or(0, |text| text.len() as u64)]);
        self.gateway.calls.release(response).await;
        Ok((status, text?))
    }

    fn head(&self, call: &FieldCall) -> std::result::Result<RequestHeader, String> {
        let built = RequestHeader::build(call.method.clone(), call.target.as_bytes(), Some(24));
        let mut head = built.map_err(|error| error_text(&error))?;
        let forwarding: &[HeaderName] = &FORWARDING_FIELDS;
        edit_headers(&mut head, |fields| {
            for name in self.graphql.forward_headers.iter().chain(forwarding) {
                self.came.headers.get_all(name).iter().for_each(|value| _ = fields.append(name.clone(), value.clone()));
            }
            fields.insert(ACCEPT, HeaderValue::from_static("application/json"));
            write_forwarding_fields(fields, requested_host(self.came), self.ctx);
            // Each call is a span of its own.
            let trace = Trace { span_id: fastrand::u64(1..), ..self.ctx.exchange.trace };
            fields.insert(TRACEPARENT, trace.header());
            self.ctx.exchange.edits.apply_to_headers(fields, &self.ctx.view(self.came));
            match &call.body {
                Some(_) => _ = fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json")),
                None if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) => {
                    fields.insert(CONTENT_LENGTH, 0.into());
                }
                None => {}
            }
        });
        Ok(head)
    }
}
