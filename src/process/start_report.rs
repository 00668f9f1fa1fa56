//! What the log says about a start: what runs, and which targets are down.

use super::ConfigSource;
use super::reload::{log_warnings, start_background_tasks};
use crate::snapshot::Snapshot;
use crate::telemetry::apply_log_settings;

/// The most targets that are named.
const MAX_NAMED_TARGETS: usize = 50;

/// Logs the version, the process id and the file, and the warnings about it, as it says itself.
pub fn log_start(source: &ConfigSource, snapshot: &Snapshot) {
    apply_log_settings(snapshot.process_log);
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("PORTCULLIS_COMMIT"));
    let (pid, file) = (std::process::id(), source.name());
    log::info!("portcullis {version} (commit {commit}) starts as process {pid} with {file}");
    log_warnings(snapshot);
}

/// Starts the background tasks and waits for their first round. Logs which targets do not pass their health checks at
/// the start, and which upstreams have no target.
pub async fn run_first_round(snapshot: &Snapshot) {
    start_background_tasks(snapshot).await;
    let lines = down_targets(snapshot);
    lines.iter().take(MAX_NAMED_TARGETS).for_each(|line| log::warn!("{line}"));
    if lines.len() > MAX_NAMED_TARGETS {
        log::warn!("{} further targets are down from the start", lines.len() - MAX_NAMED_TARGETS);
    }
}

fn down_targets(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for upstream in &snapshot.upstreams {
        let (name, targets) = (&upstream.name, upstream.pool.targets());
        if targets.is_empty() {
            lines.push(format!("upstream {name}: no target is known from the start"));
        }
        for target in targets {
            let Some(health) = target.health.filter(|health| health.status == "unhealthy") else { continue };
            let host = target.host.map(|host| format!(" ({host})")).unwrap_or_default();
            let why = health.reason.unwrap_or_default();
            lines.push(format!("upstream {name}: target {}{host} is down from the start: {why}", target.address));
        }
    }
    lines
}
