//! Hop-by-hop fields (RFC 9110, section 7.6.1), dropped in one place for every way that a message can take.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use pingora::http::{RequestHeader, ResponseHeader};

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields of a request that are never forwarded.
const OF_REQUESTS: [HeaderName; 7] = [CONNECTION, HTTP2_SETTINGS, KEEP_ALIVE, PROXY_CONNECTION, TE, TRAILER, UPGRADE];

/// Returns whether a field of a response is never forwarded. `Transfer-Encoding` is handled with the framing.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    match name.as_str().len() {
        2 => *name == TE,
        7 => *name == UPGRADE,
        10 => *name == CONNECTION || *name == KEEP_ALIVE,
        16 => *name == PROXY_CONNECTION,
        _ => false,
    }
}

/// Drops the hop-by-hop fields and those that `Connection` names.
pub(super) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    // A response has few fields and most have none of these.
    if headers.keys().any(is_hop_by_hop) {
        drop_found(headers);
    }
}

/// Drops the same fields from a response that is not edited otherwise.
pub(super) fn drop_from_response(response: &mut ResponseHeader) {
    if response.headers.keys().any(is_hop_by_hop) {
        super::response::edit_response(response, drop_found);
    }
}

/// Drops from a request the fields that belong to the client's connection, and those that its `Connection` names.
pub(super) fn drop_from_request(request: &mut RequestHeader) {
    let named: Vec<HeaderName> = request
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|n| n.trim().parse().ok())
        .filter(|n| *n != HOST)
        .collect();
    for name in named.iter().chain(&OF_REQUESTS) {
        request.remove_header(name);
    }
}

fn drop_found(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(CONNECTION).iter();
    // Most servers send one of these, and they name nothing.
    let usual = match (lines.next(), lines.next()) {
        (Some(only), None) => matches!(only.as_bytes(), b"keep-alive" | b"Keep-Alive" | b"close"),
        (first, _) => first.is_none(),
    };
    if !usual {
        connection_options(headers).iter().for_each(|name| _ = headers.remove(name));
    }
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        headers.remove(&name);
    }
}

/// Returns the fields that `Connection` names, except those that frame the response.
fn connection_options(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(|line| line.split(',')).filter_map(|token| token.trim().parse().ok());
    names.filter(|name| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_is_of_the_connection_goes_and_the_rest_stays() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Hop,, content-length"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-hop", "1"),
            ("x-other", "2"),
            ("content-length", "3"),
            ("trailer", "x"),
            ("proxy-authenticate", "Basic"),
            ("server", "y"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        drop_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "proxy-authenticate", "server", "trailer"]);
    }
}
