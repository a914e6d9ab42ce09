//! Keys of config.json: read, harmless, computing or unknown.
//!
//! A computing key changes what the model computes. The engine implements none of those listed here, so a
//! model in which one is in effect is refused by name. Unknown keys are named in one note.

use serde_json::Value;

use super::error::{ModelError, clip};
use super::json::JsonFile;
use super::rotary::Rope;

/// What a key means to the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meaning {
    /// Read elsewhere.
    Read,
    /// Training, logging, paths, generation: nothing that a forward pass depends on.
    Harmless,
    /// Changes the computation unless null or one of these.
    Computing(&'static [Off]),
    /// Names the kind of model.
    Class,
    /// The base of the rotary embedding: must be that of the kind in effect.
    Base,
    Unknown,
}

/// A value that leaves the computation as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Off {
    Is(bool),
    Number(f64),
    Text(&'static str),
}

use Off::{Is, Number, Text};

const READ: [&str; 22] = [
    "block_size",
    "bos_token_id",
    "chars",
    "eos_token_id",
    "hidden_size",
    "itos",
    "max_position_embeddings",
    "mlp_internal_dim_multiplier",
    "n_embd",
    "n_head",
    "n_layer",
    "num_attention_heads",
    "num_hidden_layers",
    "rope",
    "stoi",
    "tie_weights",
    "tie_word_embeddings",
    "tokenizer",
    "tokenizer_path",
    "tokenizer_type",
    "trained_context",
    "vocab_size",
];

/// Keys that name a class or kind of model.
const CLASSES: [&str; 6] = ["arch", "architecture", "architectures", "model_class", "model_type", "_class_name"];
/// Names of the model that the engine computes, without case, underscores and dashes.
const THIS_MODEL: [&str; 9] = [
    "babydragonhatchling",
    "bdh",
    "bdhcausallm",
    "bdhconfig",
    "bdhforcausallm",
    "bdhlm",
    "bdhlmheadmodel",
    "bdhmodel",
    "configuredbdh",
];
/// Names of models that look like this one and compute something else.
const OTHER_MODELS: [&str; 8] = ["bdhgpu", "deltanet", "gla", "gpt", "gpt2", "mamba2", "nanogpt", "transformer"];

const BASES: [&str; 4] = ["rope_base", "rope_theta", "rotary_base", "theta"];

/// Keys that change the computation, with their values that do not.
const COMPUTING: [(&str, &[Off]); 54] = [
    ("activation", &[Text("relu")]),
    ("activation_function", &[Text("relu")]),
    ("activation_history_mix", &[Number(0.0)]),
    ("adaptive_compute", &[Is(false)]),
    ("alibi", &[Is(false)]),
    ("architecture_variant", &[Text("bdh_v1")]),
    ("attention_decay", &[Is(false), Number(0.0)]),
    ("attention_scale", &[Number(1.0)]),
    ("attention_window", &[Is(false)]),
    ("attn_window", &[Is(false)]),
    ("bitnet", &[Is(false)]),
    ("compute_ticks", &[Number(1.0)]),
    ("contextual_memory", &[Is(false)]),
    ("differential_attention", &[Is(false)]),
    ("fast_weights", &[Is(false)]),
    ("forget_gate", &[Is(false)]),
    ("forget_mode", &[Is(false), Text("none")]),
    ("freq_base", &[Number(65536.0)]),
    ("hidden_act", &[Text("relu")]),
    ("latent_reasoning_steps", &[Is(false), Number(1.0)]),
    ("latent_steps", &[Is(false), Number(0.0), Number(1.0)]),
    ("latent_token_id", &[Is(false)]),
    ("layer_norm_eps", &[Number(1e-5)]),
    ("layer_norm_epsilon", &[Number(1e-5)]),
    ("learned_activation_history", &[Is(false)]),
    ("learned_attention_decay", &[Is(false)]),
    ("lora", &[Is(false)]),
    ("lora_r", &[Number(0.0)]),
    ("lora_rank", &[Number(0.0)]),
    ("moe", &[Is(false)]),
    ("n_experts", &[Number(0.0), Number(1.0)]),
    ("n_neurons", &[]),
    ("norm_eps", &[Number(1e-5)]),
    ("norm_position", &[Is(false)]),
    ("num_experts", &[Number(0.0), Number(1.0)]),
    ("num_local_experts", &[Number(0.0), Number(1.0)]),
    ("per_layer_encoders", &[Is(false)]),
    ("per_layer_weights", &[Is(false)]),
    ("position_embedding", &[Text("rope"), Text("rotary")]),
    ("position_embedding_type", &[Text("rope"), Text("rotary")]),
    ("quantization_config", &[Is(false)]),
    ("refine_passes", &[Number(1.0)]),
    ("relu_lut", &[Is(false)]),
    ("rho_decay", &[Number(1.0)]),
    ("rho_max", &[Is(false)]),
    ("rope_scaling", &[Is(false)]),
    ("rotary_embedding", &[Text("rope")]),
    ("share_weights", &[Is(true)]),
    ("sliding_window", &[Is(false)]),
    ("strict_causal", &[Is(true)]),
    ("tie_layers", &[Is(true)]),
    ("use_rope", &[Is(true)]),
    ("weight_sharing", &[Is(true)]),
    ("window_size", &[Is(false)]),
];

/// Switches of training and of the machine, among the `use_…` that otherwise change the computation.
const HARMLESS_SWITCHES: [&str; 24] = [
    "use_8bit_adam",
    "use_amp",
    "use_autocast",
    "use_bf16",
    "use_bfloat16",
    "use_cache",
    "use_checkpointing",
    "use_compile",
    "use_cuda",
    "use_ddp",
    "use_ema",
    "use_flash_attention",
    "use_fp16",
    "use_fused_adamw",
    "use_gradient_checkpointing",
    "use_mixed_precision",
    "use_mlflow",
    "use_mps",
    "use_return_dict",
    "use_safetensors",
    "use_tensorboard",
    "use_tf32",
    "use_triton",
    "use_wandb",
];

/// Beginnings of keys about logging and evaluation.
const HARMLESS_PREFIXES: [&str; 11] =
    ["adam_", "ckpt_", "data_", "dataset_", "eval_", "log_", "lr_", "optimizer_", "save_", "train_", "wandb_"];

const HARMLESS: [&str; 136] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "accumulate_grad_batches",
    "activation_history_decay",
    "activation_history_max_mix",
    "activation_history_target",
    "always_save_checkpoint",
    "amp",
    "attention_dropout",
    "auto_map",
    "backend",
    "batch_size",
    "best_loss",
    "best_val_loss",
    "beta1",
    "beta2",
    "betas",
    "bias",
    "checkpoint_dir",
    "chunk_size",
    "compile",
    "config",
    "context_length",
    "corpus",
    "curriculum",
    "dataset",
    "date",
    "decay_lr",
    "description",
    "device",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "epoch",
    "epochs",
    "final_loss",
    "generation",
    "git_commit",
    "global_step",
    "grad_accum",
    "grad_accum_steps",
    "grad_clip",
    "grad_norm_clip",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "id2label",
    "init_from",
    "init_std",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "iter",
    "iter_num",
    "iteration",
    "iters",
    "label2id",
    "label_smoothing",
    "learning_rate",
    "license",
    "loss",
    "loss_schedule",
    "losses",
    "lr",
    "max_epochs",
    "max_grad_norm",
    "max_iters",
    "max_length",
    "max_new_tokens",
    "max_seq_len",
    "max_seq_length",
    "max_steps",
    "metadata",
    "min_lr",
    "min_lr_ratio",
    "model",
    "model_name",
    "model_state_dict",
    "name",
    "num_epochs",
    "num_params",
    "num_workers",
    "numpy",
    "optimizer",
    "optimizer_state_dict",
    "out_dir",
    "output_dir",
    "pad_token_id",
    "params",
    "path",
    "plasticity_timescale",
    "precision",
    "pretraining_tp",
    "problem_type",
    "random_state",
    "resid_pdrop",
    "resume",
    "return_dict",
    "rng",
    "rng_state",
    "run_name",
    "sample_every",
    "scaler",
    "scaler_state_dict",
    "scheduler",
    "scheduler_state_dict",
    "seed",
    "sep_token_id",
    "seq_len",
    "sequence_length",
    "source",
    "state_dict",
    "step",
    "steps",
    "summary",
    "tags",
    "task",
    "temperature",
    "tokenizer_class",
    "tokenizer_name",
    "tokens",
    "tokens_seen",
    "top_k",
    "top_p",
    "torch_dtype",
    "train",
    "training",
    "training_config",
    "transformers_version",
    "unk_token_id",
    "val_loss",
    "version",
    "warmup",
];

/// More of them: nanoGPT's, Lightning's, and those that other keys switch on.
const HARMLESS_TOO: [&str; 19] = [
    "adaptive_logit_delta_threshold",
    "adaptive_max_ticks",
    "adaptive_min_ticks",
    "callbacks",
    "elapsed",
    "embedding_dropout",
    "experiment",
    "hyper_parameters",
    "kind",
    "loops",
    "lr_schedulers",
    "optimizer_states",
    "output_attentions",
    "output_hidden_states",
    "pytorch-lightning_version",
    "val_every",
    "warmup_iters",
    "warmup_steps",
    "weight_decay",
];

fn meaning(key: &str) -> Meaning {
    if READ.contains(&key) {
        Meaning::Read
    } else if CLASSES.contains(&key) {
        Meaning::Class
    } else if BASES.contains(&key) {
        Meaning::Base
    } else if let Some((_, off)) = COMPUTING.iter().find(|(name, _)| *name == key) {
        Meaning::Computing(off)
    } else if HARMLESS.contains(&key)
        || HARMLESS_TOO.contains(&key)
        || HARMLESS_SWITCHES.contains(&key)
        || HARMLESS_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
    {
        Meaning::Harmless
    } else if key.starts_with("use_") {
        Meaning::Computing(&[Is(false)])
    } else {
        Meaning::Unknown
    }
}

/// Whether a checkpoint's own entry says something about the computation: a key of a configuration, with a plain value.
pub(super) fn declares(key: &str, value: &Value) -> bool {
    matches!(meaning(key), Meaning::Computing(_) | Meaning::Class | Meaning::Base) && !is_opaque(value)
}

/// Refuses a configuration in which a computing key is in effect; a note names the unknown keys. `rope` is the kind
/// that the model is loaded with, where one was given.
pub(super) fn check(json: &JsonFile, rope: Option<Rope>) -> Result<Option<String>, ModelError> {
    const MOST: usize = 12;
    let base = rope.unwrap_or_default().base();
    let (mut in_effect, mut unknown) = (Vec::new(), Vec::new());
    for (key, value) in json.map.iter().filter(|(_, value)| !value.is_null()) {
        let changes = match meaning(key) {
            Meaning::Harmless => false,
            Meaning::Read => {
                if is_opaque(value) {
                    unknown.push(key);
                }
                false
            }
            Meaning::Computing(off) => !off.iter().any(|off| off.is(value)),
            Meaning::Base => !Number(f64::from(base)).is(value),
            Meaning::Class => match class(value) {
                Class::This => false,
                Class::Other => true,
                Class::Unknown => {
                    unknown.push(key);
                    false
                }
            },
            Meaning::Unknown => {
                // A pickle's objects without a meaning here: optimizers, random states, paths.
                if !is_opaque(value) {
                    unknown.push(key);
                }
                false
            }
        };
        if changes {
            in_effect.push(format!("{:?} is {}", clip(key), clip(&value.to_string())));
        }
    }
    if !in_effect.is_empty() {
        let keys = if in_effect.len() == 1 { "key" } else { "keys" };
        in_effect.truncate(MOST);
        return Err(ModelError::OtherVariant {
            path: json.path.clone(),
            found: format!("{keys} {}", in_effect.join(" and ")),
        });
    }
    if unknown.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = unknown.iter().take(MOST).map(|key| format!("{:?}", clip(key))).collect();
    let more = match unknown.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Ok(Some(format!(
        "{}: not known and not used: {}{more}; a key that changes the computation makes the results wrong",
        json.path.display(),
        names.join(", ")
    )))
}

impl Off {
    fn is(self, value: &Value) -> bool {
        match self {
            Is(flag) => value.as_bool() == Some(flag),
            // JSON holds 1e-5 as the nearest f64; a pickle may hold that of an f32.
            Number(number) => value.as_f64().is_some_and(|value| (value - number).abs() <= 1e-6 * number.abs()),
            Text(text) => value.as_str().is_some_and(|value| value.eq_ignore_ascii_case(text)),
        }
    }
}

enum Class {
    This,
    Other,
    Unknown,
}

fn class(value: &Value) -> Class {
    let names: Vec<String> = match value {
        Value::String(name) => vec![plain_name(name)],
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(plain_name).collect(),
        _ => Vec::new(),
    };
    let is_one_of = |list: &[&str]| names.iter().any(|name| list.contains(&name.as_str()));
    match () {
        () if is_one_of(&OTHER_MODELS) => Class::Other,
        () if is_one_of(&THIS_MODEL) => Class::This,
        () => Class::Unknown,
    }
}

fn plain_name(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The only key of what stands for an object of a pickle.
const OPAQUE: &str = "an object";

/// What stands for an object of a pickle: no value of a key that is read, and in effect where a key computes.
pub(super) fn opaque() -> Value {
    Value::Object(serde_json::Map::from_iter([(OPAQUE.to_owned(), Value::Null)]))
}

/// Whether a value is [`opaque`].
pub(super) fn is_opaque(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.len() == 1 && map.get(OPAQUE) == Some(&Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    fn checked(config: Value) -> Result<Option<String>, String> {
        let json = JsonFile::parse(Path::new("config.json"), config.to_string().as_bytes()).unwrap();
        check(&json, None).map_err(|error| error.to_string())
    }

    /// Every key of the configurations of public BDH code.
    #[test]
    fn no_public_key_is_unknown() {
        let official = "n_layer n_embd dropout n_head mlp_internal_dim_multiplier vocab_size";
        for (repository, keys) in [
            ("pathwaycom/bdh", ""),
            ("d3vmeh/small-dragon-hatchling", "arch step config model"),
            ("SlayerLab/bdh-150m-slayer", "model_type architectures max_seq_len torch_dtype"),
            ("agk4444/bdh-shakespeare", "iters final_loss block_size"),
            ("akarki15/bdh-shakespeare", "block_size batch_size max_iters learning_rate weight_decay"),
            (
                "jploski/bdh-transformers",
                "model_type num_hidden_layers hidden_size num_attention_heads max_position_embeddings tie_word_embeddings \
              use_cache pad_token_id bos_token_id eos_token_id initializer_range transformers_version architectures \
              torch_dtype dtype auto_map chunk_size",
            ),
            ("severian42/BDH-MLX", "learning_rate batch_size block_size max_iters eval_interval log_interval"),
            (
                "reginaldFerland/bdh",
                "tokenizer_type tokenizer_path pad_token_id bos_token_id eos_token_id unk_token_id block_size batch_size \
              max_iters learning_rate weight_decay log_freq checkpoint_dir save_interval",
            ),
            ("Tasmay-Tibrewal/bdh", "attn_window latent_token_id"),
            ("sgabriel92/bdh", "n_neurons rope_theta"),
            ("eberlful/BDH", "latent_reasoning_steps loss_schedule context_length learning_rate weight_decay"),
            (
                "aomukai/BDH_OS",
                "per_layer_weights architecture_variant activation_history_mix activation_history_decay \
              activation_history_target activation_history_max_mix learned_activation_history attention_decay \
              learned_attention_decay compute_ticks adaptive_compute adaptive_min_ticks adaptive_max_ticks \
              adaptive_logit_delta_threshold",
            ),
            ("mosure/burn_dragon_hatchling", "rotary_embedding norm_position forget_mode use_hebbian use_rope"),
            ("krychu/bdh", "use_rope use_abs_pos"),
            ("others", "tie_weights strict_causal max_seq_len rho_decay rho_max per_layer_encoders activation device"),
        ] {
            for key in official.split_whitespace().chain(keys.split_whitespace()) {
                assert_ne!(meaning(key), Meaning::Unknown, "{repository}: {key}");
            }
        }
    }

    #[test]
    fn lists_hold_every_key_once() {
        let mut keys: Vec<&str> = COMPUTING.iter().map(|(key, _)| *key).collect();
        for list in [&READ[..], &CLASSES, &BASES, &HARMLESS_SWITCHES, &HARMLESS, &HARMLESS_TOO] {
            assert!(list.is_sorted() || list == &CLASSES[..], "{list:?}");
            keys.extend(list);
        }
        assert!(COMPUTING.is_sorted_by_key(|(key, _)| *key));
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn computing_keys_are_refused_when_they_are_in_effect() {
        for (key, in_effect, off) in [
            ("attn_window", json!(4), json!(null)),
            ("latent_token_id", json!(0), json!(null)),
            ("latent_reasoning_steps", json!(3), json!(1)),
            ("per_layer_weights", json!(true), json!(false)),
            ("rotary_embedding", json!("alibi"), json!("rope")),
            ("rotary_embedding", json!("pope"), json!("RoPE")),
            ("forget_mode", json!("per_neuron"), json!(null)),
            ("norm_position", json!("pre"), json!(null)),
            ("use_hebbian", json!(true), json!(false)),
            ("use_anything", json!(2), json!(null)),
            ("use_rope", json!(false), json!(true)),
            ("model_class", json!("BDH_GPU"), json!("BDH")),
            ("architectures", json!(["BDH_GPU"]), json!(["BDHForCausalLM"])),
            ("arch", json!("gpt"), json!("bdh")),
            ("n_neurons", json!(32), json!(null)),
            ("rope_theta", json!(10000.0), json!(65536.0)),
            ("compute_ticks", json!(2), json!(1.0)),
            ("attention_decay", json!(0.001), json!(0)),
            ("layer_norm_eps", json!(1e-6), json!(1e-5)),
            ("attn_window", opaque(), json!(false)),
        ] {
            assert_eq!(checked(json!({ key: off })), Ok(None), "{key}: {off}");
            let message = checked(json!({ key: in_effect })).unwrap_err();
            assert!(message.starts_with(&format!("config.json: key {key:?} is {in_effect}, which ")), "{message}");
        }
        let message = checked(json!({ "n_neurons": 32, "seed": 1, "model_class": "BDH_GPU" })).unwrap_err();
        assert!(message.contains("keys \"n_neurons\" is 32 and \"model_class\" is \"BDH_GPU\", which "), "{message}");
    }

    #[test]
    fn the_base_must_be_that_of_the_kind() {
        let json = JsonFile::parse(Path::new("config.json"), br#"{"rope_theta": 10000}"#).unwrap();
        assert!(check(&json, Some("half-split:10000".parse().unwrap())).is_ok());
        assert!(check(&json, Some("interleaved:65536".parse().unwrap())).is_err());
    }

    #[test]
    fn unknown_keys_are_named_once() {
        let note = checked(
            json!({ "frobnicate": 1, "seed": 5, "wandb_run": "x", "color": {"a": 1}, "o": opaque(), "n_layer": opaque() }),
        );
        let note = note.unwrap().unwrap();
        assert!(
            note.starts_with("config.json: not known and not used: \"frobnicate\", \"color\", \"n_layer\"; "),
            "{note}"
        );
        let many: serde_json::Map<String, Value> = (0..20).map(|i| (format!("key {i}"), json!(1))).collect();
        assert!(checked(Value::from(many)).unwrap().unwrap().contains("\"key 11\" and 8 more; "));
    }
}
