//! The state that the files which compile routes share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ahash::AHashSet;

use crate::config::Loaded;
use crate::filters::{Condition, ConsumerUse, Consumers, Filter, FilterConfig, SharedValues};
use crate::live::Live;
use crate::notation::{Mistakes, Place};
use crate::snapshot::{Api, Listener};
use crate::upstreams::Upstream;

/// The inputs of the compilation of routes, and its errors.
pub struct RouteCompiler<'w> {
    pub loaded: &'w Loaded,
    pub live: &'w Live,
    pub consumers: &'w Arc<Consumers>,
    pub upstreams: &'w BTreeMap<String, Arc<Upstream>>,
    pub listeners: &'w [Listener],
    pub mistakes: &'w mut Mistakes,
    /// The warnings: what is valid and most likely not intended.
    pub warnings: &'w mut Mistakes,
    /// The values that filters of all routes share.
    pub shared: SharedValues,
    /// The filters that several routes have, by the address of their settings; `None` for one with errors.
    pub filters: HashMap<*const FilterConfig, Option<Arc<Filter>>>,
    /// The conditions of filters, by the address of their text; `None` for one with errors.
    pub conditions: HashMap<*const str, Option<Arc<Condition>>>,
    /// The APIs by their names.
    pub apis: &'w BTreeMap<String, Arc<Api>>,
    /// The versions of them, each with its number, that routes are for.
    pub api_uses: AHashSet<(String, usize)>,
    /// The number of splits by a key so far.
    pub keyed_splits: usize,
    /// The filters that use the consumer, by the address of their settings.
    pub consumer_uses: BTreeMap<*const FilterConfig, UseOfConsumer>,
}

/// A filter that uses the consumer.
pub struct UseOfConsumer {
    pub place: Place,
    /// What it uses it for.
    pub what: ConsumerUse,
    /// Whether it is a route's own.
    pub is_own: bool,
    /// Whether a route that has it authenticates.
    pub is_authenticated: bool,
}
