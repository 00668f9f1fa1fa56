//! The compilation of the filter.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;

use super::super::claims::ClaimRules;
use super::super::client_auth::{ClientCredentials, form_encoded};
use super::super::jwt::Verifier;
use super::cookies::Cookies;
use super::provider::TokenEndpoint;
use super::seal::SealKeys;
use super::session::KeptTokens;
use super::{Config, Oidc};
use crate::clients::HttpClientSettings;
use crate::exchange::Edit;
use crate::filters::CompileContext;
use crate::live::{KeyStore, KeyStoreShape, consumer_digest};
use crate::notation;
use crate::notation::{CallUrl, KeySetSource};
use crate::telemetry::metrics::CallKind;
use crate::tls::FileVersion;

/// The least length of a key of sessions, in bytes.
const MIN_KEY: usize = 32;

/// The parameters of an authorization request that the gateway sets itself.
const OWN_PARAMETERS: [&str; 11] = [
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
];

/// The times for the metadata and the keys of a provider: between two fetches, after an unknown key, and without a
/// fetch that succeeds.
const TIMES: [Duration; 3] = [Duration::from_secs(300), Duration::from_secs(10), Duration::from_secs(86_400)];

impl Oidc {
    /// Compiles the filter.
    pub fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let before = context.mistakes.count();
        check(config, context);
        let issuer = config.issuer.0.clone();
        let minute = 60;
        let session_lifetime =
            time("session_lifetime", config.session_lifetime.as_ref(), 8 * 3_600, minute..=30 * 86_400, context);
        let login_timeout = time("login_timeout", config.login_timeout.as_ref(), 600, minute..=3_600, context);
        let secret = config.client_secret.as_ref().map(|secret| secret.0.reveal());
        let made = ClientCredentials::of_client(&config.client_id, secret, config.client_auth.unwrap_or_default());
        let credentials = context.mistakes.take(&context.place.key("client_secret"), made)?;
        let endpoint = TokenEndpoint { client: client(config, context)?, credentials };
        let store = store(config, context)?;
        let rules = ClaimRules {
            consumer_claim: config.consumer_claim.clone(),
            known_consumers: config.known_consumers,
            required: config.required_claims.clone(),
            forward: ClaimRules::forwarded(&config.forward_claims),
            consumers: Arc::clone(context.consumers),
        };
        let cookie = config.cookie.clone().unwrap_or_else(|| usual_name(&issuer, &config.client_id));
        let keys = |purpose: &str| {
            let secrets = config.session_keys.iter().map(|secret| secret.0.reveal().as_bytes());
            // Cookies of other filters with the same keys are not accepted.
            SealKeys::derive(secrets, [purpose, &issuer, &config.client_id].join("\n").as_bytes())
        };
        let cookie_edits = vec![Edit::RemoveCookies(Cookies::names(&cookie))];
        let oidc = Self {
            verifier: Verifier::of_id_tokens(Arc::clone(&store), &issuer, &config.client_id, rules),
            scope: scope(config),
            parameters: config.parameters.iter().map(|(k, v)| format!("&{k}={}", form_encoded(v))).collect(),
            client_id: config.client_id.clone(),
            redirect_path: config.redirect_path.clone(),
            base_url: config.base_url.as_ref().map(|url| (url.is_secure(), url.origin())),
            logout_path: config.logout_path.clone(),
            after_logout: config.after_logout.clone().unwrap_or_else(|| "/".to_owned()),
            session_lifetime,
            login_timeout,
            session_keys: keys("session")?,
            attempt_keys: keys("attempt")?,
            kept: KeptTokens { access: config.forward_access_token, id: config.logout_path.is_some() },
            refreshed: context.live.refreshed(&context.identity()),
            edits: edits(config, &cookie_edits),
            cookie_edits,
            cookie,
            issuer,
            store,
            endpoint,
        };
        (context.mistakes.count() == before).then_some(oidc)
    }
}

/// Notes what cannot work.
fn check(config: &Config, context: &mut CompileContext<'_>) {
    let place = context.place.clone();
    let paths = [
        ("redirect_path", Some(&config.redirect_path)),
        ("logout_path", config.logout_path.as_ref()),
        ("after_logout", config.after_logout.as_ref()),
    ];
    for (key, path) in paths {
        let is_path =
            |path: &&String| super::session::return_target(path) == path.as_str() && !path.contains(['?', '#']);
        if path.is_some_and(|path| !is_path(&path)) {
            context.mistakes.add(&place.key(key), "expected a path such as /login/callback");
        }
    }
    if config.logout_path.as_ref() == Some(&config.redirect_path) {
        context.mistakes.add(&place.key("logout_path"), "is that of redirect_path");
    }
    if config.after_logout.is_some() && config.logout_path.is_none() {
        context.mistakes.add(&place.key("after_logout"), "needs logout_path");
    }
    for (index, key) in config.session_keys.iter().enumerate() {
        if key.0.reveal().len() < MIN_KEY {
            let text = format!("expected at least {MIN_KEY} bytes, such as `openssl rand -base64 32` prints");
            context.mistakes.add(&place.key("session_keys").index(index), text);
        }
    }
    if config.client_secret.is_none() && config.client_auth.is_some() {
        context.mistakes.add(&place.key("client_auth"), "needs client_secret");
    }
    let word =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
    for (index, _) in config.scopes.iter().enumerate().filter(|(_, scope)| !word(scope)) {
        context.mistakes.add(&place.key("scopes").index(index), "expected one scope, without blanks");
    }
    let is_name = |name: &String| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    if config.cookie.as_ref().is_some_and(|name| !is_name(name) || name.starts_with("__")) {
        context
            .mistakes
            .add(&place.key("cookie"), "expected a name of letters, digits, -, _ and ., without __ in front");
    }
    for name in config.parameters.keys().filter(|name| OWN_PARAMETERS.contains(&name.as_str()) || !is_name(name)) {
        let text = "is set by the gateway itself, or is no name of a parameter";
        context.mistakes.add(&place.key("parameters").name(name.clone()), text);
    }
    if config.base_url.as_ref().is_some_and(|url| url.0.path() != "/" || url.0.query().is_some()) {
        context.mistakes.add(&place.key("base_url"), "expected a scheme and a host, without a path");
    }
}

fn time(
    key: &'static str,
    given: Option<&notation::Duration>,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
    context: &mut CompileContext<'_>,
) -> u64 {
    let time = given.map_or(default, |time| time.0.as_secs());
    if !range.contains(&time) {
        let text =
            format!("expected {:?} to {:?}", Duration::from_secs(*range.start()), Duration::from_secs(*range.end()));
        context.mistakes.add(&context.place.key(key), text);
    }
    time
}

/// Returns the scopes to request, `openid` among them (OpenID Connect Core, section 3.1.2.1).
fn scope(config: &Config) -> String {
    let openid = (!config.scopes.iter().any(|scope| scope == "openid")).then_some("openid");
    openid.into_iter().chain(config.scopes.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}

/// Returns the name of the cookies: filters for different clients do not share it.
fn usual_name(issuer: &str, client: &str) -> String {
    let digest = consumer_digest(format!("{issuer}\n{client}").as_bytes());
    let digits: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("portcullis-{digits}")
}

fn edits(config: &Config, cookies: &[Edit]) -> Arc<[Edit]> {
    let claims = config.forward_claims.values().map(|header| Edit::Remove(header.0.clone()));
    let token = config.forward_access_token.then_some(Edit::Remove(AUTHORIZATION));
    cookies.iter().cloned().chain(claims).chain(token).collect()
}

/// Returns the store of the provider's metadata and keys.
fn store(config: &Config, context: &mut CompileContext<'_>) -> Option<Arc<KeyStore>> {
    let [refresh, refetch_after, max_stale] = TIMES;
    let shape = KeyStoreShape {
        source: KeySetSource::Issuer(config.issuer.0.clone()),
        ca: config.call.tls.ca.as_ref().map(|ca| FileVersion::of(context.base.join(ca))),
        refresh,
        refetch_after,
        max_stale,
    };
    let fresh = context.mistakes.take(&context.place.key("call").key("tls"), KeyStore::new(shape.clone()))?;
    let store = context.live.keys(&shape, || Arc::new(fresh));
    context.keep(store.clone());
    Some(store)
}

fn client(config: &Config, context: &mut CompileContext<'_>) -> Option<Arc<crate::clients::HttpClient>> {
    let place = context.place.key("call");
    let url: CallUrl = context.mistakes.take(&context.place.key("issuer"), config.issuer.0.parse())?;
    let defaults = HttpClientSettings::new(CallKind::Oidc, url.origin());
    let settings = config.call.settings(context.base, defaults, url.is_secure(), &place, context.mistakes)?;
    context.mistakes.take(&place.key("tls"), context.live.http_client(&settings))
}
