//! Files and folders made to do harm: one line of error each, never a crash, a hang or a full memory.
#![cfg(unix)]

mod common;
#[path = "common/program.rs"]
mod program;

use program::{Run, path, program, repository, run_command};
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A run that takes longer has hung, even on a busy machine: the slowest takes a few seconds.
const HUNG: Duration = Duration::from_secs(1800);

/// A folder with a small model in `model` and nothing else.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(repository().join("fuzz/model").join(name), model.join(name)).unwrap();
    }
    folder
}

fn run(arguments: &[&str]) -> Run {
    run_command(program().timeout(HUNG).args(arguments))
}

/// `generate` with the small model on the CPU.
fn generate(model: &Path, arguments: &[&str]) -> Run {
    run(&[&["generate", "--device", "cpu", "--quiet", "-n", "2", "--model", path(model)], arguments].concat())
}

/// Something that is no file, by name, and what makes it at a path.
type Trick = (&'static str, fn(&Path));

/// What can stand where a file is expected.
const TRICKS: [Trick; 6] = [
    ("a directory", |path| fs::create_dir(path).unwrap()),
    ("a named pipe", make_pipe),
    ("an endless device", |path| symlink("/dev/zero", path).unwrap()),
    ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
    ("a link to itself", |path| symlink(path, path).unwrap()),
    ("a link to nothing", |path| symlink("/no/such/file", path).unwrap()),
];

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo");
    assert!(made.success() && fs::metadata(path).unwrap().file_type().is_fifo());
}

#[test]
fn a_models_files_may_be_anything() {
    let files = [
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "training_args.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    for name in files {
        for (what, make) in TRICKS {
            let folder = folder();
            let model = folder.path().join("model");
            let _ = fs::remove_file(model.join(name));
            make(&model.join(name));
            let run = generate(&model, &["--prompt", "a"]);
            let absent = what == "a link to nothing" && !["model.safetensors", "config.json"].contains(&name);
            if absent || name == "training_args.json" {
                // As if it were not there; this one is only shown.
                run.ok();
                continue;
            }
            let message = run.error(1);
            assert!(message.contains(name), "{name} as {what}: {message}");
        }
    }
}

#[test]
fn a_models_path_may_be_anything() {
    for (what, make) in TRICKS {
        let folder = folder();
        let model = folder.path().join("trick");
        make(&model);
        let message = run(&["info", "--model", path(&model)]).error(1);
        assert!(message.contains("trick"), "{what}: {message}");
    }
    run(&["info", "--model", ""]).error(2);
}

#[test]
fn numbers_of_a_trillion_are_refused() {
    let config = [
        ("n_layer", 1),
        ("n_embd", 4),
        ("n_head", 2),
        ("mlp_internal_dim_multiplier", 3),
        ("vocab_size", 256),
        ("block_size", 2),
    ];
    for (key, _) in config {
        let folder = folder();
        let model = folder.path().join("model");
        let entry =
            |(name, value): (&str, u64)| format!("\"{name}\": {}", if name == key { 1_000_000_000_000 } else { value });
        fs::write(model.join("config.json"), format!("{{{}}}", config.map(entry).join(", "))).unwrap();
        let message = generate(&model, &["--prompt", "a"]).error(1);
        assert!(message.contains(key) && message.contains("1000000000000"), "{message}");
    }
    for header in [
        r#"{"embed.weight":{"dtype":"F32","shape":[1000000000000,4],"data_offsets":[0,16000000000000]}}"#,
        r#"{"embed.weight":{"dtype":"F32","shape":[1000000000000,1000000000000],"data_offsets":[0,0]}}"#,
        r#"{"embed.weight":{"dtype":"F32","shape":[0,1000000000000],"data_offsets":[0,0]}}"#,
    ] {
        let folder = folder();
        let model = folder.path().join("model");
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        fs::write(model.join("model.safetensors"), bytes).unwrap();
        generate(&model, &["--prompt", "a"]).error(1);
    }
    let folder = folder();
    let model = folder.path().join("model");
    fs::write(model.join("model.safetensors"), [&1_000_000_000_000u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    generate(&model, &["--prompt", "a"]).error(1);
}

#[test]
fn a_state_larger_than_any_memory_is_refused() {
    let folder = folder();
    let model = folder.path().join("model");
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    fs::write(model.join("config.json"), config.replace("\"n_layer\": 1", "\"n_layer\": 16777216")).unwrap();
    // The weights are small, the state of so many layers is not.
    let message = generate(&model, &["--prompt", "a"]).error(1);
    assert!(message.contains("out of memory"), "{message}");
}

#[test]
fn a_tokenizer_that_makes_its_reader_panic_is_refused() {
    let folder = folder();
    let model = folder.path().join("model");
    fs::copy(repository().join("fuzz/corpus/tokenizer/decoder-of-no-kind"), model.join("tokenizer.json")).unwrap();
    let message = generate(&model, &["--prompt", "a"]).error(1);
    assert!(message.contains("tokenizer.json"), "{message}");
}

#[test]
fn what_may_not_be_read_or_written_is_said() {
    let folder = folder();
    let root = folder.path();
    let is_root = fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    // Permissions do not bind root, who becomes nobody here.
    let binary = root.join("bdh-gpu");
    fs::copy(env!("CARGO_BIN_EXE_bdh-gpu"), &binary).unwrap();
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    let start = || {
        if !is_root {
            return assert_cmd::Command::new(&binary);
        }
        let mut command = assert_cmd::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        command
    };
    if is_root && Command::new("setpriv").arg("--version").output().is_err() {
        println!("not tried: run as root, and there is no setpriv to become somebody else");
        return;
    }
    let generate = |arguments: &[&str]| {
        let model = root.join("model");
        let fixed = ["generate", "--device", "cpu", "--quiet", "-n", "2", "--model", path(&model)];
        run_command(start().timeout(HUNG).args(fixed).args(arguments))
    };
    let forbid = |name: &str, mode| fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    let secret = root.join("secret");
    fs::write(&secret, "a").unwrap();
    generate(&["--prompt", "a"]).ok();
    forbid("secret", 0);
    let secret = path(&secret);
    for arguments in [
        &["--prompt-file", secret][..],
        &["--prompts", secret],
        &["--tokens", &format!("@{secret}")],
        &["--prompt", "a", "--load-state", secret],
        &["--prompt", "a", "--save-state", secret],
        &["--prompt", "a", "--output", secret],
    ] {
        let message = generate(arguments).error(1);
        assert!(message.contains("secret") && message.contains("ermission denied"), "{message}");
    }
    forbid("model/config.json", 0);
    assert!(generate(&["--prompt", "a"]).error(1).contains("config.json"));
    forbid("model/config.json", 0o644);
    forbid("model/model.safetensors", 0);
    assert!(generate(&["--prompt", "a"]).error(1).contains("model.safetensors"));
    forbid("model", 0);
    generate(&["--prompt", "a"]).error(1);
    forbid("model", 0o755);
}

#[test]
fn inputs_may_be_anything() {
    let folder = folder();
    let model = folder.path().join("model");
    for (what, make) in TRICKS {
        let trick = folder.path().join("trick");
        make(&trick);
        let trick = path(&trick);
        let at = format!("@{trick}");
        let state = ["--prompt", "a", "--load-state", trick];
        let inputs = [["--prompt-file", trick], ["--prompts", trick], ["--tokens", &at]];
        // A pipe is a fair input, which a writer is waited for on; a state is a file.
        let inputs = inputs.iter().map(|input| &input[..]).filter(|_| what != "a named pipe").chain([&state[..]]);
        for input in inputs {
            let message = generate(&model, input).error(1);
            assert!(message.contains("trick"), "{input:?} of {what}: {message}");
        }
        fs::remove_dir(trick).or_else(|_| fs::remove_file(trick)).unwrap();
    }
}

#[test]
fn a_named_pipe_is_read_as_a_prompt() {
    let folder = folder();
    let pipe = folder.path().join("pipe");
    make_pipe(&pipe);
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, "ab").unwrap()
    });
    let text = generate(&folder.path().join("model"), &["--prompt-file", path(&pipe), "--seed", "1"]).ok();
    assert!(text.starts_with("ab"), "{text}");
    writer.join().unwrap();
}

#[test]
fn outputs_may_be_anything() {
    let folder = folder();
    let model = folder.path().join("model");
    let trick = folder.path().join("trick");
    for (what, make) in TRICKS {
        if ["a named pipe", "an endless device"].contains(&what) {
            // Fair outputs: a reader is waited for, and /dev/zero takes everything.
            continue;
        }
        make(&trick);
        for option in ["--output", "--save-state"] {
            let message = generate(&model, &["--prompt", "a", option, path(&trick)]).error(1);
            assert!(message.contains("trick"), "{option} to {what}: {message}");
        }
        fs::remove_dir(&trick).or_else(|_| fs::remove_file(&trick)).unwrap();
    }
    for option in ["--output", "--save-state"] {
        let full = generate(&model, &["--prompt", "a", option, "/dev/full"]);
        assert!(full.code == 1 && full.stderr.lines().count() == 1, "{full:?}");
        generate(&model, &["--prompt", "a", option, path(&folder.path().join("no/such/folder"))]).error(1);
        generate(&model, &["--prompt", "a", option, ""]).error(2);
    }
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["model"], "nothing is left behind");
}

#[test]
fn an_endless_line_ends() {
    let folder = folder();
    let zeros = File::open("/dev/zero").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"));
    command.args(["interactive", "--device", "cpu", "--quiet", "--model"]).arg(folder.path().join("model"));
    let output = command.stdin(zeros).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("a line is longer than 256 MiB") && message.lines().count() == 1, "{message}");
}

/// What the program has loaded it no longer needs on disk.
#[test]
fn weights_may_shrink_once_they_are_loaded() {
    let folder = folder();
    let (model, state) = (folder.path().join("model"), folder.path().join("a.state"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"));
    command.args(["interactive", "--device", "cpu", "--quiet", "-n", "3", "--seed", "1", "--model"]).arg(&model);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdin.write_all(b"a\n/settings\n").unwrap();
    // The settings come after the text: the model is loaded.
    let mut line = Vec::new();
    while !line.starts_with(b"temp") {
        line.clear();
        assert!(stdout.read_until(b'\n', &mut line).unwrap() > 0, "an early end");
    }
    fs::write(model.join("model.safetensors"), b"").unwrap();
    // A state names the model by all of its weights.
    stdin.write_all(format!("b\n/save {}\nc\n", path(&state)).as_bytes()).unwrap();
    drop(stdin);
    stdout.read_to_end(&mut line).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(state.exists());
}

/// Weights that another program writes meanwhile load, or are refused.
#[test]
fn weights_may_change_while_they_are_loaded() {
    const TRIES: usize = 40;
    let folder = folder();
    let model = folder.path().join("model");
    let weights = model.join("model.safetensors");
    let sound = fs::read(&weights).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&weights).unwrap();
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                file.set_len(100).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &sound, 0).unwrap();
            }
        });
        for _ in 0..TRIES {
            let run = run(&["info", "--model", path(&model)]);
            assert!(run.code == 0 || (run.code == 1 && run.stderr.lines().count() == 1), "{run:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}
