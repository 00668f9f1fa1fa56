//! The conditions of a route besides its host and path.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method};
use ipnet::IpNet;

use super::router::RequestFacts;
use super::version::VersionRule;

/// The comparison of a header, a cookie or a query parameter.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// The field is present.
    Present,
    /// The value is exactly this.
    Exact(String),
    /// The value contains a match of this expression.
    Regex(regex::Regex),
}

impl TextMatch {
    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(expression) => std::str::from_utf8(value).is_ok_and(|v| expression.is_match(v)),
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) => true,
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// The conditions of a route besides host and path. Empty lists match every request.
#[derive(Clone, Debug, Default)]
pub struct Predicates {
    /// Any of these; `GET` includes `HEAD` (RFC 9110, section 9.3.2).
    pub methods: Vec<Method>,
    /// All of these.
    pub headers: Vec<(HeaderName, TextMatch)>,
    /// All of these.
    pub cookies: Vec<(String, TextMatch)>,
    /// All of these; only the first parameter of a name counts.
    pub query: Vec<(String, TextMatch)>,
    /// The client's address is in any of these.
    pub clients: Vec<IpNet>,
    /// The version of the API is one of these.
    pub version: Option<VersionRule>,
}

/// The condition for the version of an API.
pub(super) const VERSION: &str = "version";

/// The result of evaluating the conditions for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredicateResult {
    /// All conditions hold.
    Match,
    /// All conditions but the method hold: the response may be 405.
    Method,
    /// The named condition does not hold.
    No(&'static str),
}

impl Predicates {
    /// Evaluates the conditions for the request.
    pub fn evaluate(&self, facts: &RequestFacts<'_>) -> PredicateResult {
        match &self.version {
            Some(rule) if !rule.holds(facts) => PredicateResult::No(VERSION),
            _ => self.evaluate_for_any_version(facts),
        }
    }

    /// Returns whether the conditions besides that for the version hold.
    pub(super) fn holds_for_any_version(&self, facts: &RequestFacts<'_>) -> bool {
        self.evaluate_for_any_version(facts) == PredicateResult::Match
    }

    fn evaluate_for_any_version(&self, facts: &RequestFacts<'_>) -> PredicateResult {
        if !self.headers.iter().all(|(name, m)| header_holds(facts.headers, name, m)) {
            return PredicateResult::No("headers");
        }
        if !self.cookies.iter().all(|(name, m)| cookie(facts.headers, name).is_some_and(|v| m.holds(v))) {
            return PredicateResult::No("cookies");
        }
        if !self.query.iter().all(|(name, m)| parameter(facts.query, name).is_some_and(|v| m.holds(&v))) {
            return PredicateResult::No("query");
        }
        if !self.clients.is_empty() && !self.clients.iter().any(|net| net.contains(&plain(facts.client))) {
            return PredicateResult::No("client");
        }
        if self.allows(facts.method) { PredicateResult::Match } else { PredicateResult::Method }
    }

    fn allows(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    /// Returns the part of a rank that depends on the conditions.
    pub(super) fn weight(&self) -> (bool, usize, usize, usize, u8) {
        let narrowest = self.clients.iter().map(|net| net.prefix_len() + 1).max().unwrap_or(0);
        (!self.methods.is_empty(), self.headers.len(), self.cookies.len(), self.query.len(), narrowest)
    }

    /// Returns whether both have the same conditions except for the method, and share a method.
    pub fn conflicts(&self, other: &Self) -> bool {
        fn same<N: PartialEq>(a: &[(N, TextMatch)], b: &[(N, TextMatch)]) -> bool {
            a.len() == b.len() && a.iter().all(|(n, m)| b.iter().any(|(o, p)| n == o && m.same(p)))
        }
        let nets = self.clients.len() == other.clients.len() && self.clients.iter().all(|n| other.clients.contains(n));
        let methods = match (self.methods.is_empty(), other.methods.is_empty()) {
            (true, true) => true,
            (false, false) => self.methods.iter().any(|m| other.methods.contains(m)),
            _ => false,
        };
        let versions = match (&self.version, &other.version) {
            (Some(own), Some(others)) => own.overlaps(others),
            (own, others) => own.is_some() == others.is_some(),
        };
        methods
            && nets
            && versions
            && same(&self.headers, &other.headers)
            && same(&self.cookies, &other.cookies)
            && same(&self.query, &other.query)
    }
}

/// Converts an IPv4-mapped IPv6 address to the IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn header_holds(headers: &HeaderMap, name: &HeaderName, m: &TextMatch) -> bool {
    headers.get_all(name).iter().any(|value| m.holds(value.as_bytes()))
}

/// Returns the value of the first cookie of that name (RFC 6265, section 5.4).
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    cookies(headers, name).next()
}

/// Returns the values of all cookies of that name.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let pairs = headers.get_all(http::header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_at(memchr::memchr(b'=', pair)?);
        // Servers take the spaces around a name and a value off (RFC 6265, section 5.2).
        (key.trim_ascii() == name.as_bytes()).then(|| value[1..].trim_ascii())
    })
}

/// Returns the value of the first query parameter of that name, decoded as [`form_decode`] does.
pub fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, [u8]>> {
    raw_parameter(query, name).map(form_decode)
}

/// Returns the undecoded value of the first query parameter of that name; the names are compared decoded.
pub fn raw_parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q [u8]> {
    raw_parameters(query, name).next()
}

/// Returns the undecoded values of all query parameters of that name.
pub fn raw_parameters<'q>(query: Option<&'q str>, name: &str) -> impl Iterator<Item = &'q [u8]> {
    query.into_iter().flat_map(|query| query.split('&')).filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        is_named(key, name).then_some(value.as_bytes())
    })
}

/// Returns whether the undecoded name of a query parameter is this one.
pub fn is_named(key: &str, name: &str) -> bool {
    key == name || *form_decode(key.as_bytes()) == *name.as_bytes()
}

/// Decodes a name or a value of a query as `application/x-www-form-urlencoded` (the URL standard, section 5.1), which
/// client libraries use: `%2B` is `+`, and `+` is a space.
pub fn form_decode(text: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr2(b'%', b'+', text) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let spaced: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
            Cow::Owned(percent_encoding::percent_decode(&spaced).collect())
        }
    }
}
