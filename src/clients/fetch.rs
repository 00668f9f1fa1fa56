//! Fetching of small documents over HTTP or HTTPS.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// The maximum size of a document.
const MAX_DOCUMENT: usize = 1 << 20;

/// The time-out of a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason for which a document could not be fetched, without the URL, which may contain a secret.
pub type FetchError = String;

/// Fetches documents.
#[derive(Debug, Clone)]
pub struct Fetcher(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Fetcher {
    /// Returns a fetcher that trusts the CA file `ca`, or the system's CA certificates.
    ///
    /// # Errors
    /// When the CA file is wrong.
    pub fn new(ca: Option<&Path>) -> Result<Self, String> {
        let tls = crate::tls::client_config(ca)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Fetches the document at `url`; redirects are not followed.
    ///
    /// # Errors
    /// When it does not arrive within 5 seconds with status 200 and at most 1 MiB.
    pub async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let url: http::Uri = url.parse().map_err(|_| "no URL".to_owned())?;
        let work = async {
            let response = self.0.get(url).await.map_err(|e| format!("cannot be reached: {}", chain(&e)))?;
            if response.status() != http::StatusCode::OK {
                return Err(format!("responded with {}", response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|e| format!("the response broke off: {e}"))
        };
        match tokio::time::timeout(FETCH_TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => Err("took longer than 5 s".to_owned()),
        }
    }
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
