//! `init`: writes a configuration to start with.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::operator::{CommandFailed, print_error};
use crate::telemetry::say;

/// The configuration that is written; the Debian package installs it too.
const STARTER: &str = include_str!("../../conf/package/starter.yaml");

/// Write a commented configuration to start with; a file that exists is never overwritten
#[derive(Debug, Args)]
pub struct Init {
    /// The file to write
    #[arg(value_name = "FILE", default_value = "portcullis.yaml")]
    pub file: PathBuf,
}

impl Init {
    /// Writes the file.
    pub fn execute(self) -> u8 {
        if let Err(code) = write_new(&self.file, STARTER) {
            return code;
        }
        let file = self.file.display();
        say!("{file} is written. Edit it, then:\n  portcullis check -c {file}\n  portcullis run -c {file}");
        0
    }
}

/// Writes a file that must not exist yet.
///
/// # Errors
/// 1 when it exists or cannot be written; the error has been printed.
pub fn write_new(file: &Path, text: &str) -> Result<(), CommandFailed> {
    let written = std::fs::File::create_new(file).and_then(|mut created| created.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            print_error(format!("{}: the file exists and is not overwritten; name another one", file.display()))
        }
        _ => print_error(format!("{}: {error}", file.display())),
    })
}
