//! `check`: every mistake of a configuration.

use std::path::PathBuf;

use clap::Args;

use crate::compile::compile;
use crate::config::load;
use crate::live::Live;

/// Read a configuration and tell every mistake in it, each with file, line and column
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
}

impl Check {
    /// Checks; nothing is started or connected to.
    pub fn execute(self) -> u8 {
        crate::tls::install_provider();
        let result = load(&self.config).and_then(|loaded| compile(&loaded, &Live::default()).map(|s| (loaded, s)));
        match result {
            Ok((loaded, snapshot)) => {
                println!(
                    "{}: fine: {} listeners, {} routes, {} upstreams, in {} files",
                    self.config.display(),
                    snapshot.listeners.len(),
                    snapshot.routes.len(),
                    snapshot.upstreams.len(),
                    loaded.files().len()
                );
                0
            }
            Err(mistakes) => {
                eprintln!("{mistakes}");
                2
            }
        }
    }
}
