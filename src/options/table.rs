//! The table of generation options.
//!
//! A row is an option's documentation for Rust, `name: type = default`, and the fields of [`Spec`]
//! that differ from [`Spec::ROW`]. Rows of the first block are fields of [`SamplingOptions`], which
//! the sampler reads. Users see the options in this order: in the prompt loop, and under each
//! heading of a help text.
//!
//! `num_return_sequences` (how many texts), `echo` (how much of them is shown), `context`,
//! `forget_tau` and `window` (how much of the past counts) are no rows: they belong to a whole call or session.

use super::rows::options;
use super::spec::{Command, Effect, Range, Spec};
use super::value::{EarlyStopping, LogitBias, OptionType};
use std::ops::Bound::{Excluded, Included, Unbounded};

/// Heading: how much to write.
pub const LENGTH: &str = "Length";
/// Heading: how each token is chosen.
pub const CHOOSING: &str = "Choosing tokens";
/// Heading: how beam search goes.
pub const BEAMS: &str = "Beam search";
/// The headings in their order.
pub const HEADINGS: [&str; 3] = [LENGTH, CHOOSING, BEAMS];

/// Largest number of beams.
pub const MAX_BEAMS: usize = 1024;

const NOT_NEGATIVE: Range = (Included(0.0), Unbounded);
const POSITIVE: Range = (Excluded(0.0), Unbounded);
const SHARE: Range = (Included(0.0), Included(1.0));
const SHARE_ABOVE_ZERO: Range = (Excluded(0.0), Included(1.0));

options! {
    SamplingOptions {
        /// Logits are divided by this; finite, at least 0. 0 takes the best token.
        temperature: f32 = 1.0 => {
            range: NOT_NEGATIVE,
            effect: Effect::Drawing,
            heading: CHOOSING,
            value_name: "T",
            help: "Divide the logits by T, 0 or more: below 1 is safer, above 1 wilder, 0 greedy",
            command: Some(Command {
                name: "temp",
                value_name: "T",
                help: "temperature, 0 or more: below 1 is safer, above 1 wilder, 0 greedy",
            }),
        }
        /// Keep the k best tokens and all that tie with the last of them; 0 keeps every token.
        top_k: u32 = 0 => {
            effect: Effect::Drawing,
            heading: CHOOSING,
            value_name: "K",
            help: "Draw from the K likeliest tokens; 0 is all",
            command: Some(Command {
                name: "top_k",
                value_name: "K",
                help: "draw from the K likeliest tokens; 0 is all",
            }),
        }
        /// Keep the best tokens up to this share of the probability; above 0, at most 1 (all).
        top_p: f32 = 1.0 => {
            range: SHARE_ABOVE_ZERO,
            effect: Effect::Drawing,
            heading: CHOOSING,
            value_name: "P",
            help: "Draw from the likeliest tokens that make up this share of the probability, above 0, up to 1",
            command: Some(Command {
                name: "top_p",
                value_name: "P",
                help: "draw from the likeliest tokens of this share, above 0, up to 1 (all)",
            }),
        }
        /// Keep tokens with at least this share of the best token's probability; 0 to 1.
        min_p: f32 = 0.0 => {
            range: SHARE,
            effect: Effect::Drawing,
            heading: CHOOSING,
            value_name: "P",
            help: "Draw from tokens with at least this share of the likeliest one's probability, 0 to 1",
            command: Some(Command {
                name: "min_p",
                value_name: "P",
                help: "draw from tokens with this share of the likeliest one's probability, 0 to 1",
            }),
        }
        /// Divides positive and multiplies negative logits of tokens in the prompt or the generated
        /// text; above 0, 1 changes nothing.
        repetition_penalty: f32 = 1.0 => {
            range: POSITIVE,
            heading: CHOOSING,
            value_name: "R",
            help: "Make tokens of the prompt and the text less likely (above 1) or more (below 1); above 0",
            command: Some(Command {
                name: "penalty",
                value_name: "R",
                help: "repetition penalty, above 0: above 1 repeats less, 1 does nothing",
            }),
        }
        /// Taken off the logit of every token that has been generated; 0 changes nothing.
        presence_penalty: f32 = 0.0 => {
            heading: CHOOSING,
            value_name: "A",
            help: "Taken off the logit of every token already generated",
        }
        /// Taken off a token's logit once for each time it has been generated; 0 changes nothing.
        frequency_penalty: f32 = 0.0 => {
            heading: CHOOSING,
            value_name: "A",
            help: "Taken off a token's logit for each time it was generated",
        }
        /// Draw at random; false takes the best token, as temperature 0 does.
        do_sample: bool = true => {
            effect: Effect::Drawing,
            heading: CHOOSING,
            opposite: Some("greedy"),
            help: "Always take the likeliest token",
        }
        /// End-of-sequence tokens are banned until this many tokens have been generated.
        min_new_tokens: u32 = 0 => {
            heading: LENGTH,
            value_name: "N",
            help: "Tokens to generate before an end-of-sequence token may come",
        }
    }
    others {
        /// Tokens to generate at most.
        max_new_tokens: usize = 100 => {
            heading: LENGTH,
            short: Some('n'),
            value_name: "N",
            help: "Tokens to generate at most",
            command: Some(Command { name: "max_tokens", value_name: "N", help: "tokens to generate each turn" }),
        }
        /// Added to the logits of these tokens after the penalties, -100 to 100; -100 bans a token.
        logit_bias: LogitBias => {
            range: (Included(-100.0), Included(100.0)),
            heading: CHOOSING,
            in_file: false,
            value_name: "ID=BIAS",
            help: "Added to the logit of token ID, -100 (never) to 100; repeatable, or separated by commas",
        }
        /// Texts followed at the same time, 1 to [`MAX_BEAMS`]; 1 draws instead.
        num_beams: usize = 1 => {
            range: (Included(1.0), Included(MAX_BEAMS as f64)),
            heading: BEAMS,
            value_name: "N",
            help: "Follow the N likeliest texts, 1 to 1024, instead of drawing; 1 is no search",
            command: Some(Command {
                name: "beams",
                value_name: "N",
                help: "follow the N likeliest texts, 1 to 1024, instead of drawing; 1 draws",
            }),
        }
        /// Exponent of the length that a beam's score is divided by.
        length_penalty: f64 = 1.0 => {
            effect: Effect::Beams,
            heading: BEAMS,
            value_name: "A",
            help: "Divide a text's log-probability by its length to this power: above 0 favours long texts",
        }
        /// When beam search stops.
        early_stopping: EarlyStopping = EarlyStopping::WhenUnlikely => {
            effect: Effect::Beams,
            heading: BEAMS,
            value_name: "WHEN",
            help: "When to stop looking: as soon as enough texts have ended (true), when better ones are \
                   unlikely (false) or impossible (never)",
        }
        /// Seed of the random numbers; drawn and reported when absent.
        seed: u64 => {
            effect: Effect::OnlyDrawing,
            heading: CHOOSING,
            value_name: "SEED",
            help: "Seed of the random numbers [default: a new one each time, reported]",
            command: Some(Command {
                name: "seed",
                value_name: "N",
                help: "seed of the random numbers; random chooses a new one",
            }),
        }
        /// Texts that end a sequence, none of them empty.
        stop: Vec<String> => {
            heading: LENGTH,
            in_file: false,
            value_name: "TEXT",
            help: "End the text before this one, which is left out; repeatable",
            command: Some(Command {
                name: "stop",
                value_name: "TEXT",
                help: "end the text before this one (\\n is a line end); off for none",
            }),
        }
        /// Tokens that end a sequence, in the place of the model's.
        eos_token_id: Vec<u32> => {
            heading: LENGTH,
            value_name: "ID",
            help: "Tokens that end the text, instead of the model's own; repeatable, or separated by commas",
        }
        /// Go on past every end-of-sequence token.
        ignore_eos: bool => {
            heading: LENGTH,
            in_file: false,
            help: "Write on past every end-of-sequence token",
        }
    }
}
