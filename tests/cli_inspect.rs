//! `inspect` in all its forms, as its users see it.

#![cfg(feature = "embedded-model")]

#[path = "common/gpu.rs"]
mod gpu;
#[path = "common/planted.rs"]
mod planted;
#[path = "common/program.rs"]
mod program;

use bdh_gpu::model::SaveOptions;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use program::{file_with, path, program, run, run_command};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// `inspect` on the CPU.
fn inspect(arguments: &[&str]) -> program::Run {
    run(&[&["inspect", "--device", "cpu", "--quiet"], arguments].concat())
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("one object on each line")).collect()
}

/// The model of [`planted`], in a folder.
fn planted_model() -> TempDir {
    let folder = TempDir::new().unwrap();
    planted::model().save(folder.path().join("model"), &SaveOptions::default()).unwrap();
    folder
}

/// The data of a page.
fn data(page: &Path) -> Value {
    let document = fs::read_to_string(page).unwrap();
    let (_, after) = document.split_once("id=\"data\">").expect("an element with the data");
    serde_json::from_str(after.split_once("</script>").expect("its end").0).expect("JSON")
}

#[test]
fn inspect_shows_the_neurons_of_every_token() {
    gpu::adapter();
    let lines = |device: &str| {
        let text =
            run(&["inspect", "--prompt", "To be, or not", "--format", "jsonl", "--top", "2", "--device", device]).ok();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>()
    };
    let on_cpu = lines("cpu");
    assert_eq!(on_cpu.len(), 13);
    for (position, (cpu, gpu)) in on_cpu.iter().zip(lines("gpu")).enumerate() {
        assert_eq!((&cpu["position"], &cpu["text"]), (&gpu["position"], &gpu["text"]));
        assert_eq!(cpu["position"], position);
        let layers = cpu["layers"].as_array().expect("layers");
        for (cpu, gpu) in layers.iter().zip(gpu["layers"].as_array().expect("layers")) {
            // Rounding decides about neurons that hardly fire.
            let count = |layer: &Value| layer["u"].as_i64().expect("a count");
            assert!(count(cpu) > 0 && (count(cpu) - count(gpu)).abs() <= 3, "{cpu} {gpu}");
            assert!(cpu["top"].as_array().expect("neurons").len() == 2, "{cpu}");
        }
    }
    let table = run(&["inspect", "--prompt", "To", "--device", "cpu"]).ok();
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows.len() == 3 && rows[0].starts_with("position  token"), "{table}");
    assert!(rows[1].contains("\"T\"") && rows[2].contains("\"o\""), "{table}");
    let bytes = run(&["inspect", "--prompt", "é", "--device", "cpu"]).ok();
    assert!(bytes.contains(r#""\xc3""#) && bytes.contains(r#""\xa9""#), "{bytes}");
}

#[test]
fn a_page_holds_the_text_and_runs_none_of_it() {
    let folder = TempDir::new().unwrap();
    let page = folder.path().join("page.html");
    let hostile = "</script><script>alert(1)</script><!-- \u{202e}\u{2028} é &amp; ]]>";
    inspect(&["--prompt", hostile, "--html", path(&page)]).ok();
    let document = fs::read_to_string(&page).unwrap();
    assert_eq!(document.matches("</script>").count(), 2, "one of the data, one of the code");
    assert!(!document.contains("<script>alert") && !document.contains('\u{202e}'));
    let data = data(&page);
    assert_eq!(
        (&data["text"], &data["kind"], data["model"]["layers"].as_u64()),
        (&hostile.into(), &"trace".into(), Some(4))
    );
    assert_eq!(data["tokens"]["ids"]["shape"][0], hostile.len());
    assert!(data["command"].as_str().unwrap().starts_with("bdh-gpu inspect"), "{}", data["command"]);
    // Written to standard output only what was asked for.
    assert_eq!(inspect(&["--prompt", "To be", "--html", path(&page)]).ok(), "");
    let error = inspect(&["--prompt", "To be", "--html", path(&folder.path().join("no/page.html"))]).error(1);
    assert!(error.contains("page.html: cannot be written"), "{error}");
}

#[test]
fn an_archive_holds_every_neuron() {
    let folder = TempDir::new().unwrap();
    let archive = folder.path().join("neurons.npz");
    let lines = objects(&inspect(&["--prompt", "To be", "--npz", path(&archive), "--format", "jsonl"]).ok());
    let mut members = BTreeMap::new();
    let mut archive = zip::ZipArchive::new(fs::File::open(archive).unwrap()).unwrap();
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut bytes).unwrap();
        let header = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        members.insert(member.name().unwrap().to_string(), bytes.split_off(header));
    }
    let words = |name: &str| {
        members[name].chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(words("shape.npy"), [5, 4, 4, 1024]);
    for kind in ["u", "g"] {
        let indptr = words(&format!("{kind}_indptr.npy"));
        let counts: Vec<u64> = indptr.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let layers = lines.iter().flat_map(|line| line["layers"].as_array().unwrap().clone());
        assert_eq!(counts, layers.map(|layer| layer[kind].as_u64().unwrap()).collect::<Vec<_>>());
        assert_eq!(members[&format!("{kind}_data.npy")].len() as u64, 4 * indptr[20]);
        assert_eq!(members[&format!("{kind}_indices.npy")].len() as u64, 4 * indptr[20]);
    }
}

#[test]
fn an_atlas_that_was_killed_goes_on_and_is_the_same() {
    let folder = TempDir::new().unwrap();
    let corpus = folder.path().join("corpus.txt");
    let text = "Now is the winter of our discontent made glorious summer by this sun of York. ".repeat(400);
    fs::write(&corpus, text).unwrap();
    let command = |output: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"));
        command.args(["inspect", "--device", "cpu", "--corpus", path(&corpus), "--output", path(output)]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let read = |folder: &Path| {
        let shards = fs::read_dir(folder.join("shards")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = shards.chain([folder.join("neurons.jsonl")]).collect();
        files.sort();
        assert!(!folder.join("progress.bin").exists());
        files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    assert!(command(&whole).status().unwrap().success());
    let saved = killed.join("progress.bin");
    // Ctrl-C saves at once. A busy machine may not have counted a segment by then.
    let counted = || u64::from_le_bytes(fs::read(&saved).unwrap()[32..40].try_into().unwrap());
    for pause in (0..12).map(|doublings| Duration::from_millis(50 << doublings)) {
        let mut child = command(&killed).spawn().unwrap();
        while !killed.exists() {
            assert_eq!(child.try_wait().unwrap(), None, "the pass has not begun");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(pause);
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "after {pause:?}");
        if counted() > 0 {
            break;
        }
    }
    assert!(counted() > 0 && !killed.join("index.html").exists());
    // A kill leaves the last save. The program says that it goes on from there.
    let mut child = command(&killed).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("going on from token")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(saved.exists() && !killed.join("index.html").exists());
    assert!(command(&killed).status().unwrap().success());
    assert!(read(&whole) == read(&killed), "the atlases differ");
}

#[test]
fn a_planted_neuron_is_found() {
    let model = planted_model();
    let model = model.path().join("model");
    let letter = char::from(planted::BYTE).to_string();
    let texts = |with: &str| (0..24).map(|i| format!("line {} {with} and {}\n", i % 5, i * i % 11)).collect::<String>();
    let ((_one, about), (_two, others)) = (file_with(texts(&letter).as_bytes()), file_with(texts("x").as_bytes()));
    let concept = ["--model", path(&model), "--concept", path(&about), "--against", path(&others)];
    let found = objects(&inspect(&[&concept[..], &["--format", "jsonl", "--top", "5"]].concat()).ok());
    assert_eq!(
        (&found[0]["neuron"], &found[0]["auroc"], &found[0]["chosen_by"]),
        (&planted::NAME.into(), &1.0.into(), &1.0.into())
    );
    assert!(found[0]["adjusted"].as_f64().unwrap() < 0.01 && found[0]["rates"][1] == 0.0, "{}", found[0]);
    assert!(found.iter().any(|finding| finding.get("synapse").is_some()));
    let table = inspect(&concept).ok();
    assert!(table.contains(planted::NAME) && table.contains("AUROC"), "{table}");
    let few = inspect(&["--concept", path(&about), "--against", "/dev/null"]).error(2);
    assert!(few.contains("its contrast holds 0 texts; expected at least 4"), "{few}");

    let (folder, corpus) = file_with((texts(&letter) + &texts("y")).as_bytes());
    let atlas = folder.path().join("atlas");
    inspect(&["--model", path(&model), "--corpus", path(&corpus), "--output", path(&atlas)]).ok();
    let entries = objects(&fs::read_to_string(atlas.join("neurons.jsonl")).unwrap());
    let entry = entries.iter().find(|entry| entry["neuron"] == planted::NAME).unwrap();
    let token = &entry["tokens"][0];
    assert_eq!((&token["text"], &token["share"], &token["rate"]), (&letter.into(), &1.0.into(), &1.0.into()));
    let kinds: Vec<&str> = entry["contexts"].as_array().unwrap().iter().map(|c| c["kind"].as_str().unwrap()).collect();
    assert!(["top", "quantile", "random"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    assert_eq!(data(&atlas.join("index.html"))["kind"], "atlas");
}

#[test]
fn kinds_of_work_are_not_mixed() {
    let (_folder, file) = file_with(b"a\nb\nc\nd\n");
    let (_other, labels) = file_with(br#"{"9.1": "no such neuron"}"#);
    let cases: &[(&[&str], &str)] = &[
        (&[], "no text: give --prompt"),
        (
            &["--prompt", "a", "--corpus", path(&file), "--output", "x"],
            "--prompt, --prompt-file or --tokens and --corpus",
        ),
        (
            &["--concept", path(&file), "--against", path(&file), "--prompt", "a"],
            "--concept are different kinds of work",
        ),
        (&["--corpus", path(&file)], "--output"),
        (&["--prompt", "a", "--labels", path(&file)], "is not JSON"),
        (&["--ablate", "0.1", "--corpus", path(&file), "--output", "x"], "compare two readings of a text"),
        (&["--ablate", "0.1", "--prompt", "a", "--html", "x.html"], "compare two readings of a text"),
        (&["--prompt", "a", "--labels", path(&labels)], "neuron 9.1 does not exist"),
    ];
    for (arguments, expected) in cases {
        let run = inspect(arguments);
        assert!(run.code != 0 && run.stderr.contains(expected), "{arguments:?}: {run:?}");
    }
    let run =
        run_command(program().args(["inspect", "--corpus", "/dev/null", "--output", path(&file.with_extension("d"))]));
    assert!(run.stderr.contains("the corpus is empty"), "{run:?}");
}

#[test]
fn edits_change_what_they_are_about() {
    let model = planted_model();
    let model = model.path().join("model");
    let text = "a quiet question, a quick quarrel";
    let given = ["--model", path(&model), "--prompt", text, "--seed", "5", "-n", "20", "--format", "jsonl"];
    let effect = |edits: &[&str]| inspect(&[&given[..], edits].concat()).json();
    let ablated = effect(&["--ablate", planted::NAME]);
    assert_ne!(ablated["before"]["surprise"], ablated["after"]["surprise"]);
    assert_eq!(ablated["before"]["tokens"].as_array().unwrap().len(), 20);
    // Before its first byte, the neuron does not fire: nothing changes up to the prediction after
    // it.
    let first = text.find(char::from(planted::BYTE)).unwrap();
    for side in ["before", "after"] {
        let bits = ablated[side]["surprise"].as_array().unwrap();
        assert!(bits[0].is_null() && bits.len() == text.len());
        assert_eq!(bits[..=first], ablated["before"]["surprise"].as_array().unwrap()[..=first]);
    }
    // A clamp to 0 is an ablation; one that never fires changes nothing by being ablated.
    assert_eq!(effect(&["--clamp", &format!("{}=0", planted::NAME)])["after"], ablated["after"]);
    assert_ne!(effect(&["--clamp", &format!("{}=3.5", planted::NAME)])["after"], ablated["after"]);
    let forgotten = effect(&["--forget", "2,4"]);
    let bits = |side: &str| forgotten[side]["surprise"].as_array().unwrap().clone();
    // Token 2 is forgotten once it is read: token 4 is the first that is predicted without it.
    assert_eq!(bits("before")[..4], bits("after")[..4]);
    assert_ne!(bits("before")[4..], bits("after")[4..]);
    let table = inspect(&["--prompt", "To be, or not to be", "--ablate", "0.1,0.2", "-n", "20"]).ok();
    assert!(table.starts_with("mean surprise") && table.contains("| after"), "{table}");
    let errors: &[(&[&str], &str)] = &[
        (&["--ablate", "9.0"], "neuron 9.0 does not exist, expected 0.0 to 1.47"),
        (&["--ablate", "1"], "is no neuron, expected its head and its index there"),
        (&["--clamp", "1.1=-2"], "cannot be clamped to -2"),
        (&["--ablate", "1.1", "--clamp", "1.1=2"], "edited twice"),
        (&["--forget", "32"], "no token at position 32 can be forgotten"),
    ];
    for (arguments, expected) in errors {
        let run = inspect(&[&given[..], arguments].concat());
        assert!(run.code == 2 && run.stderr.contains(expected), "{arguments:?}: {run:?}");
    }
}

#[test]
fn a_token_says_what_it_reads() {
    let answer = inspect(&["--prompt", "To be or not to be", "--at", "9", "--top", "5", "--format", "jsonl"]).json();
    assert_eq!((&answer["text"], answer["layers"].as_array().unwrap().len()), (&"n".into(), 4));
    for layer in answer["layers"].as_array().unwrap() {
        let sources = layer["sources"].as_array().unwrap();
        assert!(sources.len() == 5 && sources.iter().all(|source| source["position"].as_u64().unwrap() < 9));
        for synapse in layer["synapses"].as_array().unwrap() {
            let head = |end: &str| synapse[end].as_str().unwrap().split_once('.').unwrap().0.to_string();
            assert_eq!(head("from"), head("to"));
            assert!(synapse["source"].as_u64().unwrap() < 9, "{synapse}");
        }
    }
    // Nothing has been written before the first token.
    let first = inspect(&["--prompt", "To be", "--at", "0", "--format", "jsonl"]).json();
    assert!(first["layers"][0]["sources"].as_array().unwrap().is_empty(), "{first}");
    let table = inspect(&["--prompt", "To be", "--at", "4"]).ok();
    assert!(table.starts_with("token 4 \"e\"") && table.contains("layer 3: largest sources"), "{table}");
    let error = inspect(&["--prompt", "To be", "--at", "5"]).error(2);
    assert!(error.contains("the text has tokens 0 to 4"), "{error}");
}

#[test]
fn a_text_that_is_traced_is_the_same() {
    let folder = TempDir::new().unwrap();
    let generate = |more: &[&str]| {
        let given = ["generate", "--device", "cpu", "-q", "-p", "KING:", "--seed", "3", "-n", "40", "--stop", "the"];
        run(&[&given[..], more].concat()).ok()
    };
    let text = generate(&[]);
    for name in ["trace.jsonl", "trace.npz", "trace.html"] {
        let file = folder.path().join(name);
        assert_eq!(generate(&["--trace", path(&file)]), text, "{name}");
        assert!(fs::metadata(&file).unwrap().len() > 1000, "{name}");
    }
    let lines = objects(&fs::read_to_string(folder.path().join("trace.jsonl")).unwrap());
    let seen: String = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    // All but the last token, and what is behind a stop text.
    assert!(text.starts_with(&seen) && text.len() - seen.len() < 6, "{seen:?} of {text:?}");
    let run = program::generate(&["-p", "a", "--trace", "trace.txt"]);
    assert!(run.code == 2 && run.stderr.contains("expected a file that ends in .jsonl, .npz or .html"), "{run:?}");
    let run = program::generate(&["-p", "a", "--trace", path(&folder.path().join("a.npz")), "--num-beams", "2"]);
    assert!(run.code == 2 && run.stderr.contains("--trace is of one text that is drawn"), "{run:?}");
}
