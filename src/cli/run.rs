//! `run`: serves a configuration.

use std::path::PathBuf;

use clap::Args;

use crate::process::{self, ConfigSource, Options};

/// Serve a configuration until a signal ends it
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Take the listeners over from the running process (needs process.upgrade_socket)
    #[arg(long)]
    pub upgrade: bool,
}

impl Run {
    /// Runs to the end.
    pub fn execute(self) -> u8 {
        process::run(Options { source: ConfigSource::File(self.config), upgrade: self.upgrade })
    }
}
