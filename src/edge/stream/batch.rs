//! Streams on their way to another process: what is known of them, and their descriptors.

use std::os::fd::OwnedFd;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most descriptors of a batch. A message of a Unix socket has at most 253 (`SCM_MAX_FD` of the kernel).
pub const MAX_BATCH_DESCRIPTORS: usize = 240;

/// A part of the streams of a process. Times in the form are relative, as two processes share no clock.
#[derive(Debug)]
pub struct StreamBatch {
    /// The kind of the streams. It never changes.
    pub kind: String,
    /// The version of the form. A process that knows another one takes none of them.
    pub version: u32,
    /// What is known of the streams, as JSON.
    pub form: Vec<u8>,
    /// The descriptors, in the order in which the form needs them.
    pub descriptors: Vec<OwnedFd>,
}

impl StreamBatch {
    /// Returns a batch of these streams.
    ///
    /// # Errors
    /// Fails when they cannot be written as JSON.
    pub fn new(
        (kind, version): (&str, u32),
        saved: &impl Serialize,
        descriptors: Vec<OwnedFd>,
    ) -> serde_json::Result<Self> {
        Ok(Self { kind: kind.to_owned(), version, form: serde_json::to_vec(saved)?, descriptors })
    }

    /// Returns the streams, if they are of that kind and version.
    pub fn read<S: DeserializeOwned>(&self, kind: &str, version: u32) -> Option<S> {
        let is_known = self.kind == kind && self.version == version;
        is_known.then(|| serde_json::from_slice(&self.form).ok()).flatten()
    }
}
