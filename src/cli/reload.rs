//! `reload`: makes a running gateway read its configuration again.

use clap::Args;
use http::StatusCode;

use super::operator::{CommandFailed, Operator, counted, print_error};
use crate::telemetry::{complain, say};

/// Make a running gateway read its configuration again
#[derive(Debug, Args)]
#[command(after_help = "If the configuration has errors, the gateway keeps the present one; the errors are printed \
        here, and the \
                  exit code is 2. It is 1 when the gateway is not reachable, or cannot reload now.")]
pub struct Reload {
    /// The gateway
    #[command(flatten)]
    pub operator: Operator,
}

impl Reload {
    /// Reloads the running gateway.
    pub fn execute(self) -> u8 {
        self.reload().err().unwrap_or(0)
    }

    fn reload(&self) -> Result<(), CommandFailed> {
        let loaded = self.operator.load()?;
        let (status, response) = self.operator.post(&loaded, "/reload", Vec::new())?;
        match status {
            StatusCode::OK => {
                let file = response["file"].as_str().unwrap_or_default();
                say!("reloaded {file}");
                self.operator.warn_other_file(file);
                response["notes"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|n| n.as_str())
                    .for_each(|note| say!("{note}"));
                Ok(())
            }
            StatusCode::UNPROCESSABLE_ENTITY => {
                let mistakes = response["mistakes"].as_array().map_or(&[][..], Vec::as_slice);
                mistakes.iter().filter_map(|m| m.as_str()).for_each(|mistake| complain!("{mistake}"));
                let count = response["count"].as_u64().map_or(mistakes.len(), |count| count as usize);
                complain!("{}; the configuration in use stays", counted(count, "error"));
                Err(2)
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                Err(print_error(response["error"].as_str().unwrap_or("the gateway cannot reload now")))
            }
            other => Err(print_error(format!("the gateway responded with {other}"))),
        }
    }
}
