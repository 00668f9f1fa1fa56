//! What a route does with a request: filters, limits, and the request that a target gets or the response.

use std::net::SocketAddr;

use pingora::http::RequestHeader;

use super::{Explain, ExplainedRequest};
use crate::actions::{ActionOutcome, Forward, Host, IncomingRequest, Translate};
use crate::config::{Inherited, Loaded};
use crate::exchange::{Client, ConnectionFacts, Exchange, GrpcWeb, RequestView, TlsFacts};
use crate::notation::Mistakes;
use crate::rules::routing::{EntryOperation, RouteEntry};
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::say;

/// The route that was selected, on a listener.
pub struct Selection<'s> {
    /// The configuration as it is written.
    pub loaded: &'s Loaded,
    /// The compiled configuration.
    pub snapshot: &'s Snapshot,
    /// The entry that matches.
    pub entry: &'s RouteEntry,
    /// The place of the listener.
    pub listener: usize,
}

impl Selection<'_> {
    fn route(&self) -> &Route {
        &self.snapshot.routes[self.entry.route]
    }

    /// Prints the route, its filters and limits, and what becomes of the request.
    pub fn print(&self, explain: &Explain, request: &ExplainedRequest) {
        say!("\nroute: {}", self.loaded.redact(&self.route().name));
        if let Some(operation) = self.route().api.as_ref().and_then(|api| api.operation_of(self.entry)) {
            say!("  operation: {} ({} {})", operation.id, operation.method, operation.template);
        }
        let inherited = Inherited::new(self.loaded, &mut Mistakes::default());
        for filter in super::filters(self.loaded, self.snapshot, &inherited, self.entry.route, self.listener) {
            say!("  filter: {filter}");
        }
        if let Some(policy) = self.route().filters(Some(self.listener)).cache_policy() {
            say!("  cached: {}", self.loaded.redact(&policy.to_string()));
        }
        for limit in self.limits(&inherited) {
            say!("  limit: {}", self.loaded.redact(&limit));
        }
        for line in self.route().action.describe() {
            say!("  {}", self.loaded.redact(&line));
        }
        for line in self.outcome(explain, request) {
            say!("  {}", self.loaded.redact(&line));
        }
    }

    /// Returns the limits that a request of the route is under, those of its way first.
    fn limits(&self, inherited: &Inherited<'_>) -> Vec<String> {
        let route = self.route();
        let mut limits = Vec::new();
        if let Some(rate) = &self.snapshot.shield {
            limits.push(format!("{rate} by address (shield)"));
        }
        let effective = inherited.effective(self.entry.route, self.listener);
        limits
            .extend(effective.iter().filter_map(|one| Some(format!("{} ({})", one.config.limit()?, one.config.key()))));
        let of_listener = self.snapshot.listeners[self.listener].http().map(|http| http.limits.body);
        match (route.body, of_listener) {
            (Some(body), _) => limits.push(format!("a request body of {} (the route's)", bytes(body))),
            (None, Some(body)) => limits.push(format!("a request body of {} (the listener's)", bytes(body))),
            (None, None) => {}
        }
        let operation = match self.entry.operation {
            EntryOperation::Known(number) => Some(number),
            EntryOperation::None | EntryOperation::Unknown { .. } => None,
        };
        let Some(forward) = route.action.forward(operation) else { return limits };
        if let Some(timeout) = forward.timeout {
            limits.push(format!("{timeout:?} from arrival to the end of the response"));
        }
        for upstream in &forward.upstreams {
            let gate = &upstream.pool.shape().gate;
            limits.push(format!(
                "{} requests at a time, and {} that wait for {:?} (the upstream {})",
                gate.requests, gate.pending, gate.pending_time, upstream.name
            ));
        }
        limits
    }

    /// Returns what the target gets, or the response.
    fn outcome(&self, explain: &Explain, request: &ExplainedRequest) -> Vec<String> {
        let target = match &request.query {
            Some(query) => format!("{}?{query}", request.path),
            None => request.path.clone(),
        };
        let Ok(mut head) = RequestHeader::build(explain.method.clone(), target.as_bytes(), None) else {
            return Vec::new();
        };
        for (name, value) in &request.headers {
            // The name was parsed from a text before.
            let _ = head.append_header(name.clone(), value.clone());
        }
        let exchange = self.exchange(explain, request);
        let view = RequestView { request: &head, exchange: &exchange, pattern: Some(&self.entry.path), response: None };
        match self.route().action.on_request(&view) {
            ActionOutcome::Forward(forward) => {
                let (path, query) = (head.uri.path(), head.uri.query());
                let changed = forward.changed_target(path, query, &view).unwrap_or(target);
                let translation = forward.translation(&view);
                let mut lines = match translation {
                    Some(translation) => translated(translation, view, &changed),
                    None => vec![format!("request to the target: {} {changed}", explain.method)],
                };
                if !translation.is_some_and(Translate::replaces_head) {
                    lines.push(format!("host for the target: {}", host(forward, request)));
                }
                lines
            }
            ActionOutcome::Respond(response) => {
                let mut lines = vec![format!("response: {}", response.status)];
                let location = response.headers.iter().find(|(name, _)| *name == http::header::LOCATION);
                lines.extend(
                    location.map(|(_, value)| format!("location: {}", String::from_utf8_lossy(value.as_bytes()))),
                );
                lines
            }
            ActionOutcome::Aggregate(aggregate) => {
                vec![format!("response: 200 with the results of {} calls", aggregate.calls.len())]
            }
            ActionOutcome::Graphql(_) => vec!["response: 200 with the result of the operation".to_owned()],
            ActionOutcome::File(file) => vec![format!("file: {}", file.name)],
            ActionOutcome::Reject(rejection) => {
                let reason = rejection.reason;
                vec![format!("response: {} {}", reason.status(), reason.code())]
            }
        }
    }

    /// Returns the state of the request as the listener would have it. Nobody is authenticated.
    fn exchange(&self, explain: &Explain, request: &ExplainedRequest) -> Exchange {
        let listener = &self.snapshot.listeners[self.listener];
        let is_tls = listener.tls().is_some();
        let tls = is_tls.then(|| TlsFacts {
            version: "1.3",
            server_name: Some(request.host.clone()),
            certificate: None,
            client_policy: None,
            verified_by: Default::default(),
        });
        let mut exchange =
            Exchange::new(Client::new(SocketAddr::new(explain.from, 0), ConnectionFacts { tls, proxy: None }));
        exchange.host = request.host.clone();
        exchange.operation = match self.entry.operation {
            EntryOperation::Known(number) => Some(number),
            EntryOperation::None | EntryOperation::Unknown { .. } => None,
        };
        exchange.listener_port = listener.address.port();
        let content_type = request.headers.get(http::header::CONTENT_TYPE);
        exchange.grpc_web = content_type.and_then(|kind| GrpcWeb::of(kind.as_bytes()));
        exchange
    }
}

/// Returns the `Host` that a target gets.
fn host(forward: &Forward, request: &ExplainedRequest) -> String {
    match &forward.host {
        Host::Keep if request.host.is_empty() => "the target's own name, since the request has none".to_owned(),
        Host::Keep => format!("{} (the client's)", request.host),
        Host::Target => "the target's own name".to_owned(),
        Host::Text(text) => format!("{} (of the route)", String::from_utf8_lossy(text.as_bytes())),
    }
}

/// Returns a size as it is written.
fn bytes(size: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| size >= *unit && size.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", size / unit),
        None => format!("{size}B"),
    }
}

/// Returns the request that a target gets of one without a body in another protocol.
fn translated(translation: &dyn Translate, view: RequestView<'_>, target: &str) -> Vec<String> {
    let (from, to) = translation.protocols().words();
    let mut lines = vec![format!("translated: {from} to {to}")];
    if translation.sockets().is_some() {
        lines.push(format!("request to the target: {target}"));
        return lines;
    }
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let calls = translation.call(&view, path);
    if !calls.is_empty() {
        lines.extend(calls);
        return lines;
    }
    let incoming = IncomingRequest { view, path, query, headers: &view.request.headers, body: bytes::Bytes::new() };
    match translation.translate(&incoming) {
        Ok(request) => {
            lines.push(format!("request to the target: {} {}", request.method, request.target));
            lines.extend(request.operation.map(|operation| format!("operation: {operation}")));
        }
        Err(rejection) => {
            lines.push(format!("response: {} {}", rejection.http_status(), rejection.reason.code()));
            lines.push(format!("detail: {}", rejection.detail));
        }
    }
    lines
}
