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
mod reload;
mod run;
mod schema;
mod upgrade;
mod version;

use std::io::Write;

use clap::{Parser, Subcommand};

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
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the man page, or write all man pages into a folder
    Man(man::Man),
    /// Print the version, the commit, and how this binary was built
    Version(version::Version),
}

/// Sends the process's own log to standard error.
pub fn init_log(quiet: bool) {
    // Pingora reports the errors of single connections; they are counted, and not worth a line each.
    let default = if quiet { "warn" } else { "info" };
    let filters = format!(
        "{default},pingora=off,pingora_core=off,pingora_proxy=off,pingora_load_balancing=off,pingora_cache=off"
    );
    let mut builder = env_logger::Builder::new();
    builder.target(crate::telemetry::log_target());
    builder.parse_filters(&std::env::var("RUST_LOG").unwrap_or(filters));
    builder.format(|out, record| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now = chrono::DateTime::from_timestamp(since.as_secs() as i64, since.subsec_nanos()).unwrap_or_default();
        writeln!(out, "{} {:<5} {}", now.format("%Y-%m-%dT%H:%M:%S%.3fZ"), record.level(), record.args())
    });
    // A test may have set one before.
    let _ = builder.try_init();
}
