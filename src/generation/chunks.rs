//! A list of tokens, in the chunks in which a device reads it.

use crate::backend::{Chunk, ChunkToken};
use crate::model::forgetting::Clock;

/// Takes the next chunk off `tokens`: at most `most` of them, and fewer where the state is rescaled between two. `logits`
/// asks for the logits of every token.
pub(crate) fn next_chunk(tokens: &mut &[u32], most: usize, clock: &mut Clock, logits: bool) -> Chunk {
    let mut chunk = Chunk { position: clock.position() as u32, logits, ..Chunk::default() };
    while let Some((&token, rest)) = tokens.split_first() {
        let tick = { *clock }.tick();
        if chunk.tokens.len() == most || (tick.rescale.is_some() && !chunk.tokens.is_empty()) {
            break;
        }
        clock.tick();
        chunk.rescale = chunk.rescale.or(tick.rescale);
        chunk.tokens.push(ChunkToken { token, read_scale: tick.read_scale, write_scale: tick.write_scale });
        *tokens = rest;
    }
    chunk
}
