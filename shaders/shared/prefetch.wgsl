// Prefetch on software adapters, by loads whose values are never used. An out-of-order core has
// some hundred instructions in flight. Unpacking and multiplying one vector takes a tenth of them;
// loading one word takes far fewer, so several times as many cache lines are in flight.
//
// Experiments: `docs/performance/shared.md#sharedprefetch`.

#needs struct PrefetchParams { block_begin: u32 }
#needs var<private> params: PrefetchParams;

// Vectors in a cache line.
const LINE_VECTORS: u32 = 4u;
// Cache lines that one iteration of a loop prefetches.
const LINES_IN_FLIGHT: u32 = 4u;

// Always zero, which the compiler cannot know: it would remove loads that are never used.
var<private> prefetched: u32 = 0u;

fn prefetch(word: u32) {
    prefetched |= word & (params.block_begin >> 31u);
}
