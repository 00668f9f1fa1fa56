//! Authenticators that `any_of` and `all_of` combine.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::HeaderName;

use super::{Authenticated, Unauthenticated};
use crate::exchange::Edit;
use crate::filters::{CompileContext, Filter, FilterConfig, Needs, Stage};

/// The future of an authentication, for members that combine members themselves.
pub type Authenticating<'a> = BoxFuture<'a, Result<Authenticated, Unauthenticated>>;

/// Several authenticators.
#[derive(Debug)]
pub struct Authenticators {
    filters: Vec<Filter>,
    /// The edits that they always make, whichever of them accepts the request: credentials that the target is not to
    /// see, and headers that only an authenticator may set.
    edits: Arc<[Edit]>,
    /// For each, the edits that remove the credentials that the others read and it does not.
    others: Vec<Arc<[Edit]>>,
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
        let others = others(&filters);
        (filters.len() == configs.len()).then_some(Self { filters, edits, others })
    }

    /// Returns the edits that remove the credentials that only other authenticators than that of the place read.
    pub fn others(&self, place: usize) -> Option<&Arc<[Edit]>> {
        self.others.get(place)
    }

    /// Returns the first authenticator whose credential can only be in a header that one before it needs as well.
    pub fn shared_header(&self, configs: &[FilterConfig]) -> Option<(usize, HeaderName)> {
        let mut needed: Vec<HeaderName> = Vec::new();
        for (place, (filter, config)) in self.filters.iter().zip(configs).enumerate() {
            if let ([_], [(name, _)]) = (filter.credentials().as_slice(), config.headers_read().as_slice()) {
                if needed.contains(name) {
                    return Some((place, name.clone()));
                }
                needed.push(name.clone());
            }
        }
        None
    }

    /// Returns the edits that remove every credential that they read.
    pub fn credentials(&self) -> Vec<Edit> {
        self.filters.iter().flat_map(Filter::credentials).collect()
    }

    /// Returns the authenticators.
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// Returns what the authenticators need besides the heads: the least of the bodies that they hold whole.
    pub fn needs(&self) -> Needs {
        let bodies = self.filters.iter().filter_map(|filter| match filter.needs() {
            Needs::RequestBody(most) => Some(most),
            Needs::Heads | Needs::ResponseBody | Needs::Bodies(_) => None,
        });
        bodies.min().map_or(Needs::Heads, Needs::RequestBody)
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

/// Returns, for each filter, the edits that remove what the others read as credentials and it does not.
fn others(filters: &[Filter]) -> Vec<Arc<[Edit]>> {
    let all: Vec<Vec<Edit>> = filters.iter().map(Filter::credentials).collect();
    let of_others = |place: usize| {
        let rest = all.iter().enumerate().filter(|(other, _)| *other != place).flat_map(|(_, edits)| edits);
        rest.filter(|edit| !all[place].contains(edit)).cloned().collect()
    };
    (0..filters.len()).map(of_others).collect()
}
