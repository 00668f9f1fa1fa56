//! The thread that writes quotas: whatever has been asked for meanwhile is one durable step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::counts::QuotaCounts;
use super::file::{GrantRequest, Granted, QuotaFile};
use crate::live::Maintained;
use crate::rules::limits::CalendarWindow;
use crate::telemetry::metrics::KeySetState;

/// The most requests that wait for the thread; each is of another key.
const MAX_ASKING: usize = 16_384;

/// The most requests in one step.
const MAX_BATCH: usize = 1_024;

/// How long nothing is tried after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How often windows that are over are removed.
const CLEAR_INTERVAL: Duration = Duration::from_secs(3_600);

/// A request of counts for a block.
#[derive(Debug)]
pub struct BlockRequest {
    /// The counts.
    pub counts: Arc<QuotaCounts>,
    /// The key.
    pub key: Box<[u8]>,
    /// The window.
    pub window: CalendarWindow,
    /// The quota.
    pub limit: u64,
    /// What is needed at least.
    pub needed: u64,
}

/// A message to the thread.
#[derive(Debug)]
enum Order {
    Open(oneshot::Sender<()>),
    Grant(BlockRequest),
    TakeBack(Vec<(Vec<u8>, u64)>),
    /// Resolves once all before it is done.
    Done(oneshot::Sender<()>),
}

/// The store of quotas in one folder. Its thread begins with the first configuration that has it.
#[derive(Debug)]
pub struct QuotaStore {
    folder: PathBuf,
    orders: SyncSender<Order>,
    /// The thread's end, until it has started.
    received: Mutex<Option<Receiver<Order>>>,
}

impl QuotaStore {
    /// Returns the store in a folder, which is not touched before the store is in use.
    pub fn new(folder: &Path) -> Arc<Self> {
        let (orders, received) = sync_channel(MAX_ASKING);
        Arc::new(Self { folder: folder.to_owned(), orders, received: Mutex::new(Some(received)) })
    }

    /// Asks for a block. Returns false if as many requests wait as may, or the thread could not be started.
    pub fn ask(&self, request: BlockRequest) -> bool {
        self.start();
        self.orders.try_send(Order::Grant(request)).is_ok()
    }

    /// Gives back what was granted and not counted; where it cannot be, it is lost to its consumer.
    pub fn give_back(&self, unused: Vec<(Vec<u8>, u64)>) {
        if !unused.is_empty() {
            let _ = self.orders.try_send(Order::TakeBack(unused));
        }
    }

    /// Waits until all that was asked for so far is done.
    pub async fn flush(&self) {
        let (sender, done) = oneshot::channel();
        if self.received.lock().is_none() && self.orders.try_send(Order::Done(sender)).is_ok() {
            let _ = done.await;
        }
    }

    fn start(&self) {
        let Some(received) = self.received.lock().take() else { return };
        let mut writer = Writer { folder: self.folder.clone(), file: None, failed: None, cleared: None };
        let started = std::thread::Builder::new().name("quotas".to_owned()).spawn(move || writer.run(&received));
        if let Err(error) = started {
            log::error!("quotas cannot be counted, no thread can be started: {error}");
        }
    }
}

impl Maintained for QuotaStore {
    fn kind(&self) -> &'static str {
        "quota_store"
    }

    fn maintain(self: Arc<Self>) -> BoxFuture<'static, ()> {
        self.start();
        let (sender, opened) = oneshot::channel();
        let is_asked = self.orders.try_send(Order::Open(sender)).is_ok();
        Box::pin(async move {
            if is_asked {
                let _ = opened.await;
            }
        })
    }

    fn view(&self) -> serde_json::Value {
        serde_json::json!({"folder": self.folder.display().to_string()})
    }

    fn key_set(&self) -> Option<KeySetState> {
        None
    }

    fn name_for_operators(&self, _label: &dyn Fn(&str) -> String) {}
}

/// The thread.
struct Writer {
    folder: PathBuf,
    file: Option<QuotaFile>,
    /// When the last failure was.
    failed: Option<Instant>,
    /// When windows that are over were last removed.
    cleared: Option<Instant>,
}

impl Writer {
    fn run(&mut self, received: &Receiver<Order>) {
        loop {
            let first = match received.recv_timeout(CLEAR_INTERVAL) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let batch = first.into_iter().chain(received.try_iter().take(MAX_BATCH - 1));
            let (mut asked, mut unused, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
            for order in batch {
                match order {
                    Order::Open(sender) => {
                        self.opened();
                        waiting.push(sender);
                    }
                    Order::Grant(request) => asked.push(request),
                    Order::TakeBack(list) => unused.extend(list),
                    Order::Done(sender) => waiting.push(sender),
                }
            }
            if !unused.is_empty() {
                let taken = self.try_with(|file| file.take_back(&unused));
                if taken.is_none() {
                    log::warn!("blocks of {} quotas could not be given back", unused.len());
                }
            }
            self.grant(asked);
            waiting.into_iter().for_each(|sender| _ = sender.send(()));
            self.clear();
        }
    }

    fn grant(&mut self, asked: Vec<BlockRequest>) {
        if asked.is_empty() {
            return;
        }
        let place = |asked: &BlockRequest| asked.counts.place(asked.window, &asked.key);
        let request =
            |asked: &BlockRequest| GrantRequest { place: place(asked), limit: asked.limit, needed: asked.needed };
        let requests: Vec<GrantRequest> = asked.iter().map(request).collect();
        let granted = self.try_with(|file| file.grant(&requests));
        let mut granted = granted.into_iter().flatten();
        for asked in asked {
            let granted: Option<Granted> = granted.next();
            asked.counts.receive(&asked.key, asked.window, granted);
        }
    }

    fn clear(&mut self) {
        if self.file.is_some() && self.cleared.is_none_or(|at| at.elapsed() >= CLEAR_INTERVAL) {
            self.cleared = Some(Instant::now());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let _ = self.try_with(|file| file.clear(i64::try_from(now).unwrap_or(i64::MAX)));
        }
    }

    /// Returns the file, which is opened if it is not. After a failure nothing is tried for a while.
    fn opened(&mut self) -> Option<&QuotaFile> {
        if self.file.is_none() && self.failed.is_none_or(|at| at.elapsed() >= RETRY_INTERVAL) {
            match QuotaFile::open(&self.folder) {
                Ok(file) => {
                    if self.failed.take().is_some() {
                        log::info!("quotas are counted again");
                    }
                    self.file = Some(file);
                }
                Err(error) => self.note_failure(&error),
            }
        }
        self.file.as_ref()
    }

    /// Does a step in the file. After a failure it is closed: it has to be opened again to know what is in it.
    fn try_with<T>(&mut self, step: impl FnOnce(&QuotaFile) -> Result<T, Box<redb::Error>>) -> Option<T> {
        match step(self.opened()?) {
            Ok(done) => Some(done),
            Err(error) => {
                self.file = None;
                self.note_failure(&error.to_string());
                None
            }
        }
    }

    fn note_failure(&mut self, error: &str) {
        // One line for a failure that goes on.
        if self.failed.is_none() {
            log::error!("quotas cannot be counted, the store in {} failed: {error}", self.folder.display());
        }
        self.failed = Some(Instant::now());
    }
}
