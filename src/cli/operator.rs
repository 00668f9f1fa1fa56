//! The options and steps of commands that call a running gateway.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::running_gateway::{ADMIN_RESPONSE_TIMEOUT, RunningFile, RunningGateway, SameFile, TOKEN_VARIABLE};
use crate::admin::MAX_CONFIGURATION;
use crate::compile::compile;
use crate::config::{Change, Loaded};
use crate::live::Live;
use crate::notation::{AdminAddress, Mistakes, Secret, SecretText};
use crate::telemetry::{complain, say};

/// The options that select the gateway.
#[derive(Debug, Args)]
pub struct Operator {
    /// The configuration, which also has the address and token of the gateway's admin listener [default:
    /// $PORTCULLIS_CONFIG, else /etc/portcullis/portcullis.yaml]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The admin listener, if it is not at the address in the configuration: ADDRESS:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub admin: Option<AdminAddress>,
    /// A file with the admin token, if it is not that of the configuration [env: PORTCULLIS_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Parses an address, whose host may be a name.
///
/// # Errors
/// When the text is not an address.
pub fn address(text: &str) -> Result<AdminAddress, String> {
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(AdminAddress::Unix(path.into()));
    }
    #[expect(clippy::disallowed_methods, reason = "a command, which has nothing else to do")]
    let all: Vec<_> = std::net::ToSocketAddrs::to_socket_addrs(text).into_iter().flatten().collect();
    // A name is mostly localhost, and admin listeners are mostly on 127.0.0.1.
    let found = all.iter().find(|address| address.is_ipv4()).or(all.first()).copied();
    found.map(AdminAddress::Tcp).ok_or_else(|| {
        "expected an address such as 127.0.0.1:9901, localhost:9901 or unix:/run/portcullis/admin.sock".to_owned()
    })
}

/// The response of a running gateway to a comparison.
#[derive(Debug, Deserialize)]
pub struct Comparison {
    /// The differences.
    pub changes: Vec<Change>,
    /// The addresses on which the gateway listens.
    pub listeners: Vec<SocketAddr>,
    /// The file that the gateway reads.
    #[serde(flatten)]
    file: RunningFile,
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
    /// Returns the configuration to read: the one that is given, or the default.
    fn file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(super::default_file)
    }

    /// Loads the configuration, which may have errors. With `--admin` it need not be readable at all.
    ///
    /// # Errors
    /// 2 when it is needed and cannot be read, or the gateway's address in it is wrong; the error has been printed.
    pub fn load(&self) -> Result<Option<Loaded>, CommandFailed> {
        if self.config.is_none() && self.admin.is_some() {
            return Ok(None);
        }
        let loaded = match super::load_file(&self.file()) {
            Ok(loaded) => loaded,
            Err(_) if self.admin.is_some() => return Ok(None),
            Err(mistakes) => return Err(print_mistakes(mistakes)),
        };
        // The gateway to call must not be guessed.
        if self.admin.is_none() && loaded.is_left_out("admin", "address") {
            return Err(print_mistakes(loaded.locate(loaded.mistakes.clone())));
        }
        Ok(Some(loaded))
    }

    /// Returns what [`Self::load`] has loaded, if it has no errors.
    ///
    /// # Errors
    /// 2 when it has errors, or there is none; the errors have been printed.
    pub fn validated(&self, loaded: Option<Loaded>) -> Result<Loaded, CommandFailed> {
        crate::tls::install_provider();
        let again = || super::load_file(&self.file()).map_err(print_mistakes);
        let loaded = loaded.map_or_else(again, Ok)?;
        compile(&loaded, &Live::default()).map_err(print_mistakes)?;
        Ok(loaded)
    }

    /// Returns the gateway that the options select. The service's other secrets are not needed for that.
    ///
    /// # Errors
    /// 1 when the admin token cannot be read; the error has been printed.
    pub fn gateway(&self, loaded: Option<&Loaded>) -> Result<RunningGateway, CommandFailed> {
        let address = self.address(loaded);
        let token = match self.given_token()? {
            Some(token) => Some(token),
            None if loaded.is_some_and(|loaded| loaded.is_left_out("admin", "token")) => {
                let why = loaded.map(|loaded| loaded.locate(loaded.mistakes.clone()).lines()).unwrap_or_default();
                why.iter().filter(|line| line.contains("admin")).for_each(|line| complain!("{line}"));
                return Err(print_error(format!(
                    "the admin token cannot be read here: give it with --token-file or {TOKEN_VARIABLE}"
                )));
            }
            None => loaded.and_then(|loaded| loaded.config.admin.token.as_ref().map(|token| token.0.clone())),
        };
        Ok(RunningGateway { address, token, timeout: ADMIN_RESPONSE_TIMEOUT })
    }

    /// Returns the address of the gateway's admin listener.
    pub fn address(&self, loaded: Option<&Loaded>) -> AdminAddress {
        let configured = || match loaded.map(|loaded| (loaded, &loaded.config.admin.address.0)) {
            Some((loaded, AdminAddress::Unix(path))) => AdminAddress::Unix(loaded.base.join(path)),
            Some((_, address)) => address.clone(),
            None => AdminAddress::None,
        };
        self.admin.clone().unwrap_or_else(configured)
    }

    fn given_token(&self) -> Result<Option<SecretText>, CommandFailed> {
        let text = match &self.token_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| print_error(format!("the token file {}: {error}", path.display())))?,
            None => match std::env::var(TOKEN_VARIABLE) {
                Ok(text) => text,
                Err(_) => return Ok(None),
            },
        };
        let token: Secret = text.trim_end_matches(['\r', '\n']).parse().map_err(|wanted| {
            print_error(format!(
                "expected {wanted} in {}",
                self.token_file.as_ref().map_or_else(|| TOKEN_VARIABLE.to_owned(), |path| path.display().to_string(),)
            ))
        })?;
        Ok(Some(token.0))
    }

    /// Returns whether the gateway reads the file of the options.
    ///
    /// # Errors
    /// As for [`RunningGateway::request`].
    pub fn same_file(&self, gateway: &RunningGateway) -> Result<(SameFile, PathBuf), CommandFailed> {
        let there = gateway.file()?;
        // A gateway that is named without a file is asked about its own.
        let is_its_own = self.config.is_none() && self.admin.is_some();
        let same = if is_its_own { SameFile::Yes } else { there.compare(&self.file()) };
        Ok((same, there.file.unwrap_or_default()))
    }

    /// Compares the running gateway's configuration with this one.
    ///
    /// # Errors
    /// As for [`RunningGateway::call`], and 1 when the gateway does not compare them; the error has been printed.
    pub fn compare(&self, loaded: &Loaded) -> Result<Comparison, CommandFailed> {
        let flat = serde_json::to_vec(&loaded.flat()).map_err(print_error)?;
        if flat.len() > MAX_CONFIGURATION {
            return Err(print_error(format!(
                "{} MiB cannot be compared: {} MiB can",
                flat.len() >> 20,
                MAX_CONFIGURATION >> 20
            )));
        }
        let response = self.gateway(Some(loaded))?.call(Method::POST, "/diff", flat)?;
        let comparison = comparison(response)?;
        self.warn_other_file(&comparison.file);
        Ok(comparison)
    }

    /// Prints a warning if the gateway reads another file than this one, or none. For a gateway on another host, or
    /// in a container, that cannot be determined.
    fn warn_other_file(&self, running: &RunningFile) {
        let Some(file) = &self.config else { return };
        let (here, there) = (file.display(), running.file.clone().unwrap_or_default());
        match running.compare(file) {
            SameFile::No => {
                let there = there.display();
                complain!("the gateway reads another file than {here}, whose changes have no effect: {there}");
            }
            SameFile::NoFile => complain!("the gateway runs no file, so that changes of {here} have no effect"),
            SameFile::Yes | SameFile::Unknown => {}
        }
    }
}

/// Returns the comparison in a response.
///
/// # Errors
/// 2 when the configuration has errors, and 1 when the gateway does not compare; the error has been printed.
pub fn comparison((status, response): (StatusCode, Value)) -> Result<Comparison, CommandFailed> {
    match status {
        StatusCode::OK => {
            serde_json::from_value(response).map_err(|_| print_error("the running gateway sent an unexpected response"))
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            print_rejected(&response);
            Err(2)
        }
        _ => Err(print_error(response["error"].as_str().unwrap_or("the running gateway has no /diff"))),
    }
}

/// Prints the errors for which a gateway rejects a configuration, and returns their number.
pub fn print_rejected(response: &Value) -> usize {
    let mistakes = response["mistakes"].as_array().map_or(&[][..], Vec::as_slice);
    mistakes.iter().filter_map(|m| m.as_str()).for_each(|mistake| complain!("{mistake}"));
    response["count"].as_u64().map_or(mistakes.len(), |count| count as usize)
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
