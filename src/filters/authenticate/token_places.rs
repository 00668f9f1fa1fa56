//! The places of a request where a token may stand, and the challenge when it does not.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use pingora::http::RequestHeader;

use crate::exchange::{Edit, Reason, Rejection};
use crate::rules::routing::{cookies, form_decode, raw_parameters};

/// The places where a token may stand: a header, then a cookie, then a query parameter.
#[derive(Debug)]
pub struct TokenPlaces {
    header: HeaderName,
    cookie: Option<String>,
    query: Option<String>,
    /// For each place of a token, the edits that remove what stands in the places after it, which was not verified.
    unread: [Arc<[Edit]>; 3],
}

/// A place of a token, in the order in which they are searched.
#[derive(Clone, Copy, Debug)]
enum TokenPlace {
    Header,
    Cookie,
    Query,
}

/// A token of a request.
#[derive(Debug)]
pub struct FoundToken {
    /// The token.
    pub token: Vec<u8>,
    place: TokenPlace,
}

impl TokenPlaces {
    /// Returns the places.
    pub fn new(header: &HeaderName, cookie: Option<&str>, query: Option<&str>) -> Self {
        let in_cookie = cookie.map(|name| Edit::RemoveCookie(name.into()));
        let in_query: Vec<Edit> = query.iter().map(|name| Edit::RemoveParameter((*name).into())).collect();
        let behind_header = in_cookie.into_iter().chain(in_query.clone()).collect();
        Self {
            unread: [behind_header, in_query.into(), Arc::default()],
            header: header.clone(),
            cookie: cookie.map(str::to_owned),
            query: query.map(str::to_owned),
        }
    }

    /// Returns the edits that remove every token, and with it all else in the places where one may stand.
    pub fn removal(&self) -> impl Iterator<Item = Edit> {
        [Edit::Remove(self.header.clone())].into_iter().chain(self.behind_header())
    }

    /// Returns the edits that remove every token, and no credential of another kind.
    pub fn credentials(&self) -> Vec<Edit> {
        let header = match self.header == AUTHORIZATION {
            true => Edit::RemoveScheme(AUTHORIZATION, "Bearer"),
            false => Edit::Remove(self.header.clone()),
        };
        [header].into_iter().chain(self.behind_header()).collect()
    }

    fn behind_header(&self) -> impl Iterator<Item = Edit> {
        self.unread[TokenPlace::Header as usize].iter().cloned()
    }

    /// Returns the edits that remove what stands in the places after that of the token, which was not verified.
    pub fn unread(&self, found: &FoundToken) -> Arc<[Edit]> {
        Arc::clone(&self.unread[found.place as usize])
    }

    /// Returns the token, from the first place that has one.
    ///
    /// # Errors
    /// When it has several, of which the target might use the other; the text is for the client.
    pub fn find(&self, request: &RequestHeader) -> Result<Option<FoundToken>, &'static str> {
        const SEVERAL: &str = "there are several tokens";
        let mut values = request.headers.get_all(&self.header).iter();
        if let Some(value) = values.next() {
            if values.next().is_some() {
                return Err(SEVERAL);
            }
            let bytes = value.as_bytes();
            let token = match self.header == AUTHORIZATION {
                true => bearer(bytes),
                false => Some(bearer(bytes).unwrap_or(bytes)),
            };
            if let Some(token) = token {
                return Ok(Some(FoundToken { token: token.to_vec(), place: TokenPlace::Header }));
            }
        }
        let mut cookies = self.cookie.iter().flat_map(|name| cookies(&request.headers, name));
        let mut queries = self.query.iter().flat_map(|name| raw_parameters(request.uri.query(), name));
        let (token, place, another) = match cookies.next() {
            Some(token) => (token.to_vec(), TokenPlace::Cookie, cookies.next().is_some()),
            None => match queries.next() {
                Some(raw) => (form_decode(raw).into_owned(), TokenPlace::Query, queries.next().is_some()),
                None => return Ok(None),
            },
        };
        if another { Err(SEVERAL) } else { Ok(Some(FoundToken { token, place }).filter(|f| !f.token.is_empty())) }
    }
}

/// Returns what follows `Bearer` (RFC 6750, section 2.1; the scheme's case does not matter).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

/// Returns a rejection with the challenge of RFC 6750, section 3.
pub fn challenge(reason: Reason, why: Option<&'static str>) -> Box<Rejection> {
    let text = match why {
        None => "Bearer realm=\"portcullis\"".to_owned(),
        Some(why) => format!("Bearer realm=\"portcullis\", error=\"invalid_token\", error_description=\"{why}\""),
    };
    let rejection = Rejection::new(reason, why.unwrap_or("send a token as Authorization: Bearer"));
    match HeaderValue::try_from(text) {
        Ok(value) => rejection.header(WWW_AUTHENTICATE, value),
        Err(_) => rejection,
    }
}

/// Returns the rejection of a token without a scope that it needs (RFC 6750, section 3.1).
pub fn scope_challenge(lacking: &str, needed: &[String]) -> Box<Rejection> {
    let fine = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    let scope: Vec<&str> = needed.iter().map(String::as_str).filter(|scope| scope.chars().all(fine)).collect();
    let text = format!("Bearer realm=\"portcullis\", error=\"insufficient_scope\", scope=\"{}\"", scope.join(" "));
    let rejection = Rejection::new(Reason::InsufficientScope, "").log(format!("the token lacks the scope {lacking}"));
    match HeaderValue::try_from(text) {
        Ok(value) => rejection.header(WWW_AUTHENTICATE, value),
        Err(_) => rejection,
    }
}
