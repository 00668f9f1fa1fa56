//! Telemetry: metrics, the access log, the process's own log, and the output of commands.

mod access_log;
pub mod cells;
mod family;
mod layout;
pub mod metrics;
mod record;
mod text_lines;
mod words;

pub use access_log::{AccessLogger, Sink};
pub use layout::{Format, LogLayout, LogWhen};
pub use record::{FieldSet, LogField, Record};
pub(crate) use words::{complain, say};
pub use words::{finish_log, log_target, write_final_error};
