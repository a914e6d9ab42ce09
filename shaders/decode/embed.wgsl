// The first layer: a block of neurons fires for the slot's token and attends to its past.
//
//   x <- LN(embedding)                                     redundantly in every workgroup
//   u, q, y, state and window as in `decode/attend.wgsl`
//
// Workgroup (slot tile, block of the segment). Twin: `src/backend/cpu/decode/encode.rs`.
// Experiments: `docs/performance/decode.md#decodeembed`.

#import decode::attend
#import shared::embedding
