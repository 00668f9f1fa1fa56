//! The allocator.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// mimalloc, asked for aligned memory only where its plain memory is not aligned enough. To be asked costs it a
/// slower way for every size that is no power of two, more memory for it, and a slower way to free the whole page.
pub struct Allocator;

/// What all of mimalloc's memory of at least that size is aligned to (its `MI_MAX_ALIGN_SIZE`).
const ALIGNED: usize = 16;

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
        unsafe { if is_plain(layout) { mi::mi_malloc(layout.size()) } else { mi::mi_malloc_aligned(layout.size(), layout.align()) } }.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { if is_plain(layout) { mi::mi_zalloc(layout.size()) } else { mi::mi_zalloc_aligned(layout.size(), layout.align()) } }.cast()
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
