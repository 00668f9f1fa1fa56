//! The YAML as its author typed it, a file per section, and what it takes to read it.
//!
//! Nothing here serves traffic: `compile` turns a [`Config`] into a snapshot.

mod balance;
mod check;
mod consumer;
mod facts;
mod filters;
mod flat;
mod health;
mod include;
mod listener;
mod load;
mod operation;
mod read;
mod redact;
mod resilience;
mod route;
mod selection;
mod trail;
mod tree;
mod upstream;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::filters::FilterConfig;
use crate::notation::Name;

pub use balance::{Balance, HashTable};
pub use consumer::{Consumer, Credential};
pub use facts::read_at_start;
pub use filters::{Defaults, FilterEntry};
pub use flat::{Change, Flat};
pub use health::{ActiveHealth, PassiveHealth, ProbeMethod};
pub use listener::{Certificate, Listener, ListenerKind, Protocol, Tls, TlsVersion};
pub use load::{FlatLater, Loaded, load, load_text};
pub use operation::{Admin, LogFormat, LogOutput, Logging, Process, Shield};
pub use resilience::{Breaker, Retry, RetryOn, SameSite, Sticky, UpstreamLimits};
pub use route::{OneOrMany, PathRule, Paths, Route, TextRule, TextTest};
pub use selection::{Inherited, Level, Selected, written};
pub use upstream::{Discovery, Timeouts, Upstream, UpstreamProtocol};

/// A whole configuration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Portcullis configuration")]
pub struct Config {
    /// Further files, relative to this one; the last part of a path may hold `*`. Their lists are
    /// appended to these, and their mappings joined.
    pub include: Vec<String>,
    /// Where connections are accepted.
    pub listeners: Vec<Listener>,
    /// Groups of targets, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Who calls, by name.
    pub consumers: BTreeMap<String, Consumer>,
    /// Named groups of filters, for `- set: NAME` in a list of filters. A set has no sets in it.
    pub filter_sets: BTreeMap<String, Vec<FilterConfig>>,
    /// What holds for all routes.
    pub defaults: Defaults,
    /// What is done with which request.
    pub routes: Vec<Route>,
    /// What becomes of paths that a target may read otherwise than the gateway, where a route does not say.
    pub paths: Paths,
    /// The coarse shield before everything.
    pub shield: Shield,
    /// The listener for operators.
    pub admin: Admin,
    /// What is logged, and where.
    pub log: Logging,
    /// Threads, draining and upgrades.
    pub process: Process,
}

/// The JSON Schema of a configuration.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

/// Whether `name` can name an upstream or a consumer: the rule of [`Name`].
pub(crate) fn is_name(name: &str) -> Result<(), String> {
    name.parse::<Name>().map(drop)
}
