//! What the options of the sampler mean together.

use super::SamplingError;
pub use crate::options::SamplingOptions;

impl SamplingOptions {
    /// The default with the best token taken instead of a random one.
    pub fn greedy() -> Self {
        Self { do_sample: false, ..Self::DEFAULT }
    }

    /// Whether the best token is taken: temperature, top-k, top-p and min-p then have no effect.
    pub fn is_greedy(&self) -> bool {
        !self.do_sample || self.temperature == 0.0
    }

    /// Checks every option against its valid range.
    ///
    /// # Errors
    ///
    /// [`SamplingError::OutOfRange`] for the first option that is out of range or NaN.
    pub fn validate(&self) -> Result<(), SamplingError> {
        self.request().values().try_for_each(|(spec, value)| Ok(spec.check(&value)?))
    }
}
