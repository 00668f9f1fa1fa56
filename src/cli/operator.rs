//! Calls to the admin listener of a running gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;

use crate::admin::MAX_CONFIGURATION;
use crate::compile::compile;
use crate::config::{Change, Loaded};
use crate::live::Live;
use crate::notation::Mistakes;
use crate::telemetry::{complain, say};

/// The time-out for a response: a reload waits for the first probes of new upstreams.
const ADMIN_RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

/// The options that select the gateway.
#[derive(Debug, Args)]
pub struct Operator {
    /// The configuration, which also has the address and token of the gateway's admin listener [default:
    /// $PORTCULLIS_CONFIG, else /etc/portcullis/portcullis.yaml]
    #[arg(long, short, value_name = "FILE", default_value_os_t = super::default_file(), hide_default_value = true)]
    pub config: PathBuf,
    /// The admin listener, if it is not at the address in the configuration
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub admin: Option<SocketAddr>,
}

/// Parses an address, whose host may be a name.
///
/// # Errors
/// When the text is not an address.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    #[expect(clippy::disallowed_methods, reason = "a command, which has nothing else to do")]
    let all: Vec<_> = std::net::ToSocketAddrs::to_socket_addrs(text).into_iter().flatten().collect();
    // A name is mostly localhost, and admin listeners are mostly on 127.0.0.1.
    let found = all.iter().find(|address| address.is_ipv4()).or(all.first()).copied();
    found.ok_or_else(|| "expected an address such as 127.0.0.1:9901 or localhost:9901".to_owned())
}

/// The response of a running gateway to a comparison.
#[derive(Debug, Deserialize)]
pub struct Comparison {
    /// The differences.
    pub changes: Vec<Change>,
    /// The addresses on which the gateway listens.
    pub listeners: Vec<SocketAddr>,
    /// The file that the gateway reads; empty from older versions.
    #[serde(default)]
    file: String,
}

/// The exit code of a failed command. The error has been printed.
pub type CommandFailed = u8;

/// Prints the errors of a configuration.
pub fn print_mistakes(mistakes: Mistakes) -> CommandFailed {
    complain!("{mistakes}");
    2
}

/// Prints an error.
pub fn print_error(text: impl std::fmt::Display) -> CommandFailed {
    complain!("portcullis: {text}");
    1
}

impl Operator {
    /// Loads the configuration, which may have errors.
    ///
    /// # Errors
    /// 2 when it cannot be read; the error has been printed.
    pub fn load(&self) -> Result<Loaded, CommandFailed> {
        let loaded = super::load_file(&self.config).map_err(print_mistakes)?;
        // The gateway to call must not be guessed.
        if loaded.is_partial("admin") {
            Err(print_mistakes(loaded.locate(loaded.mistakes.clone())))
        } else {
            Ok(loaded)
        }
    }

    /// Loads the configuration, which must have no errors.
    ///
    /// # Errors
    /// 2 when it has errors; they have been printed.
    pub fn load_valid(&self) -> Result<Loaded, CommandFailed> {
        crate::tls::install_provider();
        let loaded = super::load_file(&self.config).map_err(print_mistakes)?;
        compile(&loaded, &Live::default()).map_err(print_mistakes)?;
        Ok(loaded)
    }

    /// Sends a POST request to the gateway.
    ///
    /// # Errors
    /// 1 when the gateway is not reachable or does not respond; the error has been printed.
    pub fn post(&self, loaded: &Loaded, path: &str, body: Vec<u8>) -> Result<(StatusCode, Value), CommandFailed> {
        let admin = &loaded.config.admin;
        let address = self.admin.unwrap_or(admin.address.0);
        let mut request = Request::post(format!("http://{address}{path}"));
        if let Some(token) = &admin.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.0.reveal()));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(print_error)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(print_error)?;
        let (status, body) = runtime
            .block_on(async {
                let client = Client::builder(TokioExecutor::new()).build_http();
                let work = async {
                    let response = client.request(request).await.map_err(|error| match error.is_connect() {
                        true => {
                            "nothing serves there; is the gateway running, and is this its admin listener \
                            (--admin)?"
                        }
                        false => {
                            "it closed the connection without a response; if this is the gateway's admin \
                            listener, its log has the reason"
                        }
                    })?;
                    let status = response.status();
                    let body = response.into_body().collect().await.map_err(|_| "the response broke off")?;
                    Ok::<_, &str>((status, body.to_bytes()))
                };
                tokio::time::timeout(ADMIN_RESPONSE_TIMEOUT, work).await.unwrap_or(Err("no response came in time"))
            })
            .map_err(|text| print_error(format!("{address}: {text}")))?;
        if status == StatusCode::UNAUTHORIZED {
            return Err(print_error(format!(
                "{address}: the admin token of this configuration is not that of the running gateway; SIGHUP \
                reloads without one"
            )));
        }
        if status == StatusCode::NOT_FOUND {
            return Err(print_error(format!(
                "{address}: this is not the admin listener of a gateway, or one of another version: it has no {path}"
            )));
        }
        let body =
            serde_json::from_slice(&body).map_err(|_| print_error(format!("{address}: this is not portcullis")))?;
        Ok((status, body))
    }

    /// Compares the running gateway's configuration with this one.
    ///
    /// # Errors
    /// As for [`Self::post`], and 1 when the gateway does not compare them; the error has been printed.
    pub fn compare(&self, loaded: &Loaded) -> Result<Comparison, CommandFailed> {
        let flat = serde_json::to_vec(&loaded.flat()).map_err(print_error)?;
        if flat.len() > MAX_CONFIGURATION {
            return Err(print_error(format!(
                "{} MiB cannot be compared: {} MiB can",
                flat.len() >> 20,
                MAX_CONFIGURATION >> 20
            )));
        }
        let (status, response) = self.post(loaded, "/diff", flat)?;
        if status != StatusCode::OK {
            return Err(print_error(response["error"].as_str().unwrap_or("the running gateway has no /diff")));
        }
        let comparison: Comparison = serde_json::from_value(response)
            .map_err(|_| print_error("the running gateway sent an unexpected response"))?;
        self.warn_other_file(&comparison.file);
        Ok(comparison)
    }

    /// Prints a warning if the gateway reads another file than this one. For a gateway on another host, or in a
    /// container, that cannot be determined.
    pub fn warn_other_file(&self, file: &str) {
        let there = Path::new(file).canonicalize();
        if there.is_ok_and(|there| self.config.canonicalize().is_ok_and(|here| here != there)) {
            complain!(
                "the gateway reads another file than {}, whose changes have no effect: {file}",
                self.config.display()
            );
        }
    }
}

/// Prints the changes.
pub fn print_changes(changes: &[Change]) {
    for change in changes {
        say!("{change}");
    }
    match changes.len() {
        0 => say!("nothing would change"),
        count => say!("{}", counted(count, "change")),
    }
}

/// Returns a number with a noun.
pub fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
