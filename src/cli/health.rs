//! `health`: tests whether a gateway is ready.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::Method;

use super::operator::{CommandFailed, Operator, address, print_error};
use super::running_gateway::RunningGateway;
use crate::notation::AdminAddress;
use crate::telemetry::say;

/// Test whether a gateway is ready: exit code 0 if it accepts requests, 1 if not
#[derive(Debug, Args)]
#[command(after_help = "Requests /readyz from the admin listener. With --admin no configuration is read.")]
pub struct Health {
    /// The configuration, which has the address of the gateway's admin listener [default: $PORTCULLIS_CONFIG, else
    /// /etc/portcullis/portcullis.yaml]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The admin listener, if it is not at the address in the configuration
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    admin: Option<AdminAddress>,
    /// The time-out in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Health {
    /// Tests the gateway.
    pub fn execute(self) -> u8 {
        self.test().err().unwrap_or(0)
    }

    fn test(&self) -> Result<(), CommandFailed> {
        let (config, admin, token_file) = (self.config.clone(), self.admin.clone(), None);
        let operator = Operator { config, admin, token_file };
        // The readiness needs no token.
        let gateway = RunningGateway {
            address: operator.address(operator.load()?.as_ref()),
            token: None,
            timeout: Duration::from_secs(self.timeout),
        };
        let (_, state) = gateway.call(Method::GET, "/readyz", Vec::new())?;
        match state["ready"].as_bool() {
            Some(true) => {
                say!("ready");
                Ok(())
            }
            Some(false) => Err(print_error(format!("{}: not ready", gateway.address))),
            None => Err(print_error(format!("{}: this is not the admin listener of a gateway", gateway.address))),
        }
    }
}
