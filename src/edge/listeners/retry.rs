//! The body of a request while it is short enough to be sent again.

use bytes::{Bytes, BytesMut};

/// The longest body that is kept for a retry, as Pingora has it on HTTP/1.
const MAX_RETRY_BODY: usize = 64 * 1024;

/// The part of a body that has come so far.
#[derive(Default)]
pub struct RetryBuffer {
    bytes: BytesMut,
    truncated: bool,
}

impl RetryBuffer {
    /// Adds a part of the body. A body that is too long is no longer kept.
    pub fn push(&mut self, part: &[u8]) {
        if self.truncated {
            return;
        }
        self.truncated = self.bytes.len() + part.len() > MAX_RETRY_BODY;
        if self.truncated {
            self.bytes = BytesMut::new();
        } else {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Returns whether the body is too long to be sent again.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Returns the whole body, unless it is empty or too long.
    pub fn whole(&self) -> Option<Bytes> {
        (!self.bytes.is_empty()).then(|| self.bytes.clone().freeze())
    }
}
