//! How long a request may take: the route's timeout, and the time that the client says it waits.

use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::actions::Forward;
use crate::rules::grpc::parse_timeout;

/// The field in which a gRPC client says how long it waits (gRPC over HTTP/2, "Timeout").
pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Returns the end of the request's time: the earlier of the route's and the client's.
pub(super) fn deadline(headers: &HeaderMap, forward: &Forward, started: Instant, grpc: bool) -> Option<Instant> {
    let least = forward.timeout.into_iter().chain(client_wait(headers, forward, grpc)).min()?;
    started.checked_add(least)
}

/// Returns the end of the time that the client waits, if that is earlier than the route's.
pub(super) fn client_deadline(headers: &HeaderMap, forward: &Forward, started: Instant, grpc: bool) -> Option<Instant> {
    let wait = client_wait(headers, forward, grpc)?;
    if forward.timeout.is_some_and(|timeout| timeout <= wait) { None } else { started.checked_add(wait) }
}

/// Returns how long the client says it waits.
fn client_wait(headers: &HeaderMap, forward: &Forward, grpc: bool) -> Option<Duration> {
    let wait = forward.deadline_header.as_ref().and_then(|name| headers.get(name)).and_then(parse_wait);
    let grpc = if grpc { headers.get(GRPC_TIMEOUT).and_then(|value| parse_timeout(value.as_bytes())) } else { None };
    wait.into_iter().chain(grpc).min()
}

/// Writes the remaining time into the fields in which the client said how long it waits.
pub(super) fn forward_deadline(headers: &mut HeaderMap, forward: &Forward, deadline: Option<Instant>, grpc: bool) {
    let Some(deadline) = deadline else { return };
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    let mut write = |name: &HeaderName, text: String| {
        if let (true, Ok(value)) = (headers.contains_key(name), HeaderValue::try_from(text)) {
            headers.insert(name.clone(), value);
        }
    };
    if let Some(name) = &forward.deadline_header {
        write(name, format!("{left}ms"));
    }
    if grpc {
        write(&GRPC_TIMEOUT, format!("{}m", left.min(99_999_999)));
    }
}

/// Parses `250ms`, `3s`, or a number of seconds.
fn parse_wait(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let millis = match text.strip_suffix("ms") {
        Some(millis) => millis.parse::<f64>().ok()?,
        None => text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok()? * 1_000.0,
    };
    (millis.is_finite() && millis >= 0.0).then(|| Duration::from_secs_f64((millis / 1_000.0).min(86_400.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_or_seconds() {
        let of = |text: &'static str| HeaderValue::from_static(text);
        assert_eq!(parse_wait(&of("250ms")), Some(Duration::from_millis(250)));
        assert_eq!(parse_wait(&of("1.5")), Some(Duration::from_millis(1500)));
        assert_eq!(parse_wait(&of("2s")), Some(Duration::from_secs(2)));
        assert_eq!(parse_wait(&of("-1")), None);
        assert_eq!(parse_wait(&of("soon")), None);
    }
}
