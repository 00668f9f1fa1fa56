//! `reload`: a running gateway reads its configuration again.

use clap::Args;
use http::StatusCode;

use super::operator::{Failed, Operator, counted, fail};
use crate::telemetry::{complain, say};

/// Let a running gateway read its configuration again
#[derive(Debug, Args)]
#[command(after_help = "With any mistake the gateway keeps what it has; the mistakes are told here, and the exit code is 2. \
                  It is 1 when the gateway cannot be asked, or reloads nothing now.")]
pub struct Reload {
    /// The gateway
    #[command(flatten)]
    pub operator: Operator,
}

impl Reload {
    /// Reloads.
    pub fn execute(self) -> u8 {
        self.reload().err().unwrap_or(0)
    }

    fn reload(&self) -> Result<(), Failed> {
        let loaded = self.operator.load()?;
        let (status, answer) = self.operator.post(&loaded, "/reload", Vec::new())?;
        match status {
            StatusCode::OK => {
                let file = answer["file"].as_str().unwrap_or_default();
                say!("reloaded {file}");
                self.operator.tell_other_file(file);
                answer["notes"].as_array().into_iter().flatten().filter_map(|n| n.as_str()).for_each(|note| say!("{note}"));
                Ok(())
            }
            StatusCode::UNPROCESSABLE_ENTITY => {
                let mistakes = answer["mistakes"].as_array().map_or(&[][..], Vec::as_slice);
                mistakes.iter().filter_map(|m| m.as_str()).for_each(|mistake| complain!("{mistake}"));
                let count = answer["count"].as_u64().map_or(mistakes.len(), |count| count as usize);
                complain!("{}; the configuration in use stays", counted(count, "mistake"));
                Err(2)
            }
            StatusCode::SERVICE_UNAVAILABLE => Err(fail(answer["error"].as_str().unwrap_or("the gateway reloads nothing now"))),
            other => Err(fail(format!("the gateway answered {other}"))),
        }
    }
}
