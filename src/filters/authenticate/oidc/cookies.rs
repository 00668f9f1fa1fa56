//! The cookies of logins and sessions (RFC 6265).

use std::sync::Arc;

use http::header::{COOKIE, HeaderMap, HeaderValue};

use crate::exchange::CookieName;
use crate::rules::routing::cookies;

/// The prefix with which browsers accept a cookie from this host alone, and only over TLS.
const HOST_PREFIX: &str = "__Host-";

/// The longest value of a cookie: browsers accept 4,096 bytes with its name and its attributes.
const MAX_VALUE: usize = 3_800;

/// The most cookies of a session.
const MAX_CHUNKS: usize = 5;

/// The names and attributes of the cookies of one filter on one scheme.
#[derive(Clone, Debug)]
pub struct Cookies {
    /// The name of the session's first cookie; the others have a number behind it.
    name: String,
    attributes: &'static str,
}

impl Cookies {
    /// Returns the cookies of that name for clients that use `scheme`.
    pub fn new(name: &str, scheme: &str) -> Self {
        match scheme == "https" {
            true => {
                Self { name: format!("{HOST_PREFIX}{name}"), attributes: "; Path=/; HttpOnly; SameSite=Lax; Secure" }
            }
            false => Self { name: name.to_owned(), attributes: "; Path=/; HttpOnly; SameSite=Lax" },
        }
    }

    /// Returns the names of all cookies, on any scheme: the parts of a session, and the attempts to log in.
    pub fn names(name: &str) -> Arc<[CookieName]> {
        let of_scheme = |scheme| {
            let cookies = Self::new(name, scheme);
            let parts = (0..MAX_CHUNKS).map(|number| CookieName::Is(cookies.chunk(number).into())).collect::<Vec<_>>();
            parts.into_iter().chain([CookieName::BeginsWith(cookies.attempt_name("").into())])
        };
        ["http", "https"].into_iter().flat_map(of_scheme).collect()
    }

    /// Returns the value of the session, of which each part was set by one cookie.
    pub fn session(&self, headers: &HeaderMap) -> Option<Vec<u8>> {
        let first = cookies(headers, &self.name).next()?;
        let (count, first) = first.split_at(first.iter().position(|byte| *byte == b'.')?);
        let count = std::str::from_utf8(count).ok()?.parse::<usize>().ok().filter(|c| (1..=MAX_CHUNKS).contains(c))?;
        let mut value = first[1..].to_vec();
        for number in 1..count {
            value.extend_from_slice(cookies(headers, &self.chunk(number)).next()?);
        }
        Some(value)
    }

    fn chunk(&self, number: usize) -> String {
        if number == 0 { self.name.clone() } else { format!("{}.{number}", self.name) }
    }

    /// Returns the cookies that set the session, and remove what an earlier one of the client has beyond them. `None`
    /// if it is too large.
    pub fn set_session(&self, headers: &HeaderMap, value: &str, seconds: u64) -> Option<Vec<HeaderValue>> {
        let chunks: Vec<&[u8]> = value.as_bytes().chunks(MAX_VALUE).collect();
        if chunks.is_empty() || chunks.len() > MAX_CHUNKS {
            return None;
        }
        let mut all = Vec::with_capacity(chunks.len());
        for (number, chunk) in chunks.iter().enumerate() {
            let part = std::str::from_utf8(chunk).ok()?;
            let count = if number == 0 { format!("{}.", chunks.len()) } else { String::new() };
            all.push(self.set(&self.chunk(number), &format!("{count}{part}"), seconds)?);
        }
        all.extend((chunks.len()..MAX_CHUNKS).filter_map(|number| self.removal(headers, &self.chunk(number))));
        Some(all)
    }

    /// Returns the cookies that remove the session.
    pub fn remove_session(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        (0..MAX_CHUNKS).filter_map(|number| self.removal(headers, &self.chunk(number))).collect()
    }

    /// Returns the cookie that removes another, if the client has it.
    fn removal(&self, headers: &HeaderMap, name: &str) -> Option<HeaderValue> {
        cookies(headers, name).next()?;
        self.set(name, "", 0)
    }

    fn set(&self, name: &str, value: &str, seconds: u64) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("{name}={value}{}; Max-Age={seconds}", self.attributes)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn attempt_name(&self, state: &str) -> String {
        format!("{}-login-{}", self.name, state.get(..16).unwrap_or(state))
    }

    /// Returns the value of the attempt to log in with that state.
    pub fn attempt<'h>(&self, headers: &'h HeaderMap, state: &str) -> Option<&'h [u8]> {
        cookies(headers, &self.attempt_name(state)).next()
    }

    /// Returns the cookie that holds an attempt.
    pub fn set_attempt(&self, state: &str, value: &str, seconds: u64) -> Option<HeaderValue> {
        self.set(&self.attempt_name(state), value, seconds)
    }

    /// Returns the cookie that removes an attempt.
    pub fn remove_attempt(&self, state: &str) -> Option<HeaderValue> {
        self.set(&self.attempt_name(state), "", 0)
    }

    /// Returns the names and values of all attempts that the client has.
    pub fn attempts<'h>(&self, headers: &'h HeaderMap) -> Vec<(&'h str, &'h [u8])> {
        let prefix = format!("{}-login-", self.name);
        let lines = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        let pairs = lines.filter_map(|pair| {
            let (name, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
            let name = std::str::from_utf8(name).ok()?.trim();
            name.starts_with(&prefix).then(|| (name, value[1..].trim_ascii()))
        });
        pairs.collect()
    }

    /// Returns the cookie that removes the attempt of that name.
    pub fn remove_named(&self, name: &str) -> Option<HeaderValue> {
        self.set(name, "", 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(cookies: &[HeaderValue]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            let pair = cookie.to_str().expect("text").split(';').next().expect("a pair");
            headers.append(COOKIE, HeaderValue::from_str(pair).expect("a value"));
        }
        headers
    }

    #[test]
    fn a_session_of_any_size_is_put_together_again() {
        let cookies = Cookies::new("s", "https");
        for size in [1, 3_799, 3_800, 3_801, 7_600, 19_000] {
            let value: String = (0..size).map(|n| char::from(b'a' + u8::try_from(n % 26).expect("a letter"))).collect();
            let set = cookies.set_session(&HeaderMap::new(), &value, 60).expect("cookies");
            assert!(set.iter().all(|cookie| cookie.len() < 4_000), "{size}");
            assert_eq!(cookies.session(&sent(&set)).as_deref(), Some(value.as_bytes()), "{size}");
            if set.len() > 1 {
                assert!(cookies.session(&sent(&set[..set.len() - 1])).is_none(), "a part is missing");
            }
        }
        assert!(cookies.set_session(&HeaderMap::new(), &"a".repeat(19_001), 60).is_none());
    }

    #[test]
    fn a_smaller_session_removes_the_rest_of_a_larger_one() {
        let cookies = Cookies::new("s", "http");
        let large = sent(&cookies.set_session(&HeaderMap::new(), &"a".repeat(12_000), 60).expect("cookies"));
        let small = cookies.set_session(&large, "b", 60).expect("cookies");
        let text: Vec<_> = small.iter().map(|cookie| cookie.to_str().expect("text")).collect();
        assert_eq!(text[0], "s=1.b; Path=/; HttpOnly; SameSite=Lax; Max-Age=60");
        assert_eq!(text[1..], ["1", "2", "3"].map(|n| format!("s.{n}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0")));
        assert_eq!(cookies.remove_session(&large).len(), 4);
        for wrong in ["", "a", ".a", "0.a", "6.a", "2.a", "99999999999999999999.a"] {
            let headers = sent(&[HeaderValue::from_str(&format!("s={wrong}")).expect("a value")]);
            assert!(cookies.session(&headers).is_none(), "{wrong}");
        }
    }

    #[test]
    fn only_the_cookies_of_the_filter_are_removed() {
        use crate::exchange::{Edit, Edits, Exchange, RequestView};
        let mut headers = HeaderMap::new();
        let own = ["app", "app.1", "app.4", "app-login-abc", "__Host-app", "__Host-app.2", "__Host-app-login-x"];
        let others = ["app_lang", "application", "app.5", "app.10", "app-log", "__Host-app2", "xapp", "__Host-"];
        let pairs: Vec<String> = own.iter().chain(&others).map(|name| format!("{name}=1")).collect();
        headers.insert(COOKIE, HeaderValue::try_from(pairs.join("; ")).expect("a value"));
        let mut edits = Edits::default();
        edits.push(&Arc::from([Edit::RemoveCookies(Cookies::names("app"))]));
        let request = pingora::http::RequestHeader::build("GET", b"/", None).expect("a request");
        let exchange = Exchange::default();
        let view = RequestView { request: &request, exchange: &exchange, pattern: None, response: None };
        edits.apply_to_headers(&mut headers, &view);
        let left: Vec<String> = others.iter().map(|name| format!("{name}=1")).collect();
        assert_eq!(headers[COOKIE], left.join("; "));
    }
}
