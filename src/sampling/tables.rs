//! Powers of two in fixed point, from which a weight is put together.

use std::sync::LazyLock;

/// Words in [`tables`]: 256 of the first part, then 128 of the second.
pub const TABLE_LEN: usize = 384;

pub(super) const COARSE_LEN: usize = 256;

static TABLES: LazyLock<[u32; TABLE_LEN]> = LazyLock::new(|| {
    std::array::from_fn(|i| {
        let value = if i < COARSE_LEN {
            f64::exp2(31.0 - i as f64 / 256.0)
        } else {
            // exp_m1 keeps the digits that 1 - 2^-x would lose.
            let exponent = (i - COARSE_LEN) as f64 / 32768.0;
            -f64::exp_m1(-exponent * std::f64::consts::LN_2) * f64::exp2(32.0)
        };
        value.round() as u32
    })
});

/// The tables as the device reads them, in one array.
///
/// Word `a` below 256 is round(2^31 · 2^(-a/256)), Q1.31. Word `256 + b` is
/// round(2^32 · (1 - 2^(-b/32768))), the share to take off for the next 7 bits of the exponent.
pub fn tables() -> &'static [u32; TABLE_LEN] {
    &TABLES
}
