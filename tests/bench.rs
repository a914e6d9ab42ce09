//! What `bdh-gpu bench` counts, and what it prints. How fast anything is depends on the machine and is not tested.

use assert_cmd::Command;
use bdh_gpu::backend::gpu::{Phase, kernel_names};
use bdh_gpu::backend::profile::Activity;
use bdh_gpu::backend::{BackendError, Input, Output, Plan, SlotStep, StateType, WeightType};
use bdh_gpu::bench::{self, BenchError, BenchOptions, NumberTypes, Profiled, Speed, chunk_traffic, density, traffic};
use bdh_gpu::generation::{Bdh, DeviceChoice, WeightChoice};
use bdh_gpu::model::{Model, SyntheticSpec};
use serde_json::Value;

/// 2 layers, width 6, 2 heads of 32 neurons, 11 tokens.
fn model(density: f64) -> Model {
    Model::synthetic(&SyntheticSpec {
        n_layer: 2,
        n_embd: 6,
        n_head: 2,
        neurons_per_head: 32,
        vocab_size: 11,
        density,
        seed: 3,
    })
}

fn on_cpu(density: f64) -> Bdh {
    Bdh::new(model(density), &DeviceChoice::Cpu, WeightChoice::F16).expect("the CPU runs")
}

/// What the last `counted` of `tokens` tokens touch, read by `sequences` sequences.
fn activity(bdh: &Bdh, sequences: usize, tokens: usize, counted: usize) -> Activity {
    let mut slots = bdh.backend().create_slots(sequences).expect("memory");
    let step = |position: usize| {
        let step = |slot| SlotStep {
            input: Input::Token(((position * 3 + slot) % bdh.model().config.vocab_size) as u32),
            output: Output::Logits,
            position: position as u32,
            ..SlotStep::IDLE
        };
        (0..sequences).map(step).collect()
    };
    let mut plan = Plan { steps: (0..tokens).map(step).collect(), trace_logits: false };
    let last = plan.steps.split_off(tokens - counted);
    slots.run(&plan).expect("the CPU runs");
    let profile = slots.profile(&Plan { steps: last, trace_logits: false }).expect("the CPU counts");
    profile.activity.expect("the CPU counts")
}

#[test]
fn everything_fires_at_density_one() {
    // 64 neurons in 2 layers; every pair enters the state once in 16 tokens.
    let all = activity(&on_cpu(1.0), 3, 40, 16);
    assert_eq!((all.steps, all.tokens, all.logits), (16, 48, 16));
    assert_eq!((all.neurons, all.pairs, all.settled), (48 * 128, 48 * 64, 3 * 2 * 32));
    assert_eq!(all.shared_neurons, 16 * 128, "sequences share the rows of encoder_v");
    assert_eq!((all.touched_neurons, all.touched_pairs), (3 * 128, 3 * 64), "a sequence's tokens share them too");
    let shares = density(&model(1.0).config, &all);
    assert_eq!((shares.u, shares.pair), (1.0, 1.0));
    assert_eq!(all.gates as f64 / (48.0 * 128.0), shares.g);
    assert!(all.shared_gates <= all.gates && all.shared_gates >= all.gates / 3, "{all:?}");

    // The first token finds the window empty; the second finds what the first left.
    assert_eq!(activity(&on_cpu(1.0), 1, 1, 1).settled, 0);
    // Of the 16 pairs of a head that is pair 1, in 2 heads and 2 layers.
    assert_eq!(activity(&on_cpu(1.0), 1, 2, 1).settled, 4);
}

#[test]
fn nothing_fires_at_density_zero() {
    let none = activity(&on_cpu(0.0), 2, 20, 16);
    assert_eq!(none, Activity { steps: 16, logits: 16, tokens: 32, ..Activity::default() });
}

#[test]
fn synthetic_models_have_the_density_that_is_asked_for() {
    for (n_layer, n_embd, neurons_per_head, vocab_size) in [(1, 64, 512, 97), (6, 128, 2048, 11), (12, 128, 2048, 300)]
    {
        for wanted in [0.05, 0.25, 0.6] {
            let sizes =
                SyntheticSpec { n_layer, n_embd, n_head: 2, neurons_per_head, vocab_size, density: wanted, seed: 5 };
            let bdh = Bdh::new(Model::synthetic(&sizes), &DeviceChoice::Cpu, WeightChoice::F32).expect("the CPU runs");
            let shares = density(&bdh.model().config, &activity(&bdh, 3, 64, 32));
            // Few neurons, few tokens: what is drawn deviates from what is expected.
            let context = format!("{n_layer} layers of width {n_embd}, density {wanted}: {shares:?}");
            assert!((shares.u - wanted).abs() < 0.015, "{context}");
            assert!((0.2..0.32).contains(&(shares.g / shares.u)), "{context}");
        }
    }
}

#[test]
fn shares_agree_with_one_another_in_between() {
    let some = activity(&on_cpu(0.3), 2, 40, 16);
    let shares = density(&model(0.3).config, &some);
    assert!(0.1 < shares.u && shares.u < 0.5, "{shares:?}");
    assert!(shares.u <= shares.pair && shares.pair <= 2.0 * shares.u, "{shares:?}");
    assert!(0.0 < shares.g && shares.g < shares.u, "{shares:?}");
    assert!(some.shared_neurons < some.neurons && 2 * some.shared_neurons >= some.neurons, "{some:?}");
}

#[test]
fn what_a_chunk_touches_is_what_any_of_its_tokens_does() {
    // With one layer, what fires depends on the token alone: nine tokens of one sequence touch what one token each of nine
    // sequences shares.
    let config = SyntheticSpec {
        n_layer: 1,
        n_embd: 6,
        n_head: 2,
        neurons_per_head: 256,
        vocab_size: 11,
        density: 0.3,
        seed: 3,
    };
    let bdh = Bdh::new(Model::synthetic(&config), &DeviceChoice::Cpu, WeightChoice::F16).expect("the CPU runs");
    let chunk = activity(&bdh, 1, 9, 9);
    let mut slots = bdh.backend().create_slots(9).expect("memory");
    let step = |position: u32| SlotStep {
        input: Input::Token(position * 3 % 11),
        output: Output::State,
        position,
        ..SlotStep::IDLE
    };
    let plan = Plan { steps: vec![(0..9).map(step).collect()], trace_logits: false };
    let apart = slots.profile(&plan).expect("the CPU counts").activity.expect("the CPU counts");
    assert_eq!(chunk.touched_neurons, apart.shared_neurons);
    assert_eq!((chunk.neurons, chunk.pairs), (apart.neurons, apart.pairs));
    assert_eq!(
        (apart.touched_neurons, apart.touched_pairs, apart.touched_gates),
        (apart.neurons, apart.pairs, apart.gates)
    );
    assert!(chunk.touched_neurons < chunk.neurons && 2 * chunk.touched_pairs >= chunk.touched_neurons, "{chunk:?}");
    assert!(chunk.touched_pairs < chunk.pairs && (1..chunk.gates).contains(&chunk.touched_gates), "{chunk:?}");
}

#[test]
fn bytes_are_those_counted_by_hand() {
    let counts = Activity {
        steps: 2,
        logits: 2,
        tokens: 4,
        neurons: 100,
        pairs: 70,
        gates: 30,
        settled: 8,
        shared_neurons: 60,
        shared_gates: 20,
        touched_neurons: 90,
        touched_pairs: 50,
        touched_gates: 25,
    };
    let config = model(0.5).config;
    let types = |weights, state| NumberTypes { weights, state };
    let exact = types(WeightType::F16, StateType::F32);
    let bytes = traffic(&config, exact, &counts);
    // Rows of 6 weights of 2 bytes: 2 steps · 2 layers · 64 of the encoder, 60, 20, 4 embeddings, 2 · 11 of the head.
    assert_eq!(bytes.weights, (256 + 60 + 20 + 4 + 22) as f64 * 12.0 / 4.0);
    // Rows of 6 floats: two per active pair; two per settled pair, read and written.
    assert_eq!(bytes.state, (140 + 32) as f64 * 24.0 / 4.0);
    // Floats: two neurons of 16 read and 1 written per active pair; an entry per neuron, layer and token looked at;
    // two neurons of 16 cleared per settled pair; per layer and token 16 residuals read and 1 written.
    assert_eq!(bytes.window, (2 * 70 * 17 + 4 * 2 * 64 + 2 * 8 * 16 + 4 * 2 * 17 * 6) as f64 * 4.0 / 4.0);
    // A quarter of that, and a scale per row.
    let small = traffic(&config, types(WeightType::F16, StateType::I8), &counts);
    assert_eq!(small.state, (140 + 32) as f64 * (6.0 + 4.0) / 4.0);
    assert_eq!(bytes.total(), bytes.weights + bytes.state + bytes.window);
    assert_eq!(traffic(&config, types(WeightType::F32, StateType::F32), &counts).weights, 2.0 * bytes.weights);

    // Two sequences' chunks of two tokens: each reads the encoder's 2 · 64 rows; then 90, 25, 4 embeddings.
    let chunk = chunk_traffic(&config, exact, &counts);
    assert_eq!(chunk.weights, (2 * 128 + 90 + 25 + 4) as f64 * 12.0 / 4.0);
    // Two rows of 6 floats per pair, read and written.
    assert_eq!((chunk.state, chunk.window), ((50 * 4) as f64 * 24.0 / 4.0, 0.0));
}

#[test]
fn every_device_batch_depth_and_test_has_its_row() {
    let devices = [on_cpu(0.3), on_cpu(0.3)];
    let options = BenchOptions {
        prompt_tokens: 70,
        new_tokens: 5,
        batches: vec![1, 3],
        depths: vec![0, 1_000_000],
        repetitions: 2,
    };
    let mut shares = Vec::new();
    let report = bench::run(&devices, &options, &mut |_, share| shares.push(share)).expect("a report");
    let rows: Vec<(usize, u32, &str)> =
        report.rows.iter().map(|row| (row.batch, row.depth, row.test.as_str())).collect();
    let mut expected = Vec::new();
    for batch in [1, 3] {
        for depth in [0, 1_000_000] {
            for test in ["pp70", "ttft", "pp70", "ttft", "tg5", "tg5"] {
                expected.push((batch, depth, test));
            }
        }
    }
    assert_eq!(rows, expected);
    assert!(shares.is_sorted() && shares[0] == 0.0 && shares.last() == Some(&1.0), "{shares:?}");
    for row in &report.rows {
        assert_eq!(row.samples.len(), 2, "{row:?}");
        assert!(row.samples.iter().all(|&sample| sample > 0.0), "{row:?}");
        assert_eq!(row.bytes_per_token.is_some(), row.test != "ttft", "{row:?}");
        assert_eq!(row.share_of_floor.is_some(), row.test == "tg5", "{row:?}");
        assert!(row.density.u > 0.0 && row.density.g > 0.0, "{row:?}");
        if let (Speed::TokensPerSecond(rate), Some(bytes), Some(gb)) =
            (row.speed, row.bytes_per_token, row.gb_per_second)
        {
            assert!((gb - rate * bytes / 1e9).abs() <= 1e-9 * gb, "{row:?}");
        }
    }
    assert!(report.bandwidth.is_some_and(|bandwidth| bandwidth.read > 0.0 && bandwidth.copy > 0.0));
}

#[test]
fn the_last_positions_can_be_measured_and_none_after_them() {
    let options = BenchOptions {
        prompt_tokens: 0,
        new_tokens: 10,
        depths: vec![u32::MAX - 9],
        repetitions: 1,
        ..Default::default()
    };
    assert_eq!(bench::run(&[on_cpu(0.3)], &options, &mut |_, _| ()).expect("a report").rows.len(), 1);
    let error = BenchOptions { depths: vec![u32::MAX - 8], ..options }.validate().expect_err("too deep");
    assert!(error.to_string().contains("4294967287"), "{error}");
}

#[test]
fn a_profile_covers_the_whole_run() {
    let options = BenchOptions { new_tokens: 8, batches: vec![1, 2], ..Default::default() };
    let profiles = bench::profile(&on_cpu(0.3), &options, Profiled::Decode).expect("the CPU can be profiled");
    assert_eq!(profiles.iter().map(|profile| (profile.batch, profile.steps)).collect::<Vec<_>>(), [(1, 8), (2, 8)]);
    for profile in profiles {
        let names: Vec<&str> = profile.profile.parts.iter().map(|part| part.name).collect();
        assert_eq!(names, ["embed", "encode", "attend", "project", "finish", "logits", "sample", "wait"]);
        let activity = profile.profile.activity.expect("the CPU counts");
        assert_eq!((activity.steps, activity.tokens), (8, 8 * profile.batch as u64));
    }
}

#[test]
fn a_gpus_profile_has_every_kernel_of_a_step() {
    let bdh = Bdh::new(model(0.3), &DeviceChoice::Gpu, WeightChoice::F16)
        .expect("an adapter to test on; install mesa-vulkan-drivers");
    let options = BenchOptions { new_tokens: 8, depths: vec![100], ..Default::default() };
    let profiles = match bench::profile(&bdh, &options, Profiled::Decode) {
        Err(BenchError::Backend(BackendError::NoTimestamps { .. })) => return,
        profiles => profiles.expect("a profile"),
    };
    let parts = &profiles[0].profile.parts;
    let runs: Vec<(&str, Option<u64>)> = parts.iter().map(|part| (part.name, part.dispatches)).collect();
    // Two layers, of which the first embeds the token.
    let expected = [("embed", 8), ("project", 16), ("encode", 8), ("logits", 8), ("sample", 8)];
    assert_eq!(runs, expected.map(|(name, runs)| (name, Some(runs))));
    assert!(parts.iter().any(|part| !part.time.is_zero()), "{parts:?}");
}

#[test]
fn a_gpus_profiles_of_prompts_and_beams_have_their_kernels() {
    let bdh = Bdh::new(model(0.3), &DeviceChoice::Gpu, WeightChoice::F16)
        .expect("an adapter to test on; install mesa-vulkan-drivers");
    let options = BenchOptions { new_tokens: 5, prompt_tokens: 200, depths: vec![100], ..Default::default() };
    for (profiled, phase, others) in [
        (Profiled::Prefill, Phase::Prefill, vec![]),
        (Profiled::Beam, Phase::Beam, vec!["finish", "project", "logits"]),
    ] {
        let profiles = match bench::profile(&bdh, &options, profiled) {
            Err(BenchError::Backend(BackendError::NoTimestamps { .. })) => return,
            profiles => profiles.expect("a profile"),
        };
        let parts = &profiles[0].profile.parts;
        let mut names: Vec<&str> = parts.iter().map(|part| part.name).collect();
        let mut expected = [kernel_names(phase), others].concat();
        // Prompts need no logits here, and nothing is folded while beams have not agreed.
        expected.retain(|name| !name.ends_with("/logits") && (!name.ends_with("/fold") || names.contains(name)));
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert!(profiles[0].steps > 0 && !profiles[0].ordinary.is_zero());
    }
}

/// Runs the program on a small random model.
fn run(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"))
        .args(["bench", "--synthetic", "2,16,2,4,50", "--density", "0.3", "--device", "cpu", "--repetitions", "2"])
        .args(["--prompt-tokens", "20", "--new-tokens", "6"])
        .args(arguments)
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr.lines().count(), arguments.iter().filter(|argument| **argument == "--device").count() + 1);
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn json_has_the_documented_keys() {
    let rows: Value = serde_json::from_str(&run(&["--batch", "1,2", "--format", "json"])).expect("JSON");
    let rows = rows.as_array().expect("a list");
    let tests: Vec<&str> = rows.iter().map(|row| row["test"].as_str().expect("a test")).collect();
    assert_eq!(tests, ["pp20", "ttft", "tg6", "pp20", "ttft", "tg6"]);
    for row in rows {
        let keys: Vec<&str> = row.as_object().expect("an object").keys().map(String::as_str).collect();
        let rate = if row["test"] == "ttft" { "seconds" } else { "tokens_per_second" };
        let documented = [
            "model",
            "parameters",
            "weights",
            "state",
            "device",
            "test",
            "batch",
            "depth",
            rate,
            "stddev",
            "samples",
            "bytes_per_token",
            "gb_per_second",
            "density",
        ];
        assert_eq!(keys[..documented.len()], documented);
        let density: Vec<&str> = row["density"].as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(density, ["u", "pair", "g"]);
        assert_eq!(row["model"], "synthetic 2,16,2,4,50");
        assert_eq!(
            (&row["weights"], &row["parameters"]),
            (&Value::from("f16"), &Value::from(2 * 50 * 16 + 3 * 64 * 16))
        );
        assert_eq!(row["samples"].as_array().map(Vec::len), Some(2));
        assert!(row[rate].is_f64() && row["stddev"].is_f64(), "{row}");
        assert_eq!(row["bytes_per_token"].is_f64(), row["test"] != "ttft");
    }
}

#[test]
fn csv_has_a_heading_and_as_many_cells_in_every_row() {
    let text = run(&["--device", "cpu", "--format", "csv"]);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let heading: Vec<String> = reader.headers().expect("a heading").iter().map(str::to_string).collect();
    let column = |name: &str| heading.iter().position(|key| key == name).expect("a column");
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("equally long rows");
    let tests: Vec<&str> = rows.iter().map(|row| &row[column("test")]).collect();
    assert_eq!(tests, ["pp20", "ttft", "pp20", "ttft", "tg6", "tg6"]);
    for row in &rows {
        assert_eq!(&row[column("model")], "synthetic 2,16,2,4,50", "commas are quoted");
        let rate = if &row[column("test")] == "ttft" { "seconds" } else { "tokens_per_second" };
        assert!(row[column(rate)].parse::<f64>().is_ok_and(|rate| rate > 0.0), "{row:?}");
        assert_eq!(row[column("samples")].split(' ').map(str::parse::<f64>).filter(Result::is_ok).count(), 2);
    }
}

#[test]
fn tables_end_with_what_was_measured_beside_the_rates() {
    for (format, first) in [("table", "model"), ("md", "| model |")] {
        let text = run(&["--format", format]);
        assert!(text.starts_with(first), "{text}");
        let (table, footer) = text.split_once("\n\n").expect("an empty line");
        assert_eq!(table.lines().count(), if format == "md" { 5 } else { 4 }, "{text}");
        assert!(footer.starts_with("density (tg6): u ") && footer.contains("memory bandwidth ("), "{text}");
        if format == "md" {
            let cells: Vec<usize> = table.lines().map(|line| line.matches('|').count()).collect();
            assert_eq!(cells, [13; 5], "{text}");
        }
    }
}

#[test]
fn profiles_are_printed_in_every_format() {
    let rows: Value = serde_json::from_str(&run(&["--profile", "--format", "json"])).expect("JSON");
    let shares: f64 = rows.as_array().expect("a list").iter().map(|row| row["share"].as_f64().expect("a share")).sum();
    assert!((shares - 1.0).abs() < 1e-6, "{rows}");
    assert_eq!(rows[1]["kernel"], "encode");
    let text = run(&["--profile", "--format", "csv"]);
    assert_eq!(csv::Reader::from_reader(text.as_bytes()).records().filter(Result::is_ok).count(), 8, "{text}");
    for phase in ["prefill", "beam"] {
        let rows: Value =
            serde_json::from_str(&run(&[&format!("--profile={phase}"), "--format", "json"])).expect("JSON");
        assert_eq!(rows[0]["phase"], phase, "{rows}");
        assert_eq!(rows[0]["share"], 1.0, "{rows}");
    }
    for (format, first) in [("table", "kernel"), ("md", "| kernel |")] {
        let text = run(&["--profile", "--format", format]);
        assert!(text.lines().any(|line| line.starts_with(first)), "{text}");
        assert!(text.contains(" µs per step; an ordinary step takes "), "{text}");
    }
}
