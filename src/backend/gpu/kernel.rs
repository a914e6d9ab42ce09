//! What the host knows about a kernel, and the text that a device gets of it.

use super::assemble::{self, Text, Variant};
use super::layout::Layout;
use crate::backend::WeightType;
use crate::backend::memory::WINDOW;
use std::fmt::Write as _;

/// The part of the engine that runs a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// One token of every sequence; a beam search runs some of these kernels too.
    Decode,
    /// A chunk of one sequence's tokens.
    Prefill,
    /// One token of every beam.
    Beam,
}

/// One kernel. Its buffers, parameters and dispatches are in the file that defines it.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its name in reports: the path of its shader, without the folder for decode's.
    pub name: &'static str,
    pub phase: Phase,
    /// Its shader below `shaders/`, without the ending.
    pub shader: &'static str,
    /// Invocations in a workgroup.
    pub workgroup: fn(&Layout) -> u32,
    /// Neurons, or logits, in a block.
    pub block: fn(&Layout) -> usize,
    /// Whether a workgroup serves a tile of slots.
    pub tiled: bool,
    /// The bindings whose offset is given with every dispatch, in the order of their indices.
    pub dynamic: &'static [&'static str],
    pub canary: Canary,
}

/// A small fault that looks plausible: `verify` must notice the kernel that has it.
#[derive(Debug)]
pub(super) struct Canary {
    /// A part of the kernel's text.
    pub right: &'static str,
    /// What stands there in the broken one.
    pub wrong: &'static str,
}

/// Invocations of a kernel without a reason for another number.
pub(super) fn usual_workgroup(layout: &Layout) -> u32 {
    layout.workgroup
}

/// Neurons in a block.
pub(super) fn neuron_block(layout: &Layout) -> usize {
    layout.geometry.block
}

/// Logits in a block.
pub(super) fn vocab_block(layout: &Layout) -> usize {
    layout.vocab_block
}

/// How to compile.
#[derive(Clone, Debug, Default)]
pub(super) struct CompileOptions {
    /// Keep the bounds checks that wgpu adds to shaders.
    pub checked: bool,
    /// A kernel to break on purpose.
    pub corrupt: Option<String>,
    /// Both neurons of a rotary pair share a frequency.
    pub paired: bool,
    /// Makes another text of a kernel's.
    pub rewrite: Option<Rewrite>,
}

/// Makes another text of a kernel, given its name and its text.
pub type Rewrite = fn(&str, String) -> String;

impl Kernel {
    /// Slots that one workgroup serves, where a dense product serves `slot_tile`.
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
        };
        let mut text = assemble::assemble(self.shader, variant);
        if let Some(rewrite) = options.rewrite {
            text.wgsl = rewrite(self.name, text.wgsl);
        }
        if options.corrupt.as_deref() == Some(self.name) {
            let Canary { right, wrong } = self.canary;
            assert!(text.wgsl.contains(right), "kernel {} has nothing to corrupt", self.name);
            text.wgsl = text.wgsl.replace(right, wrong);
        }
        text
    }

    /// The text that takes the place of `shaders/shared/constants.wgsl`.
    fn constants(&self, layout: &Layout, slot_tile: usize, options: &CompileOptions) -> String {
        let (g, chunk) = (&layout.geometry, &layout.chunk);
        let numbers = [
            ("W", (self.workgroup)(layout) as usize),
            ("D", g.width),
            ("ROW4", g.row / 4),
            ("BLOCK", (self.block)(layout)),
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
            ("PART_BLOCKS", chunk.part_blocks),
            ("PARTS", chunk.all_parts()),
        ];
        let flags =
            [("F16", layout.weight_type == WeightType::F16), ("PAIRED", options.paired), ("FORCE_LARGE", false)];
        let mut text = String::new();
        for (name, value) in numbers {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "const {name}: u32 = {value}u;");
        }
        for (name, value) in flags {
            let _ = writeln!(text, "const {name}: bool = {value};");
        }
        text
    }
}
