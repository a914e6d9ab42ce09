// For workgroups of one subgroup.
// Asking for memory before it is needed. A software adapter's core waits for some hundred instructions' worth of loads at a time,
// and a vector that is unpacked and multiplied is a tenth of that; a word that is only loaded is much less, so that several
// times as many lines of memory are on their way at once. Nothing comes of these loads.

// Vectors in a line of memory.
const LINE_VECTORS: u32 = 4u;
// Lines that are asked for in one turn of a loop.
const LINES_ASKED: u32 = 4u;

// Always zero: no loop would be left if a compiler saw that nobody wants what is loaded.
var<private> asked: u32 = 0u;

fn ask(word: u32) {
    asked |= word & (params.block_begin >> 31u);
}
