//! `generate` in all its forms, as its users see it.
//!
//! The plan of tests that the project started from, and where each of its rows is tested:
//!
//! | row | tests |
//! | --- | --- |
//! | temperature | `generation::temperature_raises_entropy_and_lowers_repetition` |
//! | top-k | `generation::top_k_widens_the_choice_up_to_the_vocabulary` |
//! | top-p | `generation::top_p_widens_the_choice`, `sampling` (the sets that are kept) |
//! | repetition penalty | `generation::penalties_lower_repetition` |
//! | interactive mode | `interactive`: commands, settings that persist, errors |
//! | batch generation | `prompts_come_out_in_order`, `a_thousand_prompts_take_no_more_memory_than_a_few` |
//! | streaming | `the_first_byte_comes_before_the_second_token`, `streamed_text_is_the_same_for_fifty_prompts` |
//! | edge cases: empty prompt | `cli::an_empty_prompt_starts_from_a_line_end` |
//! | edge cases: prompt beyond block_size | `a_prompt_beyond_the_trained_context_is_read` |
//! | edge cases: max_new_tokens 0 | `cli::nothing_to_generate_prints_the_prompt`, `nothing_to_generate_for_many` |
//! | edge cases: invalid temperature | `cli::bad_usage_is_one_line_and_exit_code_2` |

#![cfg(feature = "embedded-model")]

#[path = "common/program.rs"]
mod program;

use bdh_gpu::{Bdh, DeviceChoice, Forgetting, Model, WeightChoice};
use program::{file_with, generate, golden, model_with, path, program, run, run_command};
use serde_json::Value;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// Lines of JSON.
fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("one object on each line")).collect()
}

fn entries(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn prompts_come_out_in_order() {
    let (folder, prompts) = file_with(b"To be or \nKING:\n\nO Romeo, O\n");
    let options = ["--num_return_sequences", "3", "--temperature", "0.9", "--seed", "4", "-n", "20"];
    let run = |more: &[&str]| generate(&[&["--prompts", path(&prompts)], &options[..], more].concat());
    let text = run(&[]).ok();
    let blocks: Vec<&str> = text.trim_end().split("\n\nPrompt: ").collect();
    assert_eq!(blocks.len(), 9, "{text}");
    let expected = ["To be or ", "KING:", "O Romeo, O"];
    for (number, block) in blocks.iter().enumerate() {
        let prompt = expected[number / 3];
        let block = block.strip_prefix("Prompt: ").unwrap_or(block);
        assert!(block.starts_with(&format!("{prompt}\nGenerated: {prompt}")), "{block}");
    }
    let list = objects(&run(&["--format", "jsonl"]).ok());
    let order: Vec<(&str, u64)> =
        list.iter().map(|text| (text["prompt"].as_str().unwrap(), text["index"].as_u64().unwrap())).collect();
    assert_eq!(order, expected.iter().flat_map(|&prompt| [(prompt, 0), (prompt, 1), (prompt, 2)]).collect::<Vec<_>>());
    // The first text of each is what the prompt gives alone.
    for (prompt, text) in expected.iter().zip(list.chunks(3)) {
        let alone = generate(&["-p", prompt, "--temperature", "0.9", "--seed", "4", "-n", "20", "--format", "jsonl"]);
        assert_eq!(alone.json(), text[0]);
        assert_ne!(text[0]["tokens"], text[1]["tokens"]);
    }
    // A file receives the same.
    let output = folder.path().join("texts.txt");
    assert_eq!(run(&["--output", path(&output)]).ok(), "");
    assert_eq!(std::fs::read_to_string(&output).unwrap(), text);
    assert_eq!(entries(folder.path()), ["input", "texts.txt"]);
}

#[test]
fn texts_that_end_early_wait_for_their_turn() {
    let (_folder, prompts) = file_with(&b"To be or not\nKING:\n".repeat(20));
    let list = objects(
        &generate(&[
            "--prompts",
            path(&prompts),
            "-n",
            "60",
            "--seed",
            "2",
            "--eos-token-id",
            "46",
            "--format",
            "jsonl",
        ])
        .ok(),
    );
    assert_eq!(list.len(), 40);
    assert!(list.iter().enumerate().all(|(at, text)| text["prompt"] == ["To be or not", "KING:"][at % 2]));
    let ended = list.iter().filter(|text| text["finish_reason"] == "eos").count();
    assert!(ended > 0 && ended < 40, "{ended}");
}

#[test]
fn prompt_files_of_any_making_are_read() {
    let plain = b"one \n\n tw\xffo\nthree\n".to_vec();
    let texts = |content: &[u8]| {
        let (_folder, file) = file_with(content);
        generate(&["--prompts", path(&file), "-n", "5", "--greedy", "--seed", "1", "--format", "jsonl"]).ok()
    };
    let expected = texts(&plain);
    assert_eq!(objects(&expected)[1]["prompt"], " tw\\xffo");
    assert_eq!(texts(b"\xef\xbb\xbfone \r\n\r\n tw\xffo\r\nthree"), expected, "a byte order mark and CRLF");
    for empty in [&b""[..], b"\n \n", b"\xef\xbb\xbf"] {
        let (_folder, file) = file_with(empty);
        let run = generate(&["--prompts", path(&file)]);
        assert!(run.stderr.contains("holds no prompts"), "{run:?}");
        assert_eq!(run.ok(), "");
    }
    // A prompt that the model cannot read is named by its line.
    let (_folder, file) = file_with(b"ab\n\ncd~\n");
    let error = generate(&["--prompts", path(&file), "--model", &golden("odd-shapes")]).error(2);
    assert!(error.contains("input: line ") && error.contains("has no token"), "{error}");
    // A single prompt loses the mark and nothing else.
    let (_folder, file) = file_with(b"\xef\xbb\xbfKING:\r\n");
    assert_eq!(generate(&["--prompt-file", path(&file), "-n", "0"]).ok(), "KING:\r\n\n");
    let (_folder, file) = file_with(b"");
    assert_eq!(generate(&["--prompt-file", path(&file), "-n", "0"]).ok(), "\n");
}

#[test]
fn nothing_to_generate_for_many() {
    // A line of 10 MB among them: it is taken in, if nothing is to be written.
    let mut content = b"first\n".to_vec();
    content.extend(std::iter::repeat_n(b'x', 10 << 20));
    content.extend(b"\nlast");
    let (_folder, file) = file_with(&content);
    let text = generate(&["--prompts", path(&file), "-n", "0", "--no-echo", "--format", "jsonl"]).ok();
    let list = objects(&text);
    assert_eq!(list.len(), 3);
    assert_eq!(list[1]["prompt"].as_str().map(str::len), Some(10 << 20));
    assert!(list.iter().all(|text| text["tokens"] == serde_json::json!([])));
}

#[test]
fn a_stop_text_ends_and_is_left_out() {
    let options = ["-p", "To be or ", "--greedy", "-n", "30", "--no-echo", "--quiet"];
    let whole = generate(&options).ok();
    assert!(whole.starts_with("the world of the cou"), "{whole}");
    let stopped = |more: &[&str]| generate(&[&options[..], more].concat()).ok();
    for stream in ["--stream", "--no-stream"] {
        assert_eq!(stopped(&["--stop", " of", stream]), "the world\n");
        assert_eq!(stopped(&["--stop", "xyz", "--stop", "rld", "--stop", "world of", stream]), "the wo\n");
        assert_eq!(stopped(&["--stop", "the world ox", stream]), whole, "what was held back comes out");
    }
    let object = generate(&[&options[..6], &["--format", "jsonl", "--stop", " of"]].concat()).json();
    assert_eq!((object["text"].as_str(), object["finish_reason"].as_str()), (Some("the world"), Some("stop")));
    // In batches, and for beams.
    let (_folder, file) = file_with(b"To be or \nTo be or ");
    let batch = ["--prompts", path(&file), "-n", "30", "--stop", " of", "--format", "jsonl"];
    for how in [&["--greedy"][..], &["--num-beams", "1", "--greedy"]] {
        for object in objects(&generate(&[&batch[..], how].concat()).ok()) {
            assert_eq!((object["text"].as_str(), object["finish_reason"].as_str()), (Some("the world"), Some("stop")));
        }
    }
    // Beams take the likeliest: --greedy says nothing new.
    let beams = |more: &[&str]| generate(&[&batch[..], &["--num-beams", "3"], more].concat()).ok();
    for object in objects(&beams(&[])) {
        assert!(!object["text"].as_str().expect("a text").contains(" of"), "{object}");
    }
    assert_eq!(beams(&["--greedy"]), beams(&[]));
}

#[test]
fn beams_bring_scores_and_come_best_first() {
    let beams = ["-p", "To be or ", "-n", "12", "--num_beams", "4", "--format", "jsonl"];
    let list = objects(&generate(&[&beams[..], &["--num_return_sequences", "4"]].concat()).ok());
    let scores: Vec<f64> = list.iter().map(|text| text["score"].as_f64().expect("a score")).collect();
    assert!(scores.len() == 4 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!(list.iter().all(|text| text["seed"].is_null()));
    let best = generate(&beams).json();
    assert_eq!(best, list[0]);
    let text = generate(&["-p", "To be or ", "-n", "12", "--num-beams", "4"]).ok();
    assert_eq!(text, format!("To be or {}\n", best["text"].as_str().unwrap()));
    // Options of the model: its beams are used, its temperature is not; a drawing option wins over its beams.
    let model = model_with(r#"{"num_beams": 4, "temperature": 0.8, "max_new_tokens": 12}"#);
    let of_model = |more: &[&str]| {
        generate(&[&["-p", "To be or ", "--format", "jsonl", "--model", path(model.path())], more].concat()).json()
    };
    assert_eq!(of_model(&[]), best);
    assert!(of_model(&["--top-k", "5", "--seed", "1"])["score"].is_null());
    for early in [&["--early-stopping"][..], &["--early-stopping", "never"], &["--early-stopping=false"]] {
        assert_eq!(generate(&[&beams[..], early].concat()).code, 0);
    }
}

#[test]
fn a_saved_state_goes_on_where_it_stopped() {
    let folder = TempDir::new().expect("a folder");
    let state = folder.path().join("talk.state");
    let text = |arguments: &[&str]| generate(&[arguments, &["--quiet", "--temperature", "1.1"]].concat()).ok();
    let whole = text(&["-p", "KING:\n", "--seed", "9", "-n", "90", "--presence-penalty", "0.3"]);
    let first =
        text(&["-p", "KING:\n", "--seed", "9", "-n", "33", "--presence-penalty", "0.3", "--save-state", path(&state)]);
    // The seed comes with the state.
    let rest = text(&["--load-state", path(&state), "-n", "57", "--presence-penalty", "0.3"]);
    assert_eq!(format!("{}{rest}", first.strip_suffix('\n').unwrap()), whole);
    // With a prompt, it is read first. A state may be read and written in one run.
    let mut spoken = first.trim_end_matches('\n').to_string();
    for prompt in ["Come, ", "and "] {
        let turn = ["--load-state", path(&state), "-p", prompt, "--greedy", "-n", "9", "--save-state", path(&state)];
        let turn = run_command(program().args(["generate", "--device", "cpu", "--quiet"]).args(turn)).ok();
        spoken += turn.trim_end_matches('\n');
        let again = generate(&["-p", &spoken[..spoken.len() - 9], "--greedy", "-n", "9", "--quiet"]).ok();
        assert_eq!(again, format!("{spoken}\n"));
    }
    assert_eq!(entries(folder.path()), ["talk.state"]);
    // Reading alone is worth saving too.
    text(&["-p", "A long beginning", "-n", "0", "--save-state", path(&state)]);
    assert_eq!(
        text(&["--load-state", path(&state), "-n", "20", "--seed", "1"]),
        text(&["-p", "A long beginning", "-n", "20", "--seed", "1", "--no-echo"])
    );
    let error = generate(&["--load-state", path(&state), "--model", &golden("micro"), "--quiet"]).error(1);
    assert!(error.contains("is the state of another model"), "{error}");
    std::fs::write(&state, "nonsense").unwrap();
    assert!(generate(&["--load-state", path(&state)]).stderr.contains("is not a state file"));
}

/// `--logits`, as the CPU has them for the whole text in one reading.
#[test]
fn the_logits_of_the_next_token_are_written() {
    let folder = TempDir::new().expect("a folder");
    let (file, state) = (folder.path().join("next.npy"), folder.path().join("talk.state"));
    let model = Bdh::new(Model::embedded().expect("a model"), &DeviceChoice::Cpu, WeightChoice::Auto).expect("a CPU");
    let written = || {
        let bytes = std::fs::read(&file).expect("logits");
        let (header, numbers) = bytes.split_at(128);
        assert!(
            header.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (256,), }")
        );
        numbers
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")))
            .collect::<Vec<_>>()
    };
    let check = |text: &str| {
        let tokens = model.encode(text.as_bytes()).expect("tokens");
        let forgetting = Forgetting::of_model(&model.model().config);
        let rows = model.logits(&tokens, forgetting, |_| ControlFlow::Continue(())).expect("logits");
        let (got, expected) = (written(), &rows[rows.len() - 256..]);
        let difference = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(got.len() == 256 && difference < 1e-4, "{text:?}: {difference}");
    };
    let text = |arguments: &[&str]| {
        let run = generate(&[arguments, &["--seed", "2", "--logits", path(&file)]].concat());
        assert!(run.stderr.contains("next.npy: logits saved at position "), "{run:?}");
        run.ok()
    };
    // After the prompt, after the text, and after a stop text is left out.
    text(&["-p", "To be or ", "-n", "0"]);
    check("To be or ");
    let whole = text(&["-p", "KING:", "-n", "300", "--save-state", path(&state)]);
    check(whole.strip_suffix('\n').expect("a line end"));
    check(text(&["-p", "KING:", "-n", "300", "--stop", "\n\n"]).strip_suffix('\n').expect("a line end"));
    // From a state, and of the likeliest text.
    text(&["--load-state", path(&state), "-p", " So be it.", "-n", "0"]);
    check(&format!("{} So be it.", whole.strip_suffix('\n').expect("a line end")));
    check(text(&["-p", "KING:", "-n", "9", "--num-beams", "3"]).strip_suffix('\n').expect("a line end"));
    assert_eq!(entries(folder.path()), ["next.npy", "talk.state"]);
    let refused = generate(&["-p", "a", "--num-return-sequences", "2", "--logits", path(&file)]).error(2);
    assert!(refused.contains("--logits are those after one text"), "{refused}");
    let nowhere = generate(&["-p", "a", "--logits", path(&folder.path().join("no/next.npy"))]);
    assert!(nowhere.stderr.contains("the logits cannot be written: there is no folder"), "{nowhere:?}");
    assert_eq!((nowhere.code, nowhere.stdout.as_str()), (1, ""), "refused before any text");
}

#[test]
fn a_prompt_beyond_the_trained_context_is_read() {
    let prompt = "Speak, speak. ".repeat(100);
    let text = generate(&["-p", &prompt, "-n", "10", "--seed", "1", "--no-echo"]).ok();
    assert_eq!(text.chars().count(), 11, "{text:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_is_one_line() {
    let (folder, prompts) = file_with(b"KING:\n");
    let run = |output: &str| generate(&["--prompts", path(&prompts), "-n", "3", "--quiet", "--output", output]);
    assert!(run("/dev/full").error(1).contains("/dev/full: cannot be written: No space left"));
    assert!(run("/no/such/folder/file").error(1).contains("there is no folder /no/such/folder"));
    assert!(run(path(folder.path())).error(1).contains("is a directory"));
    assert!(Path::new("/dev/full").exists());
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_bdh-gpu"))
        .args(["generate", "--device", "cpu", "-p", "a", "-n", "3", "--quiet"])
        .stdout(full)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.starts_with("error: standard output: cannot be written: No space left"), "{stderr}");
    for state in ["/dev/full", "/no/such/folder/file"] {
        let run = generate(&["-p", "a", "-n", "3", "--quiet", "--save-state", state]);
        assert_eq!((run.code, run.stderr.lines().count()), (1, 1), "{run:?}");
        assert!(run.stderr.contains(&format!("{state}: the state cannot be written")), "{run:?}");
    }
}

/// Starts `generate` on the CPU with its output in a pipe.
fn start(arguments: &[&str]) -> Child {
    std::process::Command::new(env!("CARGO_BIN_EXE_bdh-gpu"))
        .args(["generate", "--device", "cpu"])
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

#[test]
fn the_first_byte_comes_before_the_second_token() {
    // That the first burst is one token, and is handed on before the next begins, is tested on the session
    // (`generation::the_first_token_comes_alone`). Here, that nothing on the way to the pipe holds it back.
    let mut child = start(&["-p", "KING:\n", "-n", "1000000", "--stream", "--seed", "1", "--quiet"]);
    let mut pipe = child.stdout.take().expect("a pipe");
    let mut bytes = [0; 7];
    pipe.read_exact(&mut bytes[..6]).unwrap();
    assert_eq!(&bytes[..6], b"KING:\n");
    // A million tokens take minutes: the byte arrives while nearly all of them are still to come.
    pipe.read_exact(&mut bytes[6..]).unwrap();
    assert!(child.try_wait().unwrap().is_none(), "the program is still writing");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn streamed_text_is_the_same_for_fifty_prompts() {
    let mut invalid = 0;
    for seed in 0..50 {
        let prompt = ["Café ", "", "KING:", "\u{1f409}", "To be"][seed % 5];
        let seed = seed.to_string();
        let options = ["-n", "40", "--seed", &seed, "--temperature", "3", "--min-p", "0", "--quiet"];
        let text = |stream| generate(&[&["-p", prompt, stream], &options[..]].concat()).ok();
        let streamed = text("--stream");
        assert_eq!(streamed, text("--no-stream"), "seed {seed}");
        invalid += usize::from(streamed.contains("\\x"));
    }
    assert!(invalid > 10, "{invalid} texts with bytes that are no valid UTF-8");
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let kill = format!("kill -INT {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().expect("sh").success());
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_the_old_file() {
    use bdh_gpu::sampling::philox4x32_10;
    let (folder, prompts) = file_with(&b"To be or not to be\nKING:\n".repeat(200));
    let output = folder.path().join("texts.txt");
    let mut stopped = 0;
    for round in 0..20u32 {
        std::fs::write(&output, "old").unwrap();
        let mut child = start(&["--prompts", path(&prompts), "-n", "2000", "--seed", "1", "--output", path(&output)]);
        // A moment that differs from round to round, from before the start to well into the run. Every
        // other round waits for the output to begin first, however long a busy machine takes.
        let at_work = || entries(folder.path()).len() > 2;
        while round % 2 == 1 && !at_work() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let wait = philox4x32_10([round, 0, 0, 0], [0, 0])[0] % 1500;
        std::thread::sleep(std::time::Duration::from_millis(wait.into()));
        interrupt(&child);
        let status = child.wait().unwrap();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        // A program that has not yet begun to listen is ended by the signal itself.
        use std::os::unix::process::ExitStatusExt;
        assert!(status.code() == Some(130) || status.signal() == Some(2), "{status:?} {stderr}");
        assert_eq!(std::fs::read(&output).unwrap(), b"old");
        assert_eq!(entries(folder.path()), ["input", "texts.txt"], "nothing is left behind");
        let message = stderr.contains("interrupted after ") && stderr.contains("texts.txt is as it was");
        stopped += usize::from(message);
    }
    assert!(stopped > 0, "some rounds were stopped at work");
}

#[test]
fn manual_pages_have_the_text_of_the_help() {
    let folder = tempfile::tempdir().unwrap();
    let man = folder.path().join("new/man1");
    assert_eq!(run(&["man", man.to_str().unwrap()]).ok(), "");
    let page = |name: &str| std::fs::read_to_string(man.join(name)).unwrap();
    let help = run(&["--help"]).ok();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names.into_iter().filter(|name| *name != "help") {
        assert!(
            page("bdh-gpu.1").contains(&format!("bdh\\-gpu\\-{name}(1)")),
            "{name} is missing on the program's page"
        );
        let page = page(&format!("bdh-gpu-{name}.1"));
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
            assert!(page.contains(&format!("\n.SH {section}\n")), "{name} has no {section}");
        }
    }
    let generate = page("bdh-gpu-generate.1");
    assert!(generate.contains("bdh\\-gpu generate \\-\\-prompt \"KING:\" \\-\\-num\\-beams 4"), "{generate}");
    assert!(generate.contains("\\-\\-stop $\\*(Aq\\(rsn\\(rsn\\*(Aq"), "backslashes: {generate}");
    assert!(page("bdh-gpu-info.1").contains("[possible values: text, json]"));
    assert!(!page("bdh-gpu-verify.1").contains("\\-\\-corrupt"), "hidden options stay hidden");

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let failed = run(&["man", file.to_str().unwrap()]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.starts_with(&format!("error: cannot write {}", file.display())), "{failed:?}");
}

#[test]
fn completions_are_scripts_that_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = run(&["completions", shell]).ok();
        assert!(script.contains("generate") && script.contains("max-new-tokens"), "{shell}");
    }
    if let Ok(output) = std::process::Command::new("bash").arg("-c").arg("bash -n /dev/stdin").output()
        && output.status.success()
    {
        let mut check = assert_cmd::Command::new("bash");
        check.arg("-n").write_stdin(run(&["completions", "bash"]).ok()).assert().success();
    }
}

#[cfg(unix)]
#[test]
fn a_bar_on_a_terminal_counts_texts_and_tokens() {
    use rexpect::{process::WaitStatus, reader::Options, session::spawn_with_options};
    let (folder, prompts) = file_with(&b"To be or not to be\n".repeat(60));
    let output = folder.path().join("texts");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bdh-gpu"));
    command.args(["generate", "--device", "cpu", "--prompts", path(&prompts), "-n", "300", "--seed", "1"]);
    command.args(["--output", path(&output)]).env("TERM", "xterm").env("COLUMNS", "200");
    let options = Options::new().timeout_ms(Some(300_000)).strip_ansi_escape_codes(true);
    let mut session = spawn_with_options(command, options).expect("the program starts");
    // 60 prompts of 18 tokens, and 60 texts of 300.
    session.exp_regex(r"0/60 texts [^\n]*/19,080 tokens, \d+ tokens/s, \d+s left").expect("a bar that begins");
    session.exp_regex(r"[1-9]\d?/60 texts [^\n]*/19,080 tokens").expect("a bar that moves");
    session.exp_eof().expect("the end");
    assert!(matches!(session.process().wait(), Ok(WaitStatus::Exited(_, 0))));
    assert_eq!(std::fs::read_to_string(&output).unwrap().matches("Generated: ").count(), 60);
}
