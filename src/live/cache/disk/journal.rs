//! The purges of a folder, durable: a restart brings back nothing that was purged.
//!
//! A line is a checksum, and a purge in JSON. It is on disk before the purge returns. Two processes append to the file
//! during an upgrade, and each reads what the other has added.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::live::cache::purges::Purge;

/// The name of the file.
const FILE: &str = "purges";

/// A purge in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// What is purged.
    pub purge: Purge,
    /// Whether it is only marked as stale.
    pub soft: bool,
    /// The generation of the purge.
    pub generation: u64,
}

/// The journal of a folder.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// The file that was read last, and how far.
    read: (u64, u64),
    /// The number of records in it.
    pub count: usize,
}

fn line(record: &JournalRecord) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(record)?;
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

/// Returns the record of a line; `None` for one that is not whole.
fn parse(line: &[u8]) -> Option<JournalRecord> {
    let (check, json) = line.split_at_checked(9)?;
    let check = u32::from_str_radix(std::str::from_utf8(check).ok()?.trim_end(), 16).ok()?;
    if crc32fast::hash(json) != check {
        return None;
    }
    serde_json::from_slice(json).ok()
}

impl Journal {
    /// Returns the journal of a folder, of which nothing has been read.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE), read: (0, 0), count: 0 }
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)
    }

    /// Returns the file under a lock: no other process replaces it meanwhile.
    fn locked(&self) -> io::Result<Flock<File>> {
        loop {
            let file =
                Flock::lock(self.open()?, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))?;
            // It may have been replaced while this waited.
            if std::fs::metadata(&self.path).is_ok_and(|there| there.ino() == file.metadata().map_or(0, |m| m.ino())) {
                return Ok(file);
            }
        }
    }

    /// Appends purges. They outlive this process when it returns, and with `durable` they are on disk.
    ///
    /// # Errors
    /// When the system fails.
    pub fn append(&mut self, records: &[JournalRecord], durable: bool) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in records {
            lines.extend_from_slice(&line(record)?);
        }
        let mut file = self.locked()?;
        // What a crash has left of a line must not hide the next one.
        let end = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if end > 0 {
            std::os::unix::fs::FileExt::read_exact_at(&*file, &mut last, end - 1)?;
        }
        if last != [b'\n'] {
            lines.insert(0, b'\n');
        }
        file.write_all(&lines)?;
        if durable {
            file.sync_data()?;
        }
        self.count += records.len();
        Ok(())
    }

    /// Returns what has been added since it was read last.
    ///
    /// # Errors
    /// When the system fails.
    pub fn read_new(&mut self) -> io::Result<Vec<JournalRecord>> {
        let Ok(there) = std::fs::metadata(&self.path) else { return Ok(Vec::new()) };
        if self.read == (there.ino(), there.len()) {
            return Ok(Vec::new());
        }
        let mut file = self.locked()?;
        let inode = file.metadata()?.ino();
        let from = if self.read.0 == inode { self.read.1 } else { 0 };
        file.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        self.read = (inode, from + text.len() as u64);
        let records: Vec<JournalRecord> = text.split(|byte| *byte == b'\n').filter_map(parse).collect();
        self.count = if from == 0 { records.len() } else { self.count };
        Ok(records)
    }

    /// Removes the purges up to a generation, which no file needs any more.
    ///
    /// # Errors
    /// When the system fails; the journal is as it was then.
    pub fn compact(&mut self, up_to: u64) -> io::Result<()> {
        let mut file = self.locked()?;
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut text)?;
        let all: Vec<JournalRecord> = text.split(|byte| *byte == b'\n').filter_map(parse).collect();
        let kept: Vec<&JournalRecord> = all.iter().filter(|record| record.generation > up_to).collect();
        if kept.len() == all.len() {
            return Ok(());
        }
        let fresh = self.path.with_extension("new");
        let _ = std::fs::remove_file(&fresh);
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        for record in &kept {
            out.write_all(&line(record)?)?;
        }
        out.sync_data()?;
        std::fs::rename(&fresh, &self.path)?;
        self.count = kept.len();
        // The next read begins anew, which repeats what is known.
        self.read = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tag: &str, generation: u64) -> JournalRecord {
        JournalRecord { purge: Purge::Tag(tag.into()), soft: generation.is_multiple_of(2), generation }
    }

    #[test]
    fn two_processes_know_what_either_has_purged() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut one, mut two) = (Journal::new(folder.path()), Journal::new(folder.path()));
        assert_eq!(one.read_new().expect("nothing"), []);
        one.append(&[record("a", 1), record("b", 2)], true).expect("appended");
        assert_eq!(two.read_new().expect("read"), [record("a", 1), record("b", 2)]);
        two.append(&[record("c", 3)], true).expect("appended");
        assert_eq!(two.read_new().expect("read"), [record("c", 3)]);
        one.compact(2).expect("compacted");
        two.append(&[record("d", 4)], true).expect("appended");
        assert_eq!(two.read_new().expect("read"), [record("c", 3), record("d", 4)]);
        assert_eq!((one.read_new().expect("read").len(), one.count), (2, 2));
    }

    #[test]
    fn a_torn_line_hides_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::new(folder.path());
        journal.append(&[record("a", 1)], true).expect("appended");
        let path = folder.path().join(FILE);
        let mut text = std::fs::read(&path).expect("read");
        text.extend_from_slice(&line(&record("b", 2)).expect("a line")[..20]);
        std::fs::write(&path, text).expect("written");
        journal.append(&[record("c", 3)], true).expect("appended");
        assert_eq!(Journal::new(folder.path()).read_new().expect("read"), [record("a", 1), record("c", 3)]);
    }
}
