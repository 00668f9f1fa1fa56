//! Spare buffers of this thread: an idle connection holds none.

use std::cell::RefCell;

/// The most buffers that are kept: a worker writes to one connection at a time.
const MAX_SPARE_BUFFERS: usize = 16;

/// The largest buffer that is kept.
const MAX_SPARE_SIZE: usize = 64 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Returns an empty buffer.
pub fn take() -> Vec<u8> {
    SPARE.with_borrow_mut(|spare| spare.pop().unwrap_or_default())
}

/// Returns an empty buffer to the spare ones.
pub fn give(buffer: Vec<u8>) {
    SPARE.with_borrow_mut(|spare| {
        if (1..=MAX_SPARE_SIZE).contains(&buffer.capacity()) && spare.len() < MAX_SPARE_BUFFERS {
            spare.push(buffer);
        }
    });
}
