// Every layer but the first, in a batch on hardware: a block of neurons fires and attends to its
// past.
//
//   x                                                      as `decode/finish.wgsl` left it
//   u, q, y, state and window as in `decode/attend.wgsl`
//
// Workgroup (slot tile, block of the segment). Twin: `src/backend/cpu/decode/encode.rs`.
// Experiments: `docs/performance/decode.md#decodefinish`.

#import decode::attend
#import shared::finished
