//! What is done to a payload as it flows by: taking its coding off, removing fields from JSON.

mod decode;
mod fields;
mod step;
mod strip;

pub use decode::Decoder;
pub use fields::{FieldPath, Fields};
pub use step::{BodyChain, Step};
pub use strip::{Opaque, Stripper};
