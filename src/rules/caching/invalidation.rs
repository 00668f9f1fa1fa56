//! What a request with an unsafe method invalidates (RFC 9111, section 4.4).

use http::header::{CONTENT_LOCATION, HeaderMap, LOCATION};
use http::{Method, Uri};

use super::key::normal_authority;

/// Returns whether a method that succeeds invalidates what is stored: one that is not known to be safe (RFC 9110,
/// section 9.2.1).
pub fn is_invalidating(method: &Method) -> bool {
    !(method.is_safe() || *method == Method::CONNECT)
}

/// Returns whether a response means that a request has had its effect: one without an error (RFC 9111, section 4.4).
pub fn is_effective(status: u16) -> bool {
    (200..400).contains(&status)
}

/// Returns the paths with queries that are invalidated beside that of the request: those of `Location` and
/// `Content-Location`, if they have its origin. Another origin's are not, as anybody could invalidate them.
pub fn invalidated_targets(scheme: &str, authority: &str, path: &str, response: &HeaderMap) -> Vec<String> {
    let mut targets = Vec::new();
    for name in [LOCATION, CONTENT_LOCATION] {
        let Some(text) = response.get(&name).and_then(|value| value.to_str().ok()) else { continue };
        if let Some(target) = resolve(scheme, authority, path, text)
            && !targets.contains(&target)
        {
            targets.push(target);
        }
    }
    targets
}

/// Returns the path with query of a reference (RFC 3986, section 5.2), if it has that origin.
fn resolve(scheme: &str, authority: &str, path: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default().trim();
    if reference.starts_with("//") {
        return resolve(scheme, authority, path, &format!("{scheme}:{reference}"));
    }
    if reference.contains("://") {
        let uri: Uri = reference.parse().ok()?;
        let same = uri.scheme_str().is_some_and(|other| other.eq_ignore_ascii_case(scheme))
            && uri.authority().is_some_and(|other| normal_authority(other.as_str(), scheme) == authority);
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        return same.then(|| target.to_owned());
    }
    if reference.starts_with('/') {
        return Some(reference.to_owned());
    }
    if reference.starts_with('?') {
        return Some(format!("{path}{reference}"));
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let (own, query) = reference.split_once('?').map_or((reference, None), |(own, query)| (own, Some(query)));
    let joined = format!("{folder}/{own}");
    let normal = crate::rules::path::normalise(joined.as_bytes()).ok()?.into_owned();
    Some(query.map_or_else(|| normal.clone(), |query| format!("{normal}?{query}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_of_the_same_origin() {
        for (reference, wanted) in [
            ("/b?c", Some("/b?c")),
            ("b", Some("/x/b")),
            ("../b", Some("/b")),
            ("?q", Some("/x/a?q")),
            ("http://a.test/b#f", Some("/b")),
            ("http://A.test:80/b", Some("/b")),
            ("//a.test/b", Some("/b")),
            ("https://a.test/b", None),
            ("http://other.test/b", None),
            ("http://a.test:8080/b", None),
        ] {
            let mut response = HeaderMap::new();
            response.insert(LOCATION, HeaderValue::from_static(reference));
            let found = invalidated_targets("http", "a.test", "/x/a", &response);
            assert_eq!(found.first().map(String::as_str), wanted, "{reference}");
        }
    }

    #[test]
    fn methods_and_statuses() {
        assert!(is_invalidating(&Method::POST) && is_invalidating(&Method::DELETE));
        assert!(is_invalidating(&Method::from_bytes(b"FOO").unwrap()));
        assert!(!is_invalidating(&Method::GET) && !is_invalidating(&Method::OPTIONS));
        assert!(is_effective(204) && is_effective(303) && !is_effective(404) && !is_effective(500));
    }
}
