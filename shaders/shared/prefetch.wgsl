// Prefetch on software adapters, by loads whose values nobody uses. A core waits for some hundred instructions' worth
// of loads at a time. A vector that is unpacked and multiplied is a tenth of that; a word that is only loaded is much
// less, so several times as many lines of memory are in flight.

#needs struct PrefetchParams { block_begin: u32 }
#needs var<private> params: PrefetchParams;

// Vectors in a line of memory.
const LINE_VECTORS: u32 = 4u;
// Lines that one pass of a loop prefetches.
const LINES_IN_FLIGHT: u32 = 4u;

// Always zero: a compiler that saw that nobody uses the loads would remove them.
var<private> prefetched: u32 = 0u;

fn prefetch(word: u32) {
    prefetched |= word & (params.block_begin >> 31u);
}
