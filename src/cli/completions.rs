//! `completions`: prints a completion script for a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print a completion script: `portcullis completions bash > /etc/bash_completion.d/portcullis`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn execute(self) -> u8 {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Arguments::command(), "portcullis", &mut script);
        // A reader that closes the output early has read what it needs.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
        0
    }
}
