//! The host's description of a kernel, and the text that a device gets.

use super::assemble::{self, Text, Variant};
use super::cost::{Cost, Dispatch};
use super::layout::{Block, Layout, per_vector};
use crate::backend::codes;
use crate::backend::memory::WINDOW;
use std::fmt::Write as _;

/// The part of the engine that runs a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// One token of every sequence; beam search runs some of these kernels too.
    Decode,
    /// A chunk of one sequence's tokens.
    Prefill,
    /// One token of every beam.
    Beam,
}

/// One kernel. The file that defines it also holds its buffers, parameters and dispatches.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Name in reports: the path of its shader, without the folder for decode's kernels.
    pub name: &'static str,
    pub phase: Phase,
    /// Path of its shader below `shaders/`, without extension.
    pub shader: &'static str,
    /// Invocations in a workgroup.
    pub workgroup: fn(&Layout) -> u32,
    /// A block of the kernel's weights.
    pub block: fn(&Layout) -> Block,
    /// Whether a workgroup serves a tile of slots.
    pub tiled: bool,
    /// Bindings whose offset every dispatch gives, in the order of their indices.
    pub dynamic: &'static [&'static str],
    pub canary: Canary,
    /// The cost of a dispatch; `None` for phases that `bench --predict` leaves out.
    pub cost: Option<fn(&Dispatch) -> Cost>,
}

/// A small, plausible fault: `verify` must notice the kernel that has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canary {
    /// Part of the kernel's text.
    pub right: &'static str,
    /// Its replacement in the corrupted kernel.
    pub wrong: &'static str,
}

/// Invocations of a kernel that has no reason for another number.
pub(super) fn usual_workgroup(layout: &Layout) -> u32 {
    layout.workgroup
}

/// A block of neurons.
pub(super) fn neuron_block(layout: &Layout) -> Block {
    layout.block_of_neurons()
}

/// A block of logits.
pub(super) fn vocab_block(layout: &Layout) -> Block {
    layout.block_of_logits()
}

/// Compile options.
#[derive(Clone, Debug, Default)]
pub(super) struct CompileOptions {
    /// Whether to keep the bounds checks that wgpu adds to shaders.
    pub checked: bool,
    /// Kernel to break on purpose.
    pub corrupt: Option<&'static Kernel>,
    /// Whether both neurons of a rotary pair share a frequency.
    pub paired: bool,
    /// Whether kernels keep what [`Slots::run_watched`](crate::backend::Slots::run_watched) shows.
    pub watched: bool,
    /// Rewrites a kernel's text.
    pub rewrite: Option<Rewrite>,
}

/// Rewrites a kernel's text, given its name and its text.
pub type Rewrite = fn(&str, String) -> String;

impl Kernel {
    /// Slots per workgroup, if a dense product serves `slot_tile`.
    pub fn slot_tile(&self, slot_tile: usize) -> usize {
        if self.tiled { slot_tile } else { 1 }
    }

    /// The whole WGSL text for a layout.
    pub fn text(&self, layout: &Layout, slot_tile: usize, options: &CompileOptions) -> Text {
        let workgroup = (self.workgroup)(layout);
        let constants = self.constants(layout, self.slot_tile(slot_tile), options);
        let variant = Variant {
            constants: Some(&constants),
            subgroup: layout.subgroup == Some(workgroup),
            images: layout.images,
            codes: layout.pack() > 1,
            watched: options.watched,
            clamped: (self.block)(layout).biased,
        };
        let mut text = assemble::assemble(self.shader, variant);
        if let Some(rewrite) = options.rewrite {
            text.wgsl = rewrite(self.name, text.wgsl);
        }
        if options.corrupt.is_some_and(|kernel| std::ptr::eq(kernel, self)) {
            let Canary { right, wrong } = self.canary;
            assert!(text.wgsl.contains(right), "kernel {} has nothing to corrupt", self.name);
            text.wgsl = text.wgsl.replace(right, wrong);
        }
        text
    }

    /// The text that replaces `shaders/shared/constants.wgsl`.
    fn constants(&self, layout: &Layout, slot_tile: usize, options: &CompileOptions) -> String {
        let (g, chunk) = (&layout.geometry, &layout.chunk);
        let block = (self.block)(layout);
        let fours = |weights| per_vector(weights) / 4;
        let numbers = [
            ("W", (self.workgroup)(layout) as usize),
            ("D", g.width),
            ("ROW4", g.row / 4),
            ("BLOCK", block.outputs),
            ("BLOCKS_PER_HEAD", g.blocks_per_head),
            ("BLOCKS", g.blocks()),
            ("WINDOW", WINDOW),
            ("SLOT_TILE", slot_tile),
            ("ROW_LANES", layout.row_lanes as usize),
            ("TEAM_ROWS", layout.team_rows),
            ("VOCAB_BLOCKS", layout.padded_vocab() / layout.vocab_block),
            ("V", g.vocab),
            ("LOGITS_STRIDE", layout.padded_vocab()),
            ("CHUNK", chunk.tokens),
            ("TILE", chunk.tile),
            ("COLUMNS", chunk.columns),
            ("NEURONS", chunk.gate_neurons),
            ("WRITTEN", chunk.written_neurons),
            ("PART_BLOCKS", chunk.part_blocks),
            ("PARTS", chunk.all_parts()),
            ("PACK", layout.pack()),
            ("WEIGHT_FOURS", fours(block.weights)),
            ("EMBEDDING_FOURS", fours(layout.weight_type.tables())),
        ];
        let flags = [("PAIRED", options.paired), ("FORCE_LARGE", false)];
        let mut text = String::new();
        for (name, value) in numbers {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "const {name}: u32 = {value}u;");
        }
        for (name, table) in codes::tables(layout.state_type) {
            let words: Vec<String> = table.iter().map(|bits| format!("{bits:#x}u")).collect();
            let _ = writeln!(text, "const {name} = array<u32, {}>({});", words.len(), words.join(", "));
        }
        for (name, value) in flags {
            let _ = writeln!(text, "const {name}: bool = {value};");
        }
        text
    }
}
