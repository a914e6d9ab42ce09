//! The program as its users see it: what it prints, where, and its exit code.

#![cfg(feature = "embedded-model")]

#[path = "common/program.rs"]
mod program;

use program::{file_with, generate, golden, model_with, path, program, repository, run, run_command, score};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn text_is_the_prompt_and_its_continuation() {
    let run = generate(&["--prompt", "To be or ", "--greedy", "--max-new-tokens", "20"]);
    assert!(run.stderr.starts_with("bdh-shakespeare (1.6M parameters, f16) on CPU ("), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    assert_eq!(run.ok(), "To be or the world of the cou\n");
    let run = generate(&["--prompt", "To be or ", "--greedy", "--max-new-tokens", "9", "--no-echo", "--quiet"]);
    assert_eq!(run.stderr, "");
    assert_eq!(run.ok(), "the world\n");
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_hub_a_name_says_how_to_get_it() {
    let error = generate(&["--prompt", "x", "--model", "somebody/tiny-dragon"]).error(1);
    let told = "somebody/tiny-dragon: no such file or directory; to load it by this name from the Hugging Face Hub, \
                build with the feature hub";
    assert!(error.contains(told), "{error}");
}

#[test]
fn greedy_text_is_the_reference_implementations() {
    let golden = std::fs::read(repository().join("tests/golden/shakespeare/greedy.json")).expect("a golden file");
    let golden: Value = serde_json::from_slice(&golden).expect("JSON");
    let case = &golden[1];
    let prompt = case["prompt"].as_str().expect("a prompt");
    let count = case["tokens"].as_array().expect("tokens").len().to_string();
    let object = generate(&["--prompt", prompt, "--greedy", "-n", &count, "--format", "jsonl"]).json();
    assert_eq!(object["tokens"], case["tokens"]);
}

#[test]
fn streamed_text_is_the_same() {
    for seed in ["1", "2"] {
        let text = |stream| generate(&["-p", "Café ", "-n", "40", "--seed", seed, "--temperature", "3", stream]).ok();
        assert_eq!(text("--stream"), text("--no-stream"));
    }
    // Random weights: most bytes are no valid UTF-8.
    let model = golden("pt-state-dict");
    let text = |stream| generate(&["--tokens", "1 2 255", "-n", "300", "--seed", "3", "--model", &model, stream]).ok();
    assert!(text("--stream").contains("\\x"));
    assert_eq!(text("--stream"), text("--no-stream"));
}

#[test]
fn long_options_may_be_spelled_with_underscores() {
    let dashes = generate(&["--prompt", "a", "--max-new-tokens", "5", "--top-k", "3", "--seed", "1", "--no-echo"]);
    let underscores = generate(&["--prompt", "a", "--max_new_tokens=5", "--top_k", "3", "--seed", "1", "--no_echo"]);
    assert_eq!(dashes.ok(), underscores.ok());
    // Values stay as they are.
    assert_eq!(generate(&["--prompt", "--no_echo", "-n", "0"]).ok(), "--no_echo\n");
    assert_eq!(generate(&["--prompt=--top_k=1", "-n", "0"]).ok(), "--top_k=1\n");
}

#[test]
fn jsonl_says_everything_about_a_text() {
    let run = generate(&["-p", "KING:", "-n", "12", "--format", "jsonl"]);
    let seed = run.stderr.lines().find_map(|line| line.strip_prefix("seed ")?.split(' ').next()).expect("a seed");
    let seed: u64 = seed.parse().expect("a number");
    let object = run.json();
    let keys: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["prompt", "index", "text", "tokens", "finish_reason", "seed", "score"]);
    assert_eq!(object["prompt"], "KING:");
    assert_eq!(object["index"], 0);
    assert_eq!(object["finish_reason"], "length");
    assert_eq!(object["seed"], seed);
    let bytes: Vec<u8> =
        object["tokens"].as_array().expect("tokens").iter().map(|t| t.as_u64().expect("an id") as u8).collect();
    assert_eq!(bytes.len(), 12);
    assert_eq!(object["text"].as_str().map(str::as_bytes), Some(&bytes[..]));
    // The seed that was reported repeats the text.
    let again = generate(&["-p", "KING:", "-n", "12", "--format", "jsonl", "--seed", &seed.to_string()]);
    assert_eq!(again.stderr.lines().count(), 1, "a given seed is not reported: {again:?}");
    assert_eq!(again.json(), object);
}

#[test]
fn nothing_to_generate_prints_the_prompt() {
    assert_eq!(generate(&["-p", "O Romeo", "-n", "0"]).ok(), "O Romeo\n");
    assert_eq!(generate(&["-p", "", "-n", "0"]).ok(), "\n");
    let object = generate(&["-p", "O Romeo", "-n", "0", "--format", "jsonl"]).json();
    assert_eq!(object["tokens"], serde_json::json!([]));
    assert_eq!(object["finish_reason"], "length");
}

#[test]
fn an_empty_prompt_starts_from_a_line_end() {
    let empty = generate(&["-p", "", "-n", "8", "--greedy"]).ok();
    assert_eq!(empty.len(), 9);
    assert_eq!(generate(&["-p", "\n", "-n", "8", "--greedy"]).ok(), format!("\n{empty}"));
}

/// The shipped model's own options, and the texts of others, which do not depend on these.
#[test]
fn options_replace_the_models_defaults_one_by_one() {
    let text = |options: &[&str]| generate(&[&["-p", "KING:", "--seed", "1", "-n", "60", "-q"], options].concat()).ok();
    let own = "KING:\nThe clouds men may shall be satisfied.\n\nFirst Citizen:\nSir,\n";
    assert_eq!(text(&[]), own);
    assert_eq!(text(&["--temperature", "1", "--min-p", "0.1", "--top-k", "0", "--top-p", "1"]), own);
    let others = "KING:\nThe contrary the old all hand, the loss of war\nTo wail them\n";
    assert_eq!(text(&["--temperature", "0.8", "--min-p", "0", "--top-k", "50"]), others);
    assert_ne!(text(&["--temperature", "0.8", "--top-k", "50"]), others, "min-p is still the model's");
}

#[test]
fn a_prompt_may_come_from_anywhere() {
    let options = ["-n", "8", "--greedy", "--quiet"];
    let expected = generate(&[&["-p", "KING:\n"], &options[..]].concat()).ok();
    let (_directory, file) = file_with(b"KING:\n");
    assert_eq!(generate(&[&["--prompt-file", path(&file)], &options[..]].concat()).ok(), expected);
    assert_eq!(generate(&[&["--tokens", "75 73,78, 71\n58 10"], &options[..]].concat()).ok(), expected);
    let (_directory, file) = file_with(b"75\n73\n78\n71\n58\n10\n");
    assert_eq!(generate(&[&["--tokens", &format!("@{}", path(&file))], &options[..]].concat()).ok(), expected);
    let mut piped = program();
    piped.args(["generate", "--device", "cpu", "--prompt-file", "-"]).args(options).write_stdin("KING:\n");
    assert_eq!(run_command(&mut piped).ok(), expected);
}

#[test]
fn the_number_of_threads_changes_no_text() {
    let arguments = ["-p", "KING:\n", "-n", "40", "--seed", "3"];
    let text = generate(&arguments).ok();
    for threads in ["1", "2", "3", "7"] {
        let run = generate(&[&arguments[..], &["--threads", threads]].concat());
        assert!(run.stderr.contains(&format!("CPU ({threads} thread")), "{run:?}");
        assert_eq!(run.ok(), text);
    }
    let error = generate(&["-p", "a", "--threads", "0"]).error(2);
    assert!(error.contains("at least one thread is needed"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_prompt_need_not_be_valid_text() {
    use std::os::unix::ffi::OsStrExt;
    let raw = std::ffi::OsStr::from_bytes(b"a\xff\xc3");
    let run = run_command(program().args(["generate", "--device", "cpu", "-n", "0", "--prompt"]).arg(raw));
    assert_eq!(run.ok(), "a\\xff\\xc3\n");
    let error = run_command(program().args(["generate", "-p", "a", "--seed"]).arg(raw)).error(2);
    assert!(error.contains("invalid UTF-8"), "{error}");
}

#[test]
fn options_win_over_the_models_which_win_over_the_built_in_ones() {
    let model = model_with(r#"{"max_new_tokens": 3, "do_sample": false, "eos_token_id": [32], "temperature": 0.8}"#);
    let tokens = |arguments: &[&str]| {
        let arguments = [&["-p", "To be or ", "--model", path(model.path()), "--format", "jsonl"], arguments].concat();
        let object = generate(&arguments).json();
        let text = object["text"].as_str().expect("a text").to_string();
        (text, object["finish_reason"].as_str().expect("a reason").to_string())
    };
    let pair = |text: &str, reason: &str| (text.to_string(), reason.to_string());
    assert_eq!(tokens(&[]), pair("the", "length"));
    assert_eq!(tokens(&["-n", "9"]), pair("the ", "eos"));
    assert_eq!(tokens(&["-n", "9", "--ignore-eos"]), pair("the world", "length"));
    assert_eq!(tokens(&["-n", "9", "--eos-token-id", "100,111"]), pair("the wo", "eos"));
    assert_eq!(tokens(&["-n", "9", "--eos-token-id", "100", "--eos-token-id", "114"]), pair("the wor", "eos"));
    let late = tokens(&["-n", "9", "--min-new-tokens", "9"]);
    assert_eq!((late.0.len(), late.1), (9, "length".to_string()));
    // Drawing options ask for drawing; --greedy takes that back.
    let drawn = |temperature| tokens(&["-n", "9", "--seed", "5", "--ignore-eos", "--temperature", temperature]).0;
    assert_ne!(drawn("2"), "the world");
    assert_eq!(drawn("0"), "the world");
    assert_eq!(tokens(&["-n", "9", "--ignore-eos", "--top-p", "0.9", "--greedy"]).0, "the world");

    let bare = model_with("{}");
    let object = generate(&["-p", "a", "--model", path(bare.path()), "--format", "jsonl"]).json();
    assert_eq!(object["tokens"].as_array().map(Vec::len), Some(100));
}

#[test]
fn a_long_text_from_a_model_without_a_context_gets_advice_once() {
    let model = golden("micro");
    let advice = |arguments: &[&str]| {
        let run = generate(&[&["--model", &model, "--seed", "1"], arguments].concat());
        run.stderr.matches("--context N").count()
    };
    let prompt = ["7"; 500].join(" ");
    assert_eq!(advice(&["--tokens", &prompt, "-n", "12"]), 0);
    assert_eq!(advice(&["--tokens", &prompt, "-n", "200"]), 1);
    assert_eq!(advice(&["--tokens", &prompt, "-n", "30", "--format", "jsonl", "--stream"]), 1);
    assert_eq!(advice(&["--tokens", &prompt, "-n", "30", "--quiet"]), 0);
    assert_eq!(advice(&["--tokens", &prompt, "-n", "30", "--context", "full"]), 0);
    assert_eq!(advice(&["--tokens", &prompt, "-n", "30", "--context", "100"]), 0);
}

#[test]
fn a_comparison_has_a_row_for_every_combination() {
    let text = "KING:\nWhat news, my lord?\n\nQUEEN:\nNone, good my liege.\n";
    let compare = |arguments: &[&str]| run(&[&["compare", "--device", "cpu", "--text", text], arguments].concat());
    let list = compare(&["--format", "json", "--blocks", "20"]).json();
    let rows = list.as_array().expect("a list");
    let types: Vec<_> =
        rows.iter().map(|row| (row["state"].as_str().unwrap(), row["weights"].as_str().unwrap())).collect();
    assert_eq!(types, [("i16", "f16"), ("i8", "f16"), ("i16", "int8"), ("i8", "int8"), ("f32", "int8")]);
    let keys: Vec<&str> = rows[0].as_object().expect("an object").keys().map(String::as_str).collect();
    let documented = [
        "exact_state",
        "exact_weights",
        "state",
        "weights",
        "predicted",
        "exact_bits_per_token",
        "bits_per_token",
        "divergence",
        "largest_divergence",
        "same_greedy",
        "same_drawn",
        "exact_bytes_per_token",
        "bytes_per_token",
        "exact_tokens_per_second",
        "tokens_per_second",
        "divergence_by_block",
    ];
    assert_eq!(keys, documented);
    let number = |row: usize, key: &str| rows[row][key].as_f64().expect("a number");
    assert_eq!(rows[0]["predicted"].as_u64(), Some(text.len() as u64 - 1));
    assert!(number(0, "divergence") < 1e-8 && number(3, "divergence") < 1e-2);
    assert!(number(3, "bytes_per_token") < number(1, "bytes_per_token"));
    // Full context: no 8-bit states.
    let full = compare(&["--context", "full", "--quiet"]).ok();
    assert!(!full.contains("i8 "), "{full}");
    let lines = full.lines().collect::<Vec<_>>();
    assert!(lines[0].starts_with("state  weights  bits/token") && lines[1].starts_with("f32    f16"), "{full}");
    let one = compare(&["--state", "i16", "--weights", "auto", "--blocks", "20", "--quiet"]).ok();
    assert!(one.contains("\n1-20 ") && one.contains("state i16, weights f16"), "{one}");
}

#[test]
fn a_score_lists_every_log_probability() {
    let text = "The king is dead.";
    let object = score(&["--text", text, "--format", "json"]).json();
    let keys: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["tokens", "logprobs", "total", "perplexity", "bits_per_byte"]);
    let logprobs = object["logprobs"].as_array().expect("a list");
    assert_eq!(logprobs.len(), text.len());
    assert!(logprobs[0].is_null());
    let number = |value: &Value| value.as_f64().expect("a number");
    let total: f64 = logprobs[1..].iter().map(number).sum();
    let mean = -total / (text.len() - 1) as f64;
    for (key, expected) in
        [("total", total), ("perplexity", mean.exp()), ("bits_per_byte", mean / std::f64::consts::LN_2)]
    {
        assert!((number(&object[key]) - expected).abs() < 1e-9, "{key}");
    }

    let printed = score(&["--text", text, "--blocks", "10"]).ok();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "tokens           17");
    assert_eq!(lines[1], format!("log-probability  {total:.4}"));
    assert_eq!(lines[5], "tokens  loss    bits per byte");
    assert!(lines[6].starts_with("1-10 ") && lines[7].starts_with("11-16 ") && lines.len() == 8, "{printed}");
    let (_directory, file) = file_with(text.as_bytes());
    assert_eq!(score(&["--file", path(&file), "--blocks", "10"]).ok(), printed);
}

#[test]
fn forgetting_can_be_chosen() {
    let (_directory, file) = file_with(&b"The king is dead. Long live the king! ".repeat(4));
    let total = |arguments: &[&str]| {
        let arguments = [&["--file", path(&file), "--format", "json"], arguments].concat();
        score(&arguments).json()["total"].as_f64().expect("a number")
    };
    let full = total(&["--context", "full"]);
    assert_eq!(total(&[]), full, "152 tokens are within the trained context");
    let short = total(&["--context", "10"]);
    assert_ne!(short, full);
    assert_eq!(total(&["--context", "10", "--forget_tau", "5"]), short);
    assert_ne!(total(&["--context", "0", "--forget-tau", "1e9"]), short);
}

#[test]
fn info_describes_the_shipped_model() {
    insta::assert_snapshot!("info", run(&["info"]).ok());
    let object = run(&["info", "--format", "json"]).json();
    assert_eq!(object["parameters"], 1_638_400);
    assert_eq!(object["generation"]["temperature"], 1.0);
    assert_eq!(object["generation"]["min_p"], 0.1);
    assert_eq!(object["forgetting"], serde_json::json!({ "context": 256, "tau": 128.0 }));
    let object = run(&["info", "--format", "json", "--model", &golden("micro")]).json();
    assert_eq!((&object["name"], &object["forgetting"]), (&Value::from("micro"), &Value::Null));
}

#[test]
fn devices_end_with_the_cpu_and_mark_one() {
    let list = run(&["devices", "--format", "json"]).json();
    let list = list.as_array().expect("a list");
    assert_eq!(list.last().expect("a device")["index"], "cpu");
    assert_eq!(list.iter().filter(|device| device["automatic"] == true).count(), 1);
    let marked: Vec<&Value> = list.iter().filter(|device| device["automatic"] == true).collect();
    assert_ne!(marked[0]["type"], "software");
    let run = run(&["devices"]);
    assert!(!run.stderr.contains("error"), "{run:?}");
    let table = run.ok();
    assert_eq!(table.lines().count(), 1 + list.len());
    assert_eq!(table.lines().filter(|line| line.starts_with('*')).count(), 1);
}

/// Fails where there is no adapter to test on.
fn require_adapter() {
    let list = run(&["devices", "--format", "json"]).json();
    let found = list.as_array().expect("a list").len() > 1;
    assert!(found, "there is no adapter to test on; install mesa-vulkan-drivers");
}

#[test]
fn the_same_seed_writes_the_same_text_on_a_gpu() {
    require_adapter();
    let text = |device| {
        let run = run(&["generate", "-p", "To be or not to be", "--seed", "1", "-n", "60", "--device", device]);
        assert_eq!(run.stderr.contains(" on CPU ("), device == "cpu", "{run:?}");
        run.ok()
    };
    let expected = text("cpu");
    for device in ["gpu", "0"] {
        assert_eq!(text(device), expected, "{device}");
    }
}

#[test]
fn verify_fails_where_a_kernel_is_corrupt() {
    require_adapter();
    let micro = golden("micro");
    // Each kernel by itself is the business of `tests/gpu_kernels.rs`.
    let sound = run(&["verify", "--quick", "--model", &micro]).ok();
    let mut lines = sound.lines();
    let heading: Vec<&str> = lines.next().expect("a heading").split_whitespace().collect();
    assert_eq!(heading.join(" "), "kernel shape max abs max rel NMSE tolerance verdict");
    assert!(lines.clone().count() > 5 && lines.all(|line| line.ends_with("  ok")), "{sound}");

    let corrupt = run(&["verify", "--quick", "--model", &micro, "--corrupt", "sample", "--format", "json"]);
    assert_eq!(corrupt.code, 1, "{corrupt:?}");
    assert!(corrupt.stderr.starts_with("error: "), "{corrupt:?}");
    let report: Value = serde_json::from_str(&corrupt.stdout).expect("JSON");
    assert_eq!(report["passed"], false);
    let failed = |run: &str| {
        let cases = report["cases"].as_array().expect("cases").iter();
        cases.filter(|case| case["kernel"] == run).any(|case| case["passed"] == false)
    };
    assert!(failed("greedy") && !failed("prompt"), "{report}");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    use std::io::{BufRead, BufReader};
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_bdh-gpu"))
        .args(["generate", "-p", "KING:\n", "-n", "1000000", "--stream", "--device", "cpu", "--seed", "1"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    // The pipe is closed when the reader goes, after one line.
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "KING:\n");
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(output.status.code(), Some(0));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.lines().count() == 1 && !stderr.contains("error"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_text_and_keeps_it() {
    use std::io::{BufRead, BufReader, Read};
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_bdh-gpu"))
        .args(["generate", "-p", "KING:\n", "-n", "1000000", "--stream", "--device", "cpu", "--seed", "1", "-q"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut text = String::new();
    reader.read_line(&mut text).expect("a line");
    let interrupt = format!("kill -INT {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &interrupt]).status().expect("sh").success());
    reader.read_to_string(&mut text).expect("the rest");
    assert_eq!(child.wait().expect("the program ends").code(), Some(130));
    assert!(text.starts_with("KING:\n") && text.ends_with('\n'), "{text:?}");
}

#[cfg(unix)]
#[test]
fn a_program_that_is_ended_leaves_no_half_written_files() {
    use std::process::{Command, Stdio};
    use std::time::Duration;
    let directory = tempfile::TempDir::new().expect("a directory");
    let state = path(&directory.path().join("state")).to_string();
    let output = path(&directory.path().join("texts")).to_string();
    let entries = || std::fs::read_dir(directory.path()).expect("a directory").count();
    // A program inherits ignored signals, as from nohup: these tests may run under it.
    let program = || match cfg!(target_os = "linux") {
        true => {
            let mut program = Command::new("env");
            program.args(["--default-signal=HUP,TERM", env!("CARGO_BIN_EXE_bdh-gpu")]);
            program
        }
        false => Command::new(env!("CARGO_BIN_EXE_bdh-gpu")),
    };
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        for more in [&["-p", "KING:", "-o", &output][..], &["-p", "KING:", "-o", &output, "--save-state", &state]] {
            let mut child = program()
                .args(["generate", "-q", "--device", "cpu", "-n", "1000000000"])
                .args(more)
                .stdout(Stdio::null())
                .spawn()
                .expect("the program starts");
            while entries() == 0 && child.try_wait().expect("a child").is_none() {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(entries(), 1, "the output has begun");
            let kill = format!("kill -{signal} {}", child.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh").success());
            assert_eq!(child.wait().expect("the program ends").code(), Some(code), "{signal}");
            assert_eq!(entries(), 0, "{signal} {more:?}");
        }
    }
    // As nohup starts it.
    #[cfg(target_os = "linux")]
    {
        let line = format!(
            "trap '' HUP; {} generate -q --device cpu -p KING: -n 2000 -o {output} & \
             child=$!; sleep 0.5; kill -HUP $child; wait $child",
            env!("CARGO_BIN_EXE_bdh-gpu")
        );
        assert!(Command::new("sh").args(["-c", &line]).status().expect("sh").success());
        assert_eq!(entries(), 1, "the text is complete");
    }
}

#[test]
fn the_last_of_a_repeated_option_counts() {
    let expected = generate(&["-p", "KING:", "-n", "4", "--seed", "1"]).ok();
    let twice = ["-n", "20", "--seed", "2", "--top-k", "1", "--no-echo", "--no-echo", "-n", "4", "--seed", "1"];
    assert_eq!(generate(&[&twice[..], &["-p", "KING:", "--top-k", "0"]].concat()).ok(), expected[5..]);
    // Those that collect go on collecting.
    let stopped =
        generate(&["-p", "KING:", "--greedy", "-n", "40", "--no-echo", "--stop", "\u{1}", "--stop", "\n"]).ok();
    assert_eq!(stopped.matches('\n').count(), 1, "{stopped:?}");
}

#[test]
fn a_dash_is_standard_output() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let given = ["generate", "-q", "--device", "cpu", "--seed", "1", "-n", "4", "-p", "KING:"];
    let expected = run(&given).ok();
    let mut command = program();
    let found = run_command(command.args(given).args(["-o", "-"]).current_dir(directory.path()));
    assert_eq!(found.ok(), expected);
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
}

#[test]
fn a_text_may_be_as_long_as_there_are_positions() {
    for count in ["4294967295", "4294967296", "18446744073709551615"] {
        let stopped = ["-q", "--seed", "1", "-n", count, "-p", "KING:", "--stop", "hon"];
        let text = generate(&stopped).ok();
        assert!(text.len() > 6 && !text.contains("hon"), "{text:?}");
        let object = generate(&[&stopped[..], &["--format", "jsonl"]].concat()).json();
        assert_eq!(object["finish_reason"], "stop");
        let beams = ["-q", "-n", count, "-p", "KING:", "--stop", "\n", "--num-beams", "2", "--early-stopping"];
        generate(&beams).ok();
        let pair = generate(&[&stopped[..], &["--num-return-sequences", "2", "--format", "jsonl"]].concat()).ok();
        assert_eq!(pair.matches("\"finish_reason\":\"stop\"").count(), 2, "{pair}");
    }
}

#[test]
fn greedy_may_stand_beside_beams() {
    let beams = ["-q", "-p", "KING:", "-n", "8", "--num-beams", "4"];
    assert_eq!(generate(&[&beams[..], &["--greedy"]].concat()).ok(), generate(&beams).ok());
    assert!(generate(&[&beams[..], &["--greedy", "--top-k", "2"]].concat()).error(2).contains("--top-k has no effect"));
}

#[test]
fn every_text_has_a_seed_that_gives_it_alone() {
    let (_directory, prompts) = file_with(b"KING:\nKING:\nQUEEN:\n");
    let objects = |more: &[&str]| -> Vec<Value> {
        let given = ["-q", "-n", "16", "--temperature", "1", "--format", "jsonl"];
        let text = generate(&[&given[..], more].concat()).ok();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let prompts = ["--prompts", path(&prompts), "--num-return-sequences", "3"];
    let own = objects(&prompts);
    let given = objects(&[&prompts[..], &["--seed", "7"]].concat());
    for object in own.iter().chain(&given) {
        let seed = object["seed"].to_string();
        let alone = objects(&["-p", object["prompt"].as_str().expect("a prompt"), "--seed", &seed]);
        assert_eq!(alone[0]["tokens"], object["tokens"], "{object}");
    }
    let texts: std::collections::BTreeSet<String> = own.iter().map(|object| object["text"].to_string()).collect();
    assert_eq!(texts.len(), 9, "equal prompts give different texts");
    assert_eq!(
        given[..3].iter().map(|o| &o["text"]).collect::<Vec<_>>(),
        given[3..6].iter().map(|o| &o["text"]).collect::<Vec<_>>()
    );
    assert!([0, 3, 6].iter().all(|&first| given[first]["seed"] == 7) && given[1]["seed"] != given[2]["seed"]);
    // As text, the seeds are told on standard error.
    let run = generate(&[&["-n", "3", "--temperature", "1"], &prompts[..2]].concat());
    assert_eq!(run.stderr.matches("seed ").count(), 2 * 3, "{run:?}");
}

#[test]
fn help_teaches() {
    insta::assert_snapshot!("help", run(&["--help"]).ok());
    let commands = [
        "generate",
        "interactive",
        "serve",
        "score",
        "needle",
        "compare",
        "verify",
        "bench",
        "info",
        "devices",
        "convert",
        "merge",
        "inspect",
        "completions",
        "man",
    ];
    for command in commands {
        insta::assert_snapshot!(format!("help-{command}"), run(&[command, "--help"]).ok());
    }
    let nothing = run(&[]);
    assert_eq!(nothing.code, 2);
    assert!(nothing.stderr.contains("Usage: bdh-gpu <COMMAND>"), "{nothing:?}");
    assert_eq!(run(&["--version"]).ok(), format!("bdh-gpu {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn bad_usage_is_one_line_and_exit_code_2() {
    let micro = golden("micro");
    let odd = golden("odd-shapes");
    let cases: &[&[&str]] = &[
        &["nonsense"],
        &["genrate"],
        &["generate"],
        &["generate", "-p", "a", "--tokens", "1"],
        &["generate", "-p", "a", "-p", "b"],
        &["generate", "a"],
        &["generate", "-p", "a", "--stop", ""],
        &["generate", "-p", "a", "--num-beams", "0"],
        &["generate", "-p", "a", "--num-beams", "1025"],
        &["generate", "-p", "a", "--num-beams", "2", "--temperature", "0.5"],
        &["generate", "-p", "a", "--num-beams", "2", "--top-p", "0.9"],
        &["generate", "-p", "a", "--rope", "sideways"],
        &["generate", "-p", "a", "--rope", "half-split:10000"],
        &["info", "--tokenizer", "tokenizer.json"],
        &["bench", "--synthetic", "1,8,2,4,40", "--rope", "half-split:10000"],
        &["convert", "--from", "a", "--to", "b", "--context", "0"],
        &["generate", "-p", "a", "--num-beams", "2", "--num-return-sequences", "3"],
        &["generate", "-p", "a", "--length-penalty", "2"],
        &["generate", "-p", "a", "--num-beams", "2", "--length-penalty", "inf"],
        &["generate", "-p", "a", "--num-beams", "2", "--early-stopping=maybe"],
        &["generate", "-p", "a", "--num-return-sequences", "0"],
        &["generate", "-p", "a", "--num-return-sequences", "2", "--save-state", "s"],
        &["generate", "--load-state", "s", "--num-return-sequences", "2"],
        &["generate", "--prompts", "a", "--load-state", "s"],
        &["generate", "--prompts", "a", "--prompt", "b"],
        &["generate", "-p", "a", "--output", "o", "--stream"],
        &["interactive", "--temperature", "-1"],
        &["interactive", "--prompt", "a"],
        &["completions"],
        &["completions", "tcsh"],
        &["man"],
        &["generate", "--prompt"],
        &["generate", "-p", "a", "--top_x", "1"],
        &["generate", "-p", "a", "--max-new-tokens", "many"],
        &["generate", "-p", "a", "--max-new-tokens", "-1"],
        &["generate", "-p", "a", "--min-new-tokens", "4294967296"],
        &["generate", "-p", "a", "--temperature", "-0.1"],
        &["generate", "-p", "a", "--temperature", "nan"],
        &["generate", "-p", "a", "--temperature", "inf"],
        &["generate", "-p", "a", "--temperature", "hot"],
        &["generate", "-p", "a", "--top-k", "-1"],
        &["generate", "-p", "a", "--top-p", "0"],
        &["generate", "-p", "a", "--top-p", "1.01"],
        &["generate", "-p", "a", "--min-p", "-0.01"],
        &["generate", "-p", "a", "--min-p", "2"],
        &["generate", "-p", "a", "--repetition-penalty", "0"],
        &["generate", "-p", "a", "--presence-penalty", "nan"],
        &["generate", "-p", "a", "--frequency-penalty", "-inf"],
        &["generate", "-p", "a", "--seed", "18446744073709551616"],
        &["generate", "-p", "a", "--eos-token-id", "256"],
        &["generate", "-p", "a", "--eos-token-id", "1", "--ignore-eos"],
        &["generate", "-p", "a", "--format", "xml"],
        &["generate", "-p", "a", "--device", ""],
        &["generate", "-p", "a", "--weights", "f64"],
        &["generate", "-p", "a", "--quiet", "--verbose"],
        &["generate", "-p", "a", "--context", "-1"],
        &["generate", "-p", "a", "--context", "4294967296"],
        &["generate", "-p", "a", "--forget-tau", "0"],
        &["generate", "-p", "a", "--forget-tau", "inf"],
        &["generate", "-p", "a", "--context", "full", "--forget-tau", "3"],
        &["generate", "-p", "a", "--model", &micro, "--forget-tau", "3"],
        &["generate", "-p", "a", "--model", ""],
        &["generate", "--tokens", "1 two 3"],
        &["generate", "--tokens", "-1"],
        &["generate", "--tokens", "1 256"],
        &["generate", "--tokens", "@"],
        &["generate", "-p", "{a}", "--model", &odd],
        &["score"],
        &["score", "--text", "a", "--file", "b"],
        &["score", "--text", ""],
        &["score", "--text", "a"],
        &["score", "--tokens", "1 70000"],
        &["compare"],
        &["compare", "--text", "a"],
        &["compare", "--text", "ab", "--state", "i4"],
        &["compare", "--text", "ab", "--state", "i8", "--context", "full"],
        &["generate", "-p", "a", "--compact", "--context", "full"],
        &["generate", "-p", "a", "--compact", "--state", "i16"],
        &["score", "--text", "ab", "--blocks", "0"],
        &["score", "--text", "ab", "--format", "jsonl"],
        &["score", "--text", "ab", "--format", "csv"],
        &["score", "--text", "ab", "--by-position", "--blocks", "1"],
        &["score", "--text", "ab", "--by-position=3"],
        &["score", "--text", "ab", "--by-position=1"],
        &["score", "--text", "ab", "--by-position=-1"],
        &["needle"],
        &["needle", "--text", "ab"],
        &["needle", "--text", "ab", "--lengths", "1,,2"],
        &["needle", "--text", "ab", "--lengths", "30"],
        &["needle", "--text", "ab", "--depths", "101"],
        &["needle", "--text", "ab", "--depths", "1", "--distances", "1"],
        &["needle", "--text", "ab", "--needles", "0"],
        &["needle", "--text", "ab", "--needle-text", "a {key}"],
        &["needle", "--tokens", "1 2", "--model", &micro],
        &["verify", "--format", "csv"],
        &["verify", "--device", "cpu"],
        &["verify", "--corrupt", "nonsense"],
        &["bench", "--synthetic", "4,128,4,32"],
        &["bench", "--synthetic", "4,128,4,32,0"],
        &["bench", "--synthetic", "4,128,4,-32,256"],
        &["bench", "--synthetic", "4,128,200,1,256"],
        &["bench", "--synthetic", "4,99999999,4,32,256"],
        &["bench", "--synthetic", "4,128,4,32,256", "--density", "1.5"],
        &["bench", "--synthetic", "4,128,4,32,256", "--density", "nan"],
        &["bench", "--synthetic", "4,128,4,32,256", "--model", "m"],
        &["bench", "--density", "0.5"],
        &["bench", "--batch", "1,0"],
        &["bench", "--batch", "1,,2"],
        &["bench", "--batch", "-1"],
        &["bench", "--depth", "4294967296"],
        &["bench", "--depth", "0,4294967295"],
        &["bench", "--repetitions", "0"],
        &["bench", "--prompt-tokens", "0", "--new-tokens", "0"],
        &["bench", "--new-tokens", "18446744073709551615", "--depth", "1"],
        &["bench", "--format", "xml"],
        &["info", "--format", "csv"],
        &["devices", "--nonsense"],
    ];
    insta::assert_snapshot!("bad-usage", transcript(cases, 2));
}

// The operating system's own words are in them.
#[cfg(unix)]
#[test]
fn failures_are_one_line_and_exit_code_1() {
    let directory = TempDir::new().expect("a directory");
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, content).expect("a file");
        path.to_str().expect("a UTF-8 path").to_string()
    };
    let missing = path(&directory.path().join("missing")).to_string();
    let empty = directory.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    let binary = format!("@{}", file("binary", b"\xff\xfe"));
    let words = format!("@{}", file("words", b"1 2 three"));
    let config = |name: &str, content: &str| {
        let shipped = repository().join("models/bdh-shakespeare/model.safetensors");
        file(&format!("{name}/config.json"), content.as_bytes());
        std::fs::copy(shipped, directory.path().join(name).join("model.safetensors")).expect("a copy");
        path(&directory.path().join(name)).to_string()
    };
    let not_json = config("not-json", "{");
    let other_sizes = config(
        "other-sizes",
        r#"{"n_layer": 4, "n_embd": 64, "n_head": 4, "mlp_internal_dim_multiplier": 32, "vocab_size": 256}"#,
    );
    file("cut-short/config.json", b"{}");
    file("cut-short/model.safetensors", b"\x10\0\0\0\0\0\0\0{}");
    let cut_short = path(&directory.path().join("cut-short")).to_string();
    file("weights-only/model.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    let weights_only = path(&directory.path().join("weights-only")).to_string();
    let cases: &[&[&str]] = &[
        &["generate", "--prompt-file", &missing],
        &["generate", "--prompt-file", path(&empty)],
        &["generate", "--tokens", &format!("@{missing}")],
        &["generate", "--tokens", &binary],
        &["generate", "--tokens", &words],
        &["generate", "-p", "a", "--model", &missing],
        &["generate", "-p", "a", "--model", path(&empty)],
        &["generate", "-p", "a", "--model", &not_json],
        &["generate", "-p", "a", "--model", &other_sizes],
        &["generate", "-p", "a", "--model", &cut_short],
        &["generate", "-p", "a", "--model", &weights_only],
        &["score", "--file", &missing],
        &["score", "--file", path(&empty)],
        &["needle", "--file", &missing],
        &["info", "--model", &missing],
        &["verify", "--model", &missing],
        &["bench", "--model", &missing],
    ];
    let transcript = transcript(cases, 1).replace(path(directory.path()), "DIR");
    insta::assert_snapshot!("failures", transcript);
    // What adapters there are depends on the machine.
    for arguments in [&["generate", "-p", "a"][..], &["score", "--text", "ab"], &["verify"], &["bench"]] {
        for device in ["no such adapter", "999"] {
            let error = run(&[arguments, &["--device", device]].concat()).error(1);
            assert!(error.contains(device), "{error}");
        }
    }
}

/// Command lines and the one line of error that each of them gives.
fn transcript(cases: &[&[&str]], code: i32) -> String {
    let mut text = String::new();
    for arguments in cases {
        let line = run(arguments).error(code);
        text.push_str(&format!("$ bdh-gpu {}\n{line}", arguments.join(" ")));
    }
    text.replace(path(repository()), "REPOSITORY")
}
