//! Edits of the request that its target is sent. The client's own head stays as it came, so that whatever decides later
//! (limits, hash keys, cache keys, the access log) sees what the client sent.

use std::sync::Arc;

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use super::{RequestView, Template};
use crate::rules::routing::is_named;

/// One edit of the copy of a request that goes to its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Sets a header, replacing what is there.
    Set(HeaderName, HeaderValue),
    /// Adds a value to what is there.
    Add(HeaderName, HeaderValue),
    /// Sets a header to a text with values of the request; removes it when nothing is left of that.
    SetText(HeaderName, Template),
    /// Adds a text with values of the request, unless nothing is left of it.
    AddText(HeaderName, Template),
    /// Removes a header, however often it is there.
    Remove(HeaderName),
    /// Removes the values of a header that begin with that authentication scheme (RFC 9110, section 11.4).
    RemoveScheme(HeaderName, &'static str),
    /// Removes every cookie of that name.
    RemoveCookie(Box<str>),
    /// Removes every cookie with one of those names.
    RemoveCookies(Arc<[CookieName]>),
    /// Removes every query parameter of that name.
    RemoveParameter(Box<str>),
}

impl Edit {
    /// Applies edits of headers to the head of a response. `view` is its request.
    pub fn apply_to_response(edits: &[Self], response: &mut ResponseHeader, view: &RequestView<'_>) {
        for edit in edits {
            // The names are valid and few, so nothing here can fail.
            match edit {
                Self::Set(name, value) => _ = response.insert_header(name.clone(), value.clone()),
                Self::Add(name, value) => _ = response.append_header(name.clone(), value.clone()),
                Self::SetText(name, text) => match text.fill_header(view) {
                    Some(value) => _ = response.insert_header(name.clone(), value),
                    None => _ = response.remove_header(name),
                },
                Self::AddText(name, text) => {
                    let value = text.fill_header(view);
                    value.into_iter().for_each(|value| _ = response.append_header(name.clone(), value));
                }
                Self::Remove(name) => _ = response.remove_header(name),
                Self::RemoveScheme(..) | Self::RemoveCookie(_) | Self::RemoveCookies(_) | Self::RemoveParameter(_) => {}
            }
        }
    }
}

/// The names of some cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CookieName {
    /// This name.
    Is(Box<str>),
    /// Every name that begins so.
    BeginsWith(Box<str>),
}

impl CookieName {
    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Is(known) => name == known.as_bytes(),
            Self::BeginsWith(start) => name.starts_with(start.as_bytes()),
        }
    }
}

/// The edits of one request, in the order of its filters. Most lists are made when the configuration is compiled, and
/// are only pointed to.
#[derive(Clone, Debug, Default)]
pub struct Edits(SmallVec<[Arc<[Edit]>; 4]>);

impl Edits {
    /// Adds a list of edits behind those that are there.
    pub fn push(&mut self, edits: &Arc<[Edit]>) {
        if !edits.is_empty() {
            self.0.push(Arc::clone(edits));
        }
    }

    /// Applies the edits of headers. `view` is the request as the client sent it.
    pub fn apply_to_headers(&self, headers: &mut HeaderMap, view: &RequestView<'_>) {
        for edit in self.0.iter().flat_map(|list| list.iter()) {
            match edit {
                Edit::Set(name, value) => _ = headers.insert(name.clone(), value.clone()),
                Edit::Add(name, value) => _ = headers.append(name.clone(), value.clone()),
                Edit::SetText(name, text) => match text.fill_header(view) {
                    Some(value) => _ = headers.insert(name.clone(), value),
                    None => _ = headers.remove(name),
                },
                Edit::AddText(name, text) => {
                    text.fill_header(view).into_iter().for_each(|value| _ = headers.append(name.clone(), value));
                }
                Edit::Remove(name) => _ = headers.remove(name),
                Edit::RemoveScheme(name, scheme) => remove_scheme(headers, name, scheme),
                Edit::RemoveCookie(name) => remove_cookies(headers, |key| key == name.as_bytes()),
                Edit::RemoveCookies(names) => {
                    remove_cookies(headers, |key| names.iter().any(|name| name.matches(key)));
                }
                Edit::RemoveParameter(_) => {}
            }
        }
    }

    /// Applies the edits of the query.
    pub fn apply_to_query(&self, request: &mut RequestHeader) {
        for edit in self.0.iter().flat_map(|list| list.iter()) {
            if let Edit::RemoveParameter(name) = edit {
                remove_parameter(request, name);
            }
        }
    }
}

/// Removes every query parameter of that name.
fn remove_parameter(request: &mut RequestHeader, name: &str) {
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

/// Removes the values of a header that begin with that authentication scheme, in any case.
fn remove_scheme(headers: &mut HeaderMap, name: &HeaderName, scheme: &str) {
    let is_it = |value: &HeaderValue| {
        let word = value
            .as_bytes()
            .trim_ascii_start()
            .split(|byte| matches!(byte, b' ' | b'\t' | b','))
            .next()
            .unwrap_or_default();
        word.eq_ignore_ascii_case(scheme.as_bytes())
    };
    if headers.get_all(name).iter().any(is_it) {
        let kept: Vec<HeaderValue> = headers.get_all(name).iter().filter(|value| !is_it(value)).cloned().collect();
        headers.remove(name);
        kept.into_iter().for_each(|value| _ = headers.append(name.clone(), value));
    }
}

/// Removes every cookie with such a name. Lines without one stay as they are.
fn remove_cookies(headers: &mut HeaderMap, is_named: impl Fn(&[u8]) -> bool) {
    let is_it = |pair: &&[u8]| pair.split(|byte| *byte == b'=').next().is_some_and(|key| is_named(key.trim_ascii()));
    let pairs = |line: &'_ HeaderValue| line.as_bytes().split(|byte| *byte == b';').any(|pair| is_it(&pair));
    if !headers.get_all(COOKIE).iter().any(pairs) {
        return;
    }
    let without = |line: &HeaderValue| {
        let kept: Vec<&[u8]> = line.as_bytes().split(|byte| *byte == b';').filter(|pair| !is_it(pair)).collect();
        let joined = kept.join(&b";"[..]);
        HeaderValue::from_bytes(joined.trim_ascii()).ok().filter(|line| !line.is_empty())
    };
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().filter_map(without).collect();
    headers.remove(&COOKIE);
    lines.into_iter().for_each(|line| _ = headers.append(COOKIE, line));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(request: &mut RequestHeader, lists: &[&[Edit]]) {
        let mut edits = Edits::default();
        lists.iter().for_each(|list| edits.push(&Arc::from(*list)));
        edits.apply_to_query(request);
        let mut headers = request.headers.clone();
        let exchange = crate::exchange::Exchange::default();
        let view = RequestView { request, exchange: &exchange, pattern: None, response: None };
        edits.apply_to_headers(&mut headers, &view);
        let names: Vec<HeaderName> = request.headers.keys().cloned().collect();
        names.iter().for_each(|name| _ = request.remove_header(name));
        for (name, value) in &headers {
            request.append_header(name.clone(), value.clone()).expect("a header");
        }
    }

    #[test]
    fn credentials_are_removed_and_the_rest_stays() {
        let mut request = RequestHeader::build("GET", b"/p?a=1&t=x&b&t=y&%74=z", None).expect("a request");
        request.append_header(COOKIE, "a=1; t=x; b=2").expect("a cookie");
        request.append_header(COOKIE, "t=y").expect("a cookie");
        request
            .append_header(COOKIE, HeaderValue::from_bytes(b"n=J\xfcrgen; t =z").expect("a value"))
            .expect("a cookie");
        edited(&mut request, &[&[Edit::RemoveParameter("t".into()), Edit::RemoveCookie("t".into())]]);
        assert_eq!(request.uri, "/p?a=1&b");
        assert_eq!(request.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), [&b"a=1; b=2"[..], b"n=J\xfcrgen"]);
    }

    #[test]
    fn later_edits_see_what_earlier_ones_did() {
        let mut request = RequestHeader::build("GET", b"/", None).expect("a request");
        request.append_header("x-a", "client").expect("a header");
        let (name, value) = (HeaderName::from_static("x-a"), HeaderValue::from_static);
        let first = [Edit::Remove(name.clone()), Edit::Set(name.clone(), value("1"))];
        edited(&mut request, &[&first, &[Edit::Add(name.clone(), value("2"))]]);
        assert_eq!(request.headers.get_all(&name).iter().collect::<Vec<_>>(), ["1", "2"]);
    }
}
