//! Forgetting: what lets a BDH write on past its trained length.
//!
//! Two ways: old contributions fade, or they leave a sliding window. With a window of W tokens, the
//! token at position t sees those at t − W … t − 1 in full, and no others.
//!
//! Fading is computed as follows.
//! Up to position B the past counts in full. After it, old contributions fade with time constant τ:
//! with Λ(t) = max(0, t − B) / τ, a token at position s is seen from t with weight e^−(Λ(t) − Λ(s)).
//! The state holds ρ' = Σ e^(Λ(s) − c) q_s ⊗ x_s, so a token needs two scalars: q is multiplied by
//! e^−(Λ(t) − c) when it reads and by e^(Λ(t) − c) when it writes. When Λ(t) − c passes
//! 30, the state is multiplied by e^−30 and c moves on.

use super::Config;

/// The exponent Λ(t) − c at which the state is rescaled: e^30 ≈ 1e13 leaves f32 ample room.
const RESCALE_AT: f64 = 30.0;

/// Rescalings after which no f32 is above zero any more.
const FORGOTTEN: f64 = 1024.0;

/// How much of the past the model sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Forgetting {
    /// Everything, as the reference implementation does: text decays past the trained length.
    Full,
    /// Everything up to position `context`, fading with time constant `tau` (tokens, > 0) after it.
    After {
        /// B, the position up to which nothing is forgotten.
        context: u32,
        /// τ, in tokens.
        tau: f64,
    },
    /// The last `tokens` tokens, above 0, in full, and nothing before them: a sliding window.
    Window {
        /// W.
        tokens: u32,
    },
}

impl Forgetting {
    /// The model's own setting: its declared trained context B with τ = B/2, or [`Forgetting::Full`]
    /// where none is declared.
    pub fn of_model(config: &Config) -> Self {
        match config.trained_context {
            Some(context) => Self::After { context, tau: default_tau(context) },
            None => Self::Full,
        }
    }

    /// The weight of a token at position `s` as seen from `t`: e^(Λ(s) − Λ(t)), or 0 outside a window.
    pub fn weight(&self, s: u32, t: u32) -> f32 {
        match *self {
            Self::Window { tokens } if s < t.saturating_sub(tokens) => 0.0,
            _ => (self.exponent(s) - self.exponent(t)).exp() as f32,
        }
    }

    /// The length of the sliding window, if there is one.
    pub fn window(&self) -> Option<u32> {
        match *self {
            Self::Window { tokens } => Some(tokens),
            Self::Full | Self::After { .. } => None,
        }
    }

    /// Λ at position `t`.
    fn exponent(&self, t: u32) -> f64 {
        match *self {
            Self::Full | Self::Window { .. } => 0.0,
            Self::After { context, tau } => t.saturating_sub(context) as f64 / tau,
        }
    }
}

/// The default time constant for a trained context of `context` tokens: half of it, at least one token.
pub fn default_tau(context: u32) -> f64 {
    (context as f64 / 2.0).max(1.0)
}

/// What one token needs to know of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tick {
    /// Position t of the token.
    pub position: u32,
    /// Factor on q where the state is read.
    pub read_scale: f32,
    /// Factor on q where the state is written.
    pub write_scale: f32,
    /// Factor on the whole state before this token, where it is due.
    pub rescale: Option<f32>,
}

/// A sequence's clock: its position and the reference exponent c of its state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    forgetting: Forgetting,
    position: u64,
    reference: f64,
}

impl Clock {
    /// The clock of an empty conversation.
    pub fn new(forgetting: Forgetting) -> Self {
        Self::at(forgetting, 0)
    }

    /// The clock of an empty conversation whose first token has the given position.
    pub fn at(forgetting: Forgetting, position: u32) -> Self {
        Self { forgetting, position: position.into(), reference: 0.0 }
    }

    /// The clock of a state that has `position` tokens in it, at most 2^32, and the reference exponent
    /// `reference`.
    pub fn resume(forgetting: Forgetting, position: u64, reference: f64) -> Self {
        Self { forgetting, position, reference }
    }

    /// The same state from now on under another setting. What is in it keeps the weight that it has now.
    pub fn with_forgetting(self, forgetting: Forgetting) -> Self {
        let now = u32::try_from(self.position).unwrap_or(u32::MAX);
        let ahead = self.forgetting.exponent(now) - self.reference;
        Self { forgetting, position: self.position, reference: forgetting.exponent(now) - ahead }
    }

    /// The setting in effect.
    pub fn forgetting(&self) -> Forgetting {
        self.forgetting
    }

    /// The reference exponent c of the state.
    pub fn reference(&self) -> f64 {
        self.reference
    }

    /// Position of the next token: the number of tokens in the state.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Tokens that can still be read before positions run out (2^32 − 1 is the last).
    pub fn remaining(&self) -> u64 {
        (1 << 32) - self.position
    }

    /// Factor on q where a token at `position`, at or after the next one, reads the state as it is.
    pub fn read_scale_at(&self, position: u32) -> f32 {
        (self.reference - self.forgetting.exponent(position)).exp() as f32
    }

    /// Advances by one token and says what it needs. The caller checks [`Clock::remaining`] first.
    pub fn tick(&mut self) -> Tick {
        let position = self.position as u32;
        let exponent = self.forgetting.exponent(position);
        let mut rescale = None;
        if exponent - self.reference > RESCALE_AT {
            let steps = ((exponent - self.reference) / RESCALE_AT).floor();
            // So far ahead, nothing is left of the state, and the sum below would lose its fraction.
            self.reference = if steps > FORGOTTEN { exponent } else { self.reference + steps * RESCALE_AT };
            rescale = Some((-steps * RESCALE_AT).exp() as f32);
        }
        // Never behind, whatever a state file says: factors stay within e^±30.
        let ahead = (exponent - self.reference).clamp(0.0, RESCALE_AT);
        self.position += 1;
        Tick { position, read_scale: (-ahead).exp() as f32, write_scale: ahead.exp() as f32, rescale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_up_to_the_context() {
        let mut clock = Clock::new(Forgetting::After { context: 16, tau: 8.0 });
        for t in 0..=16 {
            let tick = clock.tick();
            assert_eq!(tick, Tick { position: t, read_scale: 1.0, write_scale: 1.0, rescale: None });
        }
        assert!(clock.tick().read_scale < 1.0);
    }

    #[test]
    fn rescaling_keeps_the_weights_of_the_definition() {
        for tau in [0.01, 0.4, 5.0, 128.0] {
            let forgetting = Forgetting::After { context: 3, tau };
            let mut clock = Clock::new(forgetting);
            // A state of one number per past token, with q = x = 1.
            let mut contributions: Vec<f64> = Vec::new();
            for t in 0..9000u32 {
                let tick = clock.tick();
                if let Some(factor) = tick.rescale {
                    contributions.iter_mut().for_each(|c| *c *= factor as f64);
                }
                for (s, c) in contributions.iter().enumerate().rev().take(50) {
                    let expected = (forgetting.exponent(s as u32) - forgetting.exponent(t)).exp();
                    let got = c * tick.read_scale as f64;
                    assert!((got - expected).abs() < 1e-5, "tau {tau} s {s} t {t}: {got} {expected}");
                }
                assert!(tick.write_scale.is_finite() && tick.read_scale > 0.0);
                contributions.push(tick.write_scale as f64);
            }
        }
    }

    #[test]
    fn a_change_of_setting_keeps_the_weights_of_the_moment() {
        let settings = [
            Forgetting::Full,
            Forgetting::After { context: 3, tau: 5.0 },
            Forgetting::After { context: 100, tau: 0.4 },
            Forgetting::Full,
            Forgetting::After { context: 0, tau: 50.0 },
        ];
        let mut clock = Clock::new(settings[0]);
        // The weight of a token at position 0, and the number that stands for it in the state.
        let (mut weight, mut state) = (1.0, 1.0);
        for (index, &forgetting) in settings.iter().enumerate() {
            clock = clock.with_forgetting(forgetting);
            for t in 40 * index as u32..40 * (index as u32 + 1) {
                assert_eq!(clock.position(), u64::from(t));
                let tick = clock.tick();
                state *= tick.rescale.map_or(1.0, f64::from);
                let got = state * f64::from(tick.read_scale);
                assert!((got - weight).abs() <= 1e-5 * weight, "{forgetting:?} at {t}: {got} {weight}");
                weight *= f64::from(forgetting.weight(t, t + 1));
            }
        }
    }

    #[test]
    fn the_last_position_is_reachable() {
        let mut clock = Clock::new(Forgetting::After { context: 1, tau: 1e-3 });
        clock.position = u32::MAX as u64;
        assert_eq!(clock.remaining(), 1);
        let tick = clock.tick();
        assert_eq!(tick.position, u32::MAX);
        assert!(tick.write_scale.is_finite());
        assert_eq!(clock.remaining(), 0);
    }
}
