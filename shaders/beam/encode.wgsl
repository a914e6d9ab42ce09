// Every layer but the first: a block of neurons fires for every beam's token, and the token becomes
// a node.
//
//   x                                                      as `decode/finish.wgsl` left it
//   u, q and node as in `beam/node.wgsl`
//
// Workgroup (slot tile, block of the segment). Twin: `src/backend/cpu/beam/encode.rs`.
// Experiments: `docs/performance/beams.md#beamencode`.

#import beam::node
#import shared::finished
