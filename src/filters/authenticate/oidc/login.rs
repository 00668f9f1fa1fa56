//! Logins: their beginning, their end on the redirect path, and logging out.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, WWW_AUTHENTICATE};
use pingora::http::RequestHeader;
use serde_json::Value;

use super::super::Unauthenticated;
use super::super::client_auth::form_encoded;
use super::super::jwt::Unverified;
use super::provider::{TokenError, Tokens, printable};
use super::seal::random_text;
use super::session::{Attempt, Session, return_target};
use super::{Oidc, Visit};
use crate::exchange::{Claims, Reason, Rejection};
use crate::live::ProviderMetadata;
use crate::rules::routing::{form_decode, raw_parameters};

/// The most attempts to log in that a client may have at a time; the oldest ones are removed.
const MAX_ATTEMPTS: usize = 4;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

impl Oidc {
    /// Returns the response to a request without a session: a redirect to the provider for the request of a page, and
    /// 401 for all others, since a script cannot log in.
    pub fn require_login(&self, visit: &Visit<'_>) -> Unauthenticated {
        if !is_navigation(visit.request) {
            return Unauthenticated::missing(self.login_required());
        }
        let metadata = self.store.provider();
        let Some((metadata, endpoint)) = metadata.as_ref().and_then(|m| Some((m, m.authorization_endpoint.as_ref()?)))
        else {
            return Unauthenticated::unavailable("the provider's metadata is not there");
        };
        match self.begin_login(visit, &endpoint.to_string()) {
            Some(rejection) => Unauthenticated::missing(rejection),
            None => Unauthenticated::unavailable(format!("the login at {} cannot begin", metadata.issuer)),
        }
    }

    /// Returns the rejection of a request that needs a session and cannot be redirected. A 401 has a challenge (RFC
    /// 9110, section 11.6.1); browsers do not act on that of a scheme that they do not know.
    pub fn login_required(&self) -> Box<Rejection> {
        let rejection = Rejection::new(Reason::LoginRequired, "open a page in a browser to log in");
        let challenge = format!("Cookie realm=\"portcullis\", cookie-name=\"{}\"", self.cookie);
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => rejection.header(WWW_AUTHENTICATE, challenge),
            Err(_) => rejection,
        }
    }

    /// Returns the redirect to the provider (OpenID Connect Core, section 3.1.2.1; RFC 7636, section 4.3).
    fn begin_login(&self, visit: &Visit<'_>, endpoint: &str) -> Option<Box<Rejection>> {
        let target = visit.request.uri.path_and_query().map_or("/", |target| target.as_str());
        let attempt = Attempt {
            state: random_text()?,
            nonce: random_text()?,
            verifier: random_text()?,
            redirect_uri: format!("{}{}", visit.origin, self.redirect_path),
            return_to: return_target(target).to_owned(),
            ends: visit.now.saturating_add(self.login_timeout),
        };
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, attempt.verifier.as_bytes()));
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        let url = format!(
            "{endpoint}{separator}response_type=code&client_id={}&redirect_uri={}&scope={}&state={}&nonce={}\
             &code_challenge={challenge}&code_challenge_method=S256{}",
            form_encoded(&self.client_id),
            form_encoded(&attempt.redirect_uri),
            form_encoded(&self.scope),
            attempt.state,
            attempt.nonce,
            self.parameters,
        );
        let mut rejection = Rejection::redirect(Reason::LoginRedirect, HeaderValue::try_from(url).ok()?);
        let sealed = self.attempt_keys.seal(attempt.state.as_bytes(), &serde_json::to_vec(&attempt).ok()?)?;
        let cookie = visit.cookies.set_attempt(&attempt.state, &sealed, self.login_timeout)?;
        let removed = self.superfluous_attempts(visit);
        rejection.headers.extend(removed.into_iter().chain([cookie]).map(|cookie| (SET_COOKIE, cookie)));
        Some(rejection)
    }

    /// Returns cookies that remove the oldest attempts, so that there is room for one more.
    fn superfluous_attempts(&self, visit: &Visit<'_>) -> Vec<HeaderValue> {
        let attempts = visit.cookies.attempts(&visit.request.headers);
        let Some(superfluous) = (attempts.len() + 1).checked_sub(MAX_ATTEMPTS).filter(|count| *count > 0) else {
            return Vec::new();
        };
        // The value of a cookie is bound to its whole state, of which its name has the first part. So the order of the
        // cookies decides: browsers send those first that they got first (RFC 6265, section 5.4).
        attempts.into_iter().take(superfluous).filter_map(|(name, _)| visit.cookies.remove_named(name)).collect()
    }

    /// Returns the response on the redirect path: a redirect to the page that the user had requested, with a session,
    /// or the reason why there is none.
    pub async fn complete_login(&self, visit: &Visit<'_>) -> Unauthenticated {
        let mut used = None;
        let result = self.log_in(visit, &mut used).await;
        let mut rejection = match result {
            Ok((cookies, return_to)) => {
                let to = HeaderValue::try_from(return_to).unwrap_or_else(|_| HeaderValue::from_static("/"));
                let mut rejection = Rejection::redirect(Reason::LoggedIn, to);
                rejection.headers.extend(cookies.into_iter().map(|cookie| (SET_COOKIE, cookie)));
                rejection
            }
            Err(rejection) => rejection,
        };
        // The provider does not take its code a second time.
        let removal = used.and_then(|state| visit.cookies.remove_attempt(&state));
        rejection.headers.extend(removal.map(|cookie| (SET_COOKIE, cookie)));
        Unauthenticated::unchecked(rejection)
    }

    /// Exchanges the code for tokens and verifies them. Returns the cookies of the session, and where the user goes.
    async fn log_in(
        &self,
        visit: &Visit<'_>,
        used: &mut Option<String>,
    ) -> Result<(Vec<HeaderValue>, String), Box<Rejection>> {
        let failed = |why: &'static str| Rejection::new(Reason::LoginFailed, "open the page again").log(why);
        if visit.request.method != Method::GET {
            return Err(failed("the method is not GET"));
        }
        let response = AuthorizationResponse::read(visit.request).map_err(failed)?;
        let attempt = self.attempt(visit, &response.state).ok_or_else(|| failed("the state is not known"))?;
        *used = Some(attempt.state.clone());
        if attempt.ends <= visit.now {
            return Err(failed("the attempt has expired"));
        }
        let unavailable = |why: String| Rejection::new(Reason::AuthUnavailable, "").log(why);
        let metadata = self.store.provider();
        let metadata = metadata.ok_or_else(|| unavailable("the provider's metadata is not there".to_owned()))?;
        self.check_issuer(&metadata, response.issuer.as_deref()).map_err(failed)?;
        let code = response.code.map_err(|code| {
            let log = format!("the provider responded with the error {}", printable(Some(&code)));
            Rejection::new(if code == "access_denied" { Reason::LoginDenied } else { Reason::LoginFailed }, "").log(log)
        })?;
        let url = metadata.token_endpoint.as_ref();
        let url = url.ok_or_else(|| unavailable("the provider has no token endpoint".to_owned()))?;
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &attempt.redirect_uri),
            ("code_verifier", &attempt.verifier),
        ];
        let tokens = self.endpoint.request(url, &parameters).await.map_err(|error| match error {
            TokenError::Rejected(why) => Rejection::new(Reason::LoginFailed, "open the page again").log(why),
            TokenError::Unavailable(why) => unavailable(why),
        })?;
        let claims = self.id_claims(&tokens, Some(&attempt.nonce)).await.map_err(|error| match error {
            Unverified::Unavailable(why) => unavailable(why.to_owned()),
            Unverified::Expired => failed("the ID token has expired"),
            Unverified::Invalid(why) => Rejection::new(Reason::LoginFailed, "").log(format!("the ID token: {why}")),
        })?;
        let session = Session::new(claims, tokens, self.kept, visit.now);
        let cookies = self.seal(visit, &session).map_err(|why| {
            log::warn!("a login at {} failed: {why}", self.issuer);
            Rejection::new(Reason::LoginFailed, "").log(why)
        })?;
        Ok((cookies, return_target(&attempt.return_to).to_owned()))
    }

    /// Returns the attempt of a state, which only the browser that began it has.
    fn attempt(&self, visit: &Visit<'_>, state: &str) -> Option<Attempt> {
        let sealed = visit.cookies.attempt(&visit.request.headers, state)?;
        // It is sealed for this state alone.
        let opened = self.attempt_keys.open(state.as_bytes(), sealed)?;
        serde_json::from_slice(&opened).ok().filter(|attempt: &Attempt| attempt.state == state)
    }

    /// Checks from whom the response is (RFC 9207, section 2.4): a code of another provider must not be sent to this
    /// one.
    fn check_issuer(&self, metadata: &ProviderMetadata, issuer: Option<&str>) -> Result<(), &'static str> {
        match issuer {
            Some(issuer) if issuer != self.issuer => Err("the response is from another issuer"),
            None if metadata.responds_with_issuer => Err("the response does not name its issuer"),
            _ => Ok(()),
        }
    }

    /// Returns the claims of the ID token (OpenID Connect Core, section 3.1.3.7).
    pub async fn id_claims(&self, tokens: &Tokens, nonce: Option<&str>) -> Result<Claims, Unverified> {
        let token = tokens.id_token.as_deref().ok_or(Unverified::Invalid("there is none"))?;
        let (claims, _) = self.verifier.verified_claims(token.as_bytes()).await?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(&self.issuer) {
            return Err(Unverified::Invalid("it is from another issuer"));
        }
        if nonce.is_some_and(|nonce| text("nonce") != Some(nonce)) {
            return Err(Unverified::Invalid("it is for another attempt"));
        }
        let has_others = claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
        let party = claims.get("azp");
        if (has_others || party.is_some()) && party.and_then(Value::as_str) != Some(&self.client_id) {
            return Err(Unverified::Invalid("it was issued to another client"));
        }
        Ok(claims)
    }

    /// Returns the response on the logout path: the session is removed, and the user sent to the provider, if that can
    /// log users out (OpenID Connect RP-Initiated Logout 1.0), or to the page for that.
    pub fn log_out(&self, visit: &Visit<'_>) -> Unauthenticated {
        let after = || HeaderValue::try_from(self.after_logout.as_str()).unwrap_or(HeaderValue::from_static("/"));
        let session = self.session(visit);
        let metadata = self.store.provider();
        let endpoint = metadata.as_ref().and_then(|metadata| metadata.end_session_endpoint.as_ref());
        let at_provider = endpoint.filter(|_| session.is_some()).and_then(|endpoint| {
            let endpoint = endpoint.to_string();
            let separator = if endpoint.contains('?') { '&' } else { '?' };
            let back = form_encoded(&format!("{}{}", visit.origin, self.after_logout));
            let client = form_encoded(&self.client_id);
            let hint = session.as_ref().and_then(|session| session.id_token.as_ref());
            let hint = hint.map(|token| format!("&id_token_hint={}", form_encoded(token))).unwrap_or_default();
            let url = format!("{endpoint}{separator}client_id={client}&post_logout_redirect_uri={back}{hint}");
            HeaderValue::try_from(url).ok()
        });
        let mut rejection = Rejection::redirect(Reason::LoggedOut, at_provider.unwrap_or_else(after));
        let headers: &HeaderMap = &visit.request.headers;
        let attempts = visit.cookies.attempts(headers).into_iter();
        let removed = attempts.filter_map(|(name, _)| visit.cookies.remove_named(name));
        let removed = visit.cookies.remove_session(headers).into_iter().chain(removed);
        rejection.headers.extend(removed.map(|cookie| (SET_COOKIE, cookie)));
        Unauthenticated::unchecked(rejection)
    }
}

/// The response of a provider to an authorization request, in the query (RFC 6749, section 4.1.2).
struct AuthorizationResponse {
    state: String,
    /// The code, or the code of an error.
    code: Result<String, String>,
    issuer: Option<String>,
}

impl AuthorizationResponse {
    fn read(request: &RequestHeader) -> Result<Self, &'static str> {
        let parameter = |name: &str| -> Result<Option<String>, &'static str> {
            let mut values = raw_parameters(request.uri.query(), name);
            let Some(value) = values.next() else { return Ok(None) };
            if values.next().is_some() {
                return Err("a parameter is there twice");
            }
            let value = String::from_utf8(form_decode(value).into_owned());
            value.map(Some).map_err(|_| "a parameter is no text")
        };
        let state = parameter("state")?.filter(|state| is_state(state)).ok_or("there is no state")?;
        let code = match (parameter("code")?, parameter("error")?) {
            (Some(code), None) if !code.is_empty() => Ok(code),
            (None, Some(error)) => Err(error),
            _ => return Err("there is neither a code nor an error"),
        };
        Ok(Self { state, code, issuer: parameter("iss")? })
    }
}

/// Returns whether a text has the form of a state that the gateway has made.
fn is_state(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Returns whether a request is that of a browser for a page (Fetch Metadata Request Headers, section 2.2), and not
/// one of a script or ahead of time.
fn is_navigation(request: &RequestHeader) -> bool {
    let header = |name: &HeaderName| request.headers.get(name).map(HeaderValue::as_bytes);
    let accepts_pages = || {
        let mut values = request.headers.get_all(ACCEPT).iter();
        values.any(|value| memchr::memmem::find(&value.as_bytes().to_ascii_lowercase(), b"text/html").is_some())
    };
    request.method == Method::GET
        && header(&SEC_FETCH_MODE).is_none_or(|mode| mode == b"navigate")
        && header(&X_REQUESTED_WITH).is_none()
        && header(&SEC_PURPOSE).is_none()
        && header(&http::header::UPGRADE).is_none()
        && accepts_pages()
}
