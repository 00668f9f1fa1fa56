//! Telemetry: metrics, the access log, the process's own log, and the output of commands.

mod access_log;
mod aggregate_calls;
mod calls;
pub mod catalogue;
pub mod cells;
mod counts;
mod datagrams;
mod family;
mod layout;
pub mod metrics;
mod process_log;
mod process_stats;
mod record;
mod scrape;
mod session_record;
mod stream_counts;
mod text_lines;
mod time;
mod version_usage;
mod words;

pub use access_log::{AccessLogger, Sink};
pub use datagrams::{DatagramDrop, DatagramMetrics};
pub use layout::{Format, LogLayout, LogWhen};
pub use process_log::{ProcessLog, apply_log_settings, init_log, write_final_error};
pub use record::{FieldSet, LogField, Record};
pub use session_record::SessionRecord;
pub use time::rfc3339;
pub use words::finish_log;
pub(crate) use words::{complain, say};
