//! `version`: prints what this binary was built from.

use clap::Args;

use crate::telemetry::say;

/// The version and the commit, on one line.
pub const SHORT: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("PORTCULLIS_COMMIT"), ")");

/// The version, the commit, and how the binary was built.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("PORTCULLIS_COMMIT"),
    ")\nfeatures: ",
    env!("PORTCULLIS_FEATURES"),
    "\nbuild: ",
    env!("PORTCULLIS_PROFILE"),
    " for ",
    env!("PORTCULLIS_TARGET"),
    ", ",
    env!("PORTCULLIS_COMPILER"),
);

/// Print the version, the commit, and how this binary was built
#[derive(Debug, Args)]
pub struct Version {}

impl Version {
    /// Prints the version.
    pub fn execute(self) -> u8 {
        say!("portcullis {LONG}");
        0
    }
}
