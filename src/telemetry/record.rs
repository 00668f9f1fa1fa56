//! The record of a request that has ended, from which its log line is written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::exchange::{Reason, RequestView, Template, TlsFacts, TranslationNote, WouldReject};
use crate::notation::is_named_like_secret;

/// The record of a request that has ended. Everything is borrowed; nothing is copied to be logged.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The time at which it ended.
    pub time: SystemTime,
    /// The client's address.
    pub client: &'a [u8],
    /// The method, such as `GET`.
    pub method: &'a str,
    /// The requested host.
    pub host: &'a str,
    /// The path, normalised if possible.
    pub path: &'a str,
    /// The query, without the `?`; secrets in it are masked in the line.
    pub query: Option<&'a str>,
    /// The names of parameters whose values are secrets, in addition to those whose name suggests it.
    pub secret_parameters: &'a [String],
    /// The protocol, such as `HTTP/1.1`.
    pub protocol: &'a str,
    /// The properties of the client's TLS connection; `None` without TLS.
    pub tls: Option<&'a TlsFacts>,
    /// The response's status; 0 without a response.
    pub status: u16,
    /// The reason with which it ended.
    pub reason: Reason,
    /// A detail beyond the reason.
    pub detail: Option<&'a str>,
    /// What the first filter has found that would have rejected it, were it enforced.
    pub would_reject: Option<&'a WouldReject>,
    /// The route.
    pub route: Option<&'a str>,
    /// The API and its version that the request was for.
    pub api_version: Option<(&'a str, &'a str)>,
    /// The operation of the route's OpenAPI document.
    pub operation: Option<&'a str>,
    /// The upstream.
    pub upstream: Option<&'a str>,
    /// The target.
    pub target: Option<&'a str>,
    /// The consumer.
    pub consumer: Option<&'a str>,
    /// The time from its headers to the end of its response.
    pub duration: Duration,
    /// The time from forwarding to the response's headers.
    pub upstream_time: Option<Duration>,
    /// The number of attempts.
    pub tries: u32,
    /// What the cache did for it.
    pub cache: Option<&'a str>,
    /// What it was translated from and into.
    pub translation: Option<&'a TranslationNote>,
    /// The size of the request's body.
    pub bytes_in: u64,
    /// The size of the response's body.
    pub bytes_out: u64,
    /// Its id.
    pub request_id: Option<&'a [u8]>,
    /// Its trace.
    pub trace_id: u128,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`; secrets in its query are masked.
    pub referer: Option<&'a [u8]>,
    /// The request, for fields that the configuration adds; `None` if its head could not be parsed.
    pub view: Option<RequestView<'a>>,
}

/// Defines [`LogField`]: variant, name, what it is, and how it is appended with its key.
macro_rules! fields {
    ($($variant:ident = $name:literal, $about:literal, |$record:ident, $out:ident, $key:ident| $write:expr;)*) => {
        /// A field of the access log in JSON.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum LogField {
            $(#[doc = $about] $variant,)*
        }

        impl LogField {
            /// Every field with its name and what it is, in the order of a line.
            pub const ALL: &'static [(Self, &'static str, &'static str)] =
                &[$((Self::$variant, $name, $about),)*];
        }

        impl Record<'_> {
            /// Appends the chosen fields, each with a comma before it.
            fn write_fields(&self, chosen: FieldSet, out: &mut Vec<u8>) {
                $(if chosen.has(LogField::$variant) {
                    let ($record, $out, $key) = (self, &mut *out, concat!(",\"", $name, "\":").as_bytes());
                    $write;
                })*
            }
        }
    };
}

fields! {
    Time = "time", "When the response ended, as RFC 3339 in UTC.",
        |r, out, key| { out.extend_from_slice(key); out.push(b'"'); write_time(r.time, out); out.push(b'"') };
    Client = "client", "The client's address, behind trusted proxies.", |r, out, key| plain(out, key, r.client);
    Method = "method", "The method.", |r, out, key| plain(out, key, r.method.as_bytes());
    Host = "host", "The requested host.", |r, out, key| string(out, key, r.host.as_bytes());
    Path = "path", "The path, normalised.", |r, out, key| string(out, key, r.path.as_bytes());
    Query = "query", "The query, with secrets masked.", |r, out, key| query(r, out, key);
    Protocol = "protocol", "HTTP/1.0, HTTP/1.1 or HTTP/2.", |r, out, key| plain(out, key, r.protocol.as_bytes());
    Tls = "tls", "The version of TLS.",
        |r, out, key| optional(out, key, r.tls.map(|tls| tls.version.as_bytes()));
    ServerName = "server_name", "The name that the client requested in TLS.",
        |r, out, key| optional(out, key, r.tls.and_then(|tls| tls.server_name.as_deref()).map(str::as_bytes));
    Status = "status", "The status of the response; 0 without one.",
        |r, out, key| number(out, key, u64::from(r.status));
    Reason = "reason", "The reason with which the request ended.",
        |r, out, key| plain(out, key, r.reason.code().as_bytes());
    Detail = "detail", "A detail beyond the reason.", |r, out, key| optional(out, key, r.detail.map(str::as_bytes));
    WouldReject = "would_reject", "The reason of the first filter that would have rejected it, were it enforced.",
        |r, out, key| optional(out, key, r.would_reject.map(|found| found.reason.code().as_bytes()));
    WouldRejectDetail = "would_reject_detail", "That filter, and a detail beyond the reason.",
        |r, out, key| r.would_reject.iter().for_each(|found| {
            string(out, key, format!("{}: {}", found.filter, found.detail).as_bytes());
        });
    Route = "route", "The route.", |r, out, key| optional(out, key, r.route.map(str::as_bytes));
    ApiVersion = "api_version", "The API and its version that the request was for.",
        |r, out, key| r.api_version.iter().for_each(|(api, version)| {
            string(out, key, format!("{api} {version}").as_bytes());
        });
    Operation = "operation", "The operation of the route's OpenAPI document, or what a translated request calls.",
        |r, out, key| optional(out, key, r.operation.map(str::as_bytes));
    Translated = "translated", "The protocols that the request was translated from and into.",
        |r, out, key| r.translation.iter().for_each(|note| {
            plain(out, key, format!("{} to {}", note.from, note.to).as_bytes());
        });
    TargetStatus = "target_status", "The status of a translated response in the protocol of the target.",
        |r, out, key| optional(out, key, r.translation.and_then(|n| n.target_status.as_deref()).map(str::as_bytes));
    Upstream = "upstream", "The upstream.", |r, out, key| optional(out, key, r.upstream.map(str::as_bytes));
    Target = "target", "The target.", |r, out, key| optional(out, key, r.target.map(str::as_bytes));
    Consumer = "consumer", "The consumer.", |r, out, key| optional(out, key, r.consumer.map(str::as_bytes));
    DurationMs = "duration_ms", "The time from the request's headers to the end of the response, in milliseconds.",
        |r, out, key| milliseconds(out, key, r.duration);
    UpstreamMs = "upstream_ms", "The time until the target's headers, in milliseconds.",
        |r, out, key| r.upstream_time.iter().for_each(|time| milliseconds(out, key, *time));
    Tries = "tries", "How often it was sent to a target, if more than once.",
        |r, out, key| if r.tries > 1 { number(out, key, u64::from(r.tries)) };
    Cache = "cache", "What the cache did: hit, stale, revalidated, miss, collapsed, pass or bypass.",
        |r, out, key| optional(out, key, r.cache.map(str::as_bytes));
    BytesIn = "bytes_in", "The size of the request's body.", |r, out, key| number(out, key, r.bytes_in);
    BytesOut = "bytes_out", "The size of the response's body.", |r, out, key| number(out, key, r.bytes_out);
    RequestId = "request_id", "The id of the request.", |r, out, key| optional(out, key, r.request_id);
    TraceId = "trace_id", "The id of its trace.", |r, out, key| trace_id(r, out, key);
    UserAgent = "user_agent", "The header User-Agent.", |r, out, key| optional(out, key, r.user_agent);
    Referer = "referer", "The header Referer, with secrets masked; only where it is chosen.",
        |r, out, key| r.referer.iter().for_each(|_| referer(r, out, key));
}

/// A set of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldSet(u32);

impl Default for FieldSet {
    /// Returns all fields but the referer.
    fn default() -> Self {
        Self(!(1 << LogField::Referer as u32))
    }
}

impl FieldSet {
    /// Returns the set of these fields.
    pub fn of(fields: impl IntoIterator<Item = LogField>) -> Self {
        Self(fields.into_iter().fold(0, |set, field| set | 1 << field as u32))
    }

    /// Returns whether the field is one of them.
    pub fn has(self, field: LogField) -> bool {
        self.0 & (1 << field as u32) != 0
    }
}

impl Record<'_> {
    /// Appends the line, with its newline, as one JSON object with these fields and further ones.
    pub fn write_json(&self, fields: FieldSet, extra: &[(String, Template)], out: &mut Vec<u8>) {
        out.reserve(1024);
        let start = out.len();
        self.write_fields(fields, out);
        for (key, text) in extra {
            let Some(view) = &self.view else { break };
            let value = text.fill(view);
            string(out, key.as_bytes(), &value);
        }
        match out.get_mut(start) {
            // Each field begins with a comma.
            Some(first) => *first = b'{',
            None => out.push(b'{'),
        }
        out.extend_from_slice(b"}\n");
    }
}

fn query(record: &Record<'_>, out: &mut Vec<u8>, key: &[u8]) {
    let Some(query) = record.query else { return };
    out.extend_from_slice(key);
    out.push(b'"');
    masked(query, record.secret_parameters, |part| escape(part.as_bytes(), out));
    out.push(b'"');
}

fn referer(record: &Record<'_>, out: &mut Vec<u8>, key: &[u8]) {
    string(out, key, record.masked_referer().as_bytes());
}

fn trace_id(record: &Record<'_>, out: &mut Vec<u8>, key: &[u8]) {
    if record.trace_id != 0 {
        out.extend_from_slice(key);
        out.push(b'"');
        hex(record.trace_id, out);
        out.push(b'"');
    }
}

impl Record<'_> {
    /// Returns the path with the query, whose secrets are masked.
    pub(super) fn target(&self) -> String {
        let mut target = String::from(self.path);
        if let Some(query) = self.query {
            target.push('?');
            masked(query, self.secret_parameters, |part| target.push_str(part));
        }
        target
    }

    /// Returns `Referer` with the secrets of its query masked.
    pub(super) fn masked_referer(&self) -> String {
        let text = String::from_utf8_lossy(self.referer.unwrap_or_default());
        let (url, query) = text.split_once('?').unwrap_or((&text, ""));
        let mut out = String::from(url);
        if !query.is_empty() {
            out.push('?');
            masked(query, self.secret_parameters, |part| out.push_str(part));
        }
        out
    }
}

pub(super) fn string(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.push(b'"');
    escape(value, out);
    out.push(b'"');
}

/// Appends a text of the gateway's own, which needs no escaping.
pub(super) fn plain(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.push(b'"');
    out.extend_from_slice(value);
    out.push(b'"');
}

pub(super) fn optional(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        string(out, key, value);
    }
}

pub(super) fn number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    digits(out, value, 1);
}

pub(super) fn milliseconds(out: &mut Vec<u8>, key: &[u8], value: Duration) {
    out.extend_from_slice(key);
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    digits(out, micros / 1_000, 1);
    out.push(b'.');
    digits(out, micros % 1_000, 3);
}

fn digits(out: &mut Vec<u8>, mut value: u64, least: usize) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    while value > 0 || text.len() - at < least {
        at -= 1;
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&text[at..]);
}

fn hex(value: u128, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend((0..32).rev().map(|nibble| DIGITS[(value >> (nibble * 4) & 15) as usize]));
}

/// Appends the value escaped as in a JSON string; bytes that are not UTF-8 become the replacement character.
pub(super) fn escape(value: &[u8], out: &mut Vec<u8>) {
    // Without an early exit, so that it can be vectorised.
    let odd = value.iter().fold(false, |odd, b| odd | (b.wrapping_sub(0x20) > 0x5e) | (*b == b'"') | (*b == b'\\'));
    if !odd {
        return out.extend_from_slice(value);
    }
    for c in String::from_utf8_lossy(value).chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if is_unsafe(c) => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Returns whether a character acts on a terminal, or on the order in which text is shown.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Yields the parts of a query, with the values of secret parameters as `***`.
fn masked(query: &str, names: &[String], mut push: impl FnMut(&str)) {
    for (count, pair) in query.split('&').enumerate() {
        if count > 0 {
            push("&");
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
        let is_secret = is_named_like_secret(&decoded) || names.iter().any(|n| n.eq_ignore_ascii_case(&decoded));
        if !value.is_empty() && is_secret {
            push(name);
            push("=***");
        } else {
            push(pair);
        }
    }
}

/// Appends a time as RFC 3339 in UTC with milliseconds. The part down to the second is cached per thread.
pub(super) fn write_time(time: SystemTime, out: &mut Vec<u8>) {
    thread_local! {
        static SECOND: std::cell::RefCell<(u64, String)> = const { std::cell::RefCell::new((0, String::new())) };
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            let date = chrono::DateTime::from_timestamp(since.as_secs() as i64, 0).unwrap_or_default();
            *text = date.format("%Y-%m-%dT%H:%M:%S.").to_string();
            *second = since.as_secs();
        }
        out.extend_from_slice(text.as_bytes());
    });
    digits(out, u64::from(since.subsec_millis()), 3);
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{LogLayout, LogWhen};

    fn record() -> Record<'static> {
        let request =
            Box::leak(Box::new(pingora::http::RequestHeader::build("GET", b"/?u=a%22b", None).expect("a head")));
        let exchange = Box::leak(Box::new(crate::exchange::Exchange::default()));
        Record {
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_007),
            client: b"127.0.0.1",
            method: "GET",
            host: "h",
            path: "/a\"b\n",
            query: Some("x=1&access_token=abc&Api%4bey=def&k&%74ok=ghi"),
            secret_parameters: Box::leak(Box::new(["tok".to_owned()])),
            protocol: "HTTP/1.1",
            tls: None,
            status: 200,
            reason: Reason::Forwarded,
            detail: None,
            would_reject: None,
            translation: None,
            route: Some("r"),
            api_version: Some(("orders", "v1")),
            operation: None,
            upstream: None,
            target: None,
            consumer: None,
            duration: Duration::from_micros(1_234_005),
            upstream_time: Some(Duration::from_micros(7)),
            tries: 1,
            cache: None,
            bytes_in: 0,
            bytes_out: 1024,
            request_id: Some(b"id\xff"),
            trace_id: 10,
            user_agent: None,
            referer: Some(b"https://x.example/a?token=abc"),
            view: Some(RequestView { request, exchange, pattern: None, response: None }),
        }
    }

    #[test]
    fn a_line_is_json_with_its_secrets_masked() {
        let mut line = Vec::new();
        record().write_json(FieldSet::default(), &[], &mut line);
        let parsed: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(parsed["time"], "2023-11-14T22:13:20.007Z");
        assert_eq!(parsed["path"], "/a\"b\n");
        assert_eq!(parsed["query"], "x=1&access_token=***&Api%4bey=***&k&%74ok=***");
        assert_eq!(parsed["duration_ms"], 1234.005);
        assert_eq!(parsed["upstream_ms"], 0.007);
        assert_eq!(parsed["trace_id"], "0000000000000000000000000000000a");
        assert_eq!(parsed["request_id"], "id\u{fffd}");
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
    }

    #[test]
    fn the_chosen_fields_and_those_that_are_added() {
        let text = crate::exchange::Template::new(
            "{query.u}",
            &crate::exchange::TextScope::outside(crate::exchange::TextForm::Plain),
        );
        let extra = vec![(LogLayout::key("who"), text.expect("a text"))];
        let mut layout =
            LogLayout { fields: FieldSet::of([LogField::Status, LogField::Referer]), extra, ..LogLayout::default() };
        let mut line = Vec::new();
        layout.write(&record(), &mut line);
        let wanted = "{\"status\":200,\"referer\":\"https://x.example/a?token=***\",\"who\":\"a\\\"b\"}\n";
        assert_eq!(String::from_utf8_lossy(&line), wanted);
        (layout.fields, layout.extra) = (FieldSet::of([]), Vec::new());
        line.clear();
        layout.write(&record(), &mut line);
        assert_eq!(line, b"{}\n");
    }

    #[test]
    fn lines_for_people_and_for_tools_of_web_servers() {
        let mut line = Vec::new();
        record().write_text(&LogLayout::default(), &mut line);
        let text = String::from_utf8_lossy(&line).into_owned();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(!text.contains("abc") && text.starts_with("22:13:20.007  200 "), "{text}");
        line.clear();
        record().write_combined(&mut line);
        let wanted = [
            r#"127.0.0.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a\"b\u000a"#,
            "?x=1&access_token=***&Api%4bey=***&k&%74ok=*** ",
            "HTTP/1.1\" 200 1024 \"https://x.example/a?token=***\" \"-\"\n",
        ];
        assert_eq!(String::from_utf8_lossy(&line), wanted.concat());
    }

    #[test]
    fn which_lines_are_written() {
        let at = |status, slow| {
            let when = LogWhen { statuses: vec![(500, 599)], slower_than: Some(slow), sample: 0 };
            LogLayout { when: Some(when), ..LogLayout::default() }.takes(&Record { status, ..record() })
        };
        let (slow, fast) = (Duration::from_secs(1), Duration::from_secs(2));
        assert!(at(503, fast) && at(200, slow) && !at(200, fast));
        let sampled = |sample| {
            let when = LogWhen { statuses: Vec::new(), slower_than: None, sample };
            LogLayout { when: Some(when), ..LogLayout::default() }.takes(&record())
        };
        assert!(sampled(u32::MAX) && !sampled(0));
    }
}
