//! An allocator that counts, for tests that limit memory. A test crate that uses it declares
//! `#[global_allocator] static ALLOCATOR: allocation::Counting = allocation::Counting;`.
#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]
#![allow(dead_code, reason = "every test crate uses a part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what each thread has allocated, so that tests do not disturb each other.
pub struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// What `work` returns, and the most bytes that it held at once on this thread.
pub fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before) as usize)
}

/// Bytes that this thread holds.
pub fn held() -> isize {
    HELD.get()
}

fn count(change: isize) {
    // A thread that ends frees memory after its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: everything is passed on to the system's allocator unchanged; `realloc` is the trait's own, which
// counts the old and the new block together, as a copy needs them.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above; every block comes from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }
}
