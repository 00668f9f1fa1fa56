//! Aggregated responses: the calls of a request, those that need nothing first, each of the others once it has what it
//! needs. All of them run in the request's own task, so that none outlives the request.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::aggregate_calls::{CallBudget, EndedCall, PreparedCall};
use super::pick::fail_with;
use super::waiting::{Waited, wait};
use super::whole::BudgetShare;
use super::{Context, Gateway};
use crate::actions::{Aggregate, CallFault, CallInputs, CallPart, CallResult, FaultKind};
use crate::exchange::{Reason, Rejection};
use crate::rules::aggregation::{CachingTerms, Children};
use crate::telemetry::metrics::PartOutcome;

impl Gateway {
    /// Makes the calls of an action and responds with their merged results.
    pub(super) async fn aggregate(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        aggregate: &Aggregate,
    ) -> Result<()> {
        if let (Some(route), false) = (ctx.serving.route(ctx.matched.route), ctx.matched.counted) {
            route.metrics().in_flight.inc();
            ctx.matched.counted = true;
        }
        let deadline = ctx.exchange.started + aggregate.timeout;
        let mut share = BudgetShare::new(&self.bodies);
        let body = match aggregate.request_body {
            Some(most) => self.read_body_for_calls(session, ctx, (most, deadline), &mut share).await?,
            None => Ok(Bytes::new()),
        };
        let body = match body {
            Ok(body) => body,
            Err(rejection) => return self.reject(session, &rejection, ctx).await,
        };
        let came = session.req_header().clone();
        let budget = CallBudget {
            left: Mutex::new(aggregate.max_size),
            share: Mutex::new(share),
            memory: ctx.serving.snapshot.process.body_memory,
        };
        let gathered = {
            let scene = CallScene { gateway: self, ctx, came: &came, aggregate, body, deadline, budget: &budget };
            wait(&ctx.downstream, None, Gathering::new(&scene).run()).await
        };
        match gathered {
            Waited::Done(Ok(gathered)) => self.send_aggregated(session, ctx, aggregate, &gathered).await,
            Waited::Done(Err(failed)) if failed.fault.kind.reason() != Reason::ClientGone => {
                let rejection = failed.into_rejection(aggregate);
                self.reject(session, &rejection, ctx).await
            }
            _ => {
                let error = fail_with(ctx, Rejection::new(Reason::ClientGone, ""));
                self.respond_to_failure(session, &error, ctx).await;
                ctx.close_after(session);
                Ok(())
            }
        }
    }
}

/// The facts that all calls of a request share.
pub(super) struct CallScene<'s> {
    /// The gateway.
    pub gateway: &'s Gateway,
    /// The state of the request.
    pub ctx: &'s Context,
    /// The request as the client sent it.
    pub came: &'s RequestHeader,
    /// The action.
    pub aggregate: &'s Aggregate,
    /// The body of the request, where calls send it on.
    pub body: Bytes,
    /// The end of the time of all calls.
    pub deadline: Instant,
    /// The memory that is left for results.
    pub budget: &'s CallBudget,
}

/// The results of all calls.
pub(super) struct GatheredParts {
    /// The result of each call, in the order of the configuration; `None` where it has none.
    pub parts: Vec<Option<CallPart>>,
    /// The calls that failed.
    pub faults: Vec<PartFault>,
    /// What the responses say of caches.
    pub terms: CachingTerms,
}

/// A call that failed.
pub(super) struct PartFault {
    /// The place of the call.
    pub call: usize,
    /// The place of the element that it was made for.
    pub item: Option<usize>,
    /// Why it failed.
    pub fault: CallFault,
}

/// The state of a call.
enum CallState {
    /// It needs the results of others.
    Waiting,
    /// It, or the calls for its elements, run or wait for their turn.
    Running { items: Option<Vec<Option<Box<str>>>>, left: usize },
    /// It has ended; `None` without a result.
    Ended(Option<CallPart>),
    /// It was not made.
    Skipped,
}

/// The calls of one request as they run.
struct Gathering<'s> {
    scene: &'s CallScene<'s>,
    states: Vec<CallState>,
    faults: Vec<PartFault>,
    terms: CachingTerms,
    /// The calls that can be made, and have no turn yet.
    ready: VecDeque<PreparedCall>,
}

impl<'s> Gathering<'s> {
    fn new(scene: &'s CallScene<'s>) -> Self {
        let states = scene.aggregate.calls.iter().map(|_| CallState::Waiting).collect();
        Self { scene, states, faults: Vec::new(), terms: CachingTerms::default(), ready: VecDeque::new() }
    }

    /// Runs all calls.
    ///
    /// # Errors
    /// Returns the first required call that failed; the others are dropped then.
    async fn run(mut self) -> std::result::Result<GatheredParts, PartFault> {
        let mut running: FuturesUnordered<BoxFuture<'s, EndedCall>> = FuturesUnordered::new();
        loop {
            while self.prepare_ready()? {}
            while running.len() < self.scene.aggregate.concurrency
                && let Some(next) = self.ready.pop_front()
            {
                running.push(self.scene.gateway.call_part(self.scene, next).boxed());
            }
            let Some(ended) = running.next().await else { break };
            self.note(ended)?;
        }
        // The order is the configured one, and not that in which calls ended.
        self.faults.sort_by_key(|fault| (fault.call, fault.item));
        let parts = self.states.into_iter().map(|state| match state {
            CallState::Ended(part) => part,
            _ => None,
        });
        Ok(GatheredParts { parts: parts.collect(), faults: self.faults, terms: self.terms })
    }

    /// Prepares the calls that have all that they need, and returns whether any state has changed.
    fn prepare_ready(&mut self) -> std::result::Result<bool, PartFault> {
        let mut changed = false;
        for index in 0..self.states.len() {
            let call = &self.scene.aggregate.calls[index];
            let is_over = |need: &usize| matches!(self.states[*need], CallState::Ended(_) | CallState::Skipped);
            if matches!(self.states[index], CallState::Waiting) && call.needs.iter().all(is_over) {
                self.prepare(index)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn prepare(&mut self, index: usize) -> std::result::Result<(), PartFault> {
        let scene = self.scene;
        let call = &scene.aggregate.calls[index];
        let states = &self.states;
        let result = |of: usize| result_of(states, of);
        let view = scene.ctx.view(scene.came);
        let inputs = CallInputs { view, result: &result, item: None };
        let list = match call.is_made(&inputs) {
            Ok(true) => call.for_each.as_ref().map(|list| (list.call, list.read(&inputs))),
            Ok(false) => return self.skip(index),
            Err(fault) => return self.fail(index, None, fault),
        };
        let Some((of, list)) = list else {
            let prepared = call.request(&inputs);
            self.states[index] = CallState::Running { items: None, left: 1 };
            return self.queue(index, None, prepared);
        };
        let Some(items) = list.as_deref().and_then(Children::of_array) else {
            if matches!(self.states[of], CallState::Skipped) {
                return self.skip(index);
            }
            return self.fail(index, None, CallFault::new(FaultKind::NotAList));
        };
        let items: Vec<&str> = items.map(|child| child.value).take(call.max_items + 1).collect();
        if items.len() > call.max_items {
            return self.fail(index, None, CallFault::new(FaultKind::TooManyItems));
        }
        let requests: Vec<_> =
            items.iter().map(|item| call.request(&CallInputs { view, result: &result, item: Some(item) })).collect();
        let left = requests.len();
        self.states[index] = CallState::Running { items: Some(vec![None; left]), left };
        for (item, request) in requests.into_iter().enumerate() {
            self.queue(index, Some(item), request)?;
        }
        if left == 0 {
            self.end_list(index);
        }
        Ok(())
    }

    /// Queues a call, or notes why it cannot be made.
    fn queue(
        &mut self,
        index: usize,
        item: Option<usize>,
        request: std::result::Result<crate::actions::CallRequest, (CallFault, Option<usize>)>,
    ) -> std::result::Result<(), PartFault> {
        match request {
            Ok(request) => {
                self.ready.push_back(PreparedCall { index, item, request });
                Ok(())
            }
            Err((_, Some(of))) if matches!(self.states[of], CallState::Skipped) => self.skip(index),
            Err((fault, _)) => self.fail(index, item, fault),
        }
    }

    fn skip(&mut self, index: usize) -> std::result::Result<(), PartFault> {
        self.observe(index, PartOutcome::Skipped, None);
        self.states[index] = CallState::Skipped;
        Ok(())
    }

    /// Notes how a call has ended.
    fn note(&mut self, ended: EndedCall) -> std::result::Result<(), PartFault> {
        let EndedCall { index, item, seconds, result } = ended;
        let fault = match result {
            Ok(part) => {
                self.observe(index, PartOutcome::Completed, Some(seconds));
                self.terms.add(&part.headers);
                self.end(index, item, Some(part));
                return Ok(());
            }
            Err(fault) => fault,
        };
        let timed_out = fault.kind.is_timeout();
        let outcome = if timed_out { PartOutcome::TimedOut } else { PartOutcome::Failed };
        self.observe(index, outcome, Some(seconds));
        self.give_up(index, item, fault)
    }

    /// Notes that a call failed before it was made.
    fn fail(&mut self, index: usize, item: Option<usize>, fault: CallFault) -> std::result::Result<(), PartFault> {
        self.observe(index, PartOutcome::Failed, None);
        self.give_up(index, item, fault)
    }

    fn give_up(&mut self, index: usize, item: Option<usize>, fault: CallFault) -> std::result::Result<(), PartFault> {
        let call = &self.scene.aggregate.calls[index];
        let failed = PartFault { call: index, item, fault };
        if call.required {
            return Err(failed);
        }
        self.faults.push(failed);
        let fallback = call.fallback.clone();
        self.end(index, item, fallback.map(|json| CallPart { status: 0, headers: http::HeaderMap::new(), json }));
        Ok(())
    }

    fn end(&mut self, index: usize, item: Option<usize>, part: Option<CallPart>) {
        match (&mut self.states[index], item) {
            (CallState::Running { items: Some(items), left }, Some(item)) => {
                items[item] = part.map(|part| part.json);
                *left -= 1;
                if *left == 0 {
                    self.end_list(index);
                }
            }
            (state, _) => *state = CallState::Ended(part),
        }
    }

    /// Joins the results of the calls for the elements of a list.
    fn end_list(&mut self, index: usize) {
        let CallState::Running { items: Some(items), .. } = &self.states[index] else { return };
        let joined: Vec<&str> = items.iter().map(|item| item.as_deref().unwrap_or("null")).collect();
        let json = format!("[{}]", joined.join(",")).into();
        self.states[index] = CallState::Ended(Some(CallPart { status: 200, headers: http::HeaderMap::new(), json }));
    }

    fn observe(&self, index: usize, outcome: PartOutcome, seconds: Option<f64>) {
        let route = self.scene.ctx.route().map_or("", |route| route.name.as_str());
        self.scene.aggregate.calls[index].metrics(route).observe(outcome, seconds);
    }
}

/// Returns the result of a call, if it has one.
fn result_of(states: &[CallState], of: usize) -> Option<CallResult<'_>> {
    match &states[of] {
        CallState::Ended(Some(part)) => {
            Some(CallResult { status: part.status, headers: &part.headers, json: &part.json })
        }
        _ => None,
    }
}
