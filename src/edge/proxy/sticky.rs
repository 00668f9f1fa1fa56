//! Which session a request belongs to, and how its client is told of a new one.

use http::header::SET_COOKIE;
use pingora::http::{RequestHeader, ResponseHeader};

use super::Context;
use super::pick::question;
use crate::exchange::clock;
use crate::rules::routing::cookie;
use crate::snapshot::{Sticky, Upstream, set_cookie};

/// A request's session.
#[derive(Clone, Copy, Debug, Default)]
pub struct StickySession {
    /// The tag that it came with.
    came: Option<u128>,
    /// The tag of the target that it is on.
    on: Option<u128>,
    /// Its key in a table.
    key: Option<u64>,
}

impl StickySession {
    /// The session of a request.
    pub(super) fn of(upstream: &Upstream, request: &RequestHeader, ctx: &Context) -> Self {
        match &upstream.sticky {
            None => Self::default(),
            Some(Sticky::Cookie { name, .. }) => {
                let text = cookie(&request.headers, name).and_then(|v| std::str::from_utf8(v).ok());
                Self { came: text.filter(|t| t.len() == 32).and_then(|t| u128::from_str_radix(t, 16).ok()), ..Self::default() }
            }
            Some(Sticky::Table { key, ttl, sessions }) => {
                let consumer = ctx.exchange.identity.as_ref().map(|i| &*i.name);
                let key = key.hash(&question(request, &ctx.exchange), consumer);
                Self { came: key.and_then(|key| sessions.find(key, *ttl, clock::now())), key, ..Self::default() }
            }
        }
    }

    /// The tag to look for.
    pub(super) fn tag(&self) -> Option<u128> {
        self.on.or(self.came)
    }

    /// The request goes to the target of that tag.
    pub(super) fn bind(&mut self, upstream: &Upstream, tag: u128) {
        self.on = Some(tag);
        if let (Some(Sticky::Table { sessions, .. }), Some(key), true) = (&upstream.sticky, self.key, self.came != Some(tag)) {
            sessions.bind(key, tag, clock::now());
        }
    }

    /// Tells the client of its session, if that is new.
    pub(super) fn tell(&self, upstream: &Upstream, secure_connection: bool, response: &mut ResponseHeader) {
        let Some(Sticky::Cookie { name, attributes, secure }) = &upstream.sticky else { return };
        let Some(tag) = self.on.filter(|on| self.came != Some(*on)) else { return };
        if let Some(value) = set_cookie(name, tag, attributes, secure.unwrap_or(secure_connection)) {
            let _ = response.append_header(SET_COOKIE, value);
        }
    }
}
