//! `oidc`: requires a session, which begins with a login at an OpenID provider (OpenID Connect Core 1.0, the code flow
//! with PKCE).
//!
//! Everything about a login and a session is in sealed cookies, so that it outlives restarts and is known to all
//! gateways with the same keys. Each attempt to log in has a cookie of its own, so that several tabs can log in at a
//! time.

mod compiled;
mod cookies;
mod login;
mod provider;
mod refresh;
mod seal;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::{SmallVec, smallvec};

use super::client_auth::ClientAuth;
use super::jwt::Verifier;
use super::public_url::PublicUrl;
use super::{Authenticated, Unauthenticated, challenges_of};
use crate::clients::CallConfig;
use crate::exchange::{Edit, Exchange, Reason, Rejection};
use crate::filters::{CompileContext, HttpFilter, Stage};
use crate::live::{KeyStore, RefreshedSessions};
use crate::notation::{CallUrl, Duration, Header, IssuerUrl, Secret};

use cookies::Cookies;
use provider::TokenEndpoint;
use seal::SealKeys;
use session::{KeptTokens, Session};

/// The provider, the client that the gateway is there, and the sessions.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The issuer, exactly as it is in its tokens. Its metadata is fetched in the background.
    pub issuer: IssuerUrl,
    /// The client id of the gateway at the provider.
    pub client_id: String,
    /// The secret of that client. Default: none, as for a public client.
    pub client_secret: Option<Secret>,
    /// How the id and the secret are sent. Default `basic`.
    pub client_auth: Option<ClientAuth>,
    /// The scopes to request besides `openid`. With `offline_access` many providers give a refresh token.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Further parameters of the authorization request, such as `{prompt: select_account}`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The path to which the provider sends users back, on the host that they have come to. It has to be one of the
    /// route's, and registered at the provider.
    pub redirect_path: String,
    /// The scheme, host and port that browsers use, where the gateway cannot know them.
    pub base_url: Option<CallUrl>,
    /// The path that ends the session, here and at the provider. Default: none.
    pub logout_path: Option<String>,
    /// The path to which users go after that. Default `/`.
    pub after_logout: Option<String>,
    /// The keys with which cookies are sealed, each of at least 32 bytes. The first one seals, all of them open: put a
    /// new one in front, and remove the old one after `session_lifetime`.
    #[schemars(length(min = 1, max = 4))]
    pub session_keys: Vec<Secret>,
    /// How long a session lasts at most, at least 1m and at most 30d. Default 8h.
    pub session_lifetime: Option<Duration>,
    /// How long a login may take, at least 1m and at most 1h. Default 10m.
    pub login_timeout: Option<Duration>,
    /// The name of the session's cookie, to which `__Host-` is added on HTTPS. Default: `portcullis-` and a digest of
    /// issuer and client id.
    pub cookie: Option<String>,
    /// Claims that the ID token has to have.
    #[serde(default)]
    pub required_claims: Vec<String>,
    /// The claim that identifies the client. Default `sub`.
    #[serde(default = "sub")]
    pub consumer_claim: String,
    /// Whether only configured consumers are accepted. Default false.
    #[serde(default)]
    pub known_consumers: bool,
    /// Headers for the target with the values of claims: `{sub: x-user-id}`. What the client sent under these names
    /// is removed.
    #[serde(default)]
    pub forward_claims: BTreeMap<String, Header>,
    /// Whether the target gets the access token as `Authorization: Bearer`. Without a refresh token the session ends
    /// with it then. Default false.
    #[serde(default)]
    pub forward_access_token: bool,
    /// The calls to the provider.
    #[serde(default)]
    pub call: CallConfig,
}

fn sub() -> String {
    "sub".to_owned()
}

/// The compiled filter, shared by all routes with the same settings.
#[derive(Debug)]
pub struct Filter(Arc<Oidc>);

/// All that logins and sessions need.
#[derive(Debug)]
struct Oidc {
    issuer: String,
    client_id: String,
    scope: String,
    parameters: String,
    redirect_path: String,
    base_url: Option<(bool, String)>,
    logout_path: Option<String>,
    after_logout: String,
    session_lifetime: u64,
    login_timeout: u64,
    cookie: String,
    session_keys: SealKeys,
    attempt_keys: SealKeys,
    kept: KeptTokens,
    /// The provider's metadata and keys.
    store: Arc<KeyStore>,
    verifier: Verifier,
    endpoint: TokenEndpoint,
    refreshed: Arc<RefreshedSessions>,
    /// The fields that no target is to see: the cookies, claims that the client sends itself, and its own token where
    /// the target gets another.
    edits: Arc<[Edit]>,
    cookie_edits: Vec<Edit>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        if !context.route.may_have_path(&config.redirect_path) {
            let text = format!("no path of this route matches {}", config.redirect_path);
            context.mistakes.add(&context.place.key("redirect_path"), text);
        }
        let logout = config.logout_path.iter().find(|path| !context.route.may_have_path(path));
        if let Some(path) = logout {
            context.mistakes.add(&context.place.key("logout_path"), format!("no path of this route matches {path}"));
        }
        let identity = context.identity();
        context.shared(&identity, |context| Oidc::compile(config, context)).map(Self)
    }

    fn headers_written(config: &Config) -> Vec<HeaderName> {
        let token = config.forward_access_token.then_some(AUTHORIZATION);
        config.forward_claims.values().map(|name| name.0.clone()).chain(token).collect()
    }

    fn credentials(&self) -> Vec<Edit> {
        self.0.cookie_edits.clone()
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        challenges_of(&self.0.login_required())
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.0.edits)
    }

    async fn authenticate(
        &self,
        request: &RequestHeader,
        exchange: &Exchange,
    ) -> Result<Authenticated, Unauthenticated> {
        let oidc = &self.0;
        let visit = Visit::new(oidc, request, exchange);
        match request.uri.path() {
            path if path == oidc.redirect_path => Err(Box::pin(oidc.complete_login(&visit)).await),
            path if Some(path) == oidc.logout_path.as_deref() => Err(oidc.log_out(&visit)),
            _ => oidc.authenticate(&visit).await,
        }
    }
}

/// A request, with its cookies and its URL as the client sees it.
struct Visit<'r> {
    request: &'r RequestHeader,
    /// The scheme, the host and the port.
    origin: String,
    cookies: Cookies,
    now: u64,
}

impl<'r> Visit<'r> {
    fn new(oidc: &Oidc, request: &'r RequestHeader, exchange: &Exchange) -> Self {
        let url = PublicUrl::of(request, exchange);
        let (scheme, origin) = match &oidc.base_url {
            Some((is_secure, origin)) => (if *is_secure { "https" } else { "http" }, origin.clone()),
            None => (url.scheme, format!("{}://{}", url.scheme, url.host)),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Self { request, origin, cookies: Cookies::new(&oidc.cookie, scheme), now }
    }
}

impl Oidc {
    /// Accepts a request with a session, whose tokens are refreshed when their time has come.
    async fn authenticate(self: &Arc<Self>, visit: &Visit<'_>) -> Result<Authenticated, Unauthenticated> {
        let Some(session) = self.session(visit) else { return Err(self.require_login(visit)) };
        let is_due = session.refresh_at.is_some_and(|at| visit.now >= at);
        if is_due && session.refresh_token.is_some() {
            return Box::pin(self.refresh(visit, session)).await;
        }
        // A target would not accept it.
        if self.kept.access && session.token_ends.is_some_and(|at| visit.now >= at) {
            return Err(self.require_login(visit));
        }
        self.accept(session, Vec::new())
    }

    /// Returns the session of a request, if it has one that has not ended.
    fn session(&self, visit: &Visit<'_>) -> Option<Session> {
        let sealed = visit.cookies.session(&visit.request.headers)?;
        let session: Session = serde_json::from_slice(&self.session_keys.open(b"session", &sealed)?).ok()?;
        self.seconds_left(&session, visit.now).map(|_| session)
    }

    /// Returns for how many seconds a session lasts.
    fn seconds_left(&self, session: &Session, now: u64) -> Option<u64> {
        session.started.saturating_add(self.session_lifetime).checked_sub(now).filter(|left| *left > 0)
    }

    /// Returns the cookies of a session.
    fn seal(&self, visit: &Visit<'_>, session: &Session) -> Result<Vec<HeaderValue>, &'static str> {
        const TOO_LARGE: &str =
            "the session is too large for cookies: let the provider put fewer claims into its tokens";
        let left = self.seconds_left(session, visit.now).ok_or("the session is over")?;
        let seal = |session: &Session| {
            let text = serde_json::to_vec(session).map_err(|_| "the session cannot be written")?;
            let sealed = self.session_keys.seal(b"session", &text).ok_or("the session cannot be sealed")?;
            Ok::<_, &'static str>(visit.cookies.set_session(&visit.request.headers, &sealed, left))
        };
        if let Some(cookies) = seal(session)? {
            return Ok(cookies);
        }
        // Without it the provider may ask users whether they want to log out.
        seal(&Session { id_token: None, ..session.clone() })?.ok_or(TOO_LARGE)
    }

    fn accept(&self, session: Session, set_cookies: Vec<HeaderValue>) -> Result<Authenticated, Unauthenticated> {
        let verified = self.verifier.accept(Arc::new(session.claims)).map_err(|why| {
            let mut rejection = Rejection::new(Reason::LoginDenied, "").log(why);
            rejection.headers.extend(set_cookies.iter().map(|cookie| (http::header::SET_COOKIE, cookie.clone())));
            Unauthenticated::invalid(rejection)
        })?;
        let mut edits: SmallVec<[Arc<[Edit]>; 2]> = smallvec![verified.edits];
        if let Some(token) = session.access_token.filter(|_| self.kept.access)
            && let Ok(value) = HeaderValue::try_from(format!("Bearer {token}"))
        {
            edits.push(Arc::from([Edit::Set(AUTHORIZATION, value)]));
        }
        Ok(Authenticated { identity: verified.identity, edits, set_cookies })
    }
}
