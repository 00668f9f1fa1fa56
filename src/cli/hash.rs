//! `hash`: prints the hash of a password, for a consumer's `basic` credential.

use std::io::{BufRead, IsTerminal};

use aws_lc_rs::rand;
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::rules::identity::PasswordHash;
use crate::telemetry::{complain, say};

/// Print the hash of a password, which is read from standard input (argon2id, for `credentials: [{basic: …}]`)
#[derive(Debug, Args)]
#[command(after_help = "Example: printf %s \"$PASSWORD\" | portcullis hash")]
pub struct Hash {}

impl Hash {
    /// Prints the hash.
    pub fn execute(self) -> u8 {
        let made = password().and_then(|password| {
            let mut salt = [0; 16];
            rand::fill(&mut salt).map_err(|_| "the system has no random numbers".to_owned())?;
            PasswordHash::make(password.as_bytes(), &salt).map_err(str::to_owned)
        });
        match made {
            Ok(hash) => {
                say!("{hash}");
                0
            }
            Err(why) => {
                complain!("portcullis: {why}");
                1
            }
        }
    }
}

/// Reads the first line of standard input; a terminal does not echo it.
fn password() -> Result<String, String> {
    let input = std::io::stdin();
    let shown = if input.is_terminal() { tcgetattr(&input).ok() } else { None };
    if let Some(shown) = &shown {
        complain!("Password:");
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        let _ = tcsetattr(&input, SetArg::TCSANOW, &hidden);
    }
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    if let Some(shown) = &shown {
        let _ = tcsetattr(&input, SetArg::TCSANOW, shown);
    }
    read.map_err(|error| format!("the password cannot be read: {error}"))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.contains(char::is_control) {
        return Err("expected a password without control characters in the first line of standard input".to_owned());
    }
    Ok(password.to_owned())
}
