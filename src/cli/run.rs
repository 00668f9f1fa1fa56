//! `run`: serves a configuration.

use std::path::PathBuf;

use clap::Args;

use crate::process::{self, ConfigSource, Options};
use crate::telemetry::complain;

/// Serve a configuration until a signal ends it
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration [default: $PORTCULLIS_CONFIG, else /etc/portcullis/portcullis.yaml]
    #[arg(long, short, value_name = "FILE", default_value_os_t = super::default_file(), hide_default_value = true)]
    pub config: PathBuf,
    /// Take the listeners over from the running process (needs process.upgrade_socket)
    #[arg(long)]
    pub upgrade: bool,
}

impl Run {
    /// Runs to the end.
    pub fn execute(self) -> u8 {
        if self.config.as_os_str() == "-" {
            complain!("portcullis: a reload reads the file again: standard input is for check, explain and diff");
            return 2;
        }
        process::run(Options { source: ConfigSource::File(self.config), upgrade: self.upgrade })
    }
}
