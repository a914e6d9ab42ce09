// The beams of a step.

// One beam as the host hands it over.
#host
struct BeamRecord {
    // The beam of the step before that it continues.
    parent: u32,
    // The token that it continues with.
    token: u32,
    // Sum of its log-probabilities.
    score: f32,
    // Slot whose logits it continues from.
    slot: u32,
}
