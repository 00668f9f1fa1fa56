//! Taking credentials out of a request, so that its target does not see them.

use http::header::{COOKIE, HeaderValue};
use pingora::http::RequestHeader;

use crate::rules::routing::is_named;

/// Removes every query parameter of that name.
pub fn remove_parameter(request: &mut RequestHeader, name: &str) {
    let Some(query) = request.uri.query() else { return };
    let is_it = |pair: &&str| pair.split('=').next().is_some_and(|key| is_named(key, name));
    if !query.split('&').any(|pair| is_it(&pair)) {
        return;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_it(pair)).collect();
    let path = request.uri.path();
    let target = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    // Scheme and authority stay: on HTTP/2 the host stands there.
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = target.parse().ok();
    if let Ok(uri) = http::Uri::from_parts(parts) {
        request.set_uri(uri);
    }
}

/// Removes every cookie of that name.
pub fn remove_cookie(request: &mut RequestHeader, name: &str) {
    let lines: Vec<String> = request
        .headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .map(|line| {
            let kept = line.split(';').map(str::trim).filter(|pair| pair.split('=').next() != Some(name));
            kept.collect::<Vec<_>>().join("; ")
        })
        .filter(|line| !line.is_empty())
        .collect();
    request.remove_header(&COOKIE);
    for line in lines {
        if let Ok(value) = HeaderValue::try_from(line) {
            let _ = request.append_header(COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_and_what_stays() {
        let mut request = RequestHeader::build("GET", b"/p?a=1&t=x&b&t=y&%74=z", None).expect("a request");
        request.append_header(COOKIE, "a=1; t=x; b=2").expect("a cookie");
        request.append_header(COOKIE, "t=y").expect("a cookie");
        remove_parameter(&mut request, "t");
        remove_cookie(&mut request, "t");
        assert_eq!(request.uri, "/p?a=1&b");
        assert_eq!(request.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
