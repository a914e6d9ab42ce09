//! Devices that fail: lost, out of memory, silent, or wrong. A Vulkan layer lets the driver fail (`vulkan-faults`), so
//! that everything above it – wgpu, the engine, the program – meets what it would meet on a broken device.
#![cfg(target_os = "linux")]

#[path = "common/faults.rs"]
mod faults;
#[path = "common/gpu.rs"]
mod gpu;
#[path = "common/program.rs"]
mod program;

use bdh_gpu::backend::{BackendError, DeviceKind};
use bdh_gpu::generation::{Bdh, BeamOptions, DeviceChoice, Session, WeightChoice};
use bdh_gpu::{Forgetting, GenerationError, GenerationOptions, Model};
use faults::{Driver, change_plan, run_apart};
use program::{Run, file_with, path, program, run, run_command};
use serde_json::Value;
use std::ops::ControlFlow;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;

/// No test takes this long, however busy the machine is: a program that does hangs.
const WATCHDOG: Duration = Duration::from_secs(3600);
/// Tokens of the texts that are cut off. A burst has 64 at most.
const TOKENS: &str = "600";

/// The name of the adapter under test, or what stands for it.
fn device() -> String {
    match gpu::device() {
        DeviceChoice::Name(name) => name,
        _ => "gpu".to_string(),
    }
}

/// Runs the program over a driver. That compiling took long, which depends on the machine, is left out of what it said.
fn run_on(driver: &Driver, arguments: &[&str]) -> Run {
    let run = run_command(program().envs(driver.environment()).args(arguments).timeout(WATCHDOG));
    let said = run.stderr.split_inclusive('\n').filter(|line| !line.starts_with("note: compiling the kernels"));
    Run { stderr: said.collect(), ..run }
}

/// `generate` with a seed on the adapter under test.
fn generate(driver: &Driver, arguments: &[&str]) -> Run {
    let device = device();
    run_on(driver, &[&["generate", "--device", &device, "--prompt", "KING:", "--seed", "1"], arguments].concat())
}

/// Submissions until the first token has come.
fn submissions_to_first_token() -> u64 {
    let driver = Driver::new("");
    generate(&driver, &["-n", "1"]).ok();
    driver.submissions()
}

/// What the CPU writes where nothing fails.
fn whole_text(arguments: &[&str]) -> String {
    run(&[&["generate", "--device", "cpu", "--prompt", "KING:", "--seed", "1"], arguments].concat()).ok()
}

/// The one line of error that a run ends with.
#[track_caller]
fn last_error(run: &Run) -> &str {
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{run:?}");
    let last = run.stderr.lines().last().expect("a line");
    assert!(last.starts_with("error: ") && !run.stderr.contains("panicked"), "{run:?}");
    last
}

/// The ways to lose a device in the midst of a text, and what is said.
fn losses() -> [(String, &'static str); 3] {
    // Seven more bursts, of one token at least and at most twice the one before: the text is far from its end.
    losses_from(submissions_to_first_token() + 8)
}

fn losses_from(middle: u64) -> [(String, &'static str); 3] {
    [
        (format!("vkQueueSubmit -4 from {middle}"), "the device was lost (Device is lost)"),
        (format!("vkWait -4 from {middle}"), "the device was lost (Device is lost)"),
        (format!("hang from {middle}"), "the device was lost (no answer within 120 s)"),
    ]
}

/// The note that a run has lost its device and gone on.
#[track_caller]
fn assert_moved(run: &Run, plan: &str, message: &str) {
    let notes: Vec<&str> = run.stderr.lines().filter(|line| line.contains("goes on on CPU (")).collect();
    assert!(notes.len() == 1 && notes[0].starts_with("note: ") && notes[0].contains(message), "{plan}: {run:?}");
    assert!(!run.stderr.contains("error: ") && !run.stderr.contains("panicked"), "{plan}: {run:?}");
}

#[test]
fn a_text_and_its_state_outlive_the_device() {
    let whole = whole_text(&["-n", TOKENS]);
    for (plan, message) in losses() {
        let folder = TempDir::new().unwrap();
        let state = folder.path().join("text.state");
        let run = generate(&Driver::new(&plan), &["-n", TOKENS, "--save-state", path(&state)]);
        assert_moved(&run, &plan, message);
        assert_eq!(run.ok(), whole, "{plan}");
        let go_on = ["generate", "--device", "cpu", "--load-state", path(&state), "-n", "50", "--no-echo"];
        let more = program::run(&go_on).ok();
        let length = (TOKENS.parse::<usize>().unwrap() + 50).to_string();
        assert_eq!(format!("{}{more}", whole.strip_suffix('\n').unwrap()), whole_text(&["-n", &length]), "{plan}");
    }
}

#[test]
fn a_text_that_goes_on_from_a_state_outlives_the_device() {
    let folder = TempDir::new().unwrap();
    let start = folder.path().join("start.state");
    generate(&Driver::new(""), &["-n", "30", "--save-state", path(&start)]).ok();
    let (plan, message) = &losses()[1];
    let device = device();
    // A stop text makes the session take snapshots of its own.
    for stop in [&[][..], &["--stop", "no such text"]] {
        let arguments = ["generate", "--device", &device, "--load-state", path(&start), "-n", TOKENS];
        let run = run_on(&Driver::new(plan), &[&arguments, stop].concat());
        assert_moved(&run, plan, message);
        let length = (TOKENS.parse::<usize>().unwrap() + 30).to_string();
        assert_eq!(run.ok(), whole_text(&["-n", &length])["KING:".len() + 30..]);
    }
}

#[test]
fn a_prompt_is_read_again_from_its_beginning() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("prompt.state");
    let (_folder, prompt) = file_with(&b"All: Speak, speak. ".repeat(200));
    let device = device();
    // The prompt is read after the model is there.
    let plan = format!("vkWait -4 from {}", submissions_to_first_token());
    let arguments = ["--prompt-file", path(&prompt), "--save-state", path(&state), "-n", "0"];
    let run = run_on(&Driver::new(&plan), &[&["generate", "--device", &device], &arguments[..]].concat());
    assert_moved(&run, &plan, "the device was lost");
    assert!(run.stderr.contains("state saved at position 3,800") || run.stderr.contains("position 3800"), "{run:?}");
    let go_on = ["generate", "--device", "cpu", "--load-state", path(&state), "--greedy", "-n", "40", "--no-echo"];
    let whole = ["generate", "--device", "cpu", "--prompt-file", path(&prompt), "--greedy", "-n", "40", "--no-echo"];
    assert_eq!(program::run(&go_on).ok(), program::run(&whole).ok());
}

#[test]
fn an_object_and_a_search_outlive_the_device() {
    let (plan, message) = &losses()[1];
    let run = generate(&Driver::new(plan), &["-n", TOKENS, "--format", "jsonl"]);
    assert_moved(&run, plan, message);
    let object: Value = serde_json::from_str(&run.ok()).expect("one object");
    assert_eq!(object["finish_reason"], "length");
    assert_eq!(format!("{}\n", object["text"].as_str().unwrap()), whole_text(&["-n", TOKENS, "--no-echo"]));
    let search = ["--num-beams", "3", "-n", "40"];
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("search.state");
    // From a state, or towards one, a search runs in a session.
    let run = generate(&Driver::new(plan), &[&search[..], &["--save-state", path(&state)]].concat());
    assert_moved(&run, plan, message);
    assert_eq!(run.ok(), whole_text(&search));
}

#[test]
fn a_lost_device_leaves_the_output_file_of_a_batch_as_it_was() {
    let (_folder, output) = file_with(b"before");
    let (_prompts_folder, prompts) = file_with(b"KING:\nQUEEN:\nROMEO:\n");
    let (plan, message) = &losses()[1];
    let driver = Driver::new(plan);
    let device = device();
    let many = ["generate", "--device", &device, "--prompts", path(&prompts), "-n", TOKENS, "--output", path(&output)];
    let run = run_on(&driver, &many);
    last_error(&run);
    assert!(run.stderr.contains("failed after 0 of 3 texts; ") && run.stderr.contains("is as it was"), "{run:?}");
    assert_eq!(std::fs::read(&output).unwrap(), b"before");
    assert_eq!(output.parent().unwrap().read_dir().unwrap().count(), 1, "nothing is left beside it");
    let one =
        ["generate", "--device", &device, "--prompt", "KING:", "--seed", "1", "-n", TOKENS, "--output", path(&output)];
    assert_moved(&run_on(&driver, &one), plan, message);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), whole_text(&["-n", TOKENS]));
}

#[test]
fn the_prompt_loop_goes_on_on_the_cpu() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("talk.state");
    let device = device();
    let lines = format!("KING:\nQUEEN:\n/undo\n/retry\n/stats\n/save {}\n", path(&state));
    let idle = Driver::new("");
    let talk = |driver: &Driver, device: &str| {
        let mut command = program();
        command.envs(driver.environment()).args(["interactive", "--seed", "1", "--device", device]);
        run_command(command.args(["-n", TOKENS]).write_stdin(lines.as_str()).timeout(WATCHDOG))
    };
    run_on(&idle, &["interactive", "--device", &device]).ok();
    let texts = |run: Run| {
        let output = run.ok();
        let (texts, stats) = output.split_once("position").expect("/stats");
        assert!(stats.contains(" on CPU ("), "{stats}");
        texts.to_string()
    };
    let expected = texts(talk(&Driver::new(""), "cpu"));
    std::fs::remove_file(&state).unwrap();
    // The prompt, and a few bursts.
    for (plan, message) in losses_from(idle.submissions() + 6) {
        let run = talk(&Driver::new(&plan), &device);
        assert_moved(&run, &plan, message);
        assert_eq!(texts(run), expected, "{plan}");
        program::run(&["generate", "--device", "cpu", "--load-state", path(&state), "-n", "5"]).ok();
        std::fs::remove_file(&state).unwrap();
    }
}

#[test]
fn a_device_without_memory_says_for_what() {
    for (plan, message) in [
        ("vkCreateDevice -2 from 0", "the device cannot be opened"),
        ("vkCreateDevice -3 from 0", "the device cannot be opened"),
        ("vkMapMemory -5 from 0", "the device cannot be opened"),
        ("vkAllocateMemory -2 from 0", "the device cannot be opened"),
        ("largest 900000", "out of memory while allocating the encoder (1048576 bytes)"),
        ("largest 1500000", "out of memory while allocating the sequences' state"),
        ("vkCreateComputePipelines -2 from 0", "out of memory while allocating a compiled kernel"),
        ("vkQueueSubmit -2 from 1", "out of memory while allocating"),
    ] {
        let run = generate(&Driver::new(plan), &["-n", "5"]);
        let error = last_error(&run);
        assert!(error.contains(message), "{plan}: {error}");
        assert!(error.contains("memory") && error.ends_with("use --device cpu"), "{plan}: {error}");
        assert_eq!(run.stdout, "", "{plan}");
    }
}

/// What `--device auto` takes where the adapter is a graphics card.
#[test]
fn the_cpu_takes_over_where_the_graphics_card_cannot_hold_the_model() {
    let whole = whole_text(&["-n", "20"]);
    for (plan, message) in [
        ("vkCreateDevice -4 from 0", "cannot be opened"),
        ("largest 900000", "out of memory while allocating the encoder"),
        ("largest 1500000", "out of memory while allocating the sequences' state"),
        ("binding 40000", "bytes in one binding for the embedding: 65536, but the adapter allows 40000"),
        ("vkCreateComputePipelines -13 from 0", "was lost"),
        ("vkWait -4 from 1", "was lost"),
    ] {
        let driver = Driver::new(&format!("hardware\n{plan}\n"));
        let run = run_on(&driver, &["generate", "--prompt", "KING:", "--seed", "1", "-n", "20"]);
        let notes: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("note: ")).collect();
        assert!(notes.len() == 1 && notes[0].contains(message), "{plan}: {run:?}");
        assert!(notes[0].ends_with("; the CPU runs instead") && !run.stderr.contains("panicked"), "{plan}: {run:?}");
        assert_eq!(run.ok(), whole, "{plan}");
    }
    // It is taken where it can.
    let run = run_on(&Driver::new("hardware"), &["generate", "--prompt", "KING:", "--seed", "1", "-n", "20"]);
    assert!(run.stderr.contains("(Vulkan)") && !run.stderr.contains("note: "), "{run:?}");
    assert_eq!(run.ok(), whole);
}

/// A model that no adapter with the base limits can hold: its embedding takes 146 MiB.
#[test]
fn a_model_too_large_for_the_adapter_names_the_limit() {
    let run_bench = |plan: &str, device: &str| {
        let sizes = ["bench", "--synthetic", "1,128,1,2,300000", "--weights", "f32", "--repetitions", "1"];
        let tests = ["--new-tokens", "1", "--prompt-tokens", "1", "--device", device];
        run_on(&Driver::new(plan), &[&sizes[..], &tests].concat())
    };
    let base = "binding 134217728";
    let run = run_bench(base, &device());
    let error = last_error(&run);
    assert!(error.contains("bytes in one binding for the embedding: 153600000"), "{error}");
    assert!(error.contains("the adapter allows 134217728") && error.ends_with("--device cpu"), "{error}");
    let run = run_bench(&format!("{base}\nhardware"), "auto");
    assert!(run.stderr.contains("the adapter allows 134217728; the CPU runs instead"), "{run:?}");
    assert!(run.ok().contains("CPU ("));
}

#[test]
fn a_wrong_device_is_refused_before_it_writes() {
    let right = Driver::new("");
    let wrong = Driver::new("miscompile");
    assert_eq!(generate(&right, &["-n", "20", "--check"]).ok(), whole_text(&["-n", "20"]));
    for arguments in [&[][..], &["--num-beams", "3"], &["--context", "64"]] {
        let run = generate(&wrong, &[&["-n", "20", "--check"], arguments].concat());
        let error = last_error(&run);
        assert!(error.contains("does not compute what the CPU does: the logits of the prompt"), "{error}");
        assert!(error.contains("`bdh-gpu verify` names the kernel"), "{error}");
        assert_eq!(run.stdout, "");
    }
    let device = device();
    let mut command = program();
    command.envs(wrong.environment()).args(["interactive", "--check", "--device", &device]);
    let run = run_command(command.write_stdin("KING:\n"));
    assert!(last_error(&run).contains("does not compute what the CPU does"), "{run:?}");
    assert_eq!(run.stdout, "");
}

// ---- in the library ----

fn shipped() -> Bdh {
    let model = Model::from_path(program::repository().join("models/bdh-shakespeare")).unwrap();
    Bdh::new(model, &gpu::device(), WeightChoice::Auto).unwrap()
}

fn session(bdh: &Bdh) -> Session {
    let mut session = bdh.session_with(Forgetting::Full).unwrap();
    session.feed(&bdh.encode(b"KING:").unwrap()).unwrap();
    session
}

fn options() -> GenerationOptions {
    GenerationOptions { max_new_tokens: 30, seed: Some(1), ..GenerationOptions::default() }
}

fn text(session: &mut Session) -> Result<Vec<u32>, GenerationError> {
    Ok(session.generate(&options())?.tokens)
}

#[track_caller]
fn assert_out_of_memory<T>(result: Result<T, GenerationError>) {
    match result.map(drop).expect_err("there is no memory") {
        GenerationError::Backend(error @ BackendError::OutOfMemory { .. }) => {
            assert!(error.to_string().contains("out of memory while allocating"), "{error}");
        }
        other => panic!("{other}"),
    }
}

/// Where there is no memory for something new, what there is goes on.
#[test]
fn no_memory_for_a_fork_or_for_beams_leaves_the_conversation_alone() {
    run_apart("no_memory_apart", &Driver::new(""));
}

#[test]
#[ignore = "run in a process of its own"]
fn no_memory_apart() {
    let bdh = shipped();
    let expected = text(&mut session(&bdh)).unwrap();
    let mut conversation = session(&bdh);
    for plan in ["largest 100000", "largest 2000000"] {
        change_plan(plan);
        assert_out_of_memory(conversation.fork());
        assert_out_of_memory(bdh.session_with(Forgetting::Full));
    }
    change_plan("vkCreateBuffer -2 from 0");
    let beam = BeamOptions { num_beams: 4, max_new_tokens: 5, ..BeamOptions::default() };
    assert_out_of_memory(conversation.beam_search(&options().sampling, &beam));
    change_plan("");
    assert_eq!(text(&mut conversation).unwrap(), expected);
    assert_eq!(text(&mut session(&bdh).fork().unwrap()).unwrap(), expected);
}

/// Once a device is lost, everything on it fails at once, and a new one works.
#[test]
fn a_lost_device_stays_lost() {
    run_apart("lost_apart", &Driver::new(""));
}

#[test]
#[ignore = "run in a process of its own"]
fn lost_apart() {
    for plan in ["vkWait -4 from 0", "vkQueueSubmit -4 from 0", "hang from 0"] {
        let bdh = shipped();
        let expected = text(&mut session(&bdh)).unwrap();
        let mut conversation = session(&bdh);
        change_plan(plan);
        // The conversation goes on on the CPU, and says so once.
        assert_eq!(text(&mut conversation).unwrap(), expected, "{plan}");
        let failover = conversation.take_failover().expect("the device is lost");
        assert!(matches!(failover.error, BackendError::Lost { .. }), "{plan}: {}", failover.error);
        assert_eq!(failover.device.kind, DeviceKind::Cpu);
        assert_eq!((conversation.device(), conversation.position()), (&failover.device, 35));
        assert!(conversation.take_failover().is_none() && conversation.snapshot().is_ok());
        change_plan("");
        match bdh.session_with(Forgetting::Full).map(drop).expect_err("the device is lost") {
            GenerationError::Backend(BackendError::Lost { .. }) => {}
            other => panic!("{plan}: {other}"),
        };
        let cpu = bdh.on_cpu().unwrap();
        assert_eq!(text(&mut session(&cpu)).unwrap(), expected);
    }
}

/// With stop texts, the state is copied every 512 tokens.
#[test]
fn a_device_lost_while_the_state_is_copied_is_replaced() {
    run_apart("checkpoint_apart", &Driver::new(""));
}

#[test]
#[ignore = "run in a process of its own"]
fn checkpoint_apart() {
    let options = GenerationOptions { max_new_tokens: 600, stop: vec!["no such text".to_string()], ..options() };
    let expected = session(&shipped().on_cpu().unwrap()).generate(&options).unwrap();
    let mut conversation = session(&shipped());
    let mut drawn = 0;
    let text = conversation
        .generate_with(&options, |tokens| {
            drawn += tokens.len();
            // The next thing that the device is asked for is the copy.
            if drawn >= 512 {
                change_plan("vkQueueSubmit -4 from 0");
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(conversation.take_failover().is_some());
    assert_eq!(text, expected);
}

/// One thread's lack of memory is not another's.
#[test]
fn an_error_reaches_the_thread_that_caused_it() {
    run_apart("threads_apart", &Driver::new(""));
}

#[test]
#[ignore = "run in a process of its own"]
fn threads_apart() {
    let bdh = shipped();
    let expected = text(&mut session(&bdh)).unwrap();
    let mut conversations: Vec<Session> = (0..10).map(|_| session(&bdh)).collect();
    let (done, start) = (AtomicBool::new(false), Barrier::new(2));
    change_plan("largest 2000000");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_out_of_memory(bdh.session_with(Forgetting::Full));
            start.wait();
            while !done.load(Relaxed) {
                assert_out_of_memory(bdh.session_with(Forgetting::Full));
            }
        });
        start.wait();
        let texts: Vec<_> = conversations.iter_mut().map(text).collect();
        done.store(true, Relaxed);
        for tokens in texts {
            assert_eq!(tokens.unwrap(), expected);
        }
    });
}
