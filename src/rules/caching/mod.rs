//! Caching of responses (RFC 9111): what may be stored, for how long it is fresh, how it may be used, and under which
//! key. Pure: times are parameters.

mod date;
mod directives;
mod freshness;
mod invalidation;
mod key;
mod query;
mod reuse;
mod status_field;
mod storing;
mod vary;

pub use directives::RequestDirectives;
pub use freshness::{Freshness, StatusSet, TtlRules, date_of};
pub use invalidation::{invalidated_targets, is_effective, is_invalidating};
pub use key::{KeyDigest, KeyFacts, KeyRules, has_cookie, normal_authority, primary_key, variant_key};
pub use query::{NamePattern, QueryRule, kept_query, purge_url, url_by_rules};
pub use reuse::{Reuse, StaleLimits, StoredFacts};
pub use status_field::{CacheHandling, CacheOutcome, ForwardReason, cache_status};
pub use storing::{
    CookieRule, NotStored, StoreRequest, StoreRules, decide_storing, is_confirmed, merge_confirmed, prepare_stored,
    validation_fields,
};
pub use vary::{is_of_each_request, vary_names};
