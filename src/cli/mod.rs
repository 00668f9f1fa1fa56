//! The command line, a file per subcommand.

mod check;
mod completions;
mod demo;
mod diff;
mod explain;
mod hash;
mod health;
mod init;
mod man;
mod operator;
mod proxy;
mod purge;
mod reference;
mod reload;
mod run;
mod running_gateway;
mod schema;
mod show;
mod upgrade;
mod version;

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::{Loaded, load, load_text};
use crate::notation::{Mistakes, Place};

/// A load balancer and API gateway in one binary.
///
/// `portcullis proxy --from :8080 --to 127.0.0.1:9000` needs no file. `portcullis demo` runs sample targets and a
/// gateway in front of them, and prints calls to paste. `portcullis init` writes a configuration to start with.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version = version::SHORT, long_version = version::LONG)]
#[command(arg_required_else_help = true, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Arguments {
    /// Log warnings and errors only (RUST_LOG selects in more detail what is logged)
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 wrong configuration or command line.

Signals of a running gateway: HUP reloads, USR1 opens the access log again, USR2 upgrades, TERM and INT
drain and end, a second TERM ends at once.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a configuration
    Run(run::Run),
    /// Forward to some targets without a configuration file
    Proxy(proxy::Proxy),
    /// Write a configuration to start with
    Init(init::Init),
    /// Check a configuration and print every error in it
    Check(check::Check),
    /// Make a running gateway read its configuration again
    Reload(reload::Reload),
    /// Show how a configuration differs from the running one
    Diff(diff::Diff),
    /// Print what a running gateway shows: its routes, targets, configuration, metrics
    Show(show::Show),
    /// Remove stored responses from the caches of a running gateway
    Purge(purge::PurgeCommand),
    /// Replace a running gateway with the binary that is now at its path, losing nothing
    Upgrade(upgrade::Upgrade),
    /// Show which route a request takes, through which filters, and which was the runner-up
    Explain(explain::Explain),
    /// Test whether a gateway is ready, for health checks of containers and scripts
    Health(health::Health),
    /// Run a gateway with sample targets, to try it
    Demo(demo::Demo),
    /// Print the hash of a password for a consumer
    Hash(hash::Hash),
    /// Print the JSON Schema of a configuration, for editors
    Schema(schema::Schema),
    /// Print the reference page: metrics, fields of the access log, reasons, admin endpoints, commands
    #[command(hide = true)]
    Reference(reference::Reference),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the man page, or write all man pages into a folder
    Man(man::Man),
    /// Print the version, the commit, and how this binary was built
    Version(version::Version),
}

impl Arguments {
    /// Returns the arguments of the process. `-t` in place of a subcommand is `check`, as of nginx: `-t -c FILE`.
    pub fn of_process() -> Self {
        Self::parse_from(with_check(std::env::args_os().collect()))
    }
}

/// Replaces a `-t` that stands before any subcommand, or among options alone, by `check`.
fn with_check(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_option = arguments.get(1).is_some_and(|first| first.as_encoded_bytes().starts_with(b"-"));
    if let (true, Some(at)) = (is_option, arguments.iter().position(|argument| argument == "-t")) {
        arguments.remove(at);
        arguments.insert(1, "check".into());
    }
    arguments
}

/// The configuration that a package installs.
const INSTALLED: &str = "/etc/portcullis/portcullis.yaml";

/// Returns the configuration to use where none is given: that of the environment, or else the installed one.
fn default_file() -> PathBuf {
    std::env::var_os("PORTCULLIS_CONFIG")
        .filter(|path| !path.is_empty())
        .map_or_else(|| INSTALLED.into(), PathBuf::from)
}

/// Loads a configuration from a file, or from standard input if the file is `-`.
///
/// # Errors
/// As for [`load`], and when standard input cannot be read.
fn load_file(path: &Path) -> Result<Loaded, Mistakes> {
    if path != Path::new("-") {
        return load(path);
    }
    let mut text = String::new();
    match std::io::stdin().take(MAX_INPUT).read_to_string(&mut text) {
        Ok(_) => load_text(&text, "standard input", Path::new("")),
        Err(error) => {
            let mut mistakes = Mistakes::default();
            mistakes.add(&Place::default(), format!("standard input cannot be read: {error}"));
            Err(mistakes)
        }
    }
}

/// The most bytes of standard input that are read as a configuration.
const MAX_INPUT: u64 = 64 << 20;
