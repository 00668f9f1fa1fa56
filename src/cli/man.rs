//! `man`: prints or writes the man pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::operator::print_error;

/// Print the man page, or write it and those of all subcommands into a folder
#[derive(Debug, Args)]
pub struct Man {
    /// The folder, such as /usr/share/man/man1
    #[arg(value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

impl Man {
    /// Prints or writes the pages.
    pub fn execute(self) -> u8 {
        let command = super::Arguments::command();
        let written = match &self.folder {
            Some(folder) => clap_mangen::generate_to(command, folder),
            None => clap_mangen::Man::new(command).render(&mut std::io::stdout()),
        };
        match (written, self.folder) {
            (Err(error), Some(folder)) => print_error(format!("{}: {error}", folder.display())),
            // A reader that closes the output early has read what it needs.
            _ => 0,
        }
    }
}
