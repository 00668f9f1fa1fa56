//! Whether one more is within a limit.

mod gcra;

pub use gcra::{Decision, Gcra};
