//! Sticky sessions: the target of a client's session, and the cookie that holds it.

use std::sync::Arc;

use http::HeaderValue;

use super::sessions::Sessions;
use super::visit::Caller;
use crate::exchange::clock;
use crate::rules::identity::RequestKey;
use crate::rules::routing::cookie;

/// How clients are kept on their targets.
#[derive(Debug)]
pub enum Sticky {
    /// A cookie of the gateway's own.
    Cookie {
        /// The name.
        name: String,
        /// The attributes after its value: `; Path=/; HttpOnly…`.
        attributes: String,
        /// Whether it is `Secure`; `None` means on listeners with TLS.
        secure: Option<bool>,
    },
    /// A table of sessions.
    Table {
        /// The key of a session.
        key: RequestKey,
        /// How long a session without requests is remembered, in nanoseconds.
        ttl: u64,
        /// The table.
        sessions: Arc<Sessions>,
    },
}

/// A request's session.
#[derive(Clone, Copy, Debug, Default)]
pub struct StickySession {
    /// The tag that the client sent.
    came: Option<u128>,
    /// The tag of the target that the session is on.
    bound: Option<u128>,
    /// The key in a table.
    key: Option<u64>,
}

impl StickySession {
    /// Returns the session of a caller.
    pub fn of(sticky: &Sticky, caller: &Caller<'_>) -> Self {
        match sticky {
            Sticky::Cookie { name, .. } => {
                let value = caller.request.as_ref().and_then(|request| cookie(request.headers, name));
                let text = value.and_then(|v| std::str::from_utf8(v).ok()).filter(|t| t.len() == 32);
                Self { came: text.and_then(|t| u128::from_str_radix(t, 16).ok()), ..Self::default() }
            }
            Sticky::Table { key, ttl, sessions } => {
                let key = caller.hash(key);
                Self { came: key.and_then(|key| sessions.find(key, *ttl, clock::now())), key, ..Self::default() }
            }
        }
    }

    /// Returns the tag of the session's target.
    pub fn tag(&self) -> Option<u128> {
        self.bound.or(self.came)
    }

    /// Binds the session to the target of that tag.
    pub fn bind(&mut self, sticky: &Sticky, tag: u128) {
        self.bound = Some(tag);
        if let (Sticky::Table { sessions, .. }, Some(key), true) = (sticky, self.key, self.came != Some(tag)) {
            sessions.bind(key, tag, clock::now());
        }
    }

    /// Returns the value of `Set-Cookie` for a session that is new to the client (RFC 6265, section 4.1).
    pub fn set_cookie(&self, sticky: &Sticky, secure_connection: bool) -> Option<HeaderValue> {
        let Sticky::Cookie { name, attributes, secure } = sticky else { return None };
        let tag = self.bound.filter(|bound| self.came != Some(*bound))?;
        let secure = if secure.unwrap_or(secure_connection) { "; Secure" } else { "" };
        HeaderValue::try_from(format!("{name}={tag:032x}{attributes}{secure}")).ok()
    }
}
