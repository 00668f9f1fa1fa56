//! What is told about traffic: metrics and the access log.

mod access_log;
pub mod cells;
mod family;
pub mod metrics;
mod record;

pub use access_log::{AccessLog, Format, Sink};
pub use record::Record;
