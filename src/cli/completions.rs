//! `completions`: for shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print a completion script: `portcullis completions bash > /etc/bash_completion.d/portcullis`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

impl Completions {
    /// Prints it.
    pub fn execute(self) -> u8 {
        clap_complete::generate(self.shell, &mut super::Arguments::command(), "portcullis", &mut std::io::stdout());
        0
    }
}
