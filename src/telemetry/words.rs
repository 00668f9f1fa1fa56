//! Output for people: the process's own log, and what a command prints. Logging never waits for the reader of the
//! output, and a closed output ends nothing.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::metrics::METRICS;

/// The maximum number of queued lines of the process's own log; further ones are dropped and counted.
const MAX_QUEUED_LINES: usize = 4_096;

/// The time for which the end of a process waits until its log is written.
const FINISH_LOG_TIMEOUT: Duration = Duration::from_millis(500);

/// Prints a line, as `println!` does, but a closed output is no error.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// Prints a line to standard error, as `eprintln!` does, but a closed output is no error.
macro_rules! complain {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

/// A message to the thread that writes to standard error.
enum LogMessage {
    Text(Vec<u8>),
    /// Everything before it is written: the sender is notified.
    Written(SyncSender<()>),
}

static LINES: OnceLock<SyncSender<LogMessage>> = OnceLock::new();

/// Passes lines to the thread that writes them, each as one write.
struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let sent = LINES.get().map(|lines| lines.try_send(LogMessage::Text(line.to_vec())));
        if let Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = sent {
            METRICS.log_dropped.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write_lines(lines: &Receiver<LogMessage>) {
    for line in lines {
        match line {
            LogMessage::Text(text) if std::io::stderr().write_all(&text).is_err() => METRICS.log_dropped.inc(),
            LogMessage::Text(_) => {}
            LogMessage::Written(heard) => _ = heard.send(()),
        }
    }
}

/// Returns the destination of the process's own log: standard error, written by a thread of its own.
pub fn log_target() -> env_logger::Target {
    let (sender, lines) = sync_channel(MAX_QUEUED_LINES);
    let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&lines));
    if writer.is_err() || LINES.set(sender).is_err() {
        return env_logger::Target::Stderr;
    }
    env_logger::Target::Pipe(Box::new(LogWriter))
}

/// Enqueues a line, and waits for a free place for a limited time.
fn enqueue(lines: &SyncSender<LogMessage>, mut line: LogMessage) {
    let begun = Instant::now();
    while let Err(TrySendError::Full(again)) = lines.try_send(line) {
        if begun.elapsed() >= FINISH_LOG_TIMEOUT {
            return METRICS.log_dropped.inc();
        }
        line = again;
        #[expect(clippy::disallowed_methods, reason = "the end of a process, which has nothing else to do")]
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits, for a limited time, until the log is written, before the process ends.
pub fn finish_log() {
    let Some(lines) = LINES.get() else { return };
    let (heard, written) = sync_channel(1);
    enqueue(lines, LogMessage::Written(heard));
    let _ = written.recv_timeout(FINISH_LOG_TIMEOUT);
}

/// Writes a line, with its newline, after what is logged already.
pub fn write_after_log(line: String) {
    match LINES.get() {
        Some(lines) => enqueue(lines, LogMessage::Text(line.into_bytes())),
        None => _ = std::io::stderr().write_all(line.as_bytes()),
    }
}

pub(crate) use {complain, say};
