//! `upgrade`: replaces a running gateway with a new binary.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::Args;

use super::operator::{CommandFailed, print_error, print_mistakes};
use crate::compile::compile;
use crate::config::load;
use crate::live::Live;
use crate::notation::{Mistakes, Place};
use crate::process::{Message, receive, send};
use crate::telemetry::{complain, say};

/// Replace a running gateway with the binary that is now at its path, losing nothing
#[derive(Debug, Args)]
#[command(after_help = "The running gateway starts the successor with its own arguments, hands it the listeners and \
        the state, and ends with its \
last request. If the successor fails, the running gateway goes on; the exit code is 1. Needs \
process.upgrade_socket. SIGUSR2 does the same.")]
pub struct Upgrade {
    /// The configuration [default: $PORTCULLIS_CONFIG, else /etc/portcullis/portcullis.yaml]
    #[arg(long, short, value_name = "FILE", default_value_os_t = super::default_file(), hide_default_value = true)]
    pub config: PathBuf,
    /// Let the successor find errors: it has the running gateway's environment, not this one's
    #[arg(long)]
    pub no_check: bool,
}

/// Returns a hint on why the gateway is not reachable.
fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "only the gateway's user and root may connect",
        _ => {
            "does a gateway run that was started with this process.upgrade_socket? If it does, and its socket \
            was removed, send it SIGUSR2"
        }
    }
}

impl Upgrade {
    /// Upgrades the running gateway.
    pub fn execute(self) -> u8 {
        self.upgrade().err().unwrap_or(0)
    }

    fn upgrade(&self) -> Result<(), CommandFailed> {
        crate::tls::install_provider();
        let loaded = load(&self.config).map_err(print_mistakes)?;
        // With this binary, which is the new one: the successor will read the same.
        match if self.no_check { Ok(()) } else { compile(&loaded, &Live::default()).map(drop) } {
            Err(mistakes) if loaded.are_unresolved(&mistakes) => {
                complain!("{mistakes}");
                complain!("the successor resolves these references, with the environment of the running gateway");
            }
            checked => checked.map_err(print_mistakes)?,
        }
        let path = loaded.config.process.upgrade_socket.as_ref().map(|path| loaded.base.join(path));
        if path.is_none() && loaded.is_left_out("process", "upgrade_socket") {
            return Err(print_mistakes(loaded.locate(loaded.mistakes.clone())));
        }
        let Some(path) = path else {
            let mut mistakes = Mistakes::default();
            mistakes
                .add(&Place::default().key("process"), "an upgrade_socket is missing: the gateway cannot be reached");
            return Err(print_mistakes(loaded.locate(mistakes)));
        };
        let stream = UnixStream::connect(&path)
            .map_err(|error| print_error(format!("{}: {error}; {}", path.display(), hint(&error))))?;
        let broken = |error: std::io::Error| {
            print_error(format!("{}: the running gateway closed the connection: {error}", path.display()))
        };
        send(&stream, &Message::Upgrade, None).map_err(broken)?;
        loop {
            match receive(&stream).map_err(broken)?.0 {
                Message::Progress { text } => say!("{text}"),
                Message::Done { fine: true, text } => {
                    say!("upgraded: {text}");
                    return Ok(());
                }
                Message::Done { text, .. } => return Err(print_error(format!("not upgraded, {text}"))),
                _ => return Err(print_error("the running gateway sent an unexpected message")),
            }
        }
    }
}
