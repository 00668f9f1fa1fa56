//! Quotas: counts in windows of the calendar that outlive the process.

mod counts;
mod file;
mod writer;

pub use counts::{QuotaCounts, QuotaOutcome};
pub use writer::QuotaStore;
