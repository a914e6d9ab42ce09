//! Twin of `shaders/beam/merge.wgsl`: the best continuations of all beams.

use super::select::Best;
use crate::backend::beams::BeamCandidate;
use crate::sampling::keys;

/// The `k` best candidates of all beams. Ties go to the lower beam.
pub fn merge<'a>(beams: impl Iterator<Item = &'a Best>, k: usize) -> Vec<BeamCandidate> {
    let mut ranked: Vec<(u32, usize, u32)> = Vec::new();
    for (beam, best) in beams.enumerate() {
        ranked.extend(best.ranked.iter().map(|&entry| ((entry >> 32) as u32, beam, entry as u32)));
    }
    ranked.sort_unstable();
    ranked.truncate(k);
    let candidate =
        |(key, beam, token): (u32, usize, u32)| BeamCandidate { beam, token, score: keys::order_value(!key) };
    ranked.into_iter().map(candidate).collect()
}
