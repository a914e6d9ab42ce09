// Bindings and workgroup memory of the sampling kernel.
//
// Workgroup memory: 1.6 KiB, 16 bytes per invocation, and 8 bytes per token on the small path or 3
// KiB on the large path: 13.6 KiB at most. Every word is written before it is read, so nothing
// needs clearing at the start.

#import shared::constants
#import shared::step
#import shared::sampler

// A small vocabulary lies in workgroup memory, and an invocation compares its keys with all others.
// For a large one, a walk finds the thresholds digit by digit. An invocation makes at most 16,384
// comparisons: with more, the walk is faster, and llvmpipe ends all loops of an invocation after
// 65,535 iterations in total.
const SMALL: bool = V <= 1024u && V <= 16384u * W / V && !FORCE_LARGE;

// Logits are f32, read as bits: infinities and NaN must arrive unchanged.
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read> params: array<SamplerParams>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;
@group(0) @binding(3) var<storage, read_write> samplers: array<SamplerState>;
@group(0) @binding(4) var<storage, read> steps: array<Step>;
@group(0) @binding(5) var<storage, read_write> ring: array<u32>;
@group(0) @binding(6) var<uniform> tables: array<vec4<u32>, 96>;
// f32 as bits, [slots][V], minus infinity for a banned token; read with FLAG_BIASES only.
@group(0) @binding(7) var<storage, read> biases: array<u32>;

const FLAG_GREEDY: u32 = 1u;
const FLAG_TOP_K: u32 = 2u;
const FLAG_TOP_P: u32 = 4u;

const LONGEST_DISTANCE: u32 = 0x437ffd71u; // 255.99

const TABLE_LEN: u32 = 384u;
const COARSE_LEN: u32 = 256u;
// Longest chunk of the prefix sum that its invocation walks.
const WALK: u32 = 8u;

// Tokens are compared four at a time; banned tokens pad the last four.
const STORED: u32 = select(4u, (V + 3u) / 4u * 4u, SMALL);
const BINS: u32 = 256u;
const BINS_PER_LANE: u32 = (BINS + W - 1u) / W;
const HISTOGRAM: u32 = select(3u * BINS, 1u, SMALL);

var<workgroup> table: array<u32, TABLE_LEN>;
var<workgroup> stored_keys: array<u32, STORED>;
var<workgroup> stored_weights: array<u32, STORED>;
var<workgroup> histogram: array<atomic<u32>, HISTOGRAM>;
// Two halves that a scan reads and writes alternately.
var<workgroup> scan_sums: array<vec2<u32>, 2u * W>;
var<workgroup> faults: atomic<u32>;
var<workgroup> best_key: atomic<u32>;
var<workgroup> worst_key: atomic<u32>;
var<workgroup> first_best: atomic<u32>;
var<workgroup> lowest_by_count: atomic<u32>;
var<workgroup> lowest_by_mass: atomic<u32>;
// One invocation's result, broadcast to all others.
var<workgroup> message: vec4<u32>;

// First indices of this slot.
var<private> logits_base: u32;
var<private> counts_base: u32;
var<private> banned_bits: u32;
