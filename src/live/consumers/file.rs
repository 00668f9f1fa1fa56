//! The file of consumers: it is read again when it changes, and changed by operators at run time.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::table::ConsumerTable;
use super::written::ConsumerConfig;
use crate::live::Maintained;
use crate::notation::{Mistakes, Place};
use crate::telemetry::metrics::KeySetState;
use crate::tls::read_file;

/// The largest file.
const MAX_FILE: u64 = 256 << 20;

/// How often the file is checked: a key that it no longer has is rejected after at most this time and that of a load.
const FILE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The most errors of a file that are reported.
const MAX_ERRORS: usize = 10;

/// The properties by which a change of the file is detected.
type Stamp = (SystemTime, (i64, i64), u64, u64);

/// A file of consumers.
#[derive(Debug)]
pub struct ConsumerFile {
    path: PathBuf,
    table: ArcSwap<ConsumerTable>,
    /// The number of times that it was loaded.
    generation: AtomicU64,
    state: Mutex<FileState>,
    /// Held while the file is read or changed.
    turn: Arc<Mutex<()>>,
    started: AtomicBool,
    label: Mutex<String>,
}

#[derive(Debug, Default)]
struct FileState {
    stamp: Option<Stamp>,
    error: Option<String>,
}

/// The reason why a change was not made.
#[derive(Debug)]
pub enum ChangeError {
    /// There is nothing of that name.
    NotFound(String),
    /// It is not possible as the consumers are now.
    Conflict(String),
    /// The new consumers would not be valid.
    Invalid(String),
    /// The file cannot be read or written.
    Failed(String),
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, (data.ctime(), data.ctime_nsec()), data.len(), data.ino()))
}

impl ConsumerFile {
    /// Returns the file at that path, not loaded yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            label: Mutex::new(path.display().to_string()),
            path,
            table: ArcSwap::default(),
            generation: AtomicU64::new(0),
            state: Mutex::default(),
            turn: Arc::default(),
            started: AtomicBool::new(false),
        }
    }

    /// Returns the consumers.
    pub fn table(&self) -> Guard<Arc<ConsumerTable>> {
        self.table.load()
    }

    /// Returns the number of times that the consumers have changed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Loads the file if it has changed.
    ///
    /// # Errors
    /// When it cannot be read or has errors; the earlier consumers stay.
    pub fn load(&self) -> Result<(), String> {
        let _turn = self.turn.lock();
        // Read before the file is: a change in between is detected the next time.
        let now = stamp(&self.path);
        if now.is_some() && self.state.lock().stamp == now {
            return self.state.lock().error.clone().map_or(Ok(()), Err);
        }
        let result = read_file(&self.path, MAX_FILE).and_then(|text| {
            // A large file is not made into a tree first; where it has errors the tree tells them.
            let table = if self.is_yaml() { None } else { parse_stream(&text) };
            table.map_or_else(|| self.tree(&text).and_then(|document| parse(&document)), Ok)
        });
        let mut state = self.state.lock();
        (state.stamp, state.error) = (now, result.as_ref().err().cloned());
        result.map(|table| self.publish(table))
    }

    fn publish(&self, table: ConsumerTable) {
        self.table.store(Arc::new(table));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn is_yaml(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
    }

    /// Reads the document: consumers by their names.
    fn read(&self) -> Result<Map<String, Value>, String> {
        self.tree(&read_file(&self.path, MAX_FILE)?)
    }

    fn tree(&self, text: &[u8]) -> Result<Map<String, Value>, String> {
        let at = |line: usize, column: usize| format!("line {line} column {column}");
        let document: Value = if self.is_yaml() {
            serde_yaml::from_slice(text).map_err(|error| {
                // The error's text may quote the file.
                let place = error.location().map(|place| at(place.line(), place.column()));
                format!("expected consumers in YAML; it is malformed at {}", place.unwrap_or_default())
            })?
        } else {
            serde_json::from_slice(text).map_err(|error| {
                format!("expected consumers in JSON; it is malformed at {}", at(error.line(), error.column()))
            })?
        };
        match document {
            Value::Object(consumers) => Ok(consumers),
            Value::Null => Ok(Map::new()),
            _ => Err("expected a mapping of names to consumers".to_owned()),
        }
    }

    /// Changes the document, writes it, and publishes its consumers. It waits for the disk.
    ///
    /// # Errors
    /// Returns why the change was not made; the file and the consumers are as before then.
    pub fn change<T>(
        &self,
        edit: impl FnOnce(&mut Map<String, Value>) -> Result<T, ChangeError>,
    ) -> Result<T, ChangeError> {
        let _turn = self.turn.lock();
        let mut document = self.read().map_err(ChangeError::Failed)?;
        let done = edit(&mut document)?;
        let table = parse(&document).map_err(ChangeError::Invalid)?;
        self.write(&document).map_err(|error| ChangeError::Failed(error.to_string()))?;
        let mut state = self.state.lock();
        (state.stamp, state.error) = (stamp(&self.path), None);
        self.publish(table);
        Ok(done)
    }

    /// Returns the document, for operators; it has digests and hashes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn document(&self) -> Result<Map<String, Value>, String> {
        self.read()
    }

    /// Replaces the file: a crash at any time leaves the old one or the new one.
    fn write(&self, document: &Map<String, Value>) -> std::io::Result<()> {
        // Where the path is a symbolic link, the file behind it is replaced.
        let path = std::fs::canonicalize(&self.path)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = folder.join(name);
        let mode = std::fs::metadata(&path)?.mode() & 0o777;
        let text = match self.is_yaml() {
            true => serde_yaml::to_string(document).map_err(std::io::Error::other)?,
            false => serde_json::to_string_pretty(document)? + "\n",
        };
        let written = (|| {
            let _ = std::fs::remove_file(&temporary);
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            std::fs::File::open(folder)?.sync_all()
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    /// Keeps the consumers up to date until the file is no longer used.
    async fn keep_fresh(file: std::sync::Weak<Self>) {
        let mut failed = None;
        loop {
            tokio::time::sleep(FILE_CHECK_INTERVAL).await;
            let Some(this) = file.upgrade() else { return };
            let before = this.generation();
            let loading = Arc::clone(&this);
            let result = tokio::task::spawn_blocking(move || loading.load()).await;
            let error = result.unwrap_or_else(|error| Err(error.to_string())).err();
            if error != failed {
                match &error {
                    Some(error) => log::error!("{}: {error}; the earlier consumers stay", this.label.lock()),
                    None => log::info!("{}: is read again", this.label.lock()),
                }
            }
            if this.generation() != before {
                log::info!("{}: {} consumers", this.label.lock(), this.table().len());
            }
            failed = error;
        }
    }
}

impl Maintained for ConsumerFile {
    fn kind(&self) -> &'static str {
        "consumers"
    }

    fn maintain(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            if !self.started.swap(true, Ordering::AcqRel) {
                tokio::spawn(Self::keep_fresh(Arc::downgrade(&self)));
            }
        }
        .boxed()
    }

    fn view(&self) -> Value {
        let error = self.state.lock().error.clone();
        json!({"source": *self.label.lock(), "consumers": self.table().len(), "error": error})
    }

    fn key_set(&self) -> Option<KeySetState> {
        None
    }

    fn name_for_operators(&self, label: &dyn Fn(&str) -> String) {
        *self.label.lock() = label(&self.path.display().to_string());
    }
}

/// Builds the table of a text in JSON as it is parsed; returns `None` if it has errors.
fn parse_stream(text: &[u8]) -> Option<ConsumerTable> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = ConsumerTable;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("consumers by their names")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<ConsumerTable, A::Error> {
            let (mut table, mut mistakes) = (ConsumerTable::default(), Mistakes::default());
            while let Some((name, config)) = all.next_entry::<String, ConsumerConfig>()? {
                // Of two entries with one name a tree has the last alone.
                if table.by_name(&name).is_some() {
                    return Err(A::Error::custom("a name is there twice"));
                }
                table.add(&name, &config, &Place::default(), &mut mistakes);
                if !mistakes.is_empty() {
                    return Err(A::Error::custom("an entry has errors"));
                }
            }
            Ok(table)
        }
    }

    let mut parser = serde_json::Deserializer::from_slice(text);
    let table = parser.deserialize_map(Entries).ok()?;
    parser.end().is_ok().then_some(table)
}

/// Builds the table of a document.
fn parse(document: &Map<String, Value>) -> Result<ConsumerTable, String> {
    let mut table = ConsumerTable::default();
    let mut mistakes = Mistakes::default();
    for (name, value) in document {
        let place = || Place::default().key(name.clone());
        match ConsumerConfig::deserialize_from(value) {
            Ok(config) => table.add(name, &config, &place(), &mut mistakes),
            Err(why) => mistakes.add(&place(), why),
        }
        if mistakes.0.len() >= MAX_ERRORS {
            break;
        }
    }
    if mistakes.is_empty() {
        return Ok(table);
    }
    Err(mistakes.0.iter().map(|mistake| format!("{}: {}", mistake.place, mistake.text)).collect::<Vec<_>>().join("; "))
}

impl ConsumerConfig {
    fn deserialize_from(value: &Value) -> Result<Self, String> {
        <Self as serde::Deserialize>::deserialize(value).map_err(|error| {
            // Other errors quote the value, which may be a secret.
            let text = error.to_string();
            let quotes_nothing = ["expected ", "missing field ", "unknown field ", "unknown variant "];
            match quotes_nothing.iter().any(|start| text.starts_with(start)) {
                true => text,
                false => "expected a consumer as in the configuration".to_owned(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::consumer_digest;
    use super::*;

    const DIGEST: &str = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"; // of "key"

    fn file(name: &str, text: &str) -> (tempfile::TempDir, ConsumerFile) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        (folder, ConsumerFile::new(path))
    }

    #[test]
    fn consumers_are_read_in_both_notations_and_changed() {
        let yaml =
            format!("ada:\n  groups: [staff]\n  plan: gold\n  credentials:\n  - api_key: {{sha256: {DIGEST}}}\n");
        let key = json!({"api_key": {"sha256": DIGEST}});
        let json = json!({"ada": {"groups": ["staff"], "plan": "gold", "credentials": [key]}}).to_string();
        for (name, text) in [("c.yaml", yaml), ("c.json", json)] {
            let (_folder, file) = file(name, &text);
            file.load().expect("loaded");
            let known = |file: &ConsumerFile| file.table().by_key(&consumer_digest(b"key")).cloned();
            let ada = known(&file).expect("known").consumer;
            assert_eq!((&*ada.name, &*ada.groups[0], ada.plan.as_deref()), ("ada", "staff", Some("gold")));
            let generation = file.generation();
            file.load().expect("the same");
            assert_eq!(file.generation(), generation, "nothing has changed");
            file.change(|all| Ok(all.remove("ada"))).expect("written");
            assert!(known(&file).is_none() && file.generation() > generation);
            let again = ConsumerFile::new(file.path.clone());
            again.load().expect("what was written is valid");
            assert!(again.table().is_empty());
        }
    }

    #[test]
    fn what_is_wrong_changes_nothing_and_is_not_quoted() {
        let (_folder, file) =
            file("c.json", &format!(r#"{{"ada": {{"credentials": [{{"api_key": {{"sha256": "{DIGEST}"}}}}]}}}}"#));
        file.load().expect("loaded");
        for (wrong, why) in [
            ("{", "line 1 column 1"),
            ("[]", "a mapping"),
            (r#"{"a b": {"credentials": []}}"#, "a name of"),
            (r#"{"a": {"credentials": [{"api_key": "s3cret"}]}}"#, "a: expected a consumer"),
            (r#"{"a": {"credentials": [{"api_key": {}}]}}"#, "exactly one of"),
            (r#"{"a": {"credentials": [], "s3cret": 1}}"#, "unknown field"),
            (r#"{"a": {"credentials": [{"api_key": {"value": "x"}}, {"api_key": {"value": "x"}}]}}"#, "second time"),
        ] {
            std::fs::write(&file.path, wrong).expect("written");
            let error = file.load().expect_err(wrong);
            assert!(error.contains(why) && (why == "unknown field" || !error.contains("s3cret")), "{wrong}: {error}");
            assert!(file.table().by_key(&consumer_digest(b"key")).is_some());
        }
        let invalid = file.change(|all| Ok(all.insert("b".into(), json!({"credentials": 1}))));
        assert!(matches!(invalid, Err(ChangeError::Invalid(_))), "{invalid:?}");
    }

    #[test]
    fn of_two_entries_with_one_name_the_last_counts() {
        let key = |key: &str| format!(r#""a": {{"credentials": [{{"api_key": {{"value": "{key}"}}}}]}}"#);
        let (_folder, file) = file("c.json", &format!("{{{}, {}}}", key("one"), key("two")));
        file.load().expect("loaded");
        let is_known = |key: &[u8]| file.table().by_key(&consumer_digest(key)).is_some();
        assert_eq!((is_known(b"one"), is_known(b"two")), (false, true));
    }

    #[test]
    fn an_expired_key_is_unknown() {
        let key = |at: &str| json!({"a": {"credentials": [{"api_key": {"value": "k", "expires": at}}]}}).to_string();
        let (_folder, file) = file("c.json", &key("2001-01-01T00:00:00Z"));
        file.load().expect("loaded");
        assert!(file.table().by_key(&consumer_digest(b"k")).is_none());
        std::fs::write(&file.path, key("2999-01-01T00:00:00+02:00")).expect("written");
        file.load().expect("loaded");
        assert!(file.table().by_key(&consumer_digest(b"k")).is_some());
    }
}
