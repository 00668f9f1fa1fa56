//! Whether a response may be stored (RFC 9111, section 3), and what of it is.

use http::HeaderMap;
use http::header::{
    AGE, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE,
};

use super::directives::{RequestDirectives, ResponseDirectives, Scope};
use super::freshness::{Freshness, LifetimeSource, TtlRules, date_of, is_heuristically_cacheable};
use super::vary::{MAX_VARY, vary_names};

/// The fields that belong to one connection, or to the way from one proxy to the next, and are not stored (RFC 9111,
/// section 3.1).
static NOT_STORED: [HeaderName; 11] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    // It is computed anew for each use.
    AGE,
    // What another cache says of another request.
    HeaderName::from_static("cache-status"),
];

/// The fields that a validation does not change: they describe the body that is stored (RFC 9111, section 3.2).
static NOT_UPDATED: [HeaderName; 3] = [CONTENT_LENGTH, CONTENT_RANGE, http::header::CONTENT_ENCODING];

/// What is done with a response that sets cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CookieRule {
    /// It is not stored: it may be of one client.
    #[default]
    Skip,
    /// It is stored without them.
    Remove,
    /// It is stored with them.
    Keep,
}

/// The rules for what is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreRules {
    /// The lifetimes.
    pub ttl: TtlRules,
    /// What is done with responses that set cookies.
    pub cookies: CookieRule,
    /// Whether what is stored is used for one consumer alone, so that it may be private to that one.
    pub is_personal: bool,
    /// Whether responses are the same for all clients, whatever credentials their requests have.
    pub is_same_for_all: bool,
}

/// The facts about a request that decide on the storage of its response.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreRequest {
    /// Its directives.
    pub directives: RequestDirectives,
    /// Whether it has credentials, or its client is identified, and the configuration does not say that responses are
    /// the same for all.
    pub is_authorized: bool,
    /// Whether its client is identified, or was let through by what identifies clients.
    pub is_identified: bool,
}

impl StoreRequest {
    /// Returns the facts about a request with those fields, whose client may be identified, by whatever credential:
    /// RFC 9111 knows of `Authorization` alone (section 3.5).
    pub fn of(headers: &HeaderMap, is_identified: bool, rules: &StoreRules) -> Self {
        let has_credentials = is_identified || headers.contains_key(AUTHORIZATION);
        Self {
            directives: RequestDirectives::of(headers),
            is_authorized: has_credentials && !rules.is_same_for_all,
            is_identified,
        }
    }
}

/// The reason why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The request forbids it.
    Request,
    /// The response forbids it.
    NoStore,
    /// It is for one client.
    Private,
    /// It is the response to a request with credentials, and does not permit it.
    Authorized,
    /// It sets cookies.
    Cookies,
    /// It varies with anything, or with too much.
    Varies,
    /// It is a part, or an interim response.
    Status,
    /// It is stale at once, and could not be validated.
    Stale,
    /// It is too large.
    TooLarge,
    /// It has tags by which it could not be purged.
    Tags,
}

impl NotStored {
    /// Returns the word for it in `Cache-Status` (RFC 9211, section 2.8).
    pub fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorized => "authorization",
            Self::Cookies => "set-cookie",
            Self::Varies => "vary",
            Self::Status => "status",
            Self::Stale => "no-freshness",
            Self::TooLarge => "too-large",
            Self::Tags => "tags",
        }
    }

    /// Returns whether the next response for the same key is probably not stored either.
    pub fn is_lasting(self) -> bool {
        self != Self::Request
    }
}

/// Decides whether a response may be stored, and returns its freshness if it may.
///
/// # Errors
/// Returns why it may not.
pub fn decide_storing(
    request: &StoreRequest,
    status: u16,
    headers: &HeaderMap,
    rules: &StoreRules,
    times: (i64, i64),
) -> Result<Freshness, NotStored> {
    if status < 200 || matches!(status, 206 | 304) {
        return Err(NotStored::Status);
    }
    let (directives, targeted) = ResponseDirectives::of(headers);
    if request.directives.no_store {
        return Err(NotStored::Request);
    }
    // A response that must be understood is stored although it says `no-store`, if it is (section 5.2.2.3).
    let is_forbidden = if directives.must_understand { !is_understood(status) } else { directives.no_store };
    if is_forbidden {
        return Err(NotStored::NoStore);
    }
    // Clients that are not identified share what is stored for them.
    let is_personal = rules.is_personal && request.is_identified;
    if directives.private == Scope::Whole && !is_personal {
        return Err(NotStored::Private);
    }
    if request.is_authorized && !is_personal && !directives.permits_authorized() {
        return Err(NotStored::Authorized);
    }
    if headers.contains_key(SET_COOKIE) && rules.cookies == CookieRule::Skip && !names(&directives, &SET_COOKIE) {
        return Err(NotStored::Cookies);
    }
    match vary_names(headers) {
        Some(names) if names.len() <= MAX_VARY => {}
        _ => return Err(NotStored::Varies),
    }
    let freshness = Freshness::of(status, headers, (&directives, targeted), &rules.ttl, times);
    // What is neither said to be fresh nor of a status that is stored anyway is not stored (section 3).
    let storable = directives.public
        || freshness.source == LifetimeSource::Explicit
        || freshness.source == LifetimeSource::Configured
        || directives.private != Scope::Absent
        || is_heuristically_cacheable(status);
    let is_of_use = freshness.lifetime > freshness.initial_age
        || has_validator(headers)
        || freshness.stale_while_revalidate > 0
        || freshness.stale_if_error > 0;
    if storable && is_of_use { Ok(freshness) } else { Err(NotStored::Stale) }
}

/// Returns whether a response has something to validate it by (RFC 9110, section 8.8).
pub fn has_validator(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::ETAG) || date_of(headers, &http::header::LAST_MODIFIED).is_some()
}

/// Returns whether the meaning of a status for caches is known here (RFC 9110, section 15).
fn is_understood(status: u16) -> bool {
    matches!(status, 200..=205 | 300..=305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 429 | 431 | 451 | 500..=505)
}

fn names(directives: &ResponseDirectives, name: &HeaderName) -> bool {
    [&directives.private, &directives.no_cache].iter().any(|scope| scope.fields().contains(name))
}

/// Removes from the head of a response what is not stored: fields of the connection, those that a directive names, and
/// cookies by rule (RFC 9111, section 3.1).
pub fn prepare_stored(headers: &mut HeaderMap, cookies: CookieRule) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name: &HeaderName| *name != CONTENT_LENGTH)
        .collect();
    let (directives, _) = ResponseDirectives::of(headers);
    let named = directives.private.fields().iter().chain(directives.no_cache.fields());
    for name in nominated.iter().chain(named).chain(&NOT_STORED) {
        headers.remove(name);
    }
    if cookies != CookieRule::Keep {
        headers.remove(SET_COOKIE);
        headers.remove("set-cookie2");
    }
}

/// Updates the head of a stored response with that of the 304 that has confirmed it: each field of the latter replaces
/// the stored ones of its name (RFC 9111, section 3.2).
pub fn merge_confirmed(stored: &mut HeaderMap, mut confirming: HeaderMap, cookies: CookieRule) {
    prepare_stored(&mut confirming, cookies);
    NOT_UPDATED.iter().for_each(|name| _ = confirming.remove(name));
    let names: Vec<HeaderName> = confirming.keys().cloned().collect();
    for name in names {
        stored.remove(&name);
        for value in confirming.get_all(&name) {
            stored.append(name.clone(), value.clone());
        }
    }
}

/// Returns the fields by which a stored response is validated: its entity tag, and when it was modified (RFC 9111,
/// section 4.3.1).
pub fn validation_fields(stored: &HeaderMap) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let tag = stored.get(http::header::ETAG).cloned().map(|tag| (http::header::IF_NONE_MATCH, tag));
    let modified = date_of(stored, &http::header::LAST_MODIFIED).and(stored.get(http::header::LAST_MODIFIED));
    tag.into_iter().chain(modified.cloned().map(|date| (http::header::IF_MODIFIED_SINCE, date)))
}

/// Returns whether a 304 confirms the stored response: its validators, if it has any, are those of the stored one (RFC
/// 9111, section 4.3.4).
pub fn is_confirmed(stored: &HeaderMap, confirming: &HeaderMap) -> bool {
    let opaque = |tag: &HeaderValue| tag.as_bytes().strip_prefix(b"W/").unwrap_or(tag.as_bytes()).to_vec();
    match (stored.get(http::header::ETAG), confirming.get(http::header::ETAG)) {
        (Some(own), Some(other)) => opaque(own) == opaque(other),
        _ => true,
    }
}

#[cfg(test)]
#[path = "storing_tests.rs"]
mod tests;
