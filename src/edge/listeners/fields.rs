//! Header fields of HTTP/2 requests, in the form that HTTP/1 has them in.

use http::header::{COOKIE, HOST, HeaderMap, HeaderValue};
use http::request::Parts;

/// Makes one field of the cookie's crumbs (RFC 9113, section 8.2.3), which is how HTTP/1 and every rule knows it.
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

/// Gives the request a `Host` where it has but an authority: what is asked for stands in one place then.
pub fn name_host(head: &mut Parts) {
    if !head.headers.contains_key(HOST)
        && let Some(Ok(host)) = head.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()))
    {
        head.headers.insert(HOST, host);
    }
}
