//! Rate limits.

mod gcra;

pub use gcra::{Decision, Gcra};
