//! The allocator.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long};

use libmimalloc_sys as mi;

/// mimalloc, asked for aligned memory only where its plain memory is not aligned enough. To be asked costs it a
/// slower way for every size that is no power of two, more memory for it, and a slower way to free the whole page.
pub struct Allocator;

/// What all of mimalloc's memory of at least that size is aligned to (its `MI_MAX_ALIGN_SIZE`).
const ALIGNED: usize = 16;

/// mimalloc's `mi_option_purge_delay`.
const PURGE_DELAY: c_int = 15;

/// How long memory that nobody has stays with the process, in milliseconds.
const KEPT: c_long = 10_000;

unsafe extern "C" {
    // Of libmimalloc_sys these need a feature that adds a crate of names for C's types.
    fn mi_option_set_default(option: c_int, value: c_long);
    #[cfg(test)]
    fn mi_option_get(option: c_int) -> c_long;
}

/// Keeps memory for ten seconds, if the environment (`MIMALLOC_PURGE_DELAY`) does not say otherwise, where mimalloc
/// keeps it for one: what a large reload frees the next one needs, and memory that goes to the system and comes back
/// is cleared by the kernel, two megabytes at a time, while whoever else wants the processor waits.
pub fn keep_memory() {
    // SAFETY: it passes numbers.
    unsafe { mi_option_set_default(PURGE_DELAY, KEPT) };
}

/// Whether plain memory does.
const fn is_plain(layout: Layout) -> bool {
    layout.align() <= ALIGNED && layout.align() <= layout.size()
}

// SAFETY: mimalloc gives memory of that size, or null. Smaller blocks than ALIGNED are aligned to their size, which
// is a power of two; `is_plain` leaves out what asks for more than its size. All memory comes from mimalloc, so that
// all of it may go back there.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: it takes any size, and any power of two as the alignment.
        unsafe {
            if is_plain(layout) {
                mi::mi_malloc(layout.size())
            } else {
                mi::mi_malloc_aligned(layout.size(), layout.align())
            }
        }
        .cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if is_plain(layout) {
                mi::mi_zalloc(layout.size())
            } else {
                mi::mi_zalloc_aligned(layout.size(), layout.align())
            }
        }
        .cast()
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: the caller says that it is from here.
        unsafe { mi::mi_free(memory.cast()) };
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let memory = memory.cast();
        // SAFETY: the caller says that it is from here, and that the new size and the alignment make a layout.
        unsafe {
            if layout.align() <= ALIGNED && layout.align() <= size {
                mi::mi_realloc(memory, size)
            } else {
                mi::mi_realloc_aligned(memory, size, layout.align())
            }
        }
        .cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_for_longer_than_by_default() {
        // SAFETY: it passes numbers.
        let delay = || unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 1_000, "mimalloc's default: the number of the option is right");
        keep_memory();
        assert_eq!(delay(), KEPT);
    }

    #[test]
    fn memory_is_aligned_as_asked_and_keeps_what_is_in_it() {
        for align in (0..=12).map(|bit| 1_usize << bit) {
            for size in (1..300).chain((300..20_000).step_by(611)) {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: the size is not 0, and all that is written and read lies within it.
                unsafe {
                    let memory = Allocator.alloc(layout);
                    assert!(!memory.is_null() && memory.addr().is_multiple_of(align), "{size} bytes at {align}");
                    memory.write_bytes(7, size);
                    let longer = Allocator.realloc(memory, layout, size + 100);
                    assert!(longer.addr().is_multiple_of(align), "{size} bytes and 100 at {align}");
                    assert!((0..size).all(|at| longer.add(at).read() == 7));
                    Allocator.dealloc(longer, Layout::from_size_align(size + 100, align).expect("a layout"));
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert!(zeroed.addr().is_multiple_of(align) && (0..size).all(|at| zeroed.add(at).read() == 0));
                    Allocator.dealloc(zeroed, layout);
                }
            }
        }
    }
}
