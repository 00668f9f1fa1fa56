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
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Arguments::command(), "portcullis", &mut script);
        // Whoever reads only the beginning has what they wanted.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
        0
    }
}
