//! Edits of the request that its target is sent. The client's own head stays as it came, so that whatever decides later
//! (limits, hash keys, cache keys, the access log) sees what the client sent.

use std::sync::Arc;

use http::Method;
use http::header::{COOKIE, Entry, HeaderMap, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use super::target_edits::{add_parameter, remove_parameter, rename_parameter, set_cookie, set_parameter, set_path};
use super::{RequestView, Template};

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
    /// Gives a header another name, beside what is there of that name.
    Rename(HeaderName, HeaderName),
    /// Sets a query parameter, in place of the first of that name; removes it when nothing is left of the text.
    SetParameter(Box<str>, Template),
    /// Adds a query parameter, unless nothing is left of the text.
    AddParameter(Box<str>, Template),
    /// Gives every query parameter of a name another one.
    RenameParameter(Box<str>, Box<str>),
    /// Sets a cookie, in place of those of that name; removes it when nothing is left of the text.
    SetCookie(Box<str>, Template),
    /// Sets the method. `HEAD` stays, whose responses have no content.
    Method(Method),
    /// Sets the path; the query stays.
    Path(Template),
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
                Self::Rename(from, to) => {
                    let values: Vec<HeaderValue> = response.headers.get_all(from).iter().cloned().collect();
                    response.remove_header(from);
                    values.into_iter().for_each(|value| _ = response.append_header(to.clone(), value));
                }
                // They are for requests.
                Self::RemoveScheme(..)
                | Self::RemoveCookie(_)
                | Self::RemoveCookies(_)
                | Self::RemoveParameter(_)
                | Self::SetParameter(..)
                | Self::AddParameter(..)
                | Self::RenameParameter(..)
                | Self::SetCookie(..)
                | Self::Method(_)
                | Self::Path(_) => {}
            }
        }
    }
}

impl Edit {
    /// Returns whether one of these edits is of that header.
    pub fn touch_header(edits: &[Self], name: &HeaderName) -> bool {
        edits.iter().any(|edit| match edit {
            Self::Set(edited, _)
            | Self::Add(edited, _)
            | Self::SetText(edited, _)
            | Self::AddText(edited, _)
            | Self::Remove(edited)
            | Self::RemoveScheme(edited, _) => edited == name,
            Self::Rename(from, to) => from == name || to == name,
            Self::RemoveCookie(_) | Self::RemoveCookies(_) | Self::SetCookie(..) => *name == COOKIE,
            Self::RemoveParameter(_)
            | Self::SetParameter(..)
            | Self::AddParameter(..)
            | Self::RenameParameter(..)
            | Self::Method(_)
            | Self::Path(_) => false,
        })
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
                Edit::Rename(from, to) => rename(headers, from, to),
                Edit::SetCookie(name, text) => match text.fill(view) {
                    value if value.is_empty() => remove_cookies(headers, |key| key == name.as_bytes()),
                    value => set_cookie(headers, name, &value),
                },
                Edit::RemoveParameter(_)
                | Edit::SetParameter(..)
                | Edit::AddParameter(..)
                | Edit::RenameParameter(..)
                | Edit::Method(_)
                | Edit::Path(_) => {}
            }
        }
    }

    /// Applies the edits of the method, the path and the query. `view` is the request as the client sent it.
    ///
    /// # Errors
    /// When the new path is none.
    pub fn apply_to_target(&self, request: &mut RequestHeader, view: &RequestView<'_>) -> Result<(), String> {
        for edit in self.0.iter().flat_map(|list| list.iter()) {
            match edit {
                Edit::RemoveParameter(name) => remove_parameter(request, name),
                Edit::SetParameter(name, text) => match text.fill(view) {
                    value if value.is_empty() => remove_parameter(request, name),
                    value => set_parameter(request, name, &value),
                },
                Edit::AddParameter(name, text) => {
                    let value = text.fill(view);
                    if !value.is_empty() {
                        add_parameter(request, name, &value);
                    }
                }
                Edit::RenameParameter(from, to) => rename_parameter(request, from, to),
                Edit::Method(method) if request.method != Method::HEAD => request.set_method(method.clone()),
                Edit::Path(text) => set_path(request, &text.fill(view))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the value that a header of the request has for the target so far: `None` where no edit is of it, and
    /// `Some(None)` where it was removed, or has a text with values.
    pub fn value_of(&self, name: &HeaderName) -> Option<Option<&HeaderValue>> {
        self.0.iter().rev().flat_map(|list| list.iter().rev()).find_map(|edit| match edit {
            Edit::Set(edited, value) | Edit::Add(edited, value) if edited == name => Some(Some(value)),
            Edit::Remove(edited) | Edit::SetText(edited, _) if edited == name => Some(None),
            _ => None,
        })
    }

    /// Returns whether an edit is of that header, so that the target may get another one than the client has sent.
    pub fn touch_header(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|list| Edit::touch_header(list, name))
    }

    /// Returns whether an edit is of the method, the path or the query.
    pub fn touch_target(&self) -> bool {
        self.0.iter().flat_map(|list| list.iter()).any(|edit| match edit {
            Edit::RemoveParameter(_)
            | Edit::SetParameter(..)
            | Edit::AddParameter(..)
            | Edit::RenameParameter(..)
            | Edit::Method(_)
            | Edit::Path(_) => true,
            Edit::Set(..)
            | Edit::Add(..)
            | Edit::SetText(..)
            | Edit::AddText(..)
            | Edit::Remove(_)
            | Edit::RemoveScheme(..)
            | Edit::RemoveCookie(_)
            | Edit::RemoveCookies(_)
            | Edit::Rename(..)
            | Edit::SetCookie(..) => false,
        })
    }

    /// Returns whether the query parameters of that name are removed.
    pub fn remove_parameter(&self, name: &str) -> bool {
        let mut edits = self.0.iter().flat_map(|list| list.iter());
        edits.any(|edit| matches!(edit, Edit::RemoveParameter(removed) if **removed == *name))
    }

    /// Returns the method that the target gets, if an edit sets it.
    pub fn method(&self) -> Option<&Method> {
        self.0.iter().rev().flat_map(|list| list.iter().rev()).find_map(|edit| match edit {
            Edit::Method(method) => Some(method),
            _ => None,
        })
    }
}

/// Gives a header another name.
fn rename(headers: &mut HeaderMap, from: &HeaderName, to: &HeaderName) {
    if let Entry::Occupied(entry) = headers.entry(from) {
        let (_, values) = entry.remove_entry_mult();
        let values: Vec<HeaderValue> = values.collect();
        values.into_iter().for_each(|value| _ = headers.append(to.clone(), value));
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
pub(super) fn remove_cookies(headers: &mut HeaderMap, is_named: impl Fn(&[u8]) -> bool) {
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
        let exchange = crate::exchange::Exchange::default();
        let came = request.clone();
        let view = RequestView { request: &came, exchange: &exchange, pattern: None, response: None };
        edits.apply_to_target(request, &view).expect("a path");
        let mut headers = request.headers.clone();
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

    #[test]
    fn the_target_and_cookies_are_edited() {
        let scope = crate::exchange::TextScope::outside(crate::exchange::TextForm::Plain);
        let text = |value: &str| Template::new(value, &scope).expect("a text");
        let mut request = RequestHeader::build("GET", b"/p?a=1&b=2&a=3&c", None).expect("a request");
        request.append_header("x-old", "1").expect("a header");
        request.append_header(COOKIE, "s=1; t=2").expect("a cookie");
        let (old, new) = (HeaderName::from_static("x-old"), HeaderName::from_static("x-new"));
        let list = [
            Edit::SetParameter("a".into(), text("x y&{method}")),
            Edit::AddParameter("d".into(), text("\u{e9}")),
            Edit::RenameParameter("c".into(), "e f".into()),
            Edit::RenameParameter("b".into(), "g".into()),
            Edit::SetParameter("none".into(), text("{header.x-none}")),
            Edit::Rename(old, new),
            Edit::SetCookie("s".into(), text("a;b")),
            Edit::Method(Method::PUT),
            Edit::Path(text("/v2{path}")),
        ];
        edited(&mut request, &[&list]);
        assert_eq!(request.uri, "/v2/p?a=x%20y%26GET&g=2&e%20f&d=%C3%A9");
        assert_eq!((request.method.as_str(), request.headers["x-new"].as_bytes()), ("PUT", &b"1"[..]));
        assert_eq!(request.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["t=2; s=a%3Bb"]);
        assert!(!request.headers.contains_key("x-old"));
        for path in ["x", "/a/../b", "/a/%2e%2e", "/a?b", "/ "] {
            assert!(set_path(&mut request, path.as_bytes()).is_err(), "{path}");
        }
    }

    #[test]
    fn the_last_edit_of_a_header_counts() {
        let (name, value) = (HeaderName::from_static("content-type"), HeaderValue::from_static("a/b"));
        let mut edits = Edits::default();
        assert_eq!(edits.value_of(&name), None);
        edits.push(&Arc::from([Edit::Remove(name.clone())]));
        assert_eq!(edits.value_of(&name), Some(None));
        edits.push(&Arc::from([Edit::Set(name.clone(), value.clone()), Edit::Method(Method::PUT)]));
        assert_eq!((edits.value_of(&name), edits.method()), (Some(Some(&value)), Some(&Method::PUT)));
    }
}
