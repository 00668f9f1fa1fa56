//! `target_token`: sends targets a token that identifies the gateway, as Cloud Run and Azure Functions require it.
//!
//! The token is fetched and renewed in the background. While there is none, requests are rejected with 503.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::authenticate::{ClientAuth, ClientCredentials};
use super::{CompileContext, HttpFilter, Stage, Verdict};
use crate::clients::{CallConfig, HttpClientSettings};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::live::{Maintained, Renewed, TargetTokenSource};
use crate::notation::{CallUrl, Header, Secret};
use crate::telemetry::metrics::CallKind;

/// The metadata server of Google Cloud.
const GOOGLE: &str = "http://metadata.google.internal/";

/// The instance metadata service of Azure.
const AZURE: &str = "http://169.254.169.254/";

/// Which token targets are sent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The provider of the token.
    pub provider: Provider,
    /// The header that has the token, after `Bearer` if it is `authorization` or ends in `-authorization`; what the
    /// client sent in it is replaced. Default `authorization`.
    #[serde(default = "authorization")]
    pub header: Header,
    /// The calls to the provider.
    #[serde(default)]
    pub call: CallConfig,
}

fn authorization() -> Header {
    Header(AUTHORIZATION)
}

/// The provider of a token.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "TokenProvider")]
pub enum Provider {
    /// The metadata server of Google Cloud: an identity token of the service account, as Cloud Run and Cloud Functions
    /// require it.
    GoogleMetadata(GoogleMetadata),
    /// The managed identity of an Azure machine: an access token of Microsoft Entra.
    AzureManagedIdentity(AzureManagedIdentity),
    /// An authorization server, by the client credentials grant (RFC 6749, section 4.4).
    ClientCredentials(ClientCredentialsGrant),
}

/// The metadata server of Google Cloud.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoogleMetadata {
    /// The audience of the token: the URL of the service.
    pub audience: String,
    /// The service account. Default `default`.
    pub account: Option<String>,
    /// The metadata server. Default `http://metadata.google.internal/`.
    pub url: Option<CallUrl>,
}

/// The managed identity of an Azure machine.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AzureManagedIdentity {
    /// The resource that the token is for: the application id URI of the function app.
    pub resource: String,
    /// The client id of a user-assigned identity. Default: that of the machine.
    pub client_id: Option<String>,
    /// The metadata service. Default `http://169.254.169.254/`.
    pub url: Option<CallUrl>,
}

/// The client credentials grant.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCredentialsGrant {
    /// The token endpoint.
    pub url: CallUrl,
    /// The id of the client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// How both are sent. Default `basic`.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// The scopes, with blanks between them.
    pub scope: Option<String>,
    /// The audience, for servers that require one.
    pub audience: Option<String>,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    token: Arc<Renewed<TargetTokenSource>>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Edit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let request = TokenRequest::of(&config.provider);
        let place = context.place.key("provider");
        let request = context.mistakes.take(&place, request)?;
        let url: CallUrl = context.mistakes.take(&place, request.url.parse::<CallUrl>())?;
        // It is called once in a while, and waited for.
        let defaults =
            HttpClientSettings { breaker: None, ..HttpClientSettings::new(CallKind::Credentials, url.origin()) };
        let place = context.place.key("call");
        let client = config.call.settings(context.base, defaults, url.is_secure(), &place, context.mistakes)?;
        let source = TargetTokenSource {
            provider: request.provider,
            url: request.url,
            fields: request.fields,
            form: request.form,
            is_bare: request.is_bare,
            header: config.header.0.clone(),
            client,
        };
        let token = context.mistakes.take(&place, context.live.target_token(&source))?;
        context.keep(Arc::clone(&token) as Arc<dyn Maintained>);
        Some(Self { token })
    }

    fn headers_written(config: &Config) -> Vec<HeaderName> {
        vec![config.header.0.clone()]
    }

    async fn on_request(&self, _request: &RequestHeader, exchange: &mut Exchange, (): &mut ()) -> Verdict {
        match self.token.get() {
            Some(edits) => {
                exchange.edits.push(&edits);
                Ok(())
            }
            None => {
                let log = format!("no token for the target: {}", self.token.error());
                Err(Rejection::new(Reason::CredentialsUnavailable, "").log(log))
            }
        }
    }
}

/// The request for a token.
struct TokenRequest {
    provider: &'static str,
    url: String,
    fields: Vec<(HeaderName, HeaderValue)>,
    form: Option<String>,
    is_bare: bool,
}

impl TokenRequest {
    fn of(provider: &Provider) -> Result<Self, String> {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let base = |url: &Option<CallUrl>, usual: &str| {
            url.as_ref().map_or_else(|| usual.to_owned(), |url| url.0.to_string()).trim_end_matches('/').to_owned()
        };
        Ok(match provider {
            Provider::GoogleMetadata(google) => Self {
                provider: "google_metadata",
                url: format!(
                    "{}/computeMetadata/v1/instance/service-accounts/{}/identity?audience={}&format=full",
                    base(&google.url, GOOGLE),
                    encoded(google.account.as_deref().unwrap_or("default")),
                    encoded(&google.audience)
                ),
                fields: vec![(HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"))],
                form: None,
                is_bare: true,
            },
            Provider::AzureManagedIdentity(azure) => Self {
                provider: "azure_managed_identity",
                url: format!(
                    "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={}{}",
                    base(&azure.url, AZURE),
                    encoded(&azure.resource),
                    azure.client_id.as_ref().map_or_else(String::new, |id| format!("&client_id={}", encoded(id)))
                ),
                fields: vec![(HeaderName::from_static("metadata"), HeaderValue::from_static("true"))],
                form: None,
                is_bare: false,
            },
            Provider::ClientCredentials(grant) => {
                let secret = Some(grant.client_secret.0.reveal());
                let credentials = ClientCredentials::of_client(&grant.client_id, secret, grant.client_auth)?;
                let named = |name: &str, value: &Option<String>| {
                    value.as_ref().map_or_else(String::new, |value| format!("&{name}={}", encoded(value)))
                };
                let (scope, audience) = (named("scope", &grant.scope), named("audience", &grant.audience));
                Self {
                    provider: "client_credentials",
                    url: grant.url.0.to_string(),
                    fields: credentials.header.into_iter().map(|header| (AUTHORIZATION, header)).collect(),
                    form: Some(format!("grant_type=client_credentials{scope}{audience}{}", credentials.in_body)),
                    is_bare: false,
                }
            }
        })
    }
}
