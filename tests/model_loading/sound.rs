//! Sound models load with the values that other readers find.

use super::both;
use super::common::golden;
use super::small::{Small, stored};
use bdh_gpu::model::{Dtype, Model};
use std::fs;
use std::path::Path;

#[test]
fn every_golden_loads_with_its_sizes() {
    for (name, sizes) in [
        ("micro", [2, 32, 2, 128, 256]),
        ("odd-shapes", [3, 24, 3, 40, 97]),
        ("one-head", [2, 64, 1, 256, 259]),
        ("deep", [8, 16, 4, 64, 64]),
        ("st-bf16", [2, 16, 2, 32, 256]),
        ("st-f16", [2, 16, 2, 32, 256]),
    ] {
        let model = both::from_path(golden(name)).unwrap();
        let config = &model.config;
        let found = [config.n_layer, config.n_embd, config.n_head, config.neurons_per_head, config.vocab_size];
        assert_eq!(found, sizes, "{name}");
        let [l, d, h, n, v] = sizes;
        assert_eq!(model.name, name);
        assert_eq!(model.weights.embed.shape(), [v, d]);
        assert_eq!(model.weights.encoder.shape(), [h, d, n]);
        assert_eq!(model.weights.encoder_v.shape(), [h, d, n]);
        assert_eq!(model.weights.decoder.shape(), [h * n, d]);
        assert_eq!(model.weights.lm_head.shape(), [d, v]);
        assert_eq!((config.neurons(), config.state_len()), (h * n, l * h * n * d));
        assert_eq!(config.parameters(), 2 * v * d + 3 * h * n * d);
        assert!(model.stored_freqs && model.notes.is_empty());
        assert_eq!((config.trained_context, config.bos_token_id), (None, None));
        // The stored frequencies are the formula's, but for the rounding of the f32 power.
        let formula = bdh_gpu::model::rotary::default_freqs(n);
        for (stored, formula) in model.weights.freqs.iter().zip(formula) {
            assert!((stored / formula - 1.0).abs() < 1e-6, "{name}: {stored} {formula}");
        }
    }
}

#[test]
fn values_are_those_of_an_independent_reader() {
    for (name, dtype) in [("micro", Dtype::F32), ("st-bf16", Dtype::BF16), ("st-f16", Dtype::F16)] {
        let model = both::from_path(golden(name)).unwrap();
        assert_eq!(model.weights_dtype(), dtype);
        // The bf16 values are of a size at which f16 has more digits.
        assert_eq!(model.weights.encoder.fits_f16_exactly(), dtype != Dtype::F32);
        let bytes = fs::read(golden(name).join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (tensor, values) in [
            ("embed.weight", model.weights.embed.to_vec()),
            ("encoder", model.weights.encoder.to_vec()),
            ("encoder_v", model.weights.encoder_v.to_vec()),
            ("decoder", model.weights.decoder.to_vec()),
            ("lm_head", model.weights.lm_head.to_vec()),
            ("attn.freqs", model.weights.freqs),
        ] {
            let view = file.tensor(tensor).unwrap();
            let two = |bytes: &[u8]| [bytes[0], bytes[1]];
            let expected: Vec<f32> = match view.dtype() {
                safetensors::Dtype::F16 => {
                    view.data().chunks(2).map(|b| half::f16::from_le_bytes(two(b)).to_f32()).collect()
                }
                safetensors::Dtype::BF16 => {
                    view.data().chunks(2).map(|b| half::bf16::from_le_bytes(two(b)).to_f32()).collect()
                }
                _ => view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            };
            assert_eq!(values, expected, "{name} {tensor}");
        }
    }
}

#[test]
fn the_shipped_model_comes_with_all_its_files() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/bdh-shakespeare");
    for model in [both::from_path(&directory), both::from_path(directory.join("model.safetensors"))] {
        let model = model.unwrap();
        assert_eq!(model.name, "bdh-shakespeare");
        assert_eq!(model.config.parameters(), 1_638_400);
        assert_eq!(model.config.trained_context, Some(256));
        let options = &model.generation.options;
        assert_eq!((options.max_new_tokens, options.do_sample), (Some(200), Some(true)));
        assert_eq!((options.temperature, options.min_p), (Some(1.0), Some(0.1)));
        assert_eq!(model.training_args.unwrap()["batch_size"], 16);
        assert!(!model.stored_freqs && model.notes.is_empty());
    }
}

#[cfg(feature = "embedded-model")]
#[test]
fn the_embedded_model_is_the_shipped_one() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/bdh-shakespeare");
    let (embedded, shipped) = (Model::embedded().unwrap(), both::from_path(directory).unwrap());
    assert_eq!(embedded.name, shipped.name);
    assert_eq!(embedded.config, shipped.config);
    assert_eq!(embedded.generation, shipped.generation);
    assert_eq!(embedded.training_args, shipped.training_args);
    assert_eq!(embedded.weights.decoder.to_vec(), shipped.weights.decoder.to_vec());
}

#[test]
fn a_model_is_named_after_its_directory_however_that_is_written() {
    let model = both::from_path(golden("micro").join("..").join("micro").join(".")).unwrap();
    assert_eq!(model.name, "micro");
    assert_eq!(both::from_path(golden("micro/../micro/../micro")).unwrap().name, "micro");
    assert_eq!(both::from_path(golden("micro").join("model.safetensors")).unwrap().name, "micro");
}

#[test]
fn mixed_dtypes_load() {
    let model = Small::new().load().unwrap();
    assert_eq!(model.weights_dtype(), Dtype::F16);
    for tensor in [&model.weights.embed, &model.weights.encoder, &model.weights.encoder_v, &model.weights.decoder] {
        assert!(tensor.to_vec().iter().all(|&value| value == 0.5));
        assert!(tensor.fits_f16_exactly());
    }
    assert_eq!(model.weights.decoder.dtype().to_string(), "f64");
    assert!(!model.stored_freqs);
}

#[test]
fn wrappers_are_stripped_and_extras_noted() {
    let mut small = Small::new();
    for (tensor, prefix) in small.tensors.iter_mut().zip(["module._orig_mod.", "_orig_mod.module.", "module.", "", ""])
    {
        tensor.name.insert_str(0, prefix);
    }
    let small = small
        .with(stored("lm_gate", "U8", &[3], 0.0))
        .with(stored("_orig_mod.attns.3.freqs", "F32", &[2], 0.0))
        .with(stored("attn.freqs", "F64", &[1, 6], 0.25));
    let model = small.load().unwrap();
    assert_eq!(model.weights.freqs, [0.25; 6]);
    assert!(model.stored_freqs);
    assert_eq!(model.notes.len(), 2);
    assert!(model.notes[0].ends_with(r#"model.safetensors: tensor "attns.3.freqs" is not used"#));
    small.with(stored("module.lm_head", "F32", &[4, 5], 0.0)).refuses(
        r#"model.safetensors: tensor "lm_head" occurs twice, the second time as "module.lm_head", expected it once"#,
    );
}
