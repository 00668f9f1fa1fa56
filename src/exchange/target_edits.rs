//! Edits of the request target and of cookies, for a copy of a request that goes to its target.

use http::header::{COOKIE, HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};
use pingora::http::RequestHeader;

use crate::rules::path::hides_dot_segments;
use crate::rules::routing::is_named;

/// Bytes that a query parameter may have as they are (RFC 3986, section 2.3).
const PARAMETER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Bytes that the value of a cookie cannot have (RFC 6265, section 4.1.1).
const COOKIE_VALUE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\');

/// Changes the pairs of the query.
fn edit_query(request: &mut RequestHeader, edit: impl FnOnce(Vec<String>) -> Vec<String>) {
    let pairs = request.uri.query().map(|query| query.split('&').map(str::to_owned).collect()).unwrap_or_default();
    let pairs = edit(pairs);
    let path = request.uri.path();
    let target = if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) };
    set_target(request, &target);
}

/// Replaces path and query. Scheme and authority stay: on HTTP/2 the host stands there.
fn set_target(request: &mut RequestHeader, target: &str) -> bool {
    let mut parts = request.uri.clone().into_parts();
    let Ok(target) = target.parse() else { return false };
    parts.path_and_query = Some(target);
    let uri = http::Uri::from_parts(parts);
    uri.is_ok_and(|uri| {
        request.set_uri(uri);
        true
    })
}

fn is_parameter(pair: &str, name: &str) -> bool {
    pair.split('=').next().is_some_and(|key| is_named(key, name))
}

/// Removes every query parameter of that name.
pub(super) fn remove_parameter(request: &mut RequestHeader, name: &str) {
    if request.uri.query().is_some_and(|query| query.split('&').any(|pair| is_parameter(pair, name))) {
        edit_query(request, |pairs| pairs.into_iter().filter(|pair| !is_parameter(pair, name)).collect());
    }
}

/// Sets a query parameter, in place of the first of that name.
pub(super) fn set_parameter(request: &mut RequestHeader, name: &str, value: &[u8]) {
    let pair = format!("{}={}", percent_encode(name.as_bytes(), PARAMETER), percent_encode(value, PARAMETER));
    edit_query(request, |mut pairs| {
        let place = pairs.iter().position(|pair| is_parameter(pair, name)).unwrap_or(pairs.len());
        pairs.retain(|pair| !is_parameter(pair, name));
        pairs.insert(place.min(pairs.len()), pair);
        pairs
    });
}

/// Adds a query parameter.
pub(super) fn add_parameter(request: &mut RequestHeader, name: &str, value: &[u8]) {
    let pair = format!("{}={}", percent_encode(name.as_bytes(), PARAMETER), percent_encode(value, PARAMETER));
    edit_query(request, |mut pairs| {
        pairs.push(pair);
        pairs
    });
}

/// Gives every query parameter of a name another one.
pub(super) fn rename_parameter(request: &mut RequestHeader, from: &str, to: &str) {
    let to = percent_encode(to.as_bytes(), PARAMETER).to_string();
    edit_query(request, |pairs| {
        let rename = |pair: String| match (is_parameter(&pair, from), pair.split_once('=')) {
            (true, Some((_, value))) => format!("{to}={value}"),
            (true, None) => to.clone(),
            (false, _) => pair,
        };
        pairs.into_iter().map(rename).collect()
    });
}

/// Replaces the path; the query stays.
///
/// # Errors
/// When it is none, or has a dot segment, which would lead elsewhere.
pub(super) fn set_path(request: &mut RequestHeader, path: &[u8]) -> Result<(), String> {
    let path = std::str::from_utf8(path).map_err(|_| "the path is not ASCII".to_owned())?;
    if !path.starts_with('/') || path.contains(['?', '#']) || hides_dot_segments(path) {
        return Err("the path is none, or has a dot segment".to_owned());
    }
    let target = request.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    if set_target(request, &target) { Ok(()) } else { Err("the path is malformed".to_owned()) }
}

/// Sets a cookie, in place of those of that name.
pub(super) fn set_cookie(headers: &mut HeaderMap, name: &str, value: &[u8]) {
    super::edits::remove_cookies(headers, |key| key == name.as_bytes());
    let pair = format!("{name}={}", percent_encode(value, COOKIE_VALUE));
    let line = match headers.get(COOKIE) {
        Some(line) => [line.as_bytes(), b"; ", pair.as_bytes()].concat(),
        None => pair.into_bytes(),
    };
    let Ok(line) = HeaderValue::from_bytes(&line) else { return };
    match headers.get_mut(COOKIE) {
        Some(first) => *first = line,
        None => _ = headers.insert(COOKIE, line),
    }
}
