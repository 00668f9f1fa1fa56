//! The layout of the access log: its format, its fields, and which requests are logged.

use std::time::Duration;

use super::record::{FieldSet, Record};
use crate::exchange::Template;

/// The format of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    #[default]
    Json,
    /// A text for people.
    Text,
    /// The combined format of web servers.
    Combined,
}

/// What is written of which requests.
#[derive(Clone, Debug, Default)]
pub struct LogLayout {
    /// The format.
    pub format: Format,
    /// The fields of a JSON line.
    pub fields: FieldSet,
    /// Further fields, each with its key as [`LogLayout::key`] returns it.
    pub extra: Vec<(String, Template)>,
    /// Which requests are logged; `None` is all.
    pub when: Option<LogWhen>,
    /// Whether a text for people has colours.
    pub colours: bool,
}

/// Which requests are logged: those for which any of these holds.
#[derive(Clone, Debug)]
pub struct LogWhen {
    /// Ranges of statuses.
    pub statuses: Vec<(u16, u16)>,
    /// Those that take longer.
    pub slower_than: Option<Duration>,
    /// The share of all others, in units of 2⁻³².
    pub sample: u32,
}

impl LogLayout {
    /// Returns a further field's name as it is written before the value.
    pub fn key(name: &str) -> String {
        format!(",{}:", serde_json::Value::from(name))
    }

    /// Returns whether the request is logged.
    pub fn takes(&self, record: &Record<'_>) -> bool {
        self.takes_ended(record.status, record.duration)
    }

    /// Returns whether what has ended with that status after that time is logged.
    pub fn takes_ended(&self, status: u16, duration: Duration) -> bool {
        let Some(when) = &self.when else { return true };
        when.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status))
            || when.slower_than.is_some_and(|limit| duration > limit)
            || (when.sample > 0 && fastrand::u32(..) <= when.sample)
    }

    /// Appends the line of a request.
    pub fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => record.write_json(self.fields, &self.extra, out),
            Format::Text => record.write_text(self, out),
            Format::Combined => record.write_combined(out),
        }
    }
}
