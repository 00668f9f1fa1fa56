//! `show`: prints what the admin listener of a running gateway shows.

use std::io::{IsTerminal, Write};

use clap::{Args, ValueEnum};
use http::{Method, StatusCode};

use super::operator::{CommandFailed, Operator, print_error};

/// Print what a running gateway shows: its routes, targets, configuration, metrics
#[derive(Debug, Args)]
#[command(after_help = "Example: portcullis show upstreams --admin unix:/run/portcullis/admin.sock")]
pub struct Show {
    /// What to print
    pub what: Topic,
    /// The gateway
    #[command(flatten)]
    pub operator: Operator,
    /// Print JSON on several lines [default: on a terminal]
    #[arg(long)]
    pub pretty: bool,
}

/// What a running gateway shows.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Topic {
    /// Version, process id, configuration file, listeners
    Process,
    /// Whether requests are accepted, and the last reload
    Ready,
    /// The routes with their filters and actions
    Routes,
    /// The upstreams with the state of each target
    Upstreams,
    /// The key sets for tokens
    KeySets,
    /// The caches: entries, bytes, look-ups, evictions
    Caches,
    /// The configuration that serves, without secrets
    Config,
    /// The reasons with which a request ends
    Reasons,
    /// The metrics
    Metrics,
}

impl Topic {
    fn path(self) -> &'static str {
        match self {
            Self::Process => "/process",
            Self::Ready => "/readyz",
            Self::Routes => "/routes",
            Self::Upstreams => "/upstreams",
            Self::KeySets => "/key_sets",
            Self::Caches => "/caches",
            Self::Config => "/config",
            Self::Reasons => "/reasons",
            Self::Metrics => "/metrics",
        }
    }
}

impl Show {
    /// Prints it. The exit code is 1 if the gateway is not ready, for `ready`.
    pub fn execute(self) -> u8 {
        self.show().err().unwrap_or(0)
    }

    fn show(&self) -> Result<(), CommandFailed> {
        let gateway = self.operator.load().and_then(|loaded| self.operator.gateway(loaded.as_ref()))?;
        let mut out = std::io::stdout();
        let query = if self.pretty || out.is_terminal() { "?pretty" } else { "" };
        let path = format!("{}{query}", self.what.path());
        let (status, body) = gateway.request(Method::GET, &path, Vec::new())?;
        if !matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) {
            return Err(print_error(format!("{}: the gateway responded with {status}", gateway.address)));
        }
        // A closed output is no error.
        let _ = out.write_all(&body).and_then(|()| out.flush());
        if status == StatusCode::OK { Ok(()) } else { Err(1) }
    }
}
