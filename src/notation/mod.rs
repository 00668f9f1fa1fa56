//! The notation of configurations: durations, sizes, addresses, patterns, secrets, each a type that parses once, says
//! in its error what it expected, and carries its own JSON Schema.
//!
//! Never here: a file, an environment variable, a decision about traffic.

mod admin_address;
mod free_form;
mod header_names;
mod key_by;
mod mistake;
mod one_or_many;
mod patterns;
mod suggest;
mod text;
mod types;
mod units;

pub use crate::rules::nearest::nearest;
pub use admin_address::{AdminAddress, AdminListen};
pub use free_form::FreeForm;
pub use header_names::{carries_credentials, is_named_like_secret};
pub use key_by::KeyBy;
pub use mistake::{KeyWord, MAX_SHOWN, Mistake, Mistakes, Place, PlaceStep};
pub use one_or_many::OneOrMany;
pub use patterns::pattern_of;
pub use suggest::spelling;
pub use text::{Fact, check_format, expression_of, expression_size, fact_of, normal_form};
pub use types::*;
pub use units::{Quota, Rate};
