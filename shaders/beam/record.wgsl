// The beams of a step.

// One beam of a step, from the host.
#host
struct BeamRecord {
    // Beam of the previous step that this beam continues.
    parent: u32,
    // Token that the beam continues with.
    token: u32,
    // Sum of the beam's log-probabilities.
    score: f32,
    // Slot of the logits that the beam continues from.
    slot: u32,
}
