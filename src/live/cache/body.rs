//! What a look-up returns: a head, and a body that is read part by part.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::disk::FileReader;
use super::filling::FillReader;
use super::head::StoredHead;
use super::memory::StoredParts;

/// Where a response was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredTier {
    /// In memory.
    Memory,
    /// On disk.
    Disk,
    /// It is still being received.
    Filling,
}

/// A stored response.
#[derive(Debug)]
pub struct StoredResponse {
    /// The head.
    pub head: Arc<StoredHead>,
    /// The body.
    pub body: StoredBody,
    /// When a soft purge reached it: it is stale since then, whatever the head says.
    pub stale_since: Option<SystemTime>,
    /// Where it was found.
    pub tier: StoredTier,
}

/// The reason for which a body ends early. The response has to end short of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The fill that is being read has failed, or the reader is too far behind.
    Incomplete,
    /// A file is damaged, or cannot be read.
    Damaged,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "the response was not received to its end",
            Self::Damaged => "the stored response is damaged",
        })
    }
}

impl std::error::Error for BodyError {}

#[derive(Debug)]
enum BodySource {
    Parts(Arc<StoredParts>),
    Fill(FillReader),
    File(Box<FileReader>),
}

/// The body of a stored response. Its parts are shared and not copied.
#[derive(Debug)]
pub struct StoredBody {
    source: BodySource,
    at: u64,
    end: Option<u64>,
    /// The part at which the next one is looked for, and the place of its first byte.
    part: (usize, u64),
}

impl StoredBody {
    pub(super) fn of_parts(parts: Arc<StoredParts>) -> Self {
        Self { source: BodySource::Parts(parts), at: 0, end: None, part: (0, 0) }
    }

    pub(super) fn of_fill(reader: FillReader) -> Self {
        Self { source: BodySource::Fill(reader), at: 0, end: None, part: (0, 0) }
    }

    pub(super) fn of_file(reader: FileReader) -> Self {
        Self { source: BodySource::File(Box::new(reader)), at: 0, end: None, part: (0, 0) }
    }

    /// Returns the length of the whole body; `None` while it is being received.
    pub fn length(&self) -> Option<u64> {
        match &self.source {
            BodySource::Parts(parts) => Some(parts.length),
            BodySource::Fill(reader) => reader.fill().length(),
            BodySource::File(reader) => Some(reader.length()),
        }
    }

    /// Goes to a place, from which the next part is read, up to `end` or the end of the body. Returns false if the
    /// body is known to be shorter (RFC 9110, section 14.1.2).
    pub fn seek(&mut self, start: u64, end: Option<u64>) -> bool {
        let length = self.length();
        if length.is_some_and(|length| start >= length) {
            return false;
        }
        self.at = start;
        self.end = end;
        self.part = (0, 0);
        true
    }

    /// Returns the next part of the body; `None` at its end.
    ///
    /// # Errors
    /// When the body ends early.
    pub async fn next_part(&mut self) -> Result<Option<Bytes>, BodyError> {
        let part = match &mut self.source {
            BodySource::Parts(parts) => next_of(parts, self.at, self.end, &mut self.part),
            BodySource::Fill(reader) => reader.read(self.at, self.end).await?,
            BodySource::File(reader) => reader.read(self.at, self.end).await?,
        };
        self.at += part.as_ref().map_or(0, |part| part.len() as u64);
        Ok(part)
    }
}

/// Returns what follows a place, from the part at which it is looked for on.
fn next_of(body: &StoredParts, at: u64, end: Option<u64>, place: &mut (usize, u64)) -> Option<Bytes> {
    let end = end.unwrap_or(body.length).min(body.length);
    while let Some(part) = body.parts.get(place.0) {
        let (begin, length) = (place.1, part.len() as u64);
        if at >= end {
            return None;
        }
        if at < begin + length {
            let (from, to) = (at - begin, (end - begin).min(length));
            return Some(part.slice(usize::try_from(from).ok()?..usize::try_from(to).ok()?));
        }
        *place = (place.0 + 1, begin + length);
    }
    None
}
