//! The immutable configuration that traffic meets. A request takes one at its start and sees no other.
//!
//! Never here: mutable state. What changes lives in [`crate::live`] and is only pointed to.

mod current;
mod listener;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::AHashMap;
use http::HeaderName;

use crate::actions::Action;
use crate::filters::{Chain, Stage, announced_method};
use crate::live::Kept;
use crate::notation::{Rate, SecretText};
use crate::rules::path::PathRules;
use crate::rules::routing::{RequestFacts, RouteMatch, Router};
use crate::telemetry::metrics::{METRICS, RouteMetrics};
use crate::telemetry::{AccessLogger, Format, Sink};
use crate::upstreams::Upstream;

pub use current::{Current, Held};
pub use listener::{HttpListener, Kind, Limits, Listener, ListenerKey, Room, Transport};

/// A whole configuration at work.
#[derive(Debug)]
pub struct Snapshot {
    /// Where connections are accepted.
    pub listeners: Vec<Listener>,
    /// Their places.
    pub places: AHashMap<ListenerKey, usize>,
    /// Routers, one for each listener, in the same order.
    pub routers: Vec<Router>,
    /// What a router's entries point to.
    pub routes: Vec<Route>,
    /// Every upstream.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What is kept up to date for it in the background.
    pub kept: Vec<Arc<dyn Kept>>,
    /// Query parameters that credentials come in: their values are in no log.
    pub secret_parameters: Vec<String>,
    /// Header names with `_` that the configuration reads, each with its twin that has `-` instead.
    pub underscored: Vec<(HeaderName, HeaderName)>,
    /// The coarse limit of one address.
    pub shield: Option<Rate>,
    /// The operators' listener.
    pub admin: Admin,
    /// Where the access log goes and how it looks.
    pub log: (Sink, Format),
    /// Threads, draining, upgrades.
    pub process: Process,
    /// What is no mistake and most likely not meant, each with its place.
    pub warnings: Vec<String>,
}

impl Snapshot {
    /// Which entry of a listener's router takes the request. A preflight is for the route of the request that it
    /// announces, if that answers preflights.
    pub fn find(&self, listener: usize, question: &RequestFacts<'_>) -> RouteMatch {
        let Some(router) = self.routers.get(listener) else { return RouteMatch::NotFound };
        if let Some(method) = announced_method(question.method, question.headers)
            && let RouteMatch::Found(entry) = router.find(&RequestFacts { method: &method, ..*question })
            && self.routes[router.entry(entry).route].filters(Some(listener)).has(Stage::Cors)
        {
            return RouteMatch::Found(entry);
        }
        router.find(question)
    }

    /// The place of a listener.
    pub fn place(&self, listener: &ListenerKey) -> Option<usize> {
        self.places.get(listener).copied()
    }

    /// The place of the listener of that name.
    pub fn listener(&self, name: &str) -> Option<usize> {
        self.listeners.iter().position(|l| l.name == name)
    }
}

/// A snapshot together with what it logs to: what a request holds.
#[derive(Debug)]
pub struct Serving {
    /// The configuration.
    pub snapshot: Snapshot,
    /// Its access log.
    pub access_log: Arc<AccessLogger>,
}

impl Serving {
    /// The route at that place.
    pub fn route(&self, place: Option<usize>) -> Option<&Route> {
        self.snapshot.routes.get(place?)
    }
}

/// What is done with requests of a kind.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Its filters.
    pub chains: Chains,
    /// What ends a request.
    pub action: Action,
    /// Bytes of a request body, if other than the listener's.
    pub body: Option<u64>,
    /// What of its paths is rejected.
    pub paths: PathRules,
    /// The pattern of the path for each router entry of it, for its parameters.
    pub metrics: OnceLock<Arc<RouteMetrics>>,
}

/// The filters of a route by the listener that a request comes to.
#[derive(Debug, Default)]
pub struct Chains {
    /// For listeners that have no filters of their own.
    pub usual: Chain,
    /// For the others, each with the listener's place.
    pub of_listeners: Vec<(usize, Chain)>,
}

impl Chains {
    /// Returns all of them.
    pub fn all(&self) -> impl Iterator<Item = &Chain> {
        std::iter::once(&self.usual).chain(self.of_listeners.iter().map(|(_, chain)| chain))
    }
}

impl Route {
    /// Returns its filters for requests of the listener at that place.
    pub fn filters(&self, listener: Option<usize>) -> &Chain {
        let of_listener = || self.chains.of_listeners.iter().find(|(place, _)| Some(*place) == listener);
        if self.chains.of_listeners.is_empty() { &self.chains.usual } else { of_listener().map_or(&self.chains.usual, |(_, chain)| chain) }
    }

    /// Its metrics; made when it is first used, so that routes without traffic cost nothing.
    pub fn metrics(&self) -> &RouteMetrics {
        self.metrics.get_or_init(|| METRICS.route(&self.name))
    }
}

/// The operators' listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its address.
    pub address: SocketAddr,
    /// What it asks for.
    pub token: Option<SecretText>,
}

/// The process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Worker threads.
    pub threads: usize,
    /// Bytes of all request bodies that are held whole.
    pub body_memory: u64,
    /// The longest that draining may take.
    pub drain_time: Duration,
    /// How long WebSockets may go on in a drain.
    pub websocket_time: Duration,
    /// Where a successor asks for the listeners.
    pub upgrade_socket: Option<PathBuf>,
    /// How long a successor may take until it is ready.
    pub upgrade_time: Duration,
    /// How long the process stands by once a successor serves.
    pub standby_time: Duration,
    /// How often the configuration's files are looked at.
    pub watch: Option<Duration>,
}
