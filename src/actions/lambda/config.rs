//! `lambda` as it is configured.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::clients::CallConfig;
use crate::notation::{CallUrl, Duration, FollowedFile, HeaderText, Secret};

/// Which function is called, and how.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Lambda")]
pub struct Config {
    /// The upstream whose targets are called: those of AWS Lambda in the region, such as
    /// `lambda.us-east-1.amazonaws.com:443`, with `tls`.
    pub upstream: String,
    /// The function: its name, with an alias or version behind a colon if wanted, or its ARN.
    pub function: String,
    /// The region. Default: that of the ARN.
    pub region: Option<String>,
    /// The alias or version, if `function` names none.
    pub qualifier: Option<String>,
    /// How the request is written for the function. Default `v2`.
    #[serde(default)]
    pub payload: Payload,
    /// Whether the response is waited for. Default `request_response`.
    #[serde(default)]
    pub invocation: Invocation,
    /// Whether the response is streamed as the function writes it. Default false.
    #[serde(default)]
    pub streaming: bool,
    /// Media types of request bodies that are sent as base64, whether they are text or not. What is not UTF-8 is in any
    /// case. Default: images, audio, video, fonts, archives, PDF and `application/octet-stream`.
    pub binary_types: Option<Vec<String>>,
    /// The name of the stage in events. Default `$default`.
    pub stage: Option<String>,
    /// The time from the request's arrival to the end of its response, retries included. Default: none.
    pub timeout: Option<Duration>,
    /// The `Host` that is sent and signed. Default: `lambda.REGION.amazonaws.com`.
    pub host: Option<HeaderText>,
    /// The credentials with which calls are signed. Default `environment`.
    #[serde(default)]
    pub credentials: CredentialsConfig,
}

/// How a request is written for a function, and its response read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// Payload format version 1.0 of API Gateway: that of REST APIs.
    V1,
    /// Payload format version 2.0: that of HTTP APIs and of function URLs.
    #[default]
    V2,
    /// The body of the request, which is JSON, and what the function returns as the body of the response.
    Raw,
}

/// How a function is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Invocation {
    /// Its response is waited for (`RequestResponse`).
    #[default]
    RequestResponse,
    /// It is queued (`Event`): the client gets 202.
    Event,
    /// It is checked whether it could be called (`DryRun`): the client gets 204.
    DryRun,
}

/// Where AWS credentials come from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialsConfig {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` of the process's environment, or else
    /// `AWS_ROLE_ARN` and `AWS_WEB_IDENTITY_TOKEN_FILE`.
    #[default]
    Environment,
    /// A profile of a shared credentials file, which is read again when it changes.
    File(ProfileConfig),
    /// A role that is assumed with a token, as pods of EKS do. The credentials are renewed before they end.
    WebIdentity(WebIdentityConfig),
    /// An access key.
    Key(KeyConfig),
}

/// A profile of a shared credentials file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AwsProfile")]
pub struct ProfileConfig {
    /// The file, as `~/.aws/credentials` is.
    pub path: FollowedFile,
    /// The profile. Default `default`.
    pub profile: Option<String>,
}

/// A role that is assumed with a token.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AwsWebIdentity")]
pub struct WebIdentityConfig {
    /// The ARN of the role.
    pub role: String,
    /// The file of the token, which is read at each renewal.
    pub token_file: FollowedFile,
    /// The name of the session. Default `portcullis`.
    pub session: Option<String>,
    /// The URL of the Security Token Service. Default: that of the region.
    pub url: Option<CallUrl>,
    /// The calls to it.
    #[serde(default)]
    pub call: CallConfig,
}

/// An access key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AwsKey")]
pub struct KeyConfig {
    /// Its id.
    pub access_key_id: Secret,
    /// Its secret.
    pub secret_access_key: Secret,
    /// The token of its session, if it is temporary.
    pub session_token: Option<Secret>,
}
