//! Aggregation: the values of JSON documents that calls hand to each other, the order of the calls, and the merge of
//! their results. Documents are texts all the way, so that no number and no escape is ever bent.

mod children;
mod merge;
mod order;
mod path;
mod terms;

pub use children::{Children, is_json};
pub use merge::{Conflicts, merge_flat, merge_named};
pub use order::find_cycle;
pub use path::{JsonPath, json_text};
pub use terms::CachingTerms;
