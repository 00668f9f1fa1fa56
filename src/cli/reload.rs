//! `reload`: makes a running gateway read its configuration again.

use clap::Args;
use http::{Method, StatusCode};

use super::operator::{CommandFailed, Operator, counted, print_error, print_rejected};
use super::running_gateway::{RunningGateway, SameFile};
use crate::telemetry::{complain, say};

/// Make a running gateway read its configuration again
#[derive(Debug, Args)]
#[command(after_help = "If the configuration has errors, the gateway keeps the present one; the errors are printed \
        here, and the exit code is 2. It is 1 when the gateway is not reachable, runs another file or none, or cannot \
        reload now. The secrets of the configuration need not be readable here: with --admin not even the file.")]
pub struct Reload {
    /// The gateway
    #[command(flatten)]
    pub operator: Operator,
    /// Reload whichever file the gateway runs
    #[arg(long)]
    pub any_file: bool,
}

impl Reload {
    /// Reloads the running gateway.
    pub fn execute(self) -> u8 {
        self.reload().err().unwrap_or(0)
    }

    fn reload(&self) -> Result<(), CommandFailed> {
        let loaded = self.operator.load()?;
        let gateway = self.operator.gateway(loaded.as_ref())?;
        if !self.any_file {
            self.check_file(&gateway)?;
        }
        let (status, response) = gateway.call(Method::POST, "/reload", Vec::new())?;
        match status {
            StatusCode::OK => {
                let name = response["file"].as_str().or_else(|| response["source"].as_str());
                say!("reloaded {}", name.unwrap_or_default());
                let notes = response["notes"].as_array().into_iter().flatten();
                notes.filter_map(|n| n.as_str()).for_each(|note| say!("{note}"));
                Ok(())
            }
            StatusCode::UNPROCESSABLE_ENTITY => {
                let count = print_rejected(&response);
                complain!("{}; the configuration in use stays", counted(count, "error"));
                Err(2)
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                Err(print_error(response["error"].as_str().unwrap_or("the gateway cannot reload now")))
            }
            other => Err(print_error(format!("the gateway responded with {other}"))),
        }
    }

    /// Returns an error if the gateway runs another file than this one, or none.
    fn check_file(&self, gateway: &RunningGateway) -> Result<(), CommandFailed> {
        let address = &gateway.address;
        match self.operator.same_file(gateway)? {
            (SameFile::No, file) => Err(print_error(format!(
                "the gateway at {address} runs another file: reload that with -c {}, or whichever it runs with \
                 --any-file; nothing was reloaded",
                file.display()
            ))),
            (SameFile::NoFile, _) => Err(print_error(format!(
                "the gateway at {address} runs no file, but a configuration that is part of its command: \
                 `portcullis demo --write FILE` and `portcullis run -c FILE` serve a file; nothing was reloaded"
            ))),
            (SameFile::Yes | SameFile::Unknown, _) => Ok(()),
        }
    }
}
