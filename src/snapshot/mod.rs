//! The immutable configuration that serves traffic. A request takes one at its start and sees no other.
//!
//! Never here: mutable state. State that changes lives in [`crate::live`] and is only referenced.

mod api;
mod current;
mod listener;
mod stream;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::AHashMap;
use http::HeaderName;

use crate::actions::Action;
use crate::exchange::{ErrorPages, Exchange};
use crate::filters::{ApiRules, Chain, Consumers, Stage, UsedCache, announced_method};
use crate::live::{AcmeManager, Maintained};
use crate::notation::{AdminAddress, Mistake, Rate, SecretText};
use crate::rules::path::PathRules;
use crate::rules::routing::{PathPattern, RequestFacts, RouteMatch, Router};
use crate::telemetry::metrics::{CertificateState, METRICS, OperationMetrics, RouteMetrics};
use crate::telemetry::{AccessLogger, LogLayout, ProcessLog, Sink};
use crate::upstreams::Upstream;

pub use api::{Api, ApiVersion, VersionAccess};
pub use current::{Current, WorkerServing};
pub use listener::{
    ConnectionLimits, DatagramLimits, HttpListener, Limits, Listener, ListenerKey, ListenerSpec, ListenerTls,
    ProxySources, TcpListener, Transport, UdpListener,
};
pub use stream::{DatagramRules, StreamForward, StreamRule, StreamTimes, StreamTls, Streams};

/// A whole configuration in its compiled form.
#[derive(Debug)]
pub struct Snapshot {
    /// Where connections are accepted.
    pub listeners: Vec<Listener>,
    /// The places of the listeners.
    pub places: AHashMap<ListenerKey, usize>,
    /// Routers, one for each listener, in the same order.
    pub routers: Vec<Router>,
    /// The routes that routers' entries refer to.
    pub routes: Vec<Route>,
    /// Every upstream.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The values that are kept up to date in the background.
    pub kept: Vec<Arc<dyn Maintained>>,
    /// The caches that filters use.
    pub caches: Vec<UsedCache>,
    /// The files that were read besides those that the configuration names: a change of one is a change of it.
    pub files: Vec<PathBuf>,
    /// The consumers and the plans.
    pub consumers: Arc<Consumers>,
    /// The certificates from an ACME server, if there is an account.
    pub acme: Option<Arc<AcmeManager>>,
    /// The query parameters that hold credentials: their values are never logged.
    pub secret_parameters: Vec<String>,
    /// Header names with `_` that the configuration reads, each with its twin that has `-` instead.
    pub underscored: Vec<(HeaderName, HeaderName)>,
    /// The certificates of listeners, with the time at which each expires.
    pub certificates: Vec<CertificateState>,
    /// The pages for rejections, where neither route nor listener has one.
    pub errors: ErrorPages,
    /// For each listener the filters that edit responses to requests without a route.
    pub unrouted: Vec<Chain>,
    /// The headers in which targets get the client's identity.
    pub identity_headers: IdentityHeaders,
    /// The coarse limit of one address.
    pub shield: Option<Rate>,
    /// The operators' listener.
    pub admin: Admin,
    /// The output and the layout of the access log.
    pub log: (Sink, LogLayout),
    /// The settings of the process's own log.
    pub process_log: ProcessLog,
    /// Threads, draining, upgrades.
    pub process: Process,
    /// The warnings, each with its place: what is valid and most likely not intended.
    pub warnings: Vec<Mistake>,
}

impl Snapshot {
    /// Returns the entry of a listener's router that matches the request. A preflight matches the route of the
    /// request that it announces, if that route responds to preflights.
    pub fn find(&self, listener: usize, question: &RequestFacts<'_>) -> RouteMatch {
        let Some(router) = self.routers.get(listener) else { return RouteMatch::NotFound };
        if let Some(method) = announced_method(question.method, question.headers)
            && let RouteMatch::Found(entry) | RouteMatch::OtherVersion(entry) =
                router.find(&RequestFacts { method: &method, ..*question })
            && self.routes[router.entry(entry).route].filters(Some(listener)).has(Stage::Cors)
        {
            return RouteMatch::Found(entry);
        }
        router.find(question)
    }

    /// Returns the place of a listener.
    pub fn place(&self, listener: &ListenerKey) -> Option<usize> {
        self.places.get(listener).copied()
    }

    /// Returns the place of the listener of that name.
    pub fn listener(&self, name: &str) -> Option<usize> {
        self.listeners.iter().position(|l| l.name == name)
    }
}

/// The headers in which targets get the client's identity; they are removed from what clients send.
#[derive(Clone, Debug, Default)]
pub struct IdentityHeaders {
    /// That of the consumer's name.
    pub consumer: Option<HeaderName>,
}

/// A snapshot with its access log, which a request holds.
#[derive(Debug)]
pub struct Serving {
    /// The configuration.
    pub snapshot: Snapshot,
    /// Its access log.
    pub access_log: Arc<AccessLogger>,
}

impl Serving {
    /// Returns the route at that place.
    pub fn route(&self, place: Option<usize>) -> Option<&Route> {
        self.snapshot.routes.get(place?)
    }

    /// Returns the filters that edit responses to requests of that listener that have no route.
    pub fn unrouted(&self, listener: Option<usize>) -> Option<&Chain> {
        self.snapshot.unrouted.get(listener?)
    }

    /// Returns the path pattern of an entry of that listener's router.
    pub fn pattern(&self, listener: Option<usize>, entry: Option<usize>) -> Option<&PathPattern> {
        Some(&self.snapshot.routers.get(listener?)?.entry(entry?).path)
    }
}

/// A route: what is done with the requests that match it.
#[derive(Debug)]
pub struct Route {
    /// The name.
    pub name: String,
    /// The filters.
    pub chains: Chains,
    /// The action that ends a request.
    pub action: Action,
    /// The pages for rejections.
    pub errors: ErrorPages,
    /// The most bytes of a request body, if other than the listener's.
    pub body: Option<u64>,
    /// The API whose versions it is for.
    pub versions: Option<Arc<Api>>,
    /// Its OpenAPI document, if it has one.
    pub api: Option<Arc<ApiRules>>,
    /// The metrics of the document's operations; see [`Route::operation_metrics`].
    pub operations: Vec<OnceLock<Arc<OperationMetrics>>>,
    /// Which of its paths are rejected.
    pub paths: PathRules,
    /// The metrics; see [`Route::metrics`].
    pub metrics: OnceLock<Arc<RouteMetrics>>,
}

/// The filters of a route by the listener that a request comes to.
#[derive(Debug, Default)]
pub struct Chains {
    /// The chain on listeners that have no filters of their own.
    pub usual: Chain,
    /// The chains on the others, each with the listener's place.
    pub of_listeners: Vec<(usize, Chain)>,
}

impl Chains {
    /// Returns all chains.
    pub fn all(&self) -> impl Iterator<Item = &Chain> {
        std::iter::once(&self.usual).chain(self.of_listeners.iter().map(|(_, chain)| chain))
    }
}

impl Route {
    /// Returns the filters for requests of the listener at that place.
    pub fn filters(&self, listener: Option<usize>) -> &Chain {
        let of_listener = || self.chains.of_listeners.iter().find(|(place, _)| Some(*place) == listener);
        if self.chains.of_listeners.is_empty() {
            &self.chains.usual
        } else {
            of_listener().map_or(&self.chains.usual, |(_, chain)| chain)
        }
    }

    /// Returns the metrics of an operation of its document, created on first use.
    pub fn operation_metrics(&self, exchange: &Exchange) -> Option<&OperationMetrics> {
        let operation = self.api.as_ref()?.operation(exchange)?;
        let cell = self.operations.get(usize::try_from(exchange.operation?).ok()?)?;
        Some(cell.get_or_init(|| METRICS.operation(&self.name, &operation.id)))
    }

    /// Returns the metrics, created on first use, so that routes without traffic cost nothing.
    pub fn metrics(&self) -> &RouteMetrics {
        self.metrics.get_or_init(|| METRICS.route(&self.name))
    }
}

/// The operators' listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its address; the path of a socket begins in the folder of the configuration.
    pub address: AdminAddress,
    /// The token that it requires.
    pub token: Option<SecretText>,
}

/// The process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Worker threads.
    pub threads: usize,
    /// The most bytes of all request bodies that are held whole.
    pub body_memory: u64,
    /// How long the process accepts at its end while it is not ready any more.
    pub readiness_time: Duration,
    /// The longest that draining may take.
    pub drain_time: Duration,
    /// How long WebSockets may go on in a drain.
    pub websocket_time: Duration,
    /// The socket at which a successor asks for the listeners.
    pub upgrade_socket: Option<PathBuf>,
    /// How long a successor may take until it is ready.
    pub upgrade_time: Duration,
    /// How long the process stands by once a successor serves.
    pub standby_time: Duration,
    /// How often the configuration's files are checked.
    pub watch: Option<Duration>,
}
