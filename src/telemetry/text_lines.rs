//! Lines of the access log as text: for people, and for the tools that read logs of web servers.

use std::io::Write;
use std::time::UNIX_EPOCH;

use super::layout::LogLayout;
use super::record::{Record, escape};

impl Record<'_> {
    /// Appends the line as text for people, aligned as far as that is possible.
    pub fn write_text(&self, layout: &LogLayout, out: &mut Vec<u8>) {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs() % 86_400;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let mut target = Vec::new();
        escape(self.target().as_bytes(), &mut target);
        let (begin, end) = if layout.colours { (colour(self.status), "\x1b[0m") } else { ("", "") };
        // A write to a Vec cannot fail.
        let _ = write!(
            out,
            "{hour:02}:{minute:02}:{second:02}.{:03}  {begin}{:>3}{end} {:>9.2} ms {:>9}  {:<15}  {:<6} ",
            since.subsec_millis(),
            self.status,
            self.duration.as_secs_f64() * 1e3,
            size(self.bytes_out),
            String::from_utf8_lossy(self.client),
            self.method,
        );
        escape(self.host.as_bytes(), out);
        out.extend_from_slice(&target);
        let _ = write!(out, "  {}", self.reason.code());
        let tries = (self.tries > 1).then(|| self.tries.to_string());
        let id = self.request_id.map(|id| String::from_utf8_lossy(id).chars().take(8).collect::<String>());
        for (name, value) in [
            ("route", self.route),
            ("target", self.target),
            ("tries", tries.as_deref()),
            ("consumer", self.consumer),
            ("detail", self.detail),
            ("id", id.as_deref()),
        ] {
            if let Some(value) = value {
                let _ = write!(out, "  {name}=");
                escape(value.as_bytes(), out);
            }
        }
        for (key, text) in &layout.extra {
            let Some(view) = &self.view else { break };
            // In quotes, so that a value is never taken for further fields.
            let _ = write!(out, "  {}=\"", key.trim_matches([',', '"', ':']));
            escape(&text.fill(view), out);
            out.push(b'"');
        }
        out.push(b'\n');
    }

    /// Appends the line in the combined format of Apache and nginx.
    pub fn write_combined(&self, out: &mut Vec<u8>) {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = chrono::DateTime::from_timestamp(since.as_secs() as i64, 0).unwrap_or_default();
        out.extend_from_slice(self.client);
        out.extend_from_slice(b" - ");
        match self.consumer {
            // A space would end the field.
            Some(name) => escape(name.replace(' ', "+").as_bytes(), out),
            None => out.push(b'-'),
        }
        let _ = write!(out, " [{}] \"{} ", date.format("%d/%b/%Y:%H:%M:%S +0000"), self.method);
        escape(self.target().as_bytes(), out);
        let _ = write!(out, " {}\" {} {} \"", self.protocol, self.status, self.bytes_out);
        let referer = self.masked_referer();
        escape(if referer.is_empty() { b"-" } else { referer.as_bytes() }, out);
        out.extend_from_slice(b"\" \"");
        escape(self.user_agent.unwrap_or(b"-"), out);
        out.extend_from_slice(b"\"\n");
    }
}

/// Returns the colour of a status on a terminal.
pub(super) fn colour(status: u16) -> &'static str {
    match status {
        500.. => "\x1b[31m",
        400.. => "\x1b[33m",
        300.. => "\x1b[36m",
        100.. => "\x1b[32m",
        0.. => "\x1b[35m",
    }
}

/// Returns a size for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
