//! Writing models and joining them, by the library and by the command line.

mod common;

use assert_cmd::Command;
use bdh_gpu::Forgetting;
use bdh_gpu::model::{Dtype, Model, ModelError, SaveOptions, Tensor, Weights};
use common::{Golden, golden, model, naive};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bdh-gpu"))
}

fn tensors(weights: &Weights) -> Vec<Vec<f32>> {
    let tensors = [&weights.embed, &weights.encoder, &weights.encoder_v, &weights.decoder, &weights.lm_head];
    let mut values: Vec<Vec<f32>> = tensors.into_iter().map(Tensor::to_vec).collect();
    values.push(weights.freqs.clone());
    values
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_golden_is_converted_without_loss() {
    let parent = TempDir::new().unwrap();
    for folder in common::FOLDERS.into_iter().chain(["hf-tied", "hf-untied", "shakespeare"]) {
        let original = model(folder);
        let directory = parent.path().join(folder);
        original.save(&directory, &SaveOptions::default()).unwrap();
        let converted = Model::from_path(&directory).unwrap();
        assert_eq!(tensors(&converted.weights), tensors(&original.weights), "{folder}");
        assert_eq!(converted.weights_dtype(), original.weights_dtype());
        assert_eq!(converted.stored_freqs, original.stored_freqs);
        assert_eq!(converted.training_args, original.training_args);
        let mut config = original.config.clone();
        // The official layout has no tied output: it is written out.
        config.tied_embeddings = false;
        assert_eq!(converted.config, config, "{folder}");
        let mut generation = original.generation.clone();
        generation.options.eos_token_id = converted.generation.options.eos_token_id.clone();
        generation.bos_token_id = converted.generation.bos_token_id;
        assert_eq!(converted.generation, generation, "{folder}");
        // The crate that defines the format accepts the file.
        let bytes = fs::read(directory.join("model.safetensors")).unwrap();
        assert_eq!(safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("encoder").unwrap().shape().len(), 3);
        let card = fs::read_to_string(directory.join("README.md")).unwrap();
        assert!(card.contains(&format!("# {folder}")) && card.contains("sharing one set of weights"), "{card}");
    }
    assert_eq!(
        names(&parent.path().join("shakespeare")),
        ["README.md", "config.json", "generation_config.json", "model.safetensors", "training_args.json"]
    );
}

#[test]
fn weights_are_rounded_to_the_type_asked_for() {
    let parent = TempDir::new().unwrap();
    let original = model("micro");
    let exact = original.weights.encoder.to_vec();
    for (dtype, steps) in [(Dtype::F16, 2048.0), (Dtype::BF16, 256.0), (Dtype::F32, f32::INFINITY)] {
        let directory = parent.path().join(dtype.to_string());
        original.save(&directory, &SaveOptions { dtype: Some(dtype), overwrite: false }).unwrap();
        let converted = Model::from_path(&directory).unwrap();
        assert_eq!(converted.weights_dtype(), dtype);
        for (converted, exact) in converted.weights.encoder.to_vec().into_iter().zip(&exact) {
            assert!((converted - exact).abs() <= exact.abs() / steps + 1e-7, "{dtype}: {converted} for {exact}");
        }
        // Phases of long texts need every bit of them.
        assert_eq!(converted.weights.freqs, original.weights.freqs);
    }
    let mut weights = original.weights.clone();
    let mut values = exact.clone();
    values[128 + 5] = 70_000.0;
    weights.encoder = Tensor::from_f32(weights.encoder.shape(), values);
    let large = Model::from_parts("large", original.config.clone(), weights).unwrap();
    let directory = parent.path().join("large");
    let error = large.save(&directory, &SaveOptions { dtype: Some(Dtype::F16), overwrite: false }).unwrap_err();
    assert_eq!(error.to_string(), "tensor \"encoder\" holds 70000 at index [0, 1, 5], which f16 cannot hold");
    assert_eq!(names(parent.path()), ["bf16", "f16", "f32"], "nothing is left behind");
    large.save(&directory, &SaveOptions { dtype: Some(Dtype::BF16), overwrite: false }).unwrap();
}

#[test]
fn nothing_is_overwritten_unasked() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("model");
    let (first, second) = (model("st-f16"), model("st-bf16"));
    let save = |model: &Model, overwrite| model.save(&directory, &SaveOptions { dtype: None, overwrite });
    fs::create_dir(&directory).unwrap();
    save(&first, false).unwrap();
    let error = save(&second, false).unwrap_err().to_string();
    assert!(error.ends_with("model: cannot be written: is there already"), "{error}");
    assert_eq!(Model::from_path(&directory).unwrap().weights_dtype(), Dtype::F16);
    save(&second, true).unwrap();
    assert_eq!(Model::from_path(&directory).unwrap().weights_dtype(), Dtype::BF16);
    fs::write(directory.join("thesis.tex"), "years of work").unwrap();
    let error = save(&first, true).unwrap_err().to_string();
    assert!(error.contains("holds \"thesis.tex\", which is no part of a model directory"), "{error}");
    fs::write(parent.path().join("file"), "").unwrap();
    let error = first.save(parent.path().join("file"), &SaveOptions { dtype: None, overwrite: true }).unwrap_err();
    assert!(error.to_string().ends_with("is there already and is no directory"), "{error}");
    assert!(matches!(first.save("/", &SaveOptions::default()), Err(ModelError::Save { .. })));
    assert_eq!(names(parent.path()), ["file", "model"]);
}

#[test]
fn the_command_line_converts() {
    let parent = TempDir::new().unwrap();
    let to = parent.path().join("new/model");
    let from = fixture("mlx.npz");
    let output = program().arg("convert").arg("--from").arg(&from).arg("--to").arg(&to).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("bdh-gpu convert --n-layer N"));
    let mut convert = program();
    convert.arg("convert").arg("--from").arg(&from).arg("--to").arg(&to);
    convert.args(["--n-layer", "2", "--dtype", "bf16"]).assert().success();
    let model = Model::from_path(&to).unwrap();
    assert_eq!((model.config.n_layer, model.weights_dtype()), (2, Dtype::BF16));
    // A model that is being read is not replaced.
    let output = program().arg("convert").arg("--from").arg(&to).arg("--to").arg(&to).arg("--force").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("which is being read; choose another directory"));
}

#[test]
fn the_context_and_the_rotary_embedding_can_be_named() {
    let directory = TempDir::new().unwrap();
    let to = directory.path().join("new");
    let convert = |more: &[&str]| {
        let mut program = program();
        program.args(["convert", "--n-layer", "2", "--force", "--from"]);
        program.arg(fixture("kinds/kubotadaichi-unsaid")).arg("--to").arg(&to).args(more);
        program
    };
    let refused = convert(&[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("--rope") && !to.exists());
    convert(&["--rope", "half-split:10000", "--context", "128"]).assert().success();
    let model = Model::from_path(&to).unwrap();
    assert_eq!((model.config.trained_context, model.rope.to_string()), (Some(128), "interleaved:65536".to_owned()));
    assert!(model.stored_freqs && model.notes.is_empty());
}

// --- merge ---

/// Logits of a few of a golden's tokens, in f64.
fn logits(model: &Model, folder: &str) -> Vec<f64> {
    let tokens = Golden::read(folder, "golden.safetensors").tokens("tokens");
    naive::logits(model, &tokens[..16], 0, Forgetting::Full)
}

/// A model of the same sizes with other weights.
fn changed(model: &Model, change: impl Fn(&Tensor) -> Tensor) -> Model {
    let w = &model.weights;
    let weights = Weights {
        embed: change(&w.embed),
        encoder: change(&w.encoder),
        encoder_v: change(&w.encoder_v),
        decoder: change(&w.decoder),
        lm_head: change(&w.lm_head),
        freqs: w.freqs.clone(),
    };
    Model::from_parts("changed", model.config.clone(), weights).unwrap()
}

#[test]
fn merging_with_an_all_zero_model_changes_no_logits() {
    for folder in ["micro", "odd-shapes", "hf-tied"] {
        let model = model(folder);
        let zero = changed(&model, |tensor| Tensor::from_f32(tensor.shape(), vec![0.0; tensor.len()]));
        let expected = logits(&model, folder);
        for merged in [model.merge(&zero).unwrap(), zero.merge(&model).unwrap()] {
            assert_eq!(merged.config.neurons_per_head, 2 * model.config.neurons_per_head);
            let found = logits(&merged, folder);
            assert!(expected.iter().any(|logit| logit.abs() > 0.5));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-9, "{folder}: {found} {expected}");
            }
        }
    }
}

/// In the first layer both halves see the same residual, so that each head's activations must be those of A
/// followed by those of B.
#[test]
fn merged_activations_lie_side_by_side() {
    use bdh_gpu::backend::cpu::CpuBackend;
    use bdh_gpu::backend::memory::Memory;
    use bdh_gpu::backend::stage::EncodeInput;
    use bdh_gpu::backend::{Backend, Input, SlotStep, WeightType};
    let first = model("micro");
    // Its neurons in another order, with other signs; embedding and output are the same.
    let mut second = changed(&first, |tensor| {
        Tensor::from_f32(tensor.shape(), tensor.to_vec().iter().rev().map(|value| -value).collect())
    });
    second.weights.embed = first.weights.embed.clone();
    second.weights.lm_head = first.weights.lm_head.clone();
    let merged = first.merge(&second).unwrap();
    assert_eq!(merged.weights.embed.to_vec(), first.weights.embed.to_vec());
    let activations = |model: &Model, token| {
        let backend = CpuBackend::new(model, WeightType::F32, Some(1)).unwrap();
        let config = &model.config;
        let encoded = backend.stages().encode(&EncodeInput {
            steps: vec![SlotStep { input: Input::Token(token), ..SlotStep::IDLE }],
            residual: vec![0.0; config.n_embd],
            update: vec![0.0; config.n_embd],
            finished: None,
            memory: Memory::zeros(1, config.n_head, config.neurons_per_head, config.n_embd),
        });
        encoded.unwrap().activations
    };
    let per_head = first.config.neurons_per_head;
    for token in [0, 65, 200] {
        let (a, b, both) = (activations(&first, token), activations(&second, token), activations(&merged, token));
        assert!(a.iter().filter(|&&u| u > 0.0).count() > 10 && a != b);
        for head in 0..first.config.n_head {
            let halves: Vec<f32> = both[head * 2 * per_head..][..2 * per_head].to_vec();
            assert_eq!(halves[..per_head], a[head * per_head..][..per_head], "token {token}, head {head}");
            assert_eq!(halves[per_head..], b[head * per_head..][..per_head], "token {token}, head {head}");
        }
    }
}

/// Two halves of one model, merged, are that model.
#[test]
fn a_model_cut_in_two_is_merged_again() {
    let whole = model("odd-shapes");
    let config = &whole.config;
    // Of 40 neurons per head the first 16 and the other 24.
    let part = |range: std::ops::Range<usize>| {
        let columns = |tensor: &Tensor| {
            let values = tensor.to_vec();
            values.chunks(config.neurons_per_head).flat_map(|row| row[range.clone()].to_vec()).collect::<Vec<f32>>()
        };
        let shape = [config.n_head, config.n_embd, range.len()];
        let rows = whole.weights.decoder.to_vec();
        let heads = rows.chunks(config.neurons_per_head * config.n_embd);
        let decoder = heads.flat_map(|head| head[range.start * config.n_embd..range.end * config.n_embd].to_vec());
        let weights = Weights {
            encoder: Tensor::from_f32(&shape, columns(&whole.weights.encoder)),
            encoder_v: Tensor::from_f32(&shape, columns(&whole.weights.encoder_v)),
            decoder: Tensor::from_f32(&[config.n_head * range.len(), config.n_embd], decoder.collect()),
            freqs: whole.weights.freqs[range.clone()].to_vec(),
            ..whole.weights.clone()
        };
        let config = bdh_gpu::model::Config { neurons_per_head: range.len(), ..config.clone() };
        Model::from_parts("part", config, weights).unwrap()
    };
    let merged = part(0..16).merge(&part(16..40)).unwrap();
    assert_eq!(tensors(&merged.weights), tensors(&whole.weights));
    assert_eq!(logits(&merged, "odd-shapes"), logits(&whole, "odd-shapes"));
}

#[test]
fn the_command_line_merges_and_refuses_what_does_not_fit() {
    let parent = TempDir::new().unwrap();
    let to = parent.path().join("both");
    program().arg("merge").args([golden("st-f16"), golden("st-bf16")]).arg("--to").arg(&to).assert().success();
    let (merged, first, second) = (Model::from_path(&to).unwrap(), model("st-f16"), model("st-bf16"));
    assert_eq!(merged.config.neurons_per_head, 64);
    // What has no neurons is the mean.
    let means = first.weights.embed.to_vec().into_iter().zip(second.weights.embed.to_vec());
    assert_eq!(merged.weights.embed.to_vec(), means.map(|(a, b)| 0.5 * a + 0.5 * b).collect::<Vec<f32>>());
    let error = first.merge(&model("micro")).unwrap_err().to_string();
    assert_eq!(error, "st-f16 and micro cannot be merged: n_embd is 16 and 32, expected the same");
    let output = program().arg("merge").args([golden("micro"), golden("deep")]).arg("--to").arg(&to).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot be merged: n_layer is 2 and 8"));
}
