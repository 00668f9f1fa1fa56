//! The sources of AWS credentials that change: a shared credentials file, and a role that is assumed with a token.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::FutureExt;
use http::Request;
use http::header::CONTENT_TYPE;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::renewed::{CredentialSource, FetchResult, Fetched};
use crate::clients::{CallError, HttpClient, HttpClientSettings, Repeatable};
use crate::rules::aws::{AwsKeys, TemporaryKeys, credentials_of_profile, parse_assumed_role};
use crate::tls::read_text;

/// The largest credentials file or token.
const MAX_FILE: u64 = 1 << 20;

/// The time after which a credentials file is read again: tools that log in write it.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// Where AWS credentials come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AwsKeysSource {
    /// A profile of a shared credentials file.
    File {
        /// The file.
        path: PathBuf,
        /// The profile.
        profile: String,
    },
    /// A role that is assumed with a token (`AssumeRoleWithWebIdentity`).
    WebIdentity {
        /// The ARN of the role.
        role: String,
        /// The file of the token.
        token_file: PathBuf,
        /// The name of the session.
        session: String,
        /// The URL of the Security Token Service.
        url: String,
        /// The client for it.
        client: HttpClientSettings,
    },
}

impl CredentialSource for AwsKeysSource {
    type Credential = AwsKeys;

    fn kind(&self) -> &'static str {
        "aws_credentials"
    }

    fn describe(&self) -> String {
        match self {
            Self::File { path, profile } => format!("AWS credentials ({}, profile {profile})", path.display()),
            Self::WebIdentity { role, .. } => format!("AWS credentials (role {role})"),
        }
    }

    fn client(&self) -> Option<HttpClientSettings> {
        match self {
            Self::File { .. } => None,
            Self::WebIdentity { client, .. } => Some(client.clone()),
        }
    }

    fn fetch<'s>(&'s self, client: Option<&'s HttpClient>) -> FetchResult<'s, AwsKeys> {
        async move {
            match self {
                Self::File { path, profile } => {
                    let text = read(path.clone()).await?;
                    let credential = credentials_of_profile(&text, profile)?;
                    Ok(Fetched { credential, ends: None, renew_after: Some(READ_AGAIN) })
                }
                Self::WebIdentity { role, token_file, session, url, .. } => {
                    let token = read(token_file.clone()).await?;
                    let client = client.ok_or("there is no client")?;
                    assume_role(client, url, [role, session, token.trim()]).await
                }
            }
        }
        .boxed()
    }
}

async fn read(path: PathBuf) -> Result<String, String> {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || read_text(&path, MAX_FILE)).await;
    read.map_err(|error| error.to_string()).flatten().map_err(|why| format!("cannot read {shown}: {why}"))
}

async fn assume_role(
    client: &HttpClient,
    url: &str,
    [role, session, token]: [&str; 3],
) -> Result<Fetched<AwsKeys>, String> {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let body = format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName={}&WebIdentityToken={}",
        encoded(role),
        encoded(session),
        encoded(token)
    );
    let mut request = Request::post(url)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(body))
        .map_err(|_| "its URL is malformed".to_owned())?;
    request.extensions_mut().insert(Repeatable);
    let response = client.send(request).await.map_err(|error| format!("the token service {error}"))?;
    if !response.status().is_success() {
        return Err(format!("the token service {}", CallError::Status(response.status().as_u16())));
    }
    let TemporaryKeys { keys, expires } = parse_assumed_role(response.body())?;
    let ends = expires.and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at)));
    Ok(Fetched { credential: keys, ends, renew_after: None })
}
