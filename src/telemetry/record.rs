//! The record of a request that has ended, from which its log line is written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::exchange::{Reason, TlsFacts};
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
    /// The route.
    pub route: Option<&'a str>,
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
}

/// Returns `,"name":` as a constant.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

impl Record<'_> {
    /// Appends the line, with its newline, as one JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.reserve(1024);
        out.extend_from_slice(b"{\"time\":\"");
        write_time(self.time, out);
        out.push(b'"');
        plain(out, key!("client"), self.client);
        plain(out, key!("method"), self.method.as_bytes());
        string(out, key!("host"), self.host.as_bytes());
        string(out, key!("path"), self.path.as_bytes());
        if let Some(query) = self.query {
            out.extend_from_slice(key!("query"));
            out.push(b'"');
            masked(query, self.secret_parameters, |part| escape(part.as_bytes(), out));
            out.push(b'"');
        }
        plain(out, key!("protocol"), self.protocol.as_bytes());
        if let Some(tls) = self.tls {
            plain(out, key!("tls"), tls.version.as_bytes());
            optional(out, key!("server_name"), tls.server_name.as_deref().map(str::as_bytes));
        }
        number(out, key!("status"), u64::from(self.status));
        plain(out, key!("reason"), self.reason.code().as_bytes());
        optional(out, key!("detail"), self.detail.map(str::as_bytes));
        optional(out, key!("route"), self.route.map(str::as_bytes));
        optional(out, key!("upstream"), self.upstream.map(str::as_bytes));
        optional(out, key!("target"), self.target.map(str::as_bytes));
        optional(out, key!("consumer"), self.consumer.map(str::as_bytes));
        milliseconds(out, key!("duration_ms"), self.duration);
        if let Some(time) = self.upstream_time {
            milliseconds(out, key!("upstream_ms"), time);
        }
        if self.tries > 1 {
            number(out, key!("tries"), u64::from(self.tries));
        }
        number(out, key!("bytes_in"), self.bytes_in);
        number(out, key!("bytes_out"), self.bytes_out);
        optional(out, key!("request_id"), self.request_id);
        if self.trace_id != 0 {
            out.extend_from_slice(key!("trace_id"));
            out.push(b'"');
            hex(self.trace_id, out);
            out.push(b'"');
        }
        optional(out, key!("user_agent"), self.user_agent);
        out.extend_from_slice(b"}\n");
    }

    /// Appends the line as text for people.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        write_time(self.time, out);
        let mut path = String::from(self.path);
        if let Some(query) = self.query {
            path.push('?');
            masked(query, self.secret_parameters, |part| path.push_str(part));
        }
        let mut safe = Vec::new();
        escape(path.as_bytes(), &mut safe);
        let millis = self.duration.as_secs_f64() * 1e3;
        // A write to a Vec cannot fail.
        let _ = write!(
            out,
            "  {:>3}  {:>8.2} ms  {:<7} {}  {}",
            self.status,
            millis,
            self.method,
            String::from_utf8_lossy(&safe),
            self.reason.code()
        );
        for (name, value) in
            [("route", self.route), ("target", self.target), ("consumer", self.consumer), ("detail", self.detail)]
        {
            if let Some(value) = value {
                let _ = write!(out, "  {name}=");
                escape(value.as_bytes(), out);
            }
        }
        out.push(b'\n');
    }
}

fn string(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.push(b'"');
    escape(value, out);
    out.push(b'"');
}

/// Appends a text of the gateway's own, which needs no escaping.
fn plain(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.push(b'"');
    out.extend_from_slice(value);
    out.push(b'"');
}

fn optional(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        string(out, key, value);
    }
}

fn number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    digits(out, value, 1);
}

fn milliseconds(out: &mut Vec<u8>, key: &[u8], value: Duration) {
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
fn escape(value: &[u8], out: &mut Vec<u8>) {
    // Without an early exit, so that it can be vectorised.
    let odd = value.iter().fold(false, |odd, b| odd | (b.wrapping_sub(0x20) > 0x5e) | (*b == b'"') | (*b == b'\\'));
    if !odd {
        return out.extend_from_slice(value);
    }
    for c in String::from_utf8_lossy(value).chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if c < ' ' || c == '\u{7f}' => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
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
fn write_time(time: SystemTime, out: &mut Vec<u8>) {
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

    fn record() -> Record<'static> {
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
            route: Some("r"),
            upstream: None,
            target: None,
            consumer: None,
            duration: Duration::from_micros(1_234_005),
            upstream_time: Some(Duration::from_micros(7)),
            tries: 1,
            bytes_in: 0,
            bytes_out: 1024,
            request_id: Some(b"id\xff"),
            trace_id: 10,
            user_agent: None,
        }
    }

    #[test]
    fn a_line_is_json_with_its_secrets_masked() {
        let mut line = Vec::new();
        record().write_json(&mut line);
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
    fn a_line_for_people_is_one_line() {
        let mut line = Vec::new();
        record().write_text(&mut line);
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        assert!(!String::from_utf8_lossy(&line).contains("abc"));
    }
}
