//! What the files that compile routes share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::Loaded;
use crate::filters::{Consumers, Filter, FilterConfig, Shared};
use crate::live::Live;
use crate::notation::Mistakes;
use crate::snapshot::Listener;
use crate::upstreams::Upstream;

/// What the work on routes needs, and where it notes mistakes.
pub struct Work<'w> {
    pub loaded: &'w Loaded,
    pub live: &'w Live,
    pub consumers: &'w Arc<Consumers>,
    pub upstreams: &'w BTreeMap<String, Arc<Upstream>>,
    pub listeners: &'w [Listener],
    pub mistakes: &'w mut Mistakes,
    /// What is no mistake and most likely not meant.
    pub warnings: &'w mut Mistakes,
    /// What filters of all routes share.
    pub shared: Shared,
    /// Filters that several routes have, by the address of what is written; `None` for one with errors.
    pub filters: HashMap<*const FilterConfig, Option<Arc<Filter>>>,
    /// Splits by a key so far.
    pub keyed_splits: usize,
}
