//! What is done to a payload: removing fields from JSON as it flows by.

mod fields;
mod strip;

pub use fields::{FieldPath, Fields};
pub use strip::{Opaque, Stripper};
