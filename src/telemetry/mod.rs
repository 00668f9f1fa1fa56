//! Telemetry: metrics, the access log, the process's own log, and the output of commands.

mod access_log;
pub mod cells;
mod family;
pub mod metrics;
mod record;
mod words;

pub use access_log::{AccessLogger, Format, Sink};
pub use record::Record;
pub(crate) use words::{complain, say};
pub use words::{finish_log, log_target, write_final_error};
