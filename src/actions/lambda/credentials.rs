//! The credentials with which calls to AWS are signed.

use std::sync::Arc;

use super::config::{CredentialsConfig, WebIdentityConfig};
use crate::actions::ActionContext;
use crate::clients::{CallConfig, HttpClientSettings};
use crate::exchange::{Reason, Rejection};
use crate::live::{AwsKeysSource, CredentialGuard, Maintained, Renewed};
use crate::notation::{CallUrl, Place};
use crate::rules::aws::AwsKeys;
use crate::telemetry::metrics::CallKind;

/// The name of a session that has none.
const SESSION: &str = "portcullis";

/// Credentials for calls.
#[derive(Clone, Debug)]
pub enum AwsCredentials {
    /// They do not change.
    Fixed(Arc<AwsKeys>),
    /// They are fetched.
    Renewed(Arc<Renewed<AwsKeysSource>>),
    /// There are none, for this reason.
    Missing(&'static str),
}

/// The present credentials.
pub enum PresentKeys<'c> {
    /// They do not change.
    Fixed(&'c AwsKeys),
    /// They are fetched.
    Renewed(CredentialGuard<AwsKeysSource>),
}

impl std::ops::Deref for PresentKeys<'_> {
    type Target = AwsKeys;

    fn deref(&self) -> &AwsKeys {
        match self {
            Self::Fixed(keys) => keys,
            Self::Renewed(keys) => keys,
        }
    }
}

impl AwsCredentials {
    /// Compiles the credentials, and notes errors at `place`.
    pub fn compile(config: &CredentialsConfig, region: &str, place: &Place, context: &mut ActionContext<'_>) -> Self {
        let source = match config {
            CredentialsConfig::Environment => return of_environment(region, place, context),
            CredentialsConfig::Key(key) => {
                let token = key.session_token.as_ref().map(|token| token.0.reveal());
                let keys = AwsKeys::new(key.access_key_id.0.reveal(), key.secret_access_key.0.reveal(), token);
                return Self::Fixed(Arc::new(keys));
            }
            CredentialsConfig::File(file) => AwsKeysSource::File {
                path: context.base.join(&file.path),
                profile: file.profile.clone().unwrap_or_else(|| "default".to_owned()),
            },
            CredentialsConfig::WebIdentity(config) => {
                match web_identity(config, region, &place.key("web_identity"), context) {
                    Some(source) => source,
                    None => return Self::Missing("the configuration has errors"),
                }
            }
        };
        Self::renewed(source, place, context)
    }

    fn renewed(source: AwsKeysSource, place: &Place, context: &mut ActionContext<'_>) -> Self {
        match context.live.aws_keys(&source) {
            Ok(renewed) => {
                context.shared.keep(Arc::clone(&renewed) as Arc<dyn Maintained>);
                Self::Renewed(renewed)
            }
            Err(error) => {
                context.mistakes.add(place, error);
                Self::Missing("the configuration has errors")
            }
        }
    }

    /// Returns the present credentials.
    ///
    /// # Errors
    /// Returns the rejection of a request for which there are none.
    pub fn present(&self) -> Result<PresentKeys<'_>, Box<Rejection>> {
        let missing = |why: String| Rejection::new(Reason::CredentialsUnavailable, "").log(why);
        match self {
            Self::Fixed(keys) => Ok(PresentKeys::Fixed(keys)),
            Self::Renewed(renewed) => {
                let keys = renewed.get().ok_or_else(|| missing(format!("no AWS credentials: {}", renewed.error())))?;
                Ok(PresentKeys::Renewed(keys))
            }
            Self::Missing(why) => Err(missing((*why).to_owned())),
        }
    }

    /// Fetches them soon, since AWS does not accept them.
    pub fn renew_soon(&self) {
        if let Self::Renewed(renewed) = self {
            renewed.renew_soon();
        }
    }
}

fn of_environment(region: &str, place: &Place, context: &mut ActionContext<'_>) -> AwsCredentials {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let (Some(id), Some(secret)) = (value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY")) {
        let keys = AwsKeys::new(&id, &secret, value("AWS_SESSION_TOKEN").as_deref());
        return AwsCredentials::Fixed(Arc::new(keys));
    }
    let (Some(role), Some(token_file)) = (value("AWS_ROLE_ARN"), value("AWS_WEB_IDENTITY_TOKEN_FILE")) else {
        return AwsCredentials::Missing(
            "no AWS credentials: the environment has neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor \
             AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE",
        );
    };
    let config = WebIdentityConfig {
        role,
        token_file: crate::notation::FollowedFile(token_file.into()),
        session: value("AWS_ROLE_SESSION_NAME"),
        url: value("AWS_ENDPOINT_URL_STS").and_then(|url| url.parse().ok()),
        call: CallConfig::default(),
    };
    match web_identity(&config, region, place, context) {
        Some(source) => AwsCredentials::renewed(source, place, context),
        None => AwsCredentials::Missing("the configuration has errors"),
    }
}

fn web_identity(
    config: &WebIdentityConfig,
    region: &str,
    place: &Place,
    context: &mut ActionContext<'_>,
) -> Option<AwsKeysSource> {
    let url = match &config.url {
        Some(url) => url.clone(),
        None => format!("https://sts.{region}.{}/", super::domain(region)).parse::<CallUrl>().ok()?,
    };
    // It is called once in a while, and waited for.
    let defaults = HttpClientSettings { breaker: None, ..HttpClientSettings::new(CallKind::Credentials, url.origin()) };
    let place = place.key("call");
    let client = config.call.settings(context.base, defaults, url.is_secure(), &place, context.mistakes)?;
    Some(AwsKeysSource::WebIdentity {
        role: config.role.clone(),
        token_file: context.base.join(&config.token_file),
        session: config.session.clone().unwrap_or_else(|| SESSION.to_owned()),
        url: url.0.to_string(),
        client,
    })
}
