//! The key and the head of a stored response.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use pingora::http::ResponseHeader;

/// The memory of an entry besides its texts and its body: its places in the index and in a queue, and its counts.
const ENTRY_COST: usize = 640;

/// The memory of a header field besides its texts.
const FIELD_COST: usize = 128;

/// The memory of a tag besides its text.
const TAG_COST: usize = 128;

/// The key of a stored response: the digest of what the request asks for, or of the fields that select a variant
/// (RFC 9111, section 2 and section 4.1). It has to be a strong digest, since responses with the same key are the
/// same to the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoredKey(pub [u8; 16]);

impl fmt::Display for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StoredKey {
    /// Returns the key that has this text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut key = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(key))
    }

    /// Returns the first bytes as a number, for shards and tables.
    pub(super) fn number(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// What is known of a stored response besides its body. The store interprets none of it but `url` and `tags`, by which
/// it is purged.
#[derive(Clone, Debug)]
pub struct StoredHead {
    /// Status and fields, as they are stored (RFC 9111, section 3.1).
    pub response: ResponseHeader,
    /// The URL for purges: scheme and host in lower case, no default port, with path and query.
    pub url: Box<str>,
    /// The tags for purges.
    pub tags: Vec<Box<str>>,
    /// When it was stored first.
    pub created: SystemTime,
    /// When it was last validated.
    pub updated: SystemTime,
    /// The time from which its age is counted (RFC 9111, section 4.2.3).
    pub age_from: SystemTime,
    /// When it becomes stale.
    pub fresh_until: SystemTime,
    /// For how many seconds it may be served stale while it is revalidated (RFC 5861, section 3).
    pub stale_while_revalidate: u32,
    /// For how many seconds it may be served stale on an error (RFC 5861, section 4).
    pub stale_if_error: u32,
    /// The digest of the request's fields that selected it, if it varies.
    pub variance: Option<[u8; 16]>,
    /// What its users derive from it. It is not written to disk.
    pub memo: HeadMemo,
}

/// A value that the users of a head derive from it once, and that lives as long as the head is in memory.
#[derive(Clone, Default)]
pub struct HeadMemo(OnceLock<Arc<dyn Any + Send + Sync>>);

impl HeadMemo {
    /// Returns the value, which `make` derives if there is none; `None` if it is of another type.
    pub fn get_or_make<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        Arc::clone(self.0.get_or_init(|| Arc::new(make()))).downcast().ok()
    }
}

impl fmt::Debug for HeadMemo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadMemo")
    }
}

impl StoredHead {
    /// Returns whether it is of the same response: it was stored at the same time, in microseconds as in files.
    pub fn is_of_same(&self, other: &Self) -> bool {
        let micros = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros());
        micros(self.created) == micros(other.created)
    }

    /// Returns the memory of an entry with this head, without its body.
    pub fn cost(&self) -> u64 {
        let fields: usize =
            self.response.headers.iter().map(|(name, value)| 2 * name.as_str().len() + value.len() + FIELD_COST).sum();
        let tags: usize = self.tags.iter().map(|tag| tag.len() + TAG_COST).sum();
        (ENTRY_COST + fields + tags + self.url.len() + TAG_COST) as u64
    }
}
