//! What is done to a payload as it flows by: taking its coding off, removing fields from JSON.

mod decode;
mod fields;
mod json_limits;
mod step;
mod strip;

pub use decode::Decoder;
pub use fields::{FieldPath, Fields};
pub use json_limits::{JsonLimits, MAX_DEPTH as MAX_JSON_DEPTH};
pub use step::{BodyChain, Step};
pub use strip::{Opaque, Stripper};
