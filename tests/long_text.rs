//! Long texts: scores by position and needles in haystacks, against the definition in f64, token by token.
#![cfg(feature = "embedded-model")]

mod common;
#[path = "common/program.rs"]
mod program;

use bdh_gpu::generation::{Bdh, DeviceChoice, GenerationError, Mean, WeightChoice};
use bdh_gpu::model::{Config, Model, Tensor, Tokenizer, Weights};
use bdh_gpu::needle::{NeedleError, NeedleOptions, Places, measure};
use bdh_gpu::sampling::draw_word;
use bdh_gpu::{Forgetting, GenerationOptions, SamplingOptions};
use common::recurrent::Recurrent;
use program::{file_with, path, run_command, score};
use serde_json::Value;
use std::ops::ControlFlow;

const GO_ON: ControlFlow<()> = ControlFlow::Continue(());

fn shipped() -> Bdh {
    Bdh::new(Model::embedded().unwrap(), &DeviceChoice::Cpu, WeightChoice::Auto).unwrap()
}

/// Small, so that the definition in f64 takes no time.
fn micro() -> Bdh {
    Bdh::new(common::model("micro"), &DeviceChoice::Cpu, WeightChoice::F32).unwrap()
}

/// A text in the manner of the plays.
fn text(tokens: usize) -> Vec<u32> {
    let play = "KING:\nWhat news, my lord?\n\nQUEEN:\nNone, good my liege, but that the world's grown honest.\n\n\
                HAMLET:\nThen is doomsday near: but your news is not true.\nLet me question more in particular.\n\n";
    play.bytes().cycle().take(tokens).map(u32::from).collect()
}

/// Bits that the definition in f64 takes for every token but the first.
fn bits(model: &Model, tokens: &[u32], forgetting: Forgetting) -> Vec<f64> {
    let mut sequence = Recurrent::new(model, forgetting);
    let bit = |pair: &[u32]| {
        let logits = sequence.read(pair[0]);
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - highest).exp()).sum();
        (sum.ln() + highest - logits[pair[1] as usize]) / std::f64::consts::LN_2
    };
    tokens.windows(2).map(bit).collect()
}

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{found}, expected {expected}");
}

/// Two pieces of 300 tokens, of which 44 are in the second range.
#[test]
fn a_score_by_position_is_that_of_the_definition() {
    let (bdh, text) = (micro(), text(650));
    let forgetting = Forgetting::After { context: 100, tau: 50.0 };
    let score = bdh.score_by_position(&text, Some(300), forgetting, |_| GO_ON).unwrap();
    let pieces = [&text[..300], &text[300..600]].map(|piece| bits(bdh.model(), piece, forgetting));
    assert_eq!((score.pieces, score.length, score.left_out), (2, 300, 50));
    // By the position of the token that is predicted: one less in a list without the first.
    let expected = [(0, 255, 0..255), (256, 299, 255..299)];
    assert_eq!(score.ranges.len(), expected.len());
    for (range, (first, last, places)) in score.ranges.iter().zip(expected) {
        let count = places.len();
        assert_eq!((range.first, range.last, range.pieces, range.tokens), (first, last, 2, 2 * count));
        let [a, b] = [0, 1].map(|piece: usize| pieces[piece][places.clone()].iter().sum::<f64>() / count as f64);
        assert_close(range.per_token.bits, (a + b) / 2.0);
        // The deviation of two numbers over the root of two.
        assert_close(range.per_token.standard_error.unwrap(), (a - b).abs() / 2.0);
        assert_eq!(range.per_byte, Some(range.per_token));
    }
    let all = pieces.concat().iter().sum::<f64>() / 598.0;
    assert_close(score.all.per_token.bits, all);
    assert_eq!((score.all.first, score.all.last, score.all.tokens), (0, 299, 598));
}

#[test]
fn one_conversation_has_no_standard_error_and_its_score_is_that_of_the_whole() {
    let (bdh, text) = (shipped(), text(600));
    let forgetting = Forgetting::of_model(&bdh.model().config);
    let whole = bdh.score(&text, forgetting, |_| GO_ON).unwrap();
    let score = bdh.score_by_position(&text, None, forgetting, |_| GO_ON).unwrap();
    let ranges: Vec<_> = score.ranges.iter().map(|range| (range.first, range.last, range.tokens)).collect();
    assert_eq!(ranges, [(0, 255, 255), (256, 511, 256), (512, 599, 88)]);
    let sums: Vec<f64> = [1..256, 256..512, 512..600]
        .map(|places| whole.logprobs[places].iter().flatten().sum::<f64>() / -std::f64::consts::LN_2)
        .into();
    for (range, sum) in score.ranges.iter().zip(sums) {
        assert!((range.per_token.bits - sum / range.tokens as f64).abs() < 1e-9);
        assert_eq!(range.per_token.standard_error, None);
    }
    assert!((score.all.per_token.bits - whole.bits_per_token()).abs() < 1e-9);
    // Ended within the second piece.
    let cut = bdh.score_by_position(&text, Some(200), forgetting, |read| match read {
        0..300 => GO_ON,
        _ => ControlFlow::Break(()),
    });
    let cut = cut.unwrap();
    assert_eq!((cut.pieces, cut.ranges.len()), (2, 1));
    assert!((199 + 100..199 + 199).contains(&cut.all.tokens), "{cut:?}");
}

#[test]
fn texts_that_are_too_short_say_so() {
    let (bdh, text) = (shipped(), text(100));
    let score =
        |tokens: usize, length| bdh.score_by_position(&text[..tokens], length, Forgetting::Full, |_| GO_ON).map(|_| ());
    for (tokens, length, count) in [(0, None, 0), (1, None, 1), (100, Some(0), 0), (100, Some(1), 1)] {
        assert!(matches!(score(tokens, length), Err(GenerationError::TooShort(found)) if found == count));
    }
    let error = score(99, Some(100)).unwrap_err();
    assert!(error.is_usage());
    assert_eq!(
        error.to_string(),
        "the text has 99 tokens, fewer than a piece of 100; give a longer text or shorter pieces"
    );
}

/// A model of which only the tokenizer matters.
#[test]
fn bytes_are_those_of_the_tokens_text() {
    let of = bdh_gpu::generation::token_bytes;
    assert_eq!(of(&Tokenizer::bytes(256), &[65, 200, 10]), Some(vec![1; 3]));
    // Without a text: a special token.
    assert_eq!(of(&Tokenizer::bytes(300), &[65, 256]), Some(vec![1, 0]));
    assert_eq!(of(&Tokenizer::absent(9, "none"), &[1, 2]), None);
    let characters = [(0, "a".to_string()), (1, "é".to_string()), (2, "€".to_string())].into();
    assert_eq!(of(&Tokenizer::characters(characters, 3).unwrap(), &[2, 0, 1]), Some(vec![3, 1, 2]));
}

/// The random words, written down a second time.
fn word(seed: u64, index: u32, stream: u32, syllables: u32) -> String {
    let syllable = |step| {
        let word = draw_word(seed, step, index, stream);
        let consonant = "bdfgklmnprstvz".as_bytes()[(word % 14) as usize] as char;
        let vowel = "aeiou".as_bytes()[((word >> 32) % 5) as usize] as char;
        format!("{consonant}{vowel}")
    };
    (0..syllables).map(syllable).collect()
}

/// Key, value, and the other value of a needle.
fn words(seed: u64, index: u32) -> [String; 3] {
    let key = word(seed, index, 1, 2);
    let key = key[..1].to_uppercase() + &key[1..];
    [key, word(seed, index, 2, 3), word(seed, index, 3, 3)]
}

fn tokens(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// Texts that are read at once, each from its beginning, in f64; hits by generating.
#[test]
fn needles_are_found_as_the_definition_finds_them() {
    let (bdh, haystack) = (shipped(), text(120));
    let forgetting = Forgetting::After { context: 30, tau: 20.0 };
    let (length, depths) = (80, [60]);
    let options = NeedleOptions {
        text: " So {key} says {value}.".to_string(),
        lengths: vec![length],
        places: Places::Depths(depths.to_vec()),
        needles: 2,
        seed: 7,
    };
    let mut calls = Vec::new();
    let cells = measure(&bdh, &haystack, &options, forgetting, |read, total| {
        calls.push((read, total));
        GO_ON
    });
    let cells = cells.unwrap();
    assert!(calls.is_sorted() && calls.last().is_some_and(|(read, total)| read == total), "{calls:?}");

    let question_tokens = " So Xxxx says ".len();
    // The second needle's part of the text is its end.
    let parts = [&haystack[..length - question_tokens], &haystack[120 - (length - question_tokens)..]];
    assert_eq!(cells.len(), depths.len());
    for (cell, depth) in cells.iter().zip(depths) {
        let sentence_tokens = question_tokens + 7;
        let room = length - question_tokens - sentence_tokens;
        let before = (room as f64 * f64::from(depth) / 100.0).round() as usize;
        let mut found = [Vec::new(), Vec::new(), Vec::new()];
        let mut hits = 0;
        for (index, part) in parts.iter().enumerate() {
            let [key, value, other] = words(7, index as u32);
            let question = tokens(&format!(" So {key} says "));
            let needle = |value: &str| tokens(&format!(" So {key} says {value}."));
            let with = [&part[..before], &needle(&value), &part[before..room], &question].concat();
            let without = [&part[..], &question].concat();
            let other = [&part[..before], &needle(&other), &part[before..room], &question].concat();
            for (found, text) in found.iter_mut().zip([&with, &without, &other]) {
                assert_eq!(text.len(), length);
                let bits = bits(bdh.model(), &[&text[..], &tokens(&value)].concat(), forgetting);
                found.push(bits[length - 1..].iter().sum::<f64>());
            }
            let mut session = bdh.session_with(forgetting).unwrap();
            session.feed(&with).unwrap();
            let greedy =
                GenerationOptions { max_new_tokens: 6, sampling: SamplingOptions::greedy(), ..Default::default() };
            hits += u32::from(session.generate(&greedy).unwrap().tokens == tokens(&value));
        }
        assert_eq!((cell.length, cell.place, cell.needles, cell.hits), (length, depth as usize, 2, hits));
        assert_eq!(cell.distance, length - before - question_tokens);
        let [with, without, other] = &found;
        let check = |mean: Mean, expected: Vec<f64>| {
            assert_close(mean.bits, expected.iter().sum::<f64>() / 12.0);
            assert_close(mean.standard_error.unwrap(), (expected[0] - expected[1]).abs() / 12.0);
        };
        let difference = |from: &[f64]| from.iter().zip(with).map(|(from, with)| from - with).collect::<Vec<_>>();
        check(cell.with, with.clone());
        check(cell.without, without.clone());
        check(cell.other, other.clone());
        check(cell.gained, difference(without));
        check(cell.looked_up, difference(other));
        // Further apart than the comparison is exact.
        assert!(cell.gained.bits.abs() > 0.01 && cell.looked_up.bits.abs() > 0.005, "{cell:?}");
    }
}

#[test]
fn a_seed_has_its_needles_and_an_early_end_keeps_whole_ones() {
    let (bdh, haystack) = (shipped(), text(400));
    let options = |seed, lengths: &[usize]| NeedleOptions {
        lengths: lengths.to_vec(),
        places: Places::Distances(vec![60, 200]),
        needles: 2,
        seed,
        ..NeedleOptions::default()
    };
    let find = |options: &NeedleOptions| measure(&bdh, &haystack, options, Forgetting::Full, |_, _| GO_ON).unwrap();
    let found = find(&options(1, &[128, 256]));
    // The first length is too short for the second distance.
    let places: Vec<_> = found.iter().map(|cell| (cell.length, cell.place, cell.distance)).collect();
    assert_eq!(places, [(128, 60, 60), (256, 60, 60), (256, 200, 200)]);
    assert_eq!(find(&options(1, &[128, 256])), found);
    assert_ne!(find(&options(2, &[128, 256])), found);
    // Other texts beside it change nothing but rounding.
    for (cell, expected) in find(&options(1, &[256])).iter().zip(&found[1..]) {
        assert_close(cell.with.bits, expected.with.bits);
        assert_close(cell.gained.bits, expected.gained.bits);
    }
    // Three texts for each needle.
    for (end, expected) in [(2, vec![]), (3, vec![1]), (5, vec![1]), (6, vec![2])] {
        let mut calls = 0;
        let cut = measure(&bdh, &haystack, &options(1, &[128]), Forgetting::Full, |_, _| {
            calls += 1;
            if calls < end { GO_ON } else { ControlFlow::Break(()) }
        });
        assert_eq!(cut.unwrap().iter().map(|cell| cell.needles).collect::<Vec<u32>>(), expected, "{end}");
        assert_eq!(calls, end);
    }
}

/// A model in which `token` is always followed by `next(token)`.
fn chain(next: impl Fn(usize) -> usize) -> Model {
    const VOCAB: usize = 128;
    let config = Config {
        n_layer: 1,
        n_embd: VOCAB,
        n_head: 1,
        neurons_per_head: 2 * VOCAB,
        vocab_size: VOCAB,
        trained_context: None,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        tied_embeddings: false,
    };
    let matrix = |column: &dyn Fn(usize) -> usize| {
        let mut matrix = vec![0.0; VOCAB * VOCAB];
        (0..VOCAB).for_each(|row| matrix[row * VOCAB + column(row)] = 1.0);
        Tensor::from_f32(&[VOCAB, VOCAB], matrix)
    };
    let zeros = |shape: &[usize]| Tensor::from_f32(shape, vec![0.0; shape.iter().product()]);
    let weights = Weights {
        embed: matrix(&|row| row),
        encoder: zeros(&[1, VOCAB, 2 * VOCAB]),
        encoder_v: zeros(&[1, VOCAB, 2 * VOCAB]),
        decoder: zeros(&[2 * VOCAB, VOCAB]),
        lm_head: matrix(&next),
        freqs: bdh_gpu::model::rotary::default_freqs(2 * VOCAB),
    };
    Model::from_parts("chain", config, weights).unwrap()
}

/// Greedy decoding of the model goes on after a space with the word of one needle, and with no other.
#[test]
fn a_hit_is_the_whole_value() {
    let is_simple = |word: &String| word.bytes().collect::<std::collections::BTreeSet<u8>>().len() == word.len();
    let seed = (0..).find(|&seed| is_simple(&words(seed, 0)[1])).unwrap();
    let value = words(seed, 0)[1].clone();
    let hits = |written: &str| {
        let letters: Vec<usize> = [" ", written].concat().bytes().map(usize::from).collect();
        let next = |token| match letters.iter().position(|&letter| letter == token) {
            Some(at) if at + 1 < letters.len() => letters[at + 1],
            _ => usize::from(b'\n'),
        };
        let bdh = Bdh::new(chain(next), &DeviceChoice::Cpu, WeightChoice::F32).unwrap();
        let options = NeedleOptions {
            lengths: vec![100],
            places: Places::Depths(vec![100]),
            needles: 1,
            seed,
            ..NeedleOptions::default()
        };
        let cells = measure(&bdh, &text(100), &options, Forgetting::Full, |_, _| GO_ON).unwrap();
        assert_eq!((cells[0].needles, cells[0].with.standard_error), (1, None));
        cells[0].hits
    };
    assert_eq!(hits(&value), 1);
    // One letter is missing.
    assert_eq!(hits(&value[..5]), 0);
    assert_eq!(hits(&value[1..]), 0);
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let (bdh, haystack) = (shipped(), text(300));
    let default = NeedleOptions { lengths: vec![256], needles: 1, ..NeedleOptions::default() };
    let error = |options: NeedleOptions, tokens: usize| {
        let measured = measure(&bdh, &haystack[..tokens], &options, Forgetting::Full, |_, _| GO_ON);
        measured.unwrap_err().to_string()
    };
    for (needles, found) in [(0, "got 0"), (10_001, "got 10001")] {
        let error = error(NeedleOptions { needles, ..default.clone() }, 300);
        assert!(error.starts_with("needles must be from 1 to 10000") && error.ends_with(found), "{error}");
    }
    let depths = NeedleOptions { places: Places::Depths(vec![50, 101]), ..default.clone() };
    assert_eq!(error(depths, 300), "depths must be from 0 to 100, got 101");
    // "\nThe secret word of Xxxx is " has 28 bytes.
    for tokens in [0, 227] {
        let told = format!(
            "the text has {tokens} tokens, and a context of 256 needs 228; give a longer text or shorter lengths"
        );
        assert_eq!(error(default.clone(), tokens), told);
    }
    for lengths in [vec![usize::MAX], vec![256, usize::MAX]] {
        let error = error(NeedleOptions { lengths, ..default.clone() }, 300);
        assert!(error.starts_with("the text has 300 tokens, and a context of 18446744073709551615 needs"), "{error}");
    }
    let short = error(NeedleOptions { lengths: vec![0], ..default.clone() }, 300);
    assert_eq!(short, "a context of 0 tokens has no room for needle and question, which take 64; give longer lengths");
    let near = NeedleOptions { places: Places::Distances(vec![35]), ..default.clone() };
    assert!(error(near, 300).starts_with("a distance of 35 tokens is too short"));
    for text in ["", "{key}", "{value}", "a {value} {value}"] {
        let error = error(NeedleOptions { text: text.to_string(), ..default.clone() }, 300);
        assert!(error.starts_with("needle_text must be a text with {value} once"), "{error}");
    }
}

#[test]
fn a_needle_needs_tokens() {
    let find = |tokenizer: Tokenizer| {
        let mut model = Model::embedded().unwrap();
        model.tokenizer = tokenizer;
        bdh_gpu::needle::check(&model, &text(300), &NeedleOptions { lengths: vec![256], ..NeedleOptions::default() })
    };
    find(Tokenizer::bytes(256)).unwrap();
    let letters = (0..).zip('a'..='z').map(|(id, letter)| (id, letter.to_string())).collect();
    let error = find(Tokenizer::characters(letters, 256).unwrap()).unwrap_err();
    assert!(matches!(error, NeedleError::Generation(GenerationError::Encode(_))), "{error}");
    let error = find(Tokenizer::absent(256, "no tokenizer")).unwrap_err();
    assert!(matches!(error, NeedleError::Generation(GenerationError::Encode(_))), "{error}");
    #[cfg(feature = "tokenizers")]
    {
        // A tokenizer that writes what it does not know as something else.
        let json = serde_json::json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "unk_token": "[UNK]", "vocab": { "[UNK]": 0, "The": 1 } } });
        let error = find(Tokenizer::from_json(json.to_string().as_bytes(), 256).unwrap()).unwrap_err();
        assert!(matches!(error, NeedleError::NotExpressible { .. }), "{error}");
    }
}

fn needle(arguments: &[&str]) -> program::Run {
    run_command(program::program().args(["needle", "--device", "cpu"]).args(arguments))
}

/// JSON's parser may be off in the last bit.
#[track_caller]
fn assert_same(row: &[f64], expected: &[f64]) {
    assert_eq!(row.len(), expected.len());
    row.iter().zip(expected).for_each(|(found, expected)| assert!((found - expected).abs() < 1e-12, "{row:?}"));
}

fn numbers(csv: &str) -> Vec<Vec<f64>> {
    let number = |cell: &str| if cell.is_empty() { f64::NAN } else { cell.parse().unwrap() };
    csv.lines().skip(1).map(|line| line.split(',').map(number).collect()).collect()
}

#[test]
fn the_program_prints_scores_by_position() {
    let bytes: Vec<u8> = text(700).iter().map(|&token| token as u8).collect();
    let (_directory, file) = file_with(&bytes);
    let file = ["--file", path(&file)];
    let object = score(&[&file[..], &["--by-position=300", "--format", "json", "-q"]].concat()).json();
    let keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["pieces", "length", "left_out", "ranges", "all"]);
    let range = object["ranges"][1].as_object().unwrap();
    let documented = [
        "first",
        "last",
        "pieces",
        "tokens",
        "bits_per_token",
        "bits_per_token_error",
        "bits_per_byte",
        "bits_per_byte_error",
    ];
    assert_eq!(range.keys().collect::<Vec<_>>(), documented);
    assert_eq!((&range["first"], &range["last"], &range["tokens"]), (&256.into(), &299.into(), &88.into()));

    let csv = score(&[&file[..], &["--by_position=300", "--format", "csv", "-q"]].concat()).ok();
    assert_eq!(csv.lines().next(), Some(&documented.join(",")[..]));
    let rows = numbers(&csv);
    assert_eq!(rows.len(), 2);
    for (row, range) in rows.iter().zip(object["ranges"].as_array().unwrap()) {
        assert_same(row, &documented.map(|key| range[key].as_f64().unwrap()));
    }

    let run = score(&[&file[..], &["--by-position=300"]].concat());
    assert!(run.stderr.ends_with("note: the last 100 tokens are left out, fewer than a piece of 300\n"), "{run:?}");
    let printed = run.ok();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..2], ["pieces  2 of 300 tokens", "positions  tokens  bits per byte"]);
    let [_, [mean, error]] = [0, 1].map(|range: usize| {
        ["bits_per_byte", "bits_per_byte_error"].map(|key| object["ranges"][range][key].as_f64().unwrap())
    });
    assert_eq!(lines[3], format!("256-299    88      {mean:.4} ± {error:.4}"));
    assert!(lines[4].starts_with("all        598     ") && lines.len() == 5, "{printed}");
    let whole = score(&[&file[..], &["--by-position"]].concat()).ok();
    assert!(whole.starts_with("pieces  1 of 700 tokens\n") && !whole.contains('±'), "{whole}");

    let error = score(&[&file[..], &["--by-position=701"]].concat()).error(2);
    assert!(error.contains("the text has 700 tokens, fewer than a piece of 701"), "{error}");
    assert!(score(&[&file[..], &["--by-position=1"]].concat()).error(2).contains("at least 2 tokens, got 1"));
}

#[test]
fn the_program_looks_for_needles() {
    let bytes: Vec<u8> = text(400).iter().map(|&token| token as u8).collect();
    let (_directory, file) = file_with(&bytes);
    let given = ["--file", path(&file), "--lengths", "128,256", "--needles", "2", "-q"];
    let object = needle(&[&given[..], &["--depths", "0,100", "--format", "json"]].concat()).json();
    assert_eq!(object["needle_text"], "\nThe secret word of {key} is {value}.\n");
    assert_eq!((&object["needles"], &object["seed"]), (&2.into(), &0.into()));
    let cells = object["cells"].as_array().unwrap();
    let cell = cells[0].as_object().unwrap();
    let documented = [
        "length",
        "depth",
        "distance",
        "needles",
        "hits",
        "bits_with",
        "bits_without",
        "bits_other",
        "gained",
        "gained_error",
        "looked_up",
        "looked_up_error",
    ];
    assert_eq!(cell.keys().collect::<Vec<_>>(), documented);
    let number = |cell: &Value, key: &str| cell[key].as_f64().unwrap();
    let places: Vec<[f64; 3]> =
        cells.iter().map(|cell| ["length", "depth", "distance"].map(|key| number(cell, key))).collect();
    assert_eq!(places, [[128., 0., 100.], [128., 100., 36.], [256., 0., 228.], [256., 100., 36.]]);

    let csv = needle(&[&given[..], &["--depths", "0,100", "--format", "csv"]].concat()).ok();
    assert_eq!(csv.lines().next(), Some(&documented.join(",")[..]));
    for (row, cell) in numbers(&csv).iter().zip(cells) {
        assert_same(row, &documented.map(|key| number(cell, key)));
    }

    let printed = needle(&[&given[..], &["--distances", "40,200"]].concat()).ok();
    let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3 * 4 + 2, "{printed}");
    assert_eq!(lines[1], ["length", "\\", "distance", "40", "200"]);
    assert_eq!((lines[2][0], lines[2][2], lines[3][0]), ("128", "-", "256"));

    for (arguments, told) in [
        (&["--lengths", "512"][..], "the text has 400 tokens, and a context of 512 needs 484"),
        (&["--needle-text", "é{value}{value}"], "--needle-text must be a text with {value} once"),
        (&["--depths", "101"], "--depths must be from 0 to 100, got 101"),
        (&["--depths", "1", "--distances", "100"], "cannot be used with"),
        (&["--needles", "0"], "--needles must be from 1 to 10000, got 0"),
    ] {
        let error = needle(&[&given[..], arguments].concat()).error(2);
        assert!(error.contains(told), "{error}");
    }
    let (_directory, empty) = file_with(b"");
    assert!(needle(&["--file", path(&empty), "-q"]).error(2).contains("the text has 0 tokens"));
    assert!(needle(&[]).error(2).contains("no text"));
}
