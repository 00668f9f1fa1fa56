//! The file of quotas: how much of each has been granted to processes, by window and key.
//!
//! It is written ahead: what a process may count is in the file before the process has it. So a crash loses what the
//! process held, and nothing is ever granted twice. During an upgrade two processes have the file open.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use redb::{Builder, ConcurrencyMode, Database, ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::rules::limits::{CalendarWindow, quota_grant};

/// By the end of the window, the limit's name and the key: how much has been granted.
const GRANTED: TableDefinition<'_, &[u8], u64> = TableDefinition::new("granted");

/// The most keys in the file.
const MAX_KEYS: u64 = 4_000_000;

/// The memory for pages of the file.
const CACHE: usize = 8 << 20;

/// The name of the file in the folder.
const FILE: &str = "quotas.redb";

/// How long the counts of a window are kept after its end, in seconds, should a clock go back.
const GRACE: i64 = 86_400;

/// What a process needs of a quota, or what it gives back.
#[derive(Debug)]
pub struct GrantRequest {
    /// The place in the file.
    pub place: Vec<u8>,
    /// The quota.
    pub limit: u64,
    /// What is needed at least.
    pub needed: u64,
}

/// What was granted of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// How much.
    pub more: u64,
    /// How much has been granted to all processes, with this.
    pub total: u64,
}

/// Returns the place of a key in the file: the end of the window comes first, so that what is over is found.
pub fn place_of(window: CalendarWindow, limit: &str, key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(20 + limit.len() + key.len());
    place.extend_from_slice(&window.end.max(0).to_be_bytes());
    place.extend_from_slice(&(window.end - window.start).to_be_bytes());
    place.extend_from_slice(&u32::try_from(limit.len()).unwrap_or(u32::MAX).to_be_bytes());
    place.extend_from_slice(limit.as_bytes());
    place.extend_from_slice(key);
    place
}

/// The file.
#[derive(Debug)]
pub struct QuotaFile(Database);

impl QuotaFile {
    /// Opens the file in that folder, which is created if it does not exist. Only the gateway's user can read both.
    ///
    /// # Errors
    /// Returns why the file cannot be opened.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let error = |e: &dyn std::fmt::Display| e.to_string();
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| error(&e))?;
        let path = folder.join(FILE);
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(|e| error(&e))?;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE).set_concurrency_mode(ConcurrencyMode::MultiWriter);
        builder.create(&path).map(Self).map_err(|e| error(&e))
    }

    /// Grants what is asked for, in one durable step.
    ///
    /// # Errors
    /// Returns why nothing was granted. The file has to be opened again then.
    pub fn grant(&self, requests: &[GrantRequest]) -> Result<Vec<Granted>, Box<redb::Error>> {
        let transaction = self.0.begin_write().map_err(boxed)?;
        let mut all = Vec::with_capacity(requests.len());
        {
            let mut table = transaction.open_table(GRANTED).map_err(boxed)?;
            let mut keys = table.len().map_err(boxed)?;
            for request in requests {
                let known = table.get(request.place.as_slice()).map_err(boxed)?.map(|value| value.value());
                let total = known.unwrap_or(0);
                keys += u64::from(known.is_none());
                let more = quota_grant(request.limit.saturating_sub(total), request.needed);
                if more > 0 && keys > MAX_KEYS {
                    return Err(Box::new(redb::Error::Io(std::io::Error::other("it has as many keys as it may"))));
                }
                if more > 0 {
                    table.insert(request.place.as_slice(), total + more).map_err(boxed)?;
                }
                all.push(Granted { more, total: total + more });
            }
        }
        if all.iter().any(|granted| granted.more > 0) {
            transaction.commit().map_err(boxed)?;
        } else {
            transaction.abort().map_err(boxed)?;
        }
        Ok(all)
    }

    /// Takes back what was granted and not counted.
    ///
    /// # Errors
    /// Returns why nothing was taken back.
    pub fn take_back(&self, unused: &[(Vec<u8>, u64)]) -> Result<(), Box<redb::Error>> {
        let transaction = self.0.begin_write().map_err(boxed)?;
        {
            let mut table = transaction.open_table(GRANTED).map_err(boxed)?;
            for (place, count) in unused {
                let Some(total) = table.get(place.as_slice()).map_err(boxed)?.map(|value| value.value()) else {
                    continue;
                };
                table.insert(place.as_slice(), total.saturating_sub(*count)).map_err(boxed)?;
            }
        }
        transaction.commit().map_err(boxed)
    }

    /// Removes the counts of windows that have long been over at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// Returns why nothing was removed.
    pub fn clear(&self, now: i64) -> Result<(), Box<redb::Error>> {
        let transaction = self.0.begin_write().map_err(boxed)?;
        let before = now.saturating_sub(GRACE).max(0).to_be_bytes();
        let removed = {
            let mut table = transaction.open_table(GRANTED).map_err(boxed)?;
            let first = table.first().map_err(boxed)?.map(|(place, _)| place.value() < before.as_slice());
            if first == Some(true) {
                table.retain_in::<&[u8], _>(..before.as_slice(), |_, _| false).map_err(boxed)?;
            }
            first == Some(true)
        };
        if removed { transaction.commit().map_err(boxed) } else { transaction.abort().map_err(boxed) }
    }
}

fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(end: i64) -> CalendarWindow {
        CalendarWindow { start: end - 3_600, end }
    }

    fn ask(file: &QuotaFile, place: &[u8], limit: u64, needed: u64) -> Granted {
        file.grant(&[GrantRequest { place: place.to_vec(), limit, needed }]).expect("granted")[0]
    }

    #[test]
    fn two_processes_are_granted_no_more_than_there_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (QuotaFile::open(folder.path()).expect("open"), QuotaFile::open(folder.path()).expect("open"));
        let place = place_of(window(7_200), "l", b"a");
        let mut sum = 0;
        for (turn, file) in [&one, &two].into_iter().cycle().enumerate() {
            let granted = ask(file, &place, 100, 1 + turn as u64 % 3);
            sum += granted.more;
            assert_eq!(granted.total, sum);
            if granted.more == 0 {
                break;
            }
        }
        assert_eq!(sum, 100);
        two.take_back(&[(place.clone(), 7)]).expect("taken back");
        drop(two);
        assert_eq!(ask(&one, &place, 100, 50), Granted { more: 7, total: 100 });
        assert_eq!(ask(&one, &place_of(window(7_200), "l", b"b"), 10, 1), Granted { more: 1, total: 1 });
        drop(one);
        let again = QuotaFile::open(folder.path()).expect("open");
        assert_eq!(ask(&again, &place, 100, 1), Granted { more: 0, total: 100 });
        // A quota that is raised goes on from there.
        assert_eq!(ask(&again, &place, 101, 1), Granted { more: 1, total: 101 });
    }

    #[test]
    fn what_is_long_over_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = QuotaFile::open(folder.path()).expect("open");
        let (old, new) = (place_of(window(7_200), "l", b"a"), place_of(window(720_000), "l", b"a"));
        ask(&file, &old, 5, 5);
        ask(&file, &new, 5, 5);
        file.clear(7_200 + GRACE - 1).expect("nothing yet");
        assert_eq!(ask(&file, &old, 5, 1).more, 0);
        file.clear(7_201 + GRACE).expect("cleared");
        assert_eq!((ask(&file, &old, 5, 1).more, ask(&file, &new, 5, 1).more), (1, 0));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(QuotaFile::open(&file.path().join("below")).is_err());
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE), b"this is no database").expect("written");
        assert!(QuotaFile::open(folder.path()).is_err());
    }
}
