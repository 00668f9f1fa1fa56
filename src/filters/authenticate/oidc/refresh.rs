//! The refresh of sessions whose tokens expire.

use std::sync::Arc;

use http::header::SET_COOKIE;

use super::super::jwt::Unverified;
use super::super::{Authenticated, Unauthenticated};
use super::provider::TokenError;
use super::session::Session;
use super::{Oidc, Visit};
use crate::live::{RefreshResult, consumer_digest};

/// The seconds for which a refreshed session is given to requests with the cookie before it.
const REFRESHED_TIME: u64 = 60;

impl Oidc {
    /// Accepts a request whose session is refreshed, once for all requests with its cookie. While that is not possible,
    /// the session lasts until its tokens expire.
    pub async fn refresh(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        session: Session,
    ) -> Result<Authenticated, Unauthenticated> {
        match self.refreshed(&session, visit.now).await {
            Ok(refreshed) => {
                let cookies = self.seal(visit, &refreshed).map_err(Unauthenticated::unavailable)?;
                self.accept(refreshed, cookies)
            }
            Err((true, why)) => {
                log::debug!("a session at {} is over: {why}", self.issuer);
                let mut required = self.require_login(visit);
                let removed = visit.cookies.remove_session(&visit.request.headers);
                required.add_headers(removed.into_iter().map(|cookie| (SET_COOKIE, cookie)));
                Err(required)
            }
            Err((false, _)) if session.token_ends.is_some_and(|at| visit.now < at) => self.accept(session, Vec::new()),
            Err((false, why)) => Err(Unauthenticated::unavailable(why)),
        }
    }

    /// Returns the refreshed session. An error says whether the session is over.
    async fn refreshed(self: &Arc<Self>, session: &Session, now: u64) -> Result<Session, (bool, String)> {
        let token = session.refresh_token.as_deref().unwrap_or_default();
        let digest = consumer_digest(token.as_bytes());
        let text = match self.refreshed.recent.get(&digest, 0, now) {
            Some(text) => text,
            None => {
                let (this, session) = (Arc::clone(self), session.clone());
                let work = || async move { this.call_for_refresh(digest, session, now).await };
                let done = self.refreshed.calls.run(digest, work).await;
                done.unwrap_or_else(|| Err((false, "the refresh panicked".to_owned())))?
            }
        };
        serde_json::from_slice(&text).map_err(|error| (false, error.to_string()))
    }

    async fn call_for_refresh(&self, digest: [u8; 32], mut session: Session, now: u64) -> RefreshResult {
        // An earlier refresh may have ended since it was looked for.
        if let Some(text) = self.refreshed.recent.get(&digest, 0, now) {
            return Ok(text);
        }
        let unavailable = |why: &str| (false, why.to_owned());
        let metadata = self.store.provider().ok_or_else(|| unavailable("the provider's metadata is not there"))?;
        let url = metadata.token_endpoint.as_ref().ok_or_else(|| unavailable("there is no token endpoint"))?;
        let token = session.refresh_token.clone().unwrap_or_default();
        let parameters = [("grant_type", "refresh_token"), ("refresh_token", &token)];
        let tokens = self
            .endpoint
            .request(url, &parameters)
            .await
            .map_err(|error| (matches!(error, TokenError::Rejected(_)), error.to_string()))?;
        if tokens.id_token.is_some() {
            let claims = self.id_claims(&tokens, None).await.map_err(|error| match error {
                Unverified::Unavailable(why) => unavailable(why),
                Unverified::Expired | Unverified::Invalid(_) => {
                    (true, "the refreshed ID token is not valid".to_owned())
                }
            })?;
            // It has to be about the same user (OpenID Connect Core, section 12.2).
            if claims.get("sub") != session.claims.get("sub") {
                return Err((true, "the refreshed ID token is of another user".to_owned()));
            }
            session.claims = Session::new(claims, tokens.clone(), self.kept, now).claims;
        }
        session.take(tokens, self.kept, now);
        let text = Arc::new(serde_json::to_vec(&session).map_err(|error| unavailable(&error.to_string()))?);
        self.refreshed.recent.insert(digest, Arc::clone(&text), 0, now + REFRESHED_TIME, now);
        Ok(text)
    }
}
