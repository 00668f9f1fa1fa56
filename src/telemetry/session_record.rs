//! The record of a session at layer 4 that has ended, from which its log line is written.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::layout::{Format, LogLayout};
use super::record::{LogField, escape, milliseconds, number, optional, plain, string, write_time};
use super::text_lines::{colour, size};
use crate::exchange::Reason;

/// The record of a session. Everything is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct SessionRecord<'a> {
    /// The time at which it ended.
    pub time: SystemTime,
    /// The client's address.
    pub client: &'a [u8],
    /// The protocol: `TCP` or `UDP`.
    pub protocol: &'a str,
    /// The version of the client's TLS, if it ended here.
    pub tls: Option<&'a str>,
    /// The server name that the client has requested in TLS.
    pub server_name: Option<&'a str>,
    /// The application protocols that it has offered in TLS.
    pub alpn: Option<&'a str>,
    /// The id of the session, if a load balancer in front or the target knows it by one.
    pub id: Option<&'a str>,
    /// The reason with which it ended.
    pub reason: Reason,
    /// A detail beyond the reason.
    pub detail: Option<&'a str>,
    /// The listener.
    pub listener: &'a str,
    /// The rule.
    pub stream: Option<&'a str>,
    /// The upstream.
    pub upstream: Option<&'a str>,
    /// The target.
    pub target: Option<&'a str>,
    /// The time from its begin to its end.
    pub duration: Duration,
    /// The time that the connection to the target took.
    pub connect_time: Option<Duration>,
    /// The number of attempts to connect.
    pub tries: u32,
    /// The bytes that the target has got.
    pub bytes_in: u64,
    /// The bytes that the client has got.
    pub bytes_out: u64,
    /// The datagrams of the client, and those that it has got, of a flow of them.
    pub datagrams: Option<[u64; 2]>,
}

impl SessionRecord<'_> {
    /// Returns whether the layout takes it. Its status is that which a request with the same reason has.
    pub fn is_logged(&self, layout: &LogLayout) -> bool {
        layout.takes_ended(self.reason.status(), self.duration)
    }

    /// Appends the line.
    pub fn write(&self, layout: &LogLayout, out: &mut Vec<u8>) {
        match layout.format {
            Format::Json => self.write_json(layout, out),
            Format::Text => self.write_text(layout, out),
            Format::Combined => self.write_combined(out),
        }
    }

    fn write_json(&self, layout: &LogLayout, out: &mut Vec<u8>) {
        let has = |field| layout.fields.has(field);
        let start = out.len();
        if has(LogField::Time) {
            out.extend_from_slice(b",\"time\":\"");
            write_time(self.time, out);
            out.push(b'"');
        }
        if has(LogField::Client) {
            plain(out, b",\"client\":", self.client);
        }
        string(out, b",\"listener\":", self.listener.as_bytes());
        optional(out, b",\"stream\":", self.stream.map(str::as_bytes));
        for (field, key, value) in [
            (LogField::Protocol, ",\"protocol\":", Some(self.protocol)),
            (LogField::Tls, ",\"tls\":", self.tls),
            (LogField::ServerName, ",\"server_name\":", self.server_name),
            (LogField::ServerName, ",\"alpn\":", self.alpn),
            (LogField::RequestId, ",\"request_id\":", self.id),
            (LogField::Reason, ",\"reason\":", Some(self.reason.code())),
            (LogField::Detail, ",\"detail\":", self.detail),
            (LogField::Upstream, ",\"upstream\":", self.upstream),
            (LogField::Target, ",\"target\":", self.target),
        ] {
            optional(out, key.as_bytes(), value.filter(|_| has(field)).map(str::as_bytes));
        }
        if has(LogField::DurationMs) {
            milliseconds(out, b",\"duration_ms\":", self.duration);
        }
        if let (Some(time), true) = (self.connect_time, has(LogField::UpstreamMs)) {
            milliseconds(out, b",\"connect_ms\":", time);
        }
        if self.tries > 1 && has(LogField::Tries) {
            number(out, b",\"tries\":", u64::from(self.tries));
        }
        if has(LogField::BytesIn) {
            number(out, b",\"bytes_in\":", self.bytes_in);
        }
        if has(LogField::BytesOut) {
            number(out, b",\"bytes_out\":", self.bytes_out);
        }
        if let Some([datagrams_in, datagrams_out]) = self.datagrams {
            number(out, b",\"datagrams_in\":", datagrams_in);
            number(out, b",\"datagrams_out\":", datagrams_out);
        }
        // Each field begins with a comma.
        if let Some(first) = out.get_mut(start) {
            *first = b'{';
        }
        out.extend_from_slice(b"}\n");
    }

    fn write_text(&self, layout: &LogLayout, out: &mut Vec<u8>) {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs() % 86_400;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let status = self.reason.status();
        // An orderly end is shown like that of a response.
        let shown = if status == 0 { 200 } else { status };
        let (begin, end) = if layout.colours { (colour(shown), "\x1b[0m") } else { ("", "") };
        // A write to a Vec cannot fail.
        let _ = write!(
            out,
            "{hour:02}:{minute:02}:{second:02}.{:03}  {begin}{:>3}{end} {:>9.2} ms {:>9}  {:<15}  {:<6} {}  {}",
            since.subsec_millis(),
            self.protocol,
            self.duration.as_secs_f64() * 1e3,
            size(self.bytes_out),
            String::from_utf8_lossy(self.client),
            self.protocol,
            self.listener,
            self.reason.code(),
        );
        let received = size(self.bytes_in);
        let tries = (self.tries > 1).then(|| self.tries.to_string());
        for (name, value) in [
            ("stream", self.stream),
            ("target", self.target),
            ("received", Some(received.as_str())),
            ("server_name", self.server_name),
            ("tries", tries.as_deref()),
            ("detail", self.detail),
        ] {
            if let Some(value) = value {
                let _ = write!(out, "  {name}=");
                escape(value.as_bytes(), out);
            }
        }
        out.push(b'\n');
    }

    /// Appends the line in the combined format, which has requests alone: as a request of the method CONNECT.
    fn write_combined(&self, out: &mut Vec<u8>) {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = chrono::DateTime::from_timestamp(since.as_secs() as i64, 0).unwrap_or_default();
        out.extend_from_slice(self.client);
        let status = self.reason.status();
        let _ = writeln!(
            out,
            " - - [{}] \"CONNECT {} {}\" {} {} \"-\" \"-\"",
            date.format("%d/%b/%Y:%H:%M:%S +0000"),
            self.target.unwrap_or("-"),
            self.protocol,
            if status == 0 { 200 } else { status },
            self.bytes_out
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::FieldSet;

    fn record() -> SessionRecord<'static> {
        SessionRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_007),
            client: b"127.0.0.1",
            protocol: "TCP",
            tls: Some("1.3"),
            server_name: Some("a\"b"),
            alpn: Some("h2"),
            id: None,
            reason: Reason::SessionEnded,
            detail: None,
            listener: "databases",
            stream: Some("orders"),
            upstream: Some("postgres"),
            target: Some("127.0.0.1:5432"),
            duration: Duration::from_micros(1_234_005),
            connect_time: Some(Duration::from_micros(7)),
            tries: 2,
            bytes_in: 1,
            bytes_out: 1024,
            datagrams: None,
        }
    }

    fn line(layout: &LogLayout) -> String {
        let mut line = Vec::new();
        record().write(layout, &mut line);
        String::from_utf8(line).expect("text")
    }

    #[test]
    fn a_line_in_each_format() {
        let line_of = |format| line(&LogLayout { format, ..LogLayout::default() });
        let parsed: serde_json::Value = serde_json::from_str(&line_of(Format::Json)).expect("JSON");
        assert_eq!(parsed["time"], "2023-11-14T22:13:20.007Z");
        assert_eq!(parsed["server_name"], "a\"b");
        assert_eq!(parsed["reason"], "session_ended");
        assert_eq!((&parsed["duration_ms"], &parsed["connect_ms"]), (&1234.005.into(), &0.007.into()));
        assert_eq!((&parsed["bytes_in"], &parsed["bytes_out"], &parsed["tries"]), (&1.into(), &1024.into(), &2.into()));
        let text = line_of(Format::Text);
        assert!(text.starts_with("22:13:20.007  TCP ") && text.ends_with("tries=2\n"), "{text}");
        let wanted = "127.0.0.1 - - [14/Nov/2023:22:13:20 +0000] \"CONNECT 127.0.0.1:5432 TCP\" 200 1024 \"-\" \"-\"\n";
        assert_eq!(line_of(Format::Combined), wanted);
    }

    #[test]
    fn the_chosen_fields_and_sessions() {
        let layout = LogLayout { fields: FieldSet::of([LogField::Reason]), ..LogLayout::default() };
        let wanted = "{\"listener\":\"databases\",\"stream\":\"orders\",\"reason\":\"session_ended\"}\n";
        assert_eq!(line(&layout), wanted);
        let when = crate::telemetry::LogWhen { statuses: vec![(500, 599)], slower_than: None, sample: 0 };
        let layout = LogLayout { when: Some(when), ..LogLayout::default() };
        assert!(!record().is_logged(&layout));
        assert!(SessionRecord { reason: Reason::ConnectRefused, ..record() }.is_logged(&layout));
    }
}
