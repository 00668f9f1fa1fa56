//! Buffers that no connection of this thread needs at the moment: an idle one holds none.

use std::cell::RefCell;

/// The most that are kept: a worker writes to one connection at a time.
const MOST: usize = 16;

/// The largest that is kept.
const LARGEST: usize = 64 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer.
pub fn take() -> Vec<u8> {
    SPARE.with_borrow_mut(|spare| spare.pop().unwrap_or_default())
}

/// Gives an empty buffer back.
pub fn give(buffer: Vec<u8>) {
    SPARE.with_borrow_mut(|spare| {
        if (1..=LARGEST).contains(&buffer.capacity()) && spare.len() < MOST {
            spare.push(buffer);
        }
    });
}
