//! Routing: the choice of a request's route.
//!
//! The order of precedence is total: a route beats another by, in this order,
//!
//! 1. its **host**: exact before `*.suffix` (the longer suffix first) before any host;
//! 2. its **path**: a pattern for the whole path (`/a/b`, `/a/{id}`) before a regular expression
//!    before a prefix (`/a/*`); among patterns the first segment that differs decides, a literal
//!    before `{param}` before the rest; among expressions the longer text;
//! 3. naming **methods** before not naming any;
//! 4. more **headers**, then more **cookies**, then more **query** parameters;
//! 5. the narrower **client** network;
//! 6. the earlier place in the configuration.
//!
//! [`Rank`] is that order as a type. [`Router`] finds the first match in it, at a cost that depends on the length of
//! the path and not on the number of routes.

mod pattern;
mod predicate;
mod router;
mod stream_table;
mod version;

pub use pattern::{HostPattern, PathPattern, Segment};
pub use predicate::{
    PredicateResult, Predicates, TextMatch, cookie, cookies, form_decode, is_named, parameter, raw_parameters,
};
pub use router::{EntryOperation, RequestFacts, RouteEntry, RouteMatch, Router, allow, common_params};
pub use stream_table::{StreamEntry, StreamFacts, StreamPredicates, StreamTable};
pub use version::{ApiVersions, NamedVersion, VersionRule, VersionSource};
