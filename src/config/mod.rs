//! The YAML as its author typed it, a file per section, and the code that reads it.
//!
//! Nothing here serves traffic: `compile` turns a [`Config`] into a snapshot.

mod acme;
mod admin;
mod apis;
mod balance;
mod caches;
mod check;
mod coerce;
mod errors;
mod facts;
mod filters;
mod flat;
mod foreign;
mod health;
mod hints;
mod include;
mod listener;
mod load;
mod operation;
mod published;
mod read;
mod redact;
mod resilience;
mod route;
mod selection;
mod shown;
mod stream;
mod trail;
mod tree;
mod upstream;
mod wording;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::live::{AllowanceConfig, ConsumerConfig};
use crate::notation::{FollowedFile, Name};

pub use acme::{AcmeChallengeConfig, AcmeConfig};
pub use apis::{ApiConfig, VersionConfig, VersionPlace, VersionState};
pub use balance::{BalanceConfig, HashTable, ZonesConfig};
pub use caches::CacheConfig;
pub use errors::{ErrorPageConfig, Errors};
pub use facts::read_at_start;
pub use filters::{Defaults, FilterEntry, ListedFilter};
pub use flat::{Change, Flat};
pub use health::{ActiveHealth, DnsRecordType, PassiveHealth, ProbeMethod, UdpProbeConfig};
pub use listener::{
    Certificate, Cipher, ClientAddress, ClientCertificates, ClientMode, Doubtful, ListenerConfig, ListenerKind,
    ListenerLimits, OtherClients, Protocol, Tls, TlsHost, TlsPreset, TlsVersion,
};
pub use load::{Loaded, load, load_text};
pub use operation::{
    AccessLog, AdminConfig, IdentityHeadersConfig, LogFormat, LogLevel, LogOutput, Logging, ProcessConfig,
    ProcessLogFormat, Shield,
};
pub use published::published_schema;
pub use resilience::{Breaker, RetryConfig, RetryWhen, SameSite, StickyConfig, UpstreamLimits};
pub use route::{PathRule, Paths, RouteConfig, TextRule, TextTest};
pub use selection::{FilterLevel, Inherited, Selected, all_filters};
pub use shown::ShownLater;
pub use stream::{StreamActionConfig, StreamConfig, StreamForwardConfig, StreamMatch, StreamTlsMode};
pub use upstream::{
    Discovery, ProxyHeaderConfig, ProxyHeaderValue, ProxyHeaderVersion, Timeouts, UpstreamConfig, UpstreamProtocol,
};

/// A whole configuration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Portcullis configuration")]
pub struct Config {
    /// Further files, relative to this one; the last part of a path may hold `*`. Their lists are
    /// appended to these, and their mappings joined.
    pub include: Vec<String>,
    /// Where connections are accepted.
    pub listeners: Vec<ListenerConfig>,
    /// Groups of targets, by name.
    pub upstreams: BTreeMap<String, UpstreamConfig>,
    /// The known clients, by name.
    pub consumers: BTreeMap<String, ConsumerConfig>,
    /// A file of further consumers, `NAME: {credentials: …}` in JSON (or in YAML, if its name ends in `.yaml`). It is
    /// read again when it changes, without a reload, and the admin API changes it.
    pub consumers_file: Option<FollowedFile>,
    /// The limits of groups of consumers, by the plan's name, for filters with `from_plan: true`.
    pub plans: BTreeMap<String, AllowanceConfig>,
    /// Named groups of filters, for `- set: NAME` in a list of filters. A set has no sets in it.
    pub filter_sets: BTreeMap<String, Vec<ListedFilter>>,
    /// The stores of responses that the filter `cache` uses, by name. `default` exists without being written.
    pub caches: BTreeMap<String, CacheConfig>,
    /// The versions of APIs, by the API's name, for routes with `api`.
    pub apis: BTreeMap<String, ApiConfig>,
    /// The settings of all routes.
    pub defaults: Defaults,
    /// Which requests get which filters and action.
    pub routes: Vec<RouteConfig>,
    /// What happens to connections and datagrams of listeners of kind `tcp` and `udp`.
    pub streams: Vec<StreamConfig>,
    /// What happens to paths that a target may read differently from the gateway, where a route does not say.
    pub paths: Paths,
    /// The pages for rejections, by status or class of statuses.
    pub errors: Errors,
    /// The account for certificates from an ACME server. Default: none.
    pub acme: Option<AcmeConfig>,
    /// The headers in which targets get the client's identity.
    pub identity_headers: IdentityHeadersConfig,
    /// The coarse limit before everything.
    pub shield: Shield,
    /// The listener for operators. An address stands for `{address: ADDRESS}`; `none` is no such listener.
    #[schemars(schema_with = "admin::schema")]
    pub admin: AdminConfig,
    /// What is logged, and where.
    pub log: Logging,
    /// Threads, draining and upgrades.
    pub process: ProcessConfig,
}

/// Returns the JSON Schema of a configuration.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

/// Checks whether `name` can name an upstream or a consumer: the rule of [`Name`].
pub(crate) fn is_name(name: &str) -> Result<(), String> {
    name.parse::<Name>().map(drop)
}
