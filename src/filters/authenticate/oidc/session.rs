//! Sessions and attempts to log in, as their cookies hold them.

use serde::{Deserialize, Serialize};

use super::provider::Tokens;
use crate::exchange::Claims;

/// The claims of an ID token that are about the token and not about the user.
const ABOUT_TOKEN: [&str; 8] = ["nonce", "at_hash", "c_hash", "s_hash", "exp", "iat", "nbf", "jti"];

/// How long before its end a token is refreshed, at most; of short-lived ones a fifth of their time.
const REFRESH_AHEAD: u64 = 30;

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// When the user logged in, in seconds of Unix time.
    pub started: u64,
    /// The claims of the ID token about the user.
    pub claims: Claims,
    /// When the tokens are to be refreshed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_at: Option<u64>,
    /// When the access token expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ends: Option<u64>,
    /// The access token, if targets get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// The refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// The ID token, if it is needed to log out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<String>,
}

/// Which tokens a session keeps.
#[derive(Clone, Copy, Debug)]
pub struct KeptTokens {
    /// The access token.
    pub access: bool,
    /// The ID token.
    pub id: bool,
}

impl Session {
    /// Returns the session that begins with these tokens.
    pub fn new(mut claims: Claims, tokens: Tokens, kept: KeptTokens, now: u64) -> Self {
        ABOUT_TOKEN.iter().for_each(|name| _ = claims.remove(*name));
        let mut session = Self {
            started: now,
            claims,
            refresh_at: None,
            token_ends: None,
            access_token: None,
            refresh_token: None,
            id_token: None,
        };
        session.take(tokens, kept, now);
        session
    }

    /// Takes new tokens over.
    pub fn take(&mut self, tokens: Tokens, kept: KeptTokens, now: u64) {
        self.token_ends = tokens.expires_in.map(|time| now.saturating_add(time));
        self.refresh_at = tokens.expires_in.map(|time| now.saturating_add(time - REFRESH_AHEAD.min(time / 5)));
        self.access_token = kept.access.then_some(tokens.access_token);
        self.refresh_token = tokens.refresh_token.or(self.refresh_token.take());
        let id_token = tokens.id_token.or(self.id_token.take());
        self.id_token = id_token.filter(|_| kept.id);
    }
}

/// An attempt to log in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The `state` of the authorization request.
    pub state: String,
    /// The `nonce` that the ID token has to have.
    pub nonce: String,
    /// The verifier of PKCE (RFC 7636).
    pub verifier: String,
    /// The `redirect_uri` of the authorization request.
    pub redirect_uri: String,
    /// The path and query to which the user goes after it.
    pub return_to: String,
    /// When it expires, in seconds of Unix time.
    pub ends: u64,
}

/// The longest path and query to which a user returns.
const MAX_RETURN: usize = 1_024;

/// Returns the path and query to which a user may be sent after the login: on this host, whatever a browser makes of
/// it.
pub fn return_target(target: &str) -> &str {
    // Browsers read a second slash, or a backslash, as the beginning of a host.
    let is_path = target.starts_with('/') && !target[1..].starts_with(['/', '\\']);
    let is_plain = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_path && is_plain && target.len() <= MAX_RETURN { target } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_return_to_this_host_alone() {
        for fine in ["/", "/a/b?c=d&e=%2F%2Fevil.test", "/a?u=https://evil.test/"] {
            assert_eq!(return_target(fine), fine);
        }
        let long = format!("/{}", "a".repeat(MAX_RETURN));
        for wrong in [
            "//evil.test",
            "/\\evil.test",
            "\\\\evil.test",
            "https://evil.test",
            "",
            "a",
            "/a\\b",
            "/\tevil.test",
            "/a b",
            "/ä",
            &long,
            "///",
            "javascript:alert(1)",
        ] {
            assert_eq!(return_target(wrong), "/", "{wrong}");
        }
    }

    #[test]
    fn tokens_are_refreshed_before_they_expire_and_only_needed_ones_are_kept() {
        let tokens = |expires_in| Tokens {
            access_token: "a".to_owned(),
            id_token: Some("i".to_owned()),
            refresh_token: Some("r".to_owned()),
            expires_in,
        };
        let claims: Claims = serde_json::from_str(r#"{"sub":"ada","nonce":"n","exp":9,"email":"e"}"#).expect("claims");
        let none = KeptTokens { access: false, id: false };
        let session = Session::new(claims, tokens(Some(3_600)), none, 100);
        assert_eq!((session.refresh_at, session.token_ends), (Some(3_670), Some(3_700)));
        assert_eq!((&session.access_token, &session.id_token), (&None, &None));
        assert_eq!(
            session.claims.keys().collect::<std::collections::BTreeSet<_>>(),
            ["email", "sub"].map(String::from).iter().collect()
        );
        let mut next = session.clone();
        let rotated = Tokens { refresh_token: None, id_token: None, ..tokens(Some(10)) };
        next.take(rotated, KeptTokens { access: true, id: true }, 200);
        assert_eq!((next.refresh_at, next.started), (Some(208), 100));
        assert_eq!(next.refresh_token.as_deref(), Some("r"), "it stays where the provider gives no other");
    }
}
