//! `check`: prints every error of a configuration, and what it would change.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::explain::filters;
use super::operator::{CommandFailed, Operator, address, counted, print_changes, print_mistakes};
use crate::compile::compile;
use crate::config::{Change, Inherited, Loaded};
use crate::live::Live;
use crate::notation::{AdminAddress, Mistake, Mistakes};
use crate::process::{NeededSocket, bind_listeners, overlap};
use crate::snapshot::Snapshot;
use crate::telemetry::{complain, say};

/// Check a configuration and print every error in it, each with file, line and column
#[derive(Debug, Args)]
#[command(after_help = "The file - is standard input. `portcullis -t` does the same.")]
pub struct Check {
    /// The configuration, as with --config
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// The configuration [default: $PORTCULLIS_CONFIG, else /etc/portcullis/portcullis.yaml]
    #[arg(long, short, value_name = "FILE", default_value_os_t = super::default_file(), hide_default_value = true)]
    pub config: PathBuf,
    /// How errors and warnings are printed: text, to standard error, or json, to standard output
    #[arg(long, value_name = "FORMAT", default_value = "text", conflicts_with_all = ["routes", "against_running"])]
    pub format: OutputFormat,
    /// Also list the routes, each with its filters in the order in which they run, and where those come from
    #[arg(long)]
    pub routes: bool,
    /// Also print what would change in the running gateway, and whether it could: a dry run of a reload
    #[arg(long)]
    pub against_running: bool,
    /// The running gateway's admin listener, if it is not at the address in the configuration
    #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "against_running")]
    pub admin: Option<AdminAddress>,
}

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Lines.
    Text,
    /// A JSON object.
    Json,
}

impl Check {
    /// Checks the configuration. Nothing is started, and without `--against-running` no connection is made.
    pub fn execute(mut self) -> u8 {
        if let Some(file) = self.file.take() {
            self.config = file;
        }
        self.check().err().unwrap_or(0)
    }

    fn check(self) -> Result<(), CommandFailed> {
        crate::tls::install_provider();
        let result =
            super::load_file(&self.config).and_then(|loaded| compile(&loaded, &Live::default()).map(|s| (loaded, s)));
        if self.format == OutputFormat::Json {
            say!("{:#}", report(&self.config, result.as_ref()));
            return result.map(drop).map_err(|_| 2);
        }
        let (loaded, snapshot) = result.map_err(print_mistakes)?;
        snapshot.warnings.iter().for_each(|warning| complain!("warning: {warning}"));
        let changes = if self.against_running { Some(self.dry_run(&loaded, &snapshot)?) } else { None };
        let streams = loaded.config.streams.len();
        say!(
            "{}: fine: {}, {}{}, {}, in {}",
            self.config.display(),
            counted(snapshot.listeners.len(), "listener"),
            counted(snapshot.routes.len(), "route"),
            if streams == 0 { String::new() } else { format!(", {}", counted(streams, "stream rule")) },
            counted(snapshot.upstreams.len(), "upstream"),
            counted(loaded.files().len(), "file")
        );
        if self.routes {
            list(&loaded, &snapshot);
        }
        changes.iter().for_each(|changes| print_changes(changes));
        Ok(())
    }

    /// Returns what would change. Fails if the change is not possible.
    fn dry_run(&self, loaded: &Loaded, snapshot: &Snapshot) -> Result<Vec<Change>, CommandFailed> {
        let operator = Operator { config: Some(self.config.clone()), admin: self.admin.clone(), token_file: None };
        let running = operator.compare(loaded)?;
        // Addresses that the running gateway leaves are free for the new configuration.
        let is_its_own = |wanted: SocketAddr| {
            let stays = |address| snapshot.listeners.iter().any(|l| l.address == address);
            running.listeners.iter().any(|&there| there == wanted || overlap(there, wanted) && !stays(there))
        };
        let new = snapshot.listeners.iter().enumerate().filter(|(_, listener)| !is_its_own(listener.address));
        let new = new.map(|(index, listener)| NeededSocket { index, listener, going: Vec::new() });
        bind_listeners(new.collect()).map_err(|mistakes| print_mistakes(loaded.locate(mistakes)))?;
        Ok(running.changes)
    }
}

/// Returns the result of a check as JSON: counts, and errors and warnings with file, line, column and place.
fn report(file: &Path, result: Result<&(Loaded, Snapshot), &Mistakes>) -> Value {
    let one = |mistake: &Mistake| {
        let (file, spot) = mistake.file_and_spot().unzip();
        let (line, column) = spot.flatten().unzip();
        let place = mistake.place.to_string();
        json!({"file": file, "line": line, "column": column, "place": place, "message": mistake.text})
    };
    let list = |all: &[Mistake]| all.iter().map(one).collect::<Vec<_>>();
    match result {
        Ok((loaded, snapshot)) => json!({
            "file": file,
            "valid": true,
            "errors": [],
            "warnings": list(&snapshot.warnings),
            "listeners": snapshot.listeners.len(),
            "routes": snapshot.routes.len(),
            "streams": loaded.config.streams.len(),
            "upstreams": snapshot.upstreams.len(),
            "files": loaded.files(),
        }),
        Err(mistakes) => json!({
            "file": file,
            "valid": false,
            "error_count": mistakes.count(),
            "errors": list(&mistakes.0),
            "warnings": [],
        }),
    }
}

/// Prints the routes with their filters; where those differ between listeners, for each of them.
fn list(loaded: &Loaded, snapshot: &Snapshot) {
    let inherited = Inherited::new(loaded, &mut Mistakes::default());
    for (index, route) in loaded.config.routes.iter().enumerate() {
        let name = loaded.redact(&route.name.0);
        let bound = snapshot
            .listeners
            .iter()
            .enumerate()
            .filter(|(_, l)| route.listeners.is_empty() || route.listeners.contains(&l.name));
        let lists: Vec<_> =
            bound.map(|(place, listener)| (listener, filters(loaded, snapshot, &inherited, index, place))).collect();
        let is_one = lists.windows(2).all(|pair| pair[0].1 == pair[1].1);
        for (listener, list) in lists.iter().take(if is_one { 1 } else { usize::MAX }) {
            let on =
                if is_one { String::new() } else { format!(", on the listener {}", loaded.redact(&listener.name)) };
            say!("route {name}{on}");
            list.iter().for_each(|filter| say!("  {filter}"));
        }
    }
}
