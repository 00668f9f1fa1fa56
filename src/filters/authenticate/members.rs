//! Authenticators that `any_of` and `all_of` combine.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::HeaderName;

use super::{Authenticated, Unauthenticated};
use crate::exchange::Edit;
use crate::filters::{CompileContext, Filter, FilterConfig, Stage};

/// The future of an authentication, for members that combine members themselves.
pub type Authenticating<'a> = BoxFuture<'a, Result<Authenticated, Unauthenticated>>;

/// Several authenticators.
#[derive(Debug)]
pub struct Authenticators {
    filters: Vec<Filter>,
    /// The edits that they always make, whichever of them accepts the request: credentials that the target is not to
    /// see, and headers that only an authenticator may set.
    edits: Arc<[Edit]>,
}

impl Authenticators {
    /// Compiles the authenticators; each has a place of its own below that of the filter.
    pub fn compile(configs: &[FilterConfig], context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        if configs.len() < 2 {
            context.mistakes.add(&place, "expected at least two authenticators");
            return None;
        }
        let mut filters = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            context.place = place.index(index).key(config.key());
            if config.stage() == Stage::Authenticate {
                filters.extend(config.compile(context));
            } else {
                context.mistakes.add(&context.place, format!("{} does not authenticate", config.key()));
            }
        }
        context.place = place;
        let edits = filters.iter().filter_map(Filter::edits).flat_map(|edits| edits.iter().cloned()).collect();
        (filters.len() == configs.len()).then_some(Self { filters, edits })
    }

    /// Returns the authenticators.
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// Returns the edits that the authenticators always make.
    pub fn edits(&self) -> &Arc<[Edit]> {
        &self.edits
    }

    /// Returns the headers that the authenticators read, each with the keys that lead to its name.
    pub fn headers_read(configs: &[FilterConfig]) -> Vec<(HeaderName, Vec<String>)> {
        let below = |(index, config): (usize, &FilterConfig)| {
            let above = [index.to_string(), config.key().to_owned()];
            let read = config.headers_read().into_iter();
            read.map(|(name, keys)| (name, above.iter().cloned().chain(keys).collect())).collect::<Vec<_>>()
        };
        configs.iter().enumerate().flat_map(below).collect()
    }

    /// Returns the headers that the authenticators write.
    pub fn headers_written(configs: &[FilterConfig]) -> Vec<HeaderName> {
        configs.iter().flat_map(FilterConfig::headers_written).collect()
    }
}
