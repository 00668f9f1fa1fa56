//! The access log: lines are buffered in memory and written by a thread of its own.
//!
//! A worker appends to a buffer under a short lock and wakes no thread: the writer polls twenty times a second. When
//! the disk is too slow, lines are dropped and counted; no request waits.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::cells::{PerWorker, per_worker, slot};
use super::metrics::METRICS;
use super::{LogLayout, Record, SessionRecord};

/// The maximum size of one worker's buffer in bytes.
const MAX_BUFFER: usize = 2 << 20;

/// The destination of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The end of a file.
    File(PathBuf),
    /// No destination; lines are not even formatted.
    Off,
}

#[derive(Debug)]
struct LogBuffers {
    /// One buffer for each worker.
    buffers: Box<[PerWorker<Mutex<Vec<u8>>>]>,
    stop: AtomicBool,
    /// Whether the file is to be opened again.
    reopen: AtomicBool,
}

/// The log of one snapshot, written out and closed with the last reference.
#[derive(Debug)]
pub struct AccessLogger {
    sink: Sink,
    shared: Arc<LogBuffers>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl AccessLogger {
    /// Opens the log.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub fn open(sink: Sink) -> std::io::Result<Self> {
        let (stop, reopen) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(LogBuffers { buffers: per_worker(Mutex::default), stop, reopen });
        let out: Option<Box<dyn Write + Send>> = match &sink {
            Sink::Stdout => Some(Box::new(std::io::stdout())),
            Sink::Stderr => Some(Box::new(std::io::stderr())),
            Sink::File(path) => Some(open_file(path)?),
            Sink::Off => None,
        };
        let writer = match out {
            Some(out) => {
                let (shared, sink) = (Arc::clone(&shared), sink.clone());
                let thread = std::thread::Builder::new().name("access-log".to_owned());
                Some(thread.spawn(move || write_buffers(&shared, &sink, out))?)
            }
            None => None,
        };
        Ok(Self { sink, shared, writer: Mutex::new(writer) })
    }

    /// Returns whether a configuration with that destination can keep this log. A file is reopened, so that it can be
    /// rotated.
    pub fn serves(&self, sink: &Sink) -> bool {
        self.sink == *sink && !matches!(sink, Sink::File(_))
    }

    /// Opens the file again, so that it can be rotated without a reload. Returns whether the log is a file.
    pub fn reopen(&self) -> bool {
        self.shared.reopen.store(true, Ordering::Release);
        matches!(self.sink, Sink::File(_))
    }

    /// Returns whether nothing is logged.
    pub fn is_off(&self) -> bool {
        self.sink == Sink::Off
    }

    /// Logs a request, if the layout takes it.
    pub fn push(&self, record: &Record<'_>, layout: &LogLayout) {
        if !layout.takes(record) {
            return;
        }
        self.append(|buffer| layout.write(record, buffer));
    }

    /// Logs a session at layer 4, if the layout takes it.
    pub fn push_session(&self, record: &SessionRecord<'_>, layout: &LogLayout) {
        if record.is_logged(layout) {
            self.append(|buffer| record.write(layout, buffer));
        }
    }

    fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.shared.buffers[slot()].0.lock();
        if buffer.len() >= MAX_BUFFER {
            return METRICS.log_dropped.inc();
        }
        write(&mut buffer);
    }
}

impl AccessLogger {
    /// Writes out the buffered lines and ends the log, at the end of the process. It waits no longer than `patience`
    /// for the reader of the lines: a full pipe may stay full.
    pub async fn close(&self, patience: Duration) {
        self.shared.stop.store(true, Ordering::Release);
        let writer = self.writer.lock().take();
        let written = async {
            while writer.as_ref().is_some_and(|writer| !writer.is_finished()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(patience, written).await.is_err() {
            log::error!("the last lines of the access log could not be written within {patience:?}: they are lost");
        }
    }
}

impl Drop for AccessLogger {
    fn drop(&mut self) {
        // The writer ends by itself when everything is written: a worker that drops the last reference does not wait
        // for it.
        self.shared.stop.store(true, Ordering::Release);
    }
}

fn open_file(path: &Path) -> std::io::Result<Box<dyn Write + Send>> {
    Ok(Box::new(OpenOptions::new().append(true).create(true).open(path)?))
}

fn write_buffers(shared: &LogBuffers, sink: &Sink, mut out: Box<dyn Write + Send>) {
    let mut taken = Vec::new();
    let mut failing = false;
    loop {
        if let (Sink::File(path), true) = (sink, shared.reopen.swap(false, Ordering::AcqRel)) {
            match open_file(path) {
                Ok(file) => out = file,
                Err(error) => log::error!("the access log cannot be opened again, the present file stays: {error}"),
            }
        }
        // Read before the buffers: what was pushed before the stop is written.
        let stop = shared.stop.load(Ordering::Acquire);
        for buffer in &shared.buffers {
            std::mem::swap(&mut *buffer.0.lock(), &mut taken);
            if !taken.is_empty() {
                let result = out.write_all(&taken).and_then(|()| out.flush());
                if let (Err(error), false) = (&result, failing) {
                    log::error!("the access log cannot be written: {error}");
                }
                if result.is_err() {
                    METRICS.log_dropped.inc_by(taken.iter().filter(|b| **b == b'\n').count() as u64);
                }
                failing = result.is_err();
                taken.clear();
            }
        }
        if stop {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "the writer's own thread")]
        std::thread::sleep(Duration::from_millis(50));
    }
}
