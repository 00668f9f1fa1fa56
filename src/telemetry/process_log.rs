//! The process's own log: its level and its format.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use log::{Level, LevelFilter};

use super::rfc3339;
use super::words::{log_target, write_after_log};

/// The settings of the process's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessLog {
    /// Whether a line is a JSON object, and not a text for people.
    pub json: bool,
    /// The least important lines that are written.
    pub level: LevelFilter,
}

/// Whether lines are JSON objects.
static JSON: AtomicBool = AtomicBool::new(false);

/// Whether the command line or `RUST_LOG` sets the level, so that the configuration does not.
static HAS_LEVEL: AtomicBool = AtomicBool::new(false);

/// Sends the process's own log to standard error; `quiet` is for warnings and errors alone.
pub fn init_log(quiet: bool) {
    let chosen = std::env::var("RUST_LOG").ok();
    HAS_LEVEL.store(quiet || chosen.is_some(), Ordering::Relaxed);
    // Pingora reports the errors of single connections; they are counted, and not worth a line each.
    let filters = "info,portcullis=trace,pingora=off,pingora_core=off,pingora_proxy=off,pingora_load_balancing=off,\
                   pingora_cache=off";
    let mut builder = env_logger::Builder::new();
    builder.target(log_target());
    builder.parse_filters(chosen.as_deref().unwrap_or(filters));
    builder.format(|out, record| {
        let line = line(record.level(), &record.args().to_string(), JSON.load(Ordering::Relaxed));
        out.write_all(line.as_bytes())
    });
    // A test may have set one before.
    if builder.try_init().is_ok() && chosen.is_none() {
        log::set_max_level(if quiet { LevelFilter::Warn } else { LevelFilter::Info });
    }
}

/// Applies the settings of a configuration.
pub fn apply_log_settings(settings: ProcessLog) {
    JSON.store(settings.json, Ordering::Relaxed);
    if !HAS_LEVEL.load(Ordering::Relaxed) {
        log::set_max_level(settings.level);
    }
}

/// Writes why a process ends, after what it has logged.
pub fn write_final_error(text: &str) {
    write_after_log(if JSON.load(Ordering::Relaxed) { line(Level::Error, text, true) } else { format!("{text}\n") });
}

fn line(level: Level, message: &str, json: bool) -> String {
    let time = rfc3339(SystemTime::now());
    if json {
        let level = level.as_str().to_ascii_lowercase();
        format!("{}\n", serde_json::json!({"time": time, "level": level, "message": message}))
    } else {
        format!("{time} {level:<5} {message}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_is_one_line() {
        let json = line(Level::Warn, "two\nlines with \"quotes\"", true);
        assert_eq!(json.lines().count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&parsed["level"], &parsed["message"]), (&"warn".into(), &"two\nlines with \"quotes\"".into()));
        assert!(line(Level::Info, "text", false).ends_with("Z INFO  text\n"));
    }
}
