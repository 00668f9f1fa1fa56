//! The versions of APIs: which one a request is for, and whether it may be used.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Context;
use crate::filters::Verdict;
use crate::rules::routing::{NamedVersion, Predicates, RequestFacts};
use crate::snapshot::{Api, ApiVersion};

/// The version that a request is for.
#[derive(Debug)]
pub struct RequestVersion {
    /// The API.
    pub api: Arc<Api>,
    /// The number of the version.
    pub version: usize,
}

impl RequestVersion {
    /// Returns the version.
    pub fn get(&self) -> &ApiVersion {
        &self.api.versions[self.version]
    }
}

/// Returns the seconds of Unix time.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the version that a request is for which has matched a route of the API by it.
pub(super) fn of_match(facts: &RequestFacts<'_>, predicates: &Predicates, api: &Arc<Api>) -> Option<RequestVersion> {
    let NamedVersion::Known(version) = predicates.version.as_ref()?.named(facts) else { return None };
    Some(RequestVersion { api: Arc::clone(api), version })
}

/// Notes the version of a request, and rejects it if the version has ended.
pub(super) fn enter(ctx: &mut Context, found: RequestVersion) -> Verdict {
    let version = found.get();
    let rejection = version.has_ended(now()).then(|| found.api.retired(version, now()));
    if rejection.is_none() {
        ctx.exchange.response_edits.push(Arc::clone(&version.edits));
    }
    ctx.matched.version = Some(found);
    rejection.map_or(Ok(()), Err)
}

/// Decides whether the client may use the version: a draft exists only for some groups.
pub(super) fn check_access(ctx: &Context) -> Verdict {
    let Some(version) = &ctx.matched.version else { return Ok(()) };
    if version.get().is_open_to(ctx.exchange.identity.as_ref()) {
        return Ok(());
    }
    Err(version.api.unknown(now()).log(format!("the version {} is a draft", version.get().name)))
}
