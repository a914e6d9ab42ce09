// The first layer: a block of neurons fires for every beam's token, and the token becomes a node.
//
//   x <- LN(embedding)                                     redundantly in every workgroup
//   u, q and node as in `beam/node.wgsl`
//
// Workgroup (slot tile, block of the segment). Twin: `src/backend/cpu/beam/encode.rs`.
// Experiments: `docs/performance/beams.md#beamembed`.

#import beam::node
#import shared::embedding
