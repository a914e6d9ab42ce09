//! Text in and out: what is generated after a text is the rest of the whole text, whatever the tokenizer, in every
//! interface and at every cut.
//!
//! The models are made so that token t is followed by a chosen token: every text is known beforehand.
#![cfg(feature = "tokenizers")]

#[path = "common/program.rs"]
mod program;

use bdh_gpu::generation::{BatchEvent, BatchOptions, Bdh, BeamOptions, DeviceChoice, WeightChoice};
use bdh_gpu::model::{Config, Model, SaveOptions, Tensor, Weights};
use bdh_gpu::{Forgetting, GenerationOptions, SamplingOptions};
use program::{Run, generate, path, program, run, run_command, score};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use tempfile::TempDir;

/// A kind of tokenizer, and a text that its model writes.
struct Kind {
    name: &'static str,
    tokenizer: Option<Value>,
    /// Tokens in the order in which the model writes them.
    tokens: &'static [&'static str],
    /// The text of the first token, the prompt.
    prompt: &'static str,
    /// The text of all tokens.
    whole: &'static str,
}

fn tokenizer(model: &str, tokens: &[&str], parts: [Value; 3]) -> Value {
    let [normalizer, pre_tokenizer, decoder] = parts;
    let vocab: serde_json::Map<String, Value> =
        (0..).zip(tokens).map(|(id, token)| (token.to_string(), Value::from(id))).collect();
    let model = match model {
        "WordPiece" => json!({ "type": model, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab }),
        "BPE" => json!({ "type": model, "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true, "ignore_merges": true,
            "vocab": vocab, "merges": [] }),
        _ => json!({ "type": model, "unk_token": "[UNK]", "vocab": vocab }),
    };
    json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model })
}

const METASPACE: [&str; 7] = ["▁Hello", "▁world", "▁of▁the", "▁sea", "!", ",", "[UNK]"];
const LLAMA: [&str; 9] = ["▁Hi", "▁caf", "<0xC3>", "<0xA9>", "▁", "<0xE2>", "<0x82>", "<0xAC>", "s"];
const WORD_PIECE: [&str; 7] = ["un", "##happ", "##y", "people", "##s", ".", "[UNK]"];
const BYTE_LEVEL: [&str; 7] = ["Hi", "Ġthere", ".Ċ", "User", "Ã", "©", "[UNK]"];
const BPE_SUFFIX: [&str; 4] = ["one</w>", "two</w>", "th", "ree</w>"];

fn metaspace(scheme: &str) -> Value {
    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true })
}

fn kinds() -> Vec<Kind> {
    let llama = [
        json!({ "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        ] }),
        Value::Null,
        json!({ "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" },
            { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] }),
    ];
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let word_piece = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
    let suffix = json!({ "type": "BPEDecoder", "suffix": "</w>" });
    vec![
        Kind { name: "bytes", tokenizer: None, tokens: &[], prompt: "a", whole: "abcdefghij" },
        Kind {
            name: "metaspace",
            tokenizer: Some(tokenizer(
                "WordLevel",
                &METASPACE,
                [Value::Null, metaspace("always"), metaspace("always")],
            )),
            tokens: &METASPACE,
            prompt: "Hello",
            whole: "Hello world of the sea!",
        },
        Kind {
            name: "llama",
            tokenizer: Some(tokenizer("BPE", &LLAMA, llama)),
            tokens: &LLAMA,
            prompt: "Hi",
            whole: "Hi café €s",
        },
        Kind {
            name: "word piece",
            tokenizer: Some(tokenizer(
                "WordPiece",
                &WORD_PIECE,
                [Value::Null, json!({ "type": "Whitespace" }), word_piece],
            )),
            tokens: &WORD_PIECE,
            prompt: "un",
            whole: "unhappy peoples.",
        },
        Kind {
            name: "byte level",
            tokenizer: Some(tokenizer("WordLevel", &BYTE_LEVEL, [Value::Null, byte_level.clone(), byte_level])),
            tokens: &BYTE_LEVEL,
            prompt: "Hi",
            whole: "Hi there.\nUseré",
        },
        Kind {
            name: "suffix",
            tokenizer: Some(tokenizer("WordLevel", &BPE_SUFFIX, [Value::Null, Value::Null, suffix])),
            tokens: &BPE_SUFFIX,
            prompt: "one</w>",
            whole: "one two three",
        },
    ]
}

/// A model of `vocab` tokens in which token t is followed by `next(t)`.
fn chain(vocab: usize, next: impl Fn(usize) -> usize) -> Model {
    let config = Config {
        n_layer: 1,
        n_embd: vocab,
        n_head: 1,
        neurons_per_head: 2 * vocab,
        vocab_size: vocab,
        trained_context: None,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        tied_embeddings: false,
    };
    let matrix = |column: &dyn Fn(usize) -> usize| {
        let mut matrix = vec![0.0; vocab * vocab];
        (0..vocab).for_each(|row| matrix[row * vocab + column(row)] = 1.0);
        Tensor::from_f32(&[vocab, vocab], matrix)
    };
    let zeros = |shape: &[usize]| Tensor::from_f32(shape, vec![0.0; shape.iter().product()]);
    let weights = Weights {
        embed: matrix(&|row| row),
        encoder: zeros(&[1, vocab, 2 * vocab]),
        encoder_v: zeros(&[1, vocab, 2 * vocab]),
        decoder: zeros(&[2 * vocab, vocab]),
        lm_head: matrix(&next),
        freqs: bdh_gpu::model::rotary::default_freqs(2 * vocab),
    };
    Model::from_parts("chain", config, weights).unwrap()
}

fn save(model: &Model, tokenizer: Option<&Value>) -> TempDir {
    let directory = TempDir::new().unwrap();
    model.save(directory.path(), &SaveOptions { dtype: None, overwrite: true }).unwrap();
    if let Some(tokenizer) = tokenizer {
        std::fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    }
    directory
}

impl Kind {
    fn directory(&self) -> TempDir {
        let vocab = if self.tokenizer.is_some() { self.tokens.len() } else { 128 };
        save(&chain(vocab, |token| (token + 1) % vocab), self.tokenizer.as_ref())
    }

    /// Tokens after the prompt.
    fn new_tokens(&self) -> usize {
        if self.tokens.is_empty() {
            self.whole.len() - 1
        } else {
            self.tokens.iter().take_while(|t| **t != "[UNK]").count() - 1 - self.unused()
        }
    }

    /// Tokens that the text does without, before the last ones.
    fn unused(&self) -> usize {
        usize::from(self.name == "metaspace")
    }

    fn rest(&self) -> &'static str {
        &self.whole[if self.name == "suffix" { 3 } else { self.prompt.len() }..]
    }
}

fn greedy(max_new_tokens: usize, stop: &[&str]) -> GenerationOptions {
    let stop = stop.iter().map(|stop| stop.to_string()).collect();
    GenerationOptions { max_new_tokens, stop, sampling: SamplingOptions::greedy(), ..Default::default() }
}

fn open(directory: &Path) -> Bdh {
    Bdh::new(Model::from_path(directory).unwrap(), &DeviceChoice::Cpu, WeightChoice::F32).unwrap()
}

/// The new text of every way to generate it in Rust.
fn texts(bdh: &Bdh, prompt: &str, options: &GenerationOptions) -> Vec<(&'static str, String)> {
    let rest = |text: String| text.strip_prefix(prompt).expect("the prompt comes first").to_owned();
    let tokens = bdh.encode(prompt.as_bytes()).unwrap();
    let forgetting = Forgetting::Full;
    let session = || {
        let mut session = bdh.session_with(forgetting).unwrap();
        session.feed(&tokens).unwrap();
        session
    };
    let mut texts = vec![
        ("generate_text", rest(bdh.generate_text(prompt, options).unwrap())),
        ("generate_stream", rest(bdh.generate_stream(prompt, options).unwrap().map(Result::unwrap).collect())),
        ("generate_batch", rest(bdh.generate_batch(&[prompt, prompt], options).unwrap().pop().unwrap())),
        ("session", {
            let mut session = session();
            let stream = session.text_stream();
            let generated = session.generate(options).unwrap();
            stream.text(&generated.tokens) + &generated.tail
        }),
        ("session's stream", session().into_stream(options.clone()).map(Result::unwrap).collect()),
    ];
    let silent = bdh.generate_stream_with(prompt, options, forgetting, false).unwrap();
    texts.push(("silent stream", silent.map(Result::unwrap).collect()));
    let batch = BatchOptions { num_return_sequences: 1, slots: None, burst: Some(1), forgetting, seeds: Vec::new() };
    bdh.run_batch(std::slice::from_ref(&tokens), options, &batch, |event| {
        if let BatchEvent::Done(done) = event {
            let generated = done.result.unwrap();
            texts.push(("batch", bdh.continuation(&tokens).text(&generated.tokens) + &generated.tail));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let beam = BeamOptions {
        num_beams: 2,
        max_new_tokens: options.max_new_tokens,
        stop: options.stop.clone(),
        ..BeamOptions::default()
    };
    if options.max_new_tokens > 0 {
        let found = bdh.beam_search(&tokens, &options.sampling, &beam, forgetting).unwrap();
        texts.push(("beams", bdh.continuation(&tokens).text(&found[0].tokens) + &found[0].tail));
    }
    texts
}

#[test]
fn a_continuation_is_the_rest_of_the_whole_text() {
    for kind in kinds() {
        let directory = kind.directory();
        let bdh = open(directory.path());
        let options = greedy(kind.new_tokens(), &[]);
        for (way, text) in texts(&bdh, kind.prompt, &options) {
            assert_eq!(text, kind.rest(), "{}, {way}", kind.name);
        }
        let tokens = bdh.encode(kind.prompt.as_bytes()).unwrap();
        let generated = bdh.generate(&tokens, &options).unwrap();
        assert_eq!(bdh.decode(&[tokens, generated.tokens].concat()), kind.whole, "{}", kind.name);
    }
}

#[test]
fn the_text_before_a_stop_text_is_whole_wherever_it_begins() {
    for kind in kinds() {
        let directory = kind.directory();
        let bdh = open(directory.path());
        let rest = kind.rest();
        let starts: Vec<usize> = rest.char_indices().map(|(at, _)| at).chain([rest.len()]).collect();
        for (index, &start) in starts.iter().enumerate() {
            for &end in starts[index + 1..].iter().take(3) {
                let stop = &rest[start..end];
                let expected = rest.split_once(stop).unwrap().0;
                for (way, text) in texts(&bdh, kind.prompt, &greedy(kind.new_tokens(), &[stop])) {
                    assert_eq!(text, expected, "{}, {way}, stop {stop:?}", kind.name);
                }
            }
        }
    }
}

#[test]
fn pieces_of_a_conversation_join_to_the_whole_text() {
    for kind in kinds() {
        let directory = kind.directory();
        let bdh = open(directory.path());
        for size in 1..4 {
            let mut session = bdh.session_with(Forgetting::Full).unwrap();
            let prompt = session.encode(kind.prompt.as_bytes()).unwrap();
            session.feed(&prompt).unwrap();
            let (mut text, mut left) = (String::new(), kind.new_tokens());
            while left > 0 {
                let count = left.min(size);
                let mut stream = session.text_stream();
                let generated = session.generate(&greedy(count, &[])).unwrap();
                text += &stream.take(&generated.tokens);
                left -= count;
                session = session.fork().unwrap();
            }
            assert_eq!(text, kind.rest(), "{}, {size} tokens at a time", kind.name);
        }
    }
}

fn object(run: Run) -> (String, String) {
    let object = run.json();
    let text = |key: &str| object[key].as_str().expect("a text").to_owned();
    (text("prompt"), text("text"))
}

#[test]
fn the_command_line_shows_slices_of_one_text() {
    for kind in kinds() {
        let directory = kind.directory();
        let count = kind.new_tokens().to_string();
        let options = ["-q", "--model", path(directory.path()), "--greedy"];
        let run = |more: &[&str]| generate(&[&options, more].concat());
        let given = ["--prompt", kind.prompt, "-n", &count];
        let rest = kind.rest();
        let whole = kind.prompt.to_owned() + rest;
        assert_eq!(run(&given).ok(), format!("{whole}\n"), "{}", kind.name);
        assert_eq!(run(&[&given[..], &["--stream"]].concat()).ok(), format!("{whole}\n"));
        assert_eq!(run(&[&given[..], &["--no-echo"]].concat()).ok(), format!("{rest}\n"));
        let expected = (kind.prompt.to_owned(), rest.to_owned());
        assert_eq!(object(run(&[&given[..], &["--format", "jsonl"]].concat())), expected);
        assert_eq!(object(run(&[&given[..], &["--format", "jsonl", "--num-beams", "2"]].concat())), expected);
        let prompts = directory.path().join("prompts");
        std::fs::write(&prompts, format!("{}\n", kind.prompt)).unwrap();
        let given = ["--prompts", path(&prompts), "-n", &count];
        assert_eq!(run(&given).ok(), format!("Prompt: {}\nGenerated: {whole}\n", kind.prompt));
        assert_eq!(object(run(&[&given[..], &["--format", "jsonl"]].concat())), expected);
    }
}

#[test]
fn a_state_goes_on_where_its_text_ended() {
    for kind in kinds() {
        let directory = kind.directory();
        let state = directory.path().join("state");
        let options = ["-q", "--model", path(directory.path()), "--greedy", "--no-echo", "--save-state", path(&state)];
        for size in [2, 5] {
            let mut left = kind.new_tokens();
            let mut text = String::new();
            while left > 0 {
                let count = left.min(size).to_string();
                let begin = if text.is_empty() { ["--prompt", kind.prompt] } else { ["--load-state", path(&state)] };
                text += generate(&[&options[..], &begin, &["-n", &count]].concat()).ok().trim_end_matches('\n');
                left -= left.min(size);
            }
            // Where a state ends in the midst of a character, its parts are shown apart.
            let split = kind.name == "llama" || kind.name == "byte level";
            assert!(text == kind.rest() || split, "{}: {text:?}", kind.name);
        }
    }
}

/// The prompt loop with lines from a pipe.
fn piped(model: &Path, arguments: &[&str], lines: &str) -> Run {
    let mut command = program();
    command.args(["interactive", "--device", "cpu", "--quiet", "--temperature", "0", "--model", path(model)]);
    run_command(command.args(arguments).write_stdin(lines.to_owned()))
}

#[test]
fn a_later_prompt_is_added_as_it_is() {
    // Whether a space comes before the comma shows in what follows it.
    const TOKENS: [&str; 8] = ["▁Hello", ",", "▁,", "A", "B", "▁", "▁world", "<unk>"];
    let next = [1, 3, 4, 3, 4, 5, 6, 7];
    let kinds = [
        ("first", Value::Null, metaspace("first")),
        ("always", Value::Null, metaspace("always")),
        (
            "prepend",
            json!({ "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        ] }),
            Value::Null,
        ),
    ];
    for (name, normalizer, pre_tokenizer) in kinds {
        let tokenizer = tokenizer("BPE", &TOKENS, [normalizer, pre_tokenizer, metaspace("always")]);
        let directory = save(&chain(TOKENS.len(), |token| next[token]), Some(&tokenizer));
        let bdh = open(directory.path());
        let mut session = bdh.session_with(Forgetting::Full).unwrap();
        let first = session.encode(b"Hello").unwrap();
        session.feed(&first).unwrap();
        assert_eq!((first, session.encode(b",").unwrap()), (vec![0], vec![1]), "{name}");
        assert_eq!(session.encode(b" ,").unwrap(), [2], "{name}: a space that was given stays");
        session.reset().unwrap();
        assert_eq!(session.encode(b",").unwrap(), [2], "{name}: the first text is read as ever");

        let state = directory.path().join("state");
        let model = ["-q", "--greedy", "--model", path(directory.path())];
        generate(&[&model[..], &["--prompt", "Hello", "-n", "0", "--save-state", path(&state)]].concat()).ok();
        let more = ["--prompt", ",", "-n", "1", "--load-state", path(&state)];
        assert_eq!(generate(&[&model[..], &more].concat()).ok(), ",A\n", "{name}");
        assert_eq!(object(generate(&[&model[..], &more, &["--format", "jsonl"]].concat())), (",".into(), "A".into()));
        assert_eq!(piped(directory.path(), &["-n", "0"], "Hello\n/max_tokens 1\n,\n").ok(), "\nA\n", "{name}");
    }
    // WordPiece goes on within a word.
    let kind = kinds_named("word piece");
    let directory = kind.directory();
    let bdh = open(directory.path());
    let mut session = bdh.session_with(Forgetting::Full).unwrap();
    session.feed(&bdh.encode(b"un").unwrap()).unwrap();
    assert_eq!(session.encode(b"happy people").unwrap(), bdh.encode(b"unhappy people").unwrap()[1..]);
    assert_eq!(session.encode(b" people").unwrap(), bdh.encode(b"people").unwrap());
}

fn kinds_named(name: &str) -> Kind {
    kinds().into_iter().find(|kind| kind.name == name).expect("a kind")
}

#[test]
fn turns_of_the_prompt_loop_have_their_spaces() {
    let directory = kinds_named("metaspace").directory();
    let run = piped(directory.path(), &["-n", "2"], "Hello\n sea\n");
    assert_eq!(run.ok(), " world of the\n!,\n");
    let directory = kinds_named("byte level").directory();
    assert_eq!(piped(directory.path(), &["-n", "3", "--stop", "\n"], "Hi\n").ok(), " there.\n");
}

#[test]
fn a_prompt_is_shown_as_it_was_given() {
    let tokens = ["hello", "world", "[UNK]"];
    let lower = json!({ "type": "Lowercase" });
    let tokenizer = tokenizer("WordLevel", &tokens, [lower, json!({ "type": "Whitespace" }), Value::Null]);
    let directory = save(&chain(3, |token| (token + 1) % 3), Some(&tokenizer));
    let options = ["-q", "--greedy", "-n", "1", "--model", path(directory.path()), "--prompt", "Xyzzy  HELLO"];
    let (prompt, text) = object(generate(&[&options[..], &["--format", "jsonl"]].concat()));
    assert_eq!((prompt.as_str(), text.as_str()), ("Xyzzy  HELLO", " world"));
    assert_eq!(generate(&options).ok(), "Xyzzy  HELLO world\n");
    assert_eq!(open(directory.path()).generate_text("HELLO", &greedy(1, &[])).unwrap(), "HELLO world");
    // Token ids have the text of their tokens.
    let ids = ["-q", "--greedy", "-n", "1", "--model", path(directory.path()), "--tokens", "0", "--format", "jsonl"];
    assert_eq!(object(generate(&ids)), ("hello".to_owned(), " world".to_owned()));
}

// --- where tokenizers come from, and models without one ---

#[test]
fn without_a_tokenizer_ids_work_and_text_is_refused() {
    let directory = save(&chain(300, |token| (token + 1) % 300), None);
    let model = ["--model", path(directory.path())];
    let refused: &[&[&str]] = &[
        &["--prompt", "a"],
        &["--prompt", "a", "--format", "jsonl"],
        &["--tokens", "1 2"],
        &["--tokens", "1 2", "--no-echo"],
        &["--tokens", "1 2", "--format", "jsonl", "--stop", "x"],
    ];
    for arguments in refused {
        let error = generate(&[&model, *arguments].concat()).error(2);
        assert!(error.contains("300 tokens and no tokenizer") && error.contains("--tokenizer PATH"), "{error}");
    }
    assert!(score(&[&model[..], &["--text", "ab"]].concat()).error(2).contains("no tokenizer"));
    let mut interactive = program();
    let run = run_command(interactive.args(["interactive", "--device", "cpu"]).args(model).write_stdin("a\n"));
    assert!(run.error(2).contains("no tokenizer"));
    let object =
        generate(&[&model[..], &["-q", "--greedy", "-n", "3", "--tokens", "297 298", "--format", "jsonl"]].concat());
    let object = object.json();
    assert_eq!(
        (&object["tokens"], &object["text"], &object["prompt"]),
        (&json!([299, 0, 1]), &Value::Null, &Value::Null)
    );
    assert!(score(&[&model[..], &["-q", "--tokens", "1 2 3"]].concat()).ok().contains("perplexity"));
    assert!(self::run(&[&["info"], &model[..]].concat()).ok().contains("none: token ids only (no tokenizer)"));
    let bdh = open(directory.path());
    assert!(bdh.encode(b"a").is_err() && bdh.check_text().is_err());
    assert!(bdh.generate_text("a", &greedy(1, &[])).is_err() && bdh.generate_stream("", &greedy(1, &[])).is_err());
    assert!(bdh.generate(&[1], &greedy(1, &["x"])).is_err());
    assert_eq!(bdh.generate(&[1], &greedy(2, &[])).unwrap().tokens, [2, 3]);
}

#[test]
fn a_tokenizer_is_found_where_it_may_be() {
    let kind = kinds_named("metaspace");
    let json = kind.tokenizer.as_ref().unwrap().to_string();
    let vocab = kind.tokens.len();
    let bare = || save(&chain(vocab, |token| (token + 1) % vocab), None);
    let works = |directory: &TempDir, more: &[&str]| {
        let options = ["-q", "--model", path(directory.path()), "--greedy", "-n", "4", "--prompt", "Hello"];
        assert_eq!(generate(&[&options, more].concat()).ok(), "Hello world of the sea!\n", "{more:?}");
    };
    let elsewhere = TempDir::new().unwrap();
    let file = elsewhere.path().join("tokenizer.json");
    std::fs::write(&file, &json).unwrap();
    works(&bare(), &["--tokenizer", path(&file)]);
    works(&bare(), &["--tokenizer", path(elsewhere.path())]);

    let beside = bare();
    std::fs::create_dir(beside.path().join("tokenizer")).unwrap();
    std::fs::write(beside.path().join("tokenizer/tokenizer.json"), format!("\u{feff}{json}")).unwrap();
    works(&beside, &[]);

    for target in ["files/mine.json", "files", path(elsewhere.path())] {
        let named = bare();
        std::fs::create_dir(named.path().join("files")).unwrap();
        std::fs::write(named.path().join("files/mine.json"), &json).unwrap();
        std::fs::write(named.path().join("files/tokenizer.json"), &json).unwrap();
        let config = named.path().join("config.json");
        let mut map: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        map["tokenizer_path"] = target.into();
        std::fs::write(&config, map.to_string()).unwrap();
        works(&named, &[]);
        for (target, expected) in [
            ("nowhere", "tokenizer_path, \"nowhere\", is not there"),
            (".", "no tokenizer in this folder"),
            ("/dev/null", "is a device, expected a regular file"),
        ] {
            map["tokenizer_path"] = target.into();
            std::fs::write(&config, map.to_string()).unwrap();
            let error = generate(&["--model", path(named.path()), "--prompt", "Hello"]).error(2);
            assert!(error.contains(expected), "{error}");
            let ids = ["-q", "--greedy", "-n", "1", "--tokens", "0", "--format", "jsonl"];
            let object = generate(&[&ids[..], &["--model", path(named.path())]].concat()).json();
            assert_eq!(object["tokens"], json!([1]));
        }
    }
    let empty = TempDir::new().unwrap();
    let model = bare();
    for wrong in [empty.path().to_owned(), empty.path().join("missing"), elsewhere.path().join("tokenizer.model")] {
        let error = generate(&["--model", path(model.path()), "--prompt", "a", "--tokenizer", path(&wrong)]).error(1);
        assert!(error.contains(path(&wrong)), "{error}");
    }
}

#[test]
fn older_tokenizer_files_are_read_or_refused_by_name() {
    let model = |vocab: usize, files: &[(&str, &str)]| {
        let directory = save(&chain(vocab, |token| (token + 1) % vocab), None);
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    };
    let text = |directory: &TempDir, prompt: &str, count: &str| {
        generate(&["-q", "--greedy", "--model", path(directory.path()), "-n", count, "--prompt", prompt])
    };
    let vocab = r#"{"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġa": 4, "<|endoftext|>": 5}"#;
    let merges = "#version: 0.2\na b\nĠ a\n";
    let gpt2 = r#"{"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}"#;
    let directory = model(6, &[("tokenizer_config.json", gpt2), ("vocab.json", vocab), ("merges.txt", merges)]);
    assert_eq!(text(&directory, "ab", "2").ok(), "ab  a\n");
    let loaded = Model::from_path(directory.path()).unwrap();
    assert_eq!((loaded.tokenizer.encode(b"ab a").unwrap(), &loaded.config.eos_token_ids[..]), (vec![2, 4], &[5][..]));
    // It is saved as what it was read as.
    let copy = directory.path().join("copy");
    loaded.save(&copy, &SaveOptions { dtype: None, overwrite: false }).unwrap();
    assert_eq!(Model::from_path(&copy).unwrap().tokenizer.encode(b"ab a").unwrap(), [2, 4]);

    let bert = r#"{"tokenizer_class": "BertTokenizer", "do_lower_case": true}"#;
    let words = "un\n##happ\n##y\n[UNK]\n";
    let directory = model(4, &[("tokenizer_config.json", bert), ("vocab.txt", words)]);
    assert_eq!(text(&directory, "UN", "2").ok(), "UNhappy\n");

    let llama = r#"{"tokenizer_class": "LlamaTokenizer"}"#;
    let fast = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
    let clip = r#"{"tokenizer_class": "CLIPTokenizer"}"#;
    for (files, expected) in [
        (&[("tokenizer_config.json", llama), ("tokenizer.model", "\n")][..], "tokenizer.model is SentencePiece's"),
        (&[("tokenizer_config.json", fast)], "names PreTrainedTokenizerFast, whose files are not there"),
        (&[("tokenizer_config.json", gpt2)], "names GPT2Tokenizer, whose files are not there"),
        (&[("tokenizer_config.json", clip), ("vocab.json", vocab), ("merges.txt", merges)], "of CLIPTokenizer"),
    ] {
        for size in [256, 300] {
            let directory = model(size, files);
            let error = text(&directory, "a", "1").error(2);
            assert!(error.contains("no tokenizer that can be read") && error.contains(expected), "{error}");
            let ids = ["-q", "--greedy", "--tokens", "7", "-n", "1", "--format", "jsonl"];
            let object = generate(&[&ids[..], &["--model", path(directory.path())]].concat()).json();
            assert_eq!(object["tokens"], json!([8]));
        }
    }
    // Damaged files are named.
    for (files, expected) in [
        (&[("vocab.json", r#"{"a": -1}"#), ("merges.txt", merges)][..], "vocab.json: "),
        (&[("vocab.json", vocab), ("merges.txt", "one two three\n")], "merges.txt: "),
        (&[("vocab.json", vocab), ("merges.txt", "a x\n")], "not a tokenizer"),
    ] {
        let error = text(&model(6, files), "a", "1").error(1);
        assert!(error.contains(expected), "{error}");
    }
}
