//! A running gateway as its operator calls it: over the admin listener.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use super::operator::{CommandFailed, print_error};
use crate::admin::AdminStream;
use crate::notation::{AdminAddress, SecretText};

/// The time-out for a response: a reload waits for the first probes of new upstreams.
pub const ADMIN_RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

/// The admin listener of a running gateway.
#[derive(Debug)]
pub struct RunningGateway {
    /// The address of its admin listener.
    pub address: AdminAddress,
    /// The admin token.
    pub token: Option<SecretText>,
    /// The time-out for a response.
    pub timeout: Duration,
}

impl RunningGateway {
    /// Sends a request and returns the response.
    ///
    /// # Errors
    /// 1 when the gateway is not reachable, does not respond, or rejects the token; the error has been printed.
    pub fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), CommandFailed> {
        let host = match &self.address {
            AdminAddress::Tcp(address) => address.to_string(),
            AdminAddress::Unix(_) => "localhost".to_owned(),
            AdminAddress::None => {
                return Err(print_error(
                    "this configuration has no admin listener (admin: none); SIGHUP reloads the gateway",
                ));
            }
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(print_error)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(print_error)?;
        let address = &self.address;
        let (status, body) = runtime
            .block_on(async {
                let response = tokio::time::timeout(self.timeout, self.exchange(request));
                response.await.unwrap_or_else(|_| Err("no response came in time".to_owned()))
            })
            .map_err(|text| print_error(format!("{address}: {text}")))?;
        if status == StatusCode::UNAUTHORIZED {
            return Err(print_error(match &self.token {
                Some(_) => format!(
                    "{address}: the admin token of this configuration is not that of the running gateway; give the \
                     right one with --token-file or {TOKEN_VARIABLE}. SIGHUP reloads without one"
                ),
                None => format!(
                    "{address}: the gateway requires its admin token: give it with --token-file or {TOKEN_VARIABLE}. \
                     SIGHUP reloads without one"
                ),
            }));
        }
        Ok((status, body))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let stream = self.connect().await?;
        let broken = || {
            "it closed the connection without a response; if this is the gateway's admin listener, its log has the \
             reason"
                .to_owned()
        };
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| broken())?;
        let driving = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|_| broken())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|_| "the response broke off".to_owned())?;
        driving.abort();
        Ok((status, body.to_bytes()))
    }

    async fn connect(&self) -> Result<Box<dyn AdminStream>, String> {
        let connected: std::io::Result<Box<dyn AdminStream>> = match &self.address {
            AdminAddress::Tcp(address) => TcpStream::connect(address).await.map(|stream| Box::new(stream) as _),
            AdminAddress::Unix(path) => UnixStream::connect(path).await.map(|stream| Box::new(stream) as _),
            AdminAddress::None => Err(std::io::ErrorKind::Unsupported.into()),
        };
        connected.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "permission denied; only the gateway's user and root may connect".to_owned()
            }
            _ => "nothing serves there; is the gateway running, and is this its admin listener (--admin)?".to_owned(),
        })
    }

    /// Sends a request and returns the JSON of the response.
    ///
    /// # Errors
    /// As for [`Self::request`], and 1 when the gateway has no such path or another program serves there.
    pub fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Value), CommandFailed> {
        let (status, body) = self.request(method, path, body)?;
        let address = &self.address;
        if status == StatusCode::NOT_FOUND {
            return Err(print_error(format!(
                "{address}: this is not the admin listener of a gateway, or one of another version: it has no {path}"
            )));
        }
        let body =
            serde_json::from_slice(&body).map_err(|_| print_error(format!("{address}: this is not portcullis")))?;
        Ok((status, body))
    }

    /// Returns the file that the gateway reads.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn file(&self) -> Result<RunningFile, CommandFailed> {
        let (status, body) = self.request(Method::GET, "/process", Vec::new())?;
        Ok(match status {
            StatusCode::OK => serde_json::from_slice(&body).unwrap_or_default(),
            _ => RunningFile::default(),
        })
    }
}

/// The environment variable that has the admin token.
pub const TOKEN_VARIABLE: &str = "PORTCULLIS_ADMIN_TOKEN";

/// The file that a gateway reads, as its responses name it.
#[derive(Debug, Default, Deserialize)]
pub struct RunningFile {
    /// Its path; `None` when it runs no file, and from a version that does not tell it.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The name of the configuration, be it a file or not; `None` from older versions.
    #[serde(default)]
    source: Option<String>,
}

impl RunningFile {
    /// Returns whether the gateway's file is this one.
    pub fn compare(&self, here: &Path) -> SameFile {
        match (&self.file, &self.source) {
            (Some(there), _) => same_file(there, here),
            (None, Some(_)) => SameFile::NoFile,
            (None, None) => SameFile::Unknown,
        }
    }
}

/// Whether two names are those of one file of this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameFile {
    /// They are.
    Yes,
    /// They are not.
    No,
    /// The gateway runs no file: its configuration is part of its command.
    NoFile,
    /// One of them is not on this system: the gateway runs on another host, or in a container.
    Unknown,
}

/// Returns whether the paths are those of one file.
fn same_file(there: &Path, here: &Path) -> SameFile {
    match (there.canonicalize(), here.canonicalize()) {
        (Ok(there), Ok(here)) if there == here => SameFile::Yes,
        (Ok(_), Ok(_)) => SameFile::No,
        _ => SameFile::Unknown,
    }
}
