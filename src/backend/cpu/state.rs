//! Rows of a state in memory: floats, or codes with a scale per row (see [`codes`]).

use super::decode::rescale::rescale;
use super::pages::Pages;
use super::simd::{Isa, LANES};
use super::weights::Vectors;
use crate::backend::codes::{self, Code, RowScale};
use crate::backend::memory::SavedState;
use crate::backend::pack::Geometry;
use crate::backend::{BackendError, StateType};
use bytemuck::Pod;

/// A type of numbers in a state.
pub trait StateNumber: Vectors + Pod {
    /// Whether rows have a scale.
    const SCALED: bool;
    /// Rounds numbers to a row; returns its scale.
    fn store_row<I: Isa>(isa: I, from: &[f32], row: &mut [Self]) -> f32;
    /// Rounds numbers to a row without vectors; returns its scale.
    fn encode(from: &[f32], row: &mut [Self]) -> f32;
    /// The numbers of a row.
    fn decode(row: &[Self], scale: f32, to: &mut [f32]);
}

impl StateNumber for f32 {
    const SCALED: bool = false;

    #[inline(always)]
    fn store_row<I: Isa>(_: I, from: &[f32], row: &mut [f32]) -> f32 {
        row.copy_from_slice(from);
        1.0
    }

    fn encode(from: &[f32], row: &mut [f32]) -> f32 {
        row.copy_from_slice(from);
        1.0
    }

    fn decode(row: &[f32], _: f32, to: &mut [f32]) {
        to.copy_from_slice(row);
    }
}

/// A type of codes whose vectors can be stored.
trait StoredCode: Code {
    fn store<I: Isa>(isa: I, v: I::V, to: &mut [Self; LANES]);
}

impl StoredCode for i16 {
    #[inline(always)]
    fn store<I: Isa>(isa: I, v: I::V, to: &mut [i16; LANES]) {
        isa.store_i16(v, to);
    }
}

impl StoredCode for i8 {
    #[inline(always)]
    fn store<I: Isa>(isa: I, v: I::V, to: &mut [i8; LANES]) {
        isa.store_i8(v, to);
    }
}

impl<T: Vectors + StoredCode> StateNumber for T {
    const SCALED: bool = true;

    #[inline(always)]
    fn store_row<I: Isa>(isa: I, from: &[f32], row: &mut [T]) -> f32 {
        let (lines, _) = from.as_chunks::<LANES>();
        let mut largest = isa.splat(0.0);
        for line in lines {
            largest = isa.larger_magnitude(largest, isa.load(line));
        }
        let mut lanes = [0.0; LANES];
        isa.store(largest, &mut lanes);
        let mut bits = 0;
        for lane in lanes {
            bits = bits.max(lane.to_bits());
        }
        let RowScale { scale, reciprocal } = T::row_scale(bits);
        if scale.is_nan() {
            row.fill(T::zeroed());
            return scale;
        }
        let (to, _) = row.as_chunks_mut::<LANES>();
        for (to, line) in to.iter_mut().zip(lines) {
            T::store(isa, isa.mul_add(isa.load(line), isa.splat(reciprocal), isa.splat(0.0)), to);
        }
        scale
    }

    fn encode(from: &[f32], row: &mut [T]) -> f32 {
        codes::encode(from, row)
    }

    fn decode(row: &[T], scale: f32, to: &mut [f32]) {
        codes::decode(row, scale, to);
    }
}

/// Rows of one type.
#[derive(Debug, Default)]
pub struct Rows<N, S> {
    /// `[rows][row]`
    pub numbers: N,
    /// `[rows]`; empty for floats.
    pub scales: S,
}

/// Rows of one type that belong to a block.
pub type RowsOf<'a, T> = Rows<&'a mut [T], &'a mut [f32]>;

impl<T: StateNumber> RowsOf<'_, T> {
    /// Row `index`, without its scale.
    #[inline(always)]
    pub fn row(&self, index: usize, row: usize) -> &[T] {
        &self.numbers[index * row..][..row]
    }

    /// Reads a row as floats.
    #[inline(always)]
    pub fn load_row<I: Isa>(&self, isa: I, index: usize, to: &mut [f32]) {
        let (lines, _) = self.row(index, to.len()).as_chunks::<LANES>();
        let (to, _) = to.as_chunks_mut::<LANES>();
        for (to, line) in to.iter_mut().zip(lines) {
            let numbers = T::load(isa, line);
            isa.store(
                if T::SCALED { isa.mul_add(numbers, isa.splat(self.scales[index]), isa.splat(0.0)) } else { numbers },
                to,
            );
        }
    }

    /// Multiplies a row by a factor.
    #[inline(always)]
    pub fn rescale_row(&mut self, index: usize, row: usize, factor: f32) {
        if T::SCALED {
            self.scales[index] *= factor;
        } else {
            let row: &mut [f32] = bytemuck::cast_slice_mut(&mut self.numbers[index * row..][..row]);
            rescale(row, factor);
        }
    }

    /// Rounds floats to a row.
    #[inline(always)]
    pub fn store_row<I: Isa>(&mut self, isa: I, index: usize, from: &[f32]) {
        let scale = T::store_row(isa, from, &mut self.numbers[index * from.len()..][..from.len()]);
        if T::SCALED {
            self.scales[index] = scale;
        }
    }
}

/// A state's rows in one of the types.
pub enum AnyRows<F, W, B> {
    /// Floats.
    F32(F),
    /// 16-bit codes.
    I16(W),
    /// 8-bit codes.
    I8(B),
}

/// All rows of a layer's state.
pub type StatePages = AnyRows<Rows<Pages<f32>, Pages<f32>>, Rows<Pages<i16>, Pages<f32>>, Rows<Pages<i8>, Pages<f32>>>;
/// Rows of a layer's state that belong to some blocks.
pub type StateRows<'a> = AnyRows<RowsOf<'a, f32>, RowsOf<'a, i16>, RowsOf<'a, i8>>;

/// Evaluates an expression over [`AnyRows`], compiled for each type.
macro_rules! on_rows {
    ($any:expr, $rows:ident => $result:expr) => {
        match $any {
            $crate::backend::cpu::state::AnyRows::F32($rows) => $result,
            $crate::backend::cpu::state::AnyRows::I16($rows) => $result,
            $crate::backend::cpu::state::AnyRows::I8($rows) => $result,
        }
    };
}
pub(super) use on_rows;

impl StatePages {
    /// An empty state in `geometry`'s layout.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if it does not fit.
    pub fn zeroed(state_type: StateType, g: &Geometry) -> Result<Self, BackendError> {
        fn rows<T: Pod>(state_type: StateType, g: &Geometry) -> Result<Rows<Pages<T>, Pages<f32>>, BackendError> {
            let numbers = Pages::zeroed(g.layer_state(), "a sequence's state")?;
            let scales = Pages::zeroed(g.all_neurons() * state_type.scales(), "the scales of a sequence's state")?;
            Ok(Rows { numbers, scales })
        }
        Ok(match state_type {
            StateType::F32 => Self::F32(rows(state_type, g)?),
            StateType::I16 => Self::I16(rows(state_type, g)?),
            StateType::I8 => Self::I8(rows(state_type, g)?),
        })
    }

    /// Bytes of a layer's state.
    pub fn bytes(state_type: StateType, g: &Geometry) -> usize {
        g.layer_state().saturating_mul(state_type.bytes()) + 4 * g.all_neurons() * state_type.scales()
    }

    /// Sets all numbers to zero.
    pub fn clear(&mut self) {
        on_rows!(self, rows => {
            rows.numbers.fill(bytemuck::Zeroable::zeroed());
            rows.scales.fill(0.0);
        });
    }

    /// Copies a state of the same type.
    pub fn copy_from(&mut self, from: &Self) {
        fn copy<T: Pod>(to: &mut Rows<Pages<T>, Pages<f32>>, from: &Rows<Pages<T>, Pages<f32>>) {
            to.numbers.copy_from_slice(&from.numbers);
            to.scales.copy_from_slice(&from.scales);
        }
        match (self, from) {
            (Self::F32(to), Self::F32(from)) => copy(to, from),
            (Self::I16(to), Self::I16(from)) => copy(to, from),
            (Self::I8(to), Self::I8(from)) => copy(to, from),
            _ => unreachable!("the states of a device have one type"),
        }
    }

    /// All rows.
    pub fn rows_mut(&mut self) -> StateRows<'_> {
        fn all<T: Pod>(rows: &mut Rows<Pages<T>, Pages<f32>>) -> RowsOf<'_, T> {
            Rows { numbers: &mut rows.numbers, scales: &mut rows.scales }
        }
        match self {
            Self::F32(rows) => AnyRows::F32(all(rows)),
            Self::I16(rows) => AnyRows::I16(all(rows)),
            Self::I8(rows) => AnyRows::I8(all(rows)),
        }
    }

    /// The numbers without padding, `[H, N, D]`.
    pub fn to_floats(&self, g: &Geometry) -> Vec<f32> {
        let mut numbers = vec![0.0; g.heads * g.neurons * g.width];
        on_rows!(self, rows => {
            for (to, index) in numbers.chunks_exact_mut(g.width).zip(neurons(g)) {
                let scale = rows.scales.get(index).copied().unwrap_or(1.0);
                StateNumber::decode(&rows.numbers[index * g.row..][..g.width], scale, to);
            }
        });
        numbers
    }

    /// Hands out the numbers as they are, without padding: `[H, N, D]`, and their scales, `[H, N]`.
    pub fn save<R>(&self, g: &Geometry, write: impl FnOnce(SavedState<'_>) -> R) -> R {
        fn trimmed<T: Pod>(rows: &Rows<Pages<T>, Pages<f32>>, g: &Geometry) -> (Vec<T>, Vec<f32>) {
            let numbers = neurons(g).flat_map(|index| &rows.numbers[index * g.row..][..g.width]).copied().collect();
            let scales = neurons(g).filter_map(|index| rows.scales.get(index)).copied().collect();
            (numbers, scales)
        }
        match self {
            Self::F32(rows) => write(SavedState::F32(&trimmed(rows, g).0)),
            Self::I16(rows) => {
                let (numbers, scales) = trimmed(rows, g);
                write(SavedState::I16(&numbers, &scales))
            }
            Self::I8(rows) => {
                let (numbers, scales) = trimmed(rows, g);
                write(SavedState::I8(&numbers, &scales))
            }
        }
    }

    /// Replaces the numbers. A state of the same type is copied as it is, one of another type
    /// rounded.
    pub fn load(&mut self, g: &Geometry, saved: SavedState<'_>) {
        fn copy<T: Pod>(rows: &mut Rows<Pages<T>, Pages<f32>>, g: &Geometry, numbers: &[T], scales: &[f32]) {
            for (from, index) in numbers.chunks_exact(g.width).zip(neurons(g)) {
                rows.numbers[index * g.row..][..g.width].copy_from_slice(from);
            }
            for (&scale, index) in scales.iter().zip(neurons(g)) {
                rows.scales[index] = scale;
            }
        }
        match (&mut *self, saved) {
            (Self::F32(rows), SavedState::F32(numbers)) => copy(rows, g, numbers, &[]),
            (Self::I16(rows), SavedState::I16(numbers, scales)) => copy(rows, g, numbers, scales),
            (Self::I8(rows), SavedState::I8(numbers, scales)) => copy(rows, g, numbers, scales),
            (all, saved) => on_rows!(all, rows => {
                let mut floats = vec![0.0; g.width];
                for (number, index) in neurons(g).enumerate() {
                    saved.read_row(number, &mut floats);
                    let scale = StateNumber::encode(&floats, &mut rows.numbers[index * g.row..][..g.width]);
                    if let Some(own) = rows.scales.get_mut(index) {
                        *own = scale;
                    }
                }
            }),
        }
    }
}

/// The padded indices of all neurons, head after head.
fn neurons(g: &Geometry) -> impl Iterator<Item = usize> + '_ {
    (0..g.heads).flat_map(move |head| (0..g.neurons).map(move |neuron| head * g.padded_neurons() + neuron))
}

impl<'a> StateRows<'a> {
    /// Takes the first `count` rows of length `row` off.
    pub fn split_off(&mut self, count: usize, row: usize) -> Self {
        fn split<'a, T: StateNumber>(rows: &mut RowsOf<'a, T>, count: usize, row: usize) -> RowsOf<'a, T> {
            let scales = if T::SCALED { count } else { 0 };
            Rows {
                numbers: rows.numbers.split_off_mut(..count * row).expect("as many rows"),
                scales: rows.scales.split_off_mut(..scales).expect("as many scales"),
            }
        }
        match self {
            Self::F32(rows) => Self::F32(split(rows, count, row)),
            Self::I16(rows) => Self::I16(split(rows, count, row)),
            Self::I8(rows) => Self::I8(split(rows, count, row)),
        }
    }

    /// `count` rows of length `row` from row `first` on.
    pub fn part(&mut self, first: usize, count: usize, row: usize) -> StateRows<'_> {
        fn part<'b, T: StateNumber>(
            rows: &'b mut RowsOf<'_, T>,
            first: usize,
            count: usize,
            row: usize,
        ) -> RowsOf<'b, T> {
            let scales = if T::SCALED { first..first + count } else { 0..0 };
            Rows { numbers: &mut rows.numbers[first * row..(first + count) * row], scales: &mut rows.scales[scales] }
        }
        match self {
            Self::F32(rows) => AnyRows::F32(part(rows, first, count, row)),
            Self::I16(rows) => AnyRows::I16(part(rows, first, count, row)),
            Self::I8(rows) => AnyRows::I8(part(rows, first, count, row)),
        }
    }

    /// Multiplies all numbers by a factor.
    pub fn rescale(&mut self, factor: f32) {
        match self {
            Self::F32(rows) => rescale(rows.numbers, factor),
            Self::I16(rows) => rescale(rows.scales, factor),
            Self::I8(rows) => rescale(rows.scales, factor),
        }
    }
}
