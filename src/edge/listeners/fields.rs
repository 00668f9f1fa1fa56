//! Header fields of HTTP/2 requests, converted to their HTTP/1 form.

use http::header::{COOKIE, HOST, HeaderMap, HeaderValue};
use http::request::Parts;

/// Joins the cookie fields into one (RFC 9113, section 8.2.3), which is how HTTP/1 and every rule expects them.
pub fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let joined = crumbs.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, value);
    }
}

/// Gives a request that only has an authority a `Host`, so that the host stands in one place.
pub fn set_host(head: &mut Parts) {
    if !head.headers.contains_key(HOST)
        && let Some(Ok(host)) = head.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()))
    {
        head.headers.insert(HOST, host);
    }
}
