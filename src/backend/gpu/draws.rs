//! The host's count of drawn tokens. The device counts too: a driver that accepts commands and
//! computes nothing is noticed by the difference.

use crate::backend::RunOutput;
use crate::sampling::NO_TOKEN;

/// Tokens that each slot's sampler has drawn; `None` if only the device knows.
pub(super) struct Draws(Vec<Option<u32>>);

impl Draws {
    /// Samplers that have drawn nothing.
    pub fn new(slots: usize) -> Self {
        Self(vec![Some(0); slots])
    }

    /// Sets a slot's count.
    pub fn set(&mut self, slot: usize, count: u32) {
        self.0[slot] = Some(count);
    }

    /// Gives a slot another one's count.
    pub fn copy(&mut self, from: usize, to: usize) {
        self.0[to] = self.0[from];
    }

    /// Leaves all counts to the device.
    pub fn forget(&mut self) {
        self.0.fill(None);
    }

    /// Adds a run's draws and compares the counts with the device's.
    ///
    /// # Errors
    /// A message for the user if they differ.
    pub fn check(&mut self, output: &RunOutput) -> Result<(), String> {
        for (slot, (count, sampler)) in self.0.iter_mut().zip(&output.samplers).enumerate() {
            let drawn = output.tokens.iter().filter(|tokens| tokens[slot] != NO_TOKEN).count() as u32;
            let expected = count.map_or(sampler.generated, |count| count.wrapping_add(drawn));
            *count = Some(sampler.generated);
            if sampler.generated != expected {
                let counted = sampler.generated;
                return Err(format!("it drew {drawn} tokens, but counts {counted} draws instead of {expected}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::SamplerState;

    /// A run in which slot 0 drew `tokens` and slot 1 none, and their records say `generated`.
    fn run(tokens: &[u32], generated: [u32; 2]) -> RunOutput {
        RunOutput {
            tokens: tokens.iter().map(|&token| vec![token, NO_TOKEN]).collect(),
            samplers: generated.map(|generated| SamplerState { generated, ..SamplerState::default() }).into(),
            ..RunOutput::default()
        }
    }

    #[test]
    fn draws_are_counted_on_both_sides() {
        let mut draws = Draws::new(2);
        assert_eq!(draws.check(&run(&[5, 6, NO_TOKEN], [2, 0])), Ok(()));
        assert_eq!(draws.check(&run(&[7], [3, 0])), Ok(()));
        draws.set(0, 100);
        draws.copy(0, 1);
        assert_eq!(draws.check(&run(&[7], [101, 100])), Ok(()));
        assert!(draws.check(&run(&[0, 0], [0, 0])).is_err(), "nothing was computed");
    }

    #[test]
    fn a_count_that_only_the_device_knows_is_taken_over() {
        let mut draws = Draws::new(2);
        draws.forget();
        assert_eq!(draws.check(&run(&[5], [40, 7])), Ok(()));
        assert_eq!(draws.check(&run(&[5], [41, 7])), Ok(()));
        assert!(draws.check(&run(&[5], [41, 7])).is_err());
    }
}
