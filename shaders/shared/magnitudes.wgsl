// The scales of rows that several invocations hold together: of every row the largest magnitude, over
// all of its columns. Kernels that write codes import this file.
//
// Experiments: `docs/performance/shared.md#sharedrounding`.

#import shared::rounding

// Rows that a workgroup rounds at once.
#needs const ROUNDED_ROWS: u32 = 1u;

#ifdef CODES
// Bits of the rows' largest magnitudes; then the rows' new scales and their reciprocals.
var<workgroup> largest: array<atomic<u32>, ROUNDED_ROWS>;
var<workgroup> rounded: array<vec2<f32>, ROUNDED_ROWS>;

// Forgets all magnitudes. Ends with a barrier.
fn clear_magnitudes(i: u32) {
    for (var r = i; r < ROUNDED_ROWS; r += W) {
        atomicStore(&largest[r], 0u);
    }
    workgroupBarrier();
}

// Adds the bits of a magnitude to those of row r.
fn note_magnitude(r: u32, bits: u32) {
    atomicMax(&largest[r], bits);
}

// Computes the scales when all magnitudes are noted. Starts and ends with a barrier.
fn scale_rows(i: u32) {
    workgroupBarrier();
    for (var r = i; r < ROUNDED_ROWS; r += W) {
        rounded[r] = row_scale(atomicLoad(&largest[r]));
    }
    workgroupBarrier();
}

// Whether row r keeps its codes, because nothing enters it.
fn is_untouched(r: u32) -> bool {
    return atomicLoad(&largest[r]) == UNTOUCHED;
}
#endif
