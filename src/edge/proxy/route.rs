//! The route of a request: its match, its filters, and its action.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::context::Side;
use super::intake::is_asterisk;
use super::pick::fail_with;
use super::versions::RequestVersion;
use super::waiting::{Waited, wait};
use super::{Context, Gateway, versions};
use crate::actions::{ActionOutcome, Forward, PathEdit};
use crate::exchange::{Reason, Rejection, RequestValue};
use crate::rules::path::{Ambiguity, hides_dot_segments};
use crate::rules::routing::{EntryOperation, NamedVersion, RequestFacts, RouteEntry, RouteMatch, allow};
use crate::snapshot::Route;

impl Gateway {
    /// Routes a request. Returns true when it has been responded to.
    pub(super) async fn route(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let taken = self.intake(session, ctx);
        if taken.is_ok()
            && let Some(response) = challenge_response(session.req_header(), ctx)
        {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
            Box::pin(self.respond(session, ctx, Reason::Responded, 200, &headers, response.into())).await?;
            return Ok(true);
        }
        let decided = match taken {
            Ok(()) => self.decide(session, ctx).await,
            rejected => rejected,
        };
        if let Err(rejection) = decided {
            let rejection = in_clients_protocol(rejection, session.req_header(), ctx);
            Box::pin(self.reject(session, &rejection, ctx)).await?;
            return Ok(true);
        }
        let serving = Arc::clone(&ctx.serving);
        let Some(route) = serving.route(ctx.matched.route) else {
            // `OPTIONS *` is about the gateway itself (RFC 9110, section 9.3.7).
            Box::pin(self.respond(session, ctx, Reason::Responded, 200, &[], Bytes::new())).await?;
            return Ok(true);
        };
        let is_empty = session.is_body_empty();
        let chain = route.filters(ctx.listener);
        let most = chain.request_body(session.req_header(), is_empty, &ctx.exchange, &mut ctx.memories);
        if let Some(most) = most
            && let Err(rejection) = Box::pin(self.check_whole_body(session, ctx, route, most)).await?
        {
            let rejection = in_clients_protocol(rejection, session.req_header(), ctx);
            Box::pin(self.reject(session, &rejection, ctx)).await?;
            return Ok(true);
        }
        let action = route.action.on_request(&ctx.view(session.req_header()));
        let translation = match action {
            ActionOutcome::Forward(forward) if !forward.translations.is_empty() => {
                forward.translation(&ctx.view(session.req_header()))
            }
            _ => None,
        };
        ctx.matched.translated = translation.is_some();
        if matches!(action, ActionOutcome::Forward(_) | ActionOutcome::Aggregate(_) | ActionOutcome::Graphql(_))
            && let Some(policy) = chain.cache(session.req_header(), &ctx.exchange, &mut ctx.memories).cloned()
            && Box::pin(self.serve_cached(session, ctx, &policy)).await?
        {
            return Ok(true);
        }
        match action {
            // The admission comes after the cache look-up.
            ActionOutcome::Forward(forward) => match translation {
                Some(translation) => Box::pin(self.translate(session, ctx, forward, translation)).await?,
                None => return Ok(false),
            },
            ActionOutcome::Reject(rejection) => Box::pin(self.reject(session, &rejection, ctx)).await?,
            ActionOutcome::Aggregate(aggregate) => Box::pin(self.aggregate(session, ctx, aggregate)).await?,
            ActionOutcome::Graphql(graphql) => Box::pin(self.execute_graphql(session, ctx, graphql)).await?,
            ActionOutcome::File(request) => Box::pin(self.serve_file(session, ctx, request)).await?,
            ActionOutcome::Respond(own) => {
                Box::pin(self.respond(session, ctx, own.reason, own.status, &own.headers, own.body)).await?;
            }
        }
        Ok(true)
    }

    async fn decide(&self, session: &mut Session, ctx: &mut Context) -> Result<(), Box<Rejection>> {
        if is_asterisk(session.req_header()) {
            return Ok(());
        }
        let (place, entry, version) = self.find_route(session.req_header(), ctx)?;
        (ctx.matched.route, ctx.matched.entry) = (Some(place), entry);
        if let Some(version) = version {
            versions::enter(ctx, version)?;
        }
        let router = ctx.listener.and_then(|listener| ctx.serving.snapshot.routers.get(listener));
        if let Some(EntryOperation::Known(number)) = router.map(|router| router.entry(entry).operation) {
            ctx.exchange.operation = Some(number);
        }
        let route = &ctx.serving.snapshot.routes[place];
        check_path(session.req_header(), ctx, route)?;
        ctx.request_body.limit = route.body.or_else(|| ctx.limits().map(|l| l.body)).unwrap_or(u64::MAX);
        if let Some(rejection) = check_length(session.req_header(), ctx.request_body.limit) {
            // A page of another origin must be able to read the response.
            route
                .filters(ctx.listener)
                .before_rejection(session.req_header(), &mut ctx.exchange, &mut ctx.memories)
                .await?;
            return Err(rejection);
        }
        if let (Some(progress), false) = (&ctx.downstream.progress, session.is_body_empty()) {
            progress.note(true);
            // Should the body stall, this is all that is left of the request to be logged.
            ctx.ending.head = Some(Box::new(session.req_header().clone()));
        }
        let chain = route.filters(ctx.listener);
        if chain.reads_params()
            && let Some(pattern) = ctx.pattern()
        {
            let path = session.req_header().uri.path();
            ctx.exchange.params = pattern.all_values(path);
        }
        let decision = chain.on_request(session.req_header(), &mut ctx.exchange, &mut ctx.memories);
        if !chain.may_wait() {
            return decision.await.and_then(|()| versions::check_access(ctx));
        }
        // Boxed, as it is rare; dropped where the client leaves, which frees its turn.
        match Box::pin(wait(&ctx.downstream, None, decision)).await {
            Waited::Done(verdict) => verdict.and_then(|()| versions::check_access(ctx)),
            Waited::Late | Waited::Gone => Err(Rejection::new(Reason::ClientGone, "")),
        }
    }

    /// Returns the places of the route and of the router's entry for it, and the version of its API. A preflight has
    /// the route of the request that it announces.
    fn find_route(
        &self,
        request: &RequestHeader,
        ctx: &Context,
    ) -> Result<(usize, usize, Option<RequestVersion>), Box<Rejection>> {
        let gone = || Rejection::new(Reason::RouteNotFound, "");
        let snapshot = &ctx.serving.snapshot;
        let listener = ctx.listener.ok_or_else(gone)?;
        let router = snapshot.routers.get(listener).ok_or_else(gone)?;
        let question = RequestFacts {
            host: &ctx.exchange.host,
            path: request.uri.path(),
            query: request.uri.query(),
            method: &request.method,
            headers: &request.headers,
            client: ctx.exchange.client,
        };
        match snapshot.find(listener, &question) {
            RouteMatch::Found(entry) => {
                let RouteEntry { route, predicates, .. } = router.entry(entry);
                let api = snapshot.routes[*route].versions.as_ref();
                let version = api.and_then(|api| versions::of_match(&question, predicates, api));
                Ok((*route, entry, version))
            }
            RouteMatch::OtherVersion(entry) => {
                let RouteEntry { route, predicates, .. } = router.entry(entry);
                let api = snapshot.routes[*route].versions.as_ref().ok_or_else(gone)?;
                let rule = predicates.version.as_ref().ok_or_else(gone)?;
                if let NamedVersion::Known(number) = rule.named(&question) {
                    // Whoever still uses a version that has ended has not been identified.
                    api.versions[number].usage.count(None);
                }
                Err(api.rejection(rule, &question, versions::now()))
            }
            RouteMatch::NotFound => Err(gone()),
            RouteMatch::MethodNotAllowed(methods) => Err(method_not_allowed(&methods)),
        }
    }

    /// Counts the request body as it comes; fails where it exceeds its limit.
    pub(super) fn count_body(
        &self,
        _session: &mut Session,
        body: Option<&Bytes>,
        end: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        ctx.request_body.seen += body.map_or(0, |b| b.len() as u64);
        if end {
            ctx.end_of(Side::Request);
        }
        self.copy_body(ctx, body, end);
        if let Some(progress) = &ctx.downstream.progress {
            progress.note(!end);
        }
        if ctx.deadline().is_some_and(|deadline| std::time::Instant::now() > deadline) {
            return Err(fail_with(ctx, Rejection::new(Reason::RouteTimeout, "")));
        }
        if !end && is_too_slow(ctx) {
            let detail = "its body comes too slowly";
            ctx.rejection = Some(Rejection::new(Reason::ClientTimeout, detail).log(detail));
            return pingora::Error::e_explain(pingora::ErrorType::HTTPStatus(408), detail);
        }
        if ctx.request_body.seen > ctx.request_body.limit {
            ctx.rejection = Some(Rejection::new(
                Reason::BodyTooLarge,
                format!("at most {} bytes are accepted", ctx.request_body.limit),
            ));
            return pingora::Error::e_explain(pingora::ErrorType::HTTPStatus(413), "the request body is too large");
        }
        Ok(())
    }
}

/// Returns a rejection by the filters of a route as the protocol of a request that would be translated has it.
fn in_clients_protocol(rejection: Box<Rejection>, request: &RequestHeader, ctx: &Context) -> Box<Rejection> {
    let view = ctx.view(request);
    match ctx.forward().and_then(|forward| forward.translation(&view)) {
        Some(translation) => translation.rejection(rejection, &view),
        None => rejection,
    }
}

/// Returns whether a body has come more slowly than the listener allows, on average since the time for headers was
/// over. A body that is sent again to another target is not measured.
fn is_too_slow(ctx: &Context) -> bool {
    let Some(limits) = ctx.limits().filter(|limits| limits.body_rate > 0) else { return false };
    if ctx.visit.as_ref().is_some_and(|visit| visit.tries() > 1) {
        return false;
    }
    let time = ctx.exchange.started.elapsed().saturating_sub(limits.header_time);
    (ctx.request_body.seen as f64) < time.as_secs_f64() * limits.body_rate as f64
}

/// Returns the response to a challenge of an ACME server (RFC 8555, section 8.3). It comes before every route, whatever
/// that requires; a token that is not the gateway's own is left to the routes.
fn challenge_response(request: &RequestHeader, ctx: &Context) -> Option<String> {
    let acme = ctx.serving.snapshot.acme.as_ref()?;
    acme.response(request.uri.path().strip_prefix("/.well-known/acme-challenge/")?)
}

/// Rejects a path that the target may read differently from the gateway, as far as the route says so; and in any case
/// one of which a part that leads elsewhere would be filled into another path.
fn check_path(request: &RequestHeader, ctx: &Context, route: &Route) -> Result<(), Box<Rejection>> {
    let path = request.uri.path();
    if memchr::memchr2(b'%', b';', path.as_bytes()).is_none() {
        return Ok(());
    }
    if Ambiguity::of(path).is_rejected_by(route.paths) {
        return Err(Rejection::new(
            Reason::BadPath,
            "the path has an encoded slash or parameters, which this route rejects",
        ));
    }
    let forward = route.action.forward(ctx.exchange.operation);
    let Some(Forward { path: PathEdit::Rewrite(to), .. }) = forward else { return Ok(()) };
    let Some(pattern) = ctx.pattern() else { return Ok(()) };
    let leads_elsewhere = |value: &RequestValue| match value {
        RequestValue::Param(name) => pattern
            .value(path, name)
            .is_some_and(|value| Ambiguity::of(value).encoded_slash || hides_dot_segments(value)),
        RequestValue::Rest => hides_dot_segments(pattern.rest(path)),
        _ => false,
    };
    if to.values().any(leads_elsewhere) {
        return Err(Rejection::new(Reason::BadPath, "a part of the path has an encoded slash or dot segment"));
    }
    Ok(())
}

/// Returns the rejection of a request whose body is announced to be larger than it may be.
fn check_length(request: &RequestHeader, most: u64) -> Option<Box<Rejection>> {
    let length = request.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
    (length > most).then(|| Rejection::new(Reason::BodyTooLarge, format!("at most {most} bytes are accepted")))
}

fn method_not_allowed(methods: &[Method]) -> Box<Rejection> {
    let allow = allow(methods);
    let rejection = Rejection::new(Reason::MethodNotAllowed, format!("allowed here: {allow}"));
    match HeaderValue::try_from(allow) {
        Ok(allow) => rejection.header(ALLOW, allow),
        Err(_) => rejection,
    }
}
