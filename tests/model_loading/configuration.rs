//! Configuration, special tokens, generation options.

use super::small::{SMALL_CONFIG, Small};
use bdh_gpu::generation::{Request, Settings};
use bdh_gpu::model::EarlyStopping;

#[test]
fn files_that_are_not_json_objects_are_refused() {
    let small = |text| Small::new().file("config.json", text);
    small("").refuses("config.json: the file is empty, expected a JSON object");
    small("[1]").refuses("config.json: is a list, expected a JSON object");
    small("n_layer: 4")
        .refuses("config.json: not valid JSON (expected ident at line 1 column 2), expected a JSON object");
    Small::new()
        .file("generation_config.json", "7")
        .refuses("generation_config.json: is a number, expected a JSON object");
    let deep = "[".repeat(100_000);
    assert!(small(&deep).refusal().contains("recursion limit"));
    let long = format!("{SMALL_CONFIG}{}", " ".repeat(16 << 20));
    small(&long).refuses("config.json: longer than 16 MiB, expected a JSON object");
}

#[test]
fn sizes_out_of_range_are_refused_before_they_are_used() {
    let size = "a whole number from 1 to 16777216";
    for (from, to, message) in [
        ("\"n_layer\": 1,", "", format!("\"n_layer\" is missing, expected {size}")),
        ("\"n_layer\": 1,", "\"n_layer\": null,", format!("\"n_layer\" is missing, expected {size}")),
        ("\"n_layer\": 1", "\"n_layer\": 0", format!("\"n_layer\" is 0, expected {size}")),
        ("\"n_layer\": 1", "\"n_layer\": -3", format!("\"n_layer\" is -3, expected {size}")),
        ("\"n_layer\": 1", "\"n_layer\": 1.5", format!("\"n_layer\" is 1.5, expected {size}")),
        ("\"n_layer\": 1", "\"n_layer\": \"1\"", format!("\"n_layer\" is \"1\", expected {size}")),
        ("\"n_embd\": 4", "\"n_embd\": 1000000000000", format!("\"n_embd\" is 1000000000000, expected {size}")),
        ("\"n_head\": 2", "\"n_head\": 1e30", format!("\"n_head\" is 1e+30, expected {size}")),
        ("\"n_head\": 2", "\"n_head\": {}", format!("\"n_head\" is {{}}, expected {size}")),
        ("\"n_head\": 2", "\"n_head\": 13", "\"mlp_internal_dim_multiplier\" is 3, which gives 0 neurons per head, expected 1 to 16777216 neurons per head".to_owned()),
        ("r\": 3", "r\": 16777216", "\"mlp_internal_dim_multiplier\" is 16777216, which gives 33554432 neurons per head, expected 1 to 16777216 neurons per head".to_owned()),
        ("\"n_embd\": 4", "\"n_embd\": 2", "\"mlp_internal_dim_multiplier\" is 3, which gives 3 neurons per head, expected an even number of neurons per head".to_owned()),
        ("\"n_embd\": 4", "\"n_embd\": 10000000", "\"mlp_internal_dim_multiplier\" is 3, which gives 15000000 neurons per head of width 10000000, expected at most 1099511627776 numbers in encoder, encoder_v and decoder".to_owned()),
        ("\"vocab_size\": 5", "\"vocab_size\": 16777217", format!("\"vocab_size\" is 16777217, expected {size}")),
        ("\"vocab_size\": 5", "\"vocab_size\": 5, \"block_size\": 0", "\"block_size\" is 0, expected a whole number from 1 to 4294967295".to_owned()),
        ("\"vocab_size\": 5", "\"vocab_size\": 5, \"eos_token_id\": [1, \"x\"]", "\"eos_token_id\" is [1,\"x\"], expected a token id or a list of token ids".to_owned()),
    ] {
        Small::new().config(from, to).refuses(&format!("config.json: key {message}"));
    }
    // In range one by one, out of it together.
    Small::new()
        .config("\"n_layer\": 1, \"n_embd\": 4", "\"n_layer\": 16000000, \"n_embd\": 4000")
        .refuses("config.json: key \"n_layer\" is 16000000 with 12000 neurons of width 4000, expected at most 1099511627776 numbers in a state");
    // Large and in range: the tensors disagree, nothing of that size is allocated.
    let message = Small::new().config("\"vocab_size\": 5", "\"vocab_size\": 16777216").refusal();
    assert!(message.contains("has shape [5, 4], expected [16777216, 4]"), "{message}");
}

#[test]
fn hugging_face_keys_and_repeated_keys_are_understood() {
    let text = r#"{"num_hidden_layers": 7, "num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 2,
                   "mlp_internal_dim_multiplier": 3, "vocab_size": 5, "max_position_embeddings": 99}"#;
    let model = Small::new().file("config.json", text).load().unwrap();
    assert_eq!((model.config.n_layer, model.config.trained_context), (1, Some(99)));
}

#[test]
fn the_trained_context_may_stand_in_training_args() {
    let small = Small::new().file("training_args.json", r#"{"block_size": 64}"#);
    assert_eq!(small.load().unwrap().config.trained_context, Some(64));
    let small = small.config("\"vocab_size\": 5", "\"vocab_size\": 5, \"trained_context\": 32");
    assert_eq!(small.load().unwrap().config.trained_context, Some(32));
}

#[test]
fn training_args_never_stop_a_model() {
    for (text, note) in [
        ("null", "training_args.json: is null, expected a JSON object; it is not used"),
        ("{", "training_args.json: not valid JSON (EOF while parsing an object at line 1 column 1)"),
        ("{\"block_size\": -1}", "training_args.json: key \"block_size\" is -1, expected a whole number"),
    ] {
        let model = Small::new().file("training_args.json", text).load().unwrap();
        assert!(model.notes.len() == 1 && model.notes[0].contains(note), "{:?}", model.notes);
        assert_eq!(model.config.trained_context, None);
    }
    let model = Small::new().file("training_args.json", "{\"loss\": Infinity, \"block_size\": 64.0}").load().unwrap();
    assert_eq!((model.config.trained_context, model.notes.len()), (Some(64), 0));
    let small = Small::new();
    std::fs::create_dir(small.path().join("training_args.json")).unwrap();
    assert!(small.load().unwrap().notes[0].contains("training_args.json: is a directory"));
}

#[test]
fn json_is_read_as_peoples_tools_write_it() {
    let config = format!("\u{feff}{}", SMALL_CONFIG.replace("1,", "1.0, \"lr\": NaN,"));
    let model = Small::new().file("config.json", &config).load().unwrap();
    assert_eq!((model.config.n_layer, model.notes.len()), (1, 0));
    Small::new()
        .config("\"n_layer\": 1", "\"n_layer\": Infinity")
        .refuses("config.json: key \"n_layer\" is \"Infinity\", expected a whole number from 1 to 16777216");
}

#[test]
fn minus_one_is_no_token() {
    let small =
        Small::new().config("\"vocab_size\": 5", "\"vocab_size\": 5, \"eos_token_id\": 1, \"bos_token_id\": -1");
    let model = small.load().unwrap();
    assert_eq!((model.config.eos_token_ids, model.config.bos_token_id), (vec![1], None));
    let model = small.file("generation_config.json", "{\"eos_token_id\": -1, \"top_k\": -1}").load().unwrap();
    assert_eq!((model.config.eos_token_ids, model.generation.options.top_k), (vec![], Some(0)));
    assert!(model.notes.is_empty());
}

#[test]
fn keys_that_change_the_computation_are_refused() {
    let with = |key: &str| Small::new().config("\"vocab_size\": 5", &format!("\"vocab_size\": 5, {key}"));
    with("\"attn_window\": 4").refuses(
        "config.json: key \"attn_window\" is 4, which changes what the model computes and is not implemented; \
         expected a model without it",
    );
    // Before anything is said about the tensors.
    let small = with("\"latent_reasoning_steps\": 2").with(super::small::stored("network.layers.0", "F32", &[1], 0.0));
    assert!(small.refusal().starts_with("config.json: key \"latent_reasoning_steps\" is 2"));
    let model = with("\"attn_window\": null, \"latent_reasoning_steps\": 1.0, \"seed\": 3").load().unwrap();
    assert!(model.notes.is_empty());
    let model = with("\"colour\": 7").load().unwrap();
    assert!(model.notes.len() == 1 && model.notes[0].contains("not known and not used: \"colour\"; "));
}

#[test]
fn a_vocabulary_that_is_none_leaves_ids() {
    let model = Small::new().config("\"vocab_size\": 5", "\"vocab_size\": 5, \"chars\": \"abcdefg\"").load().unwrap();
    let message = model.tokenizer.encode(b"a").unwrap_err().to_string();
    assert!(message.contains("\"chars\" is 5 for \"f\"") && message.contains("give its tokenizer"), "{message}");
}

#[test]
fn special_tokens_come_from_either_file() {
    let config = "\"vocab_size\": 5, \"eos_token_id\": [1, 2], \"bos_token_id\": 3";
    let small = Small::new().config("\"vocab_size\": 5", config);
    let model = small.load().unwrap();
    assert_eq!((model.config.eos_token_ids, model.config.bos_token_id), (vec![1, 2], Some(3)));
    let small = small.file("generation_config.json", r#"{"eos_token_id": 4, "bos_token_id": null}"#);
    let model = small.load().unwrap();
    assert_eq!((model.config.eos_token_ids, model.config.bos_token_id), (vec![4], Some(3)));
    let small = small.file("generation_config.json", r#"{"eos_token_id": [4, 5]}"#);
    let model = small.load().unwrap();
    assert_eq!(model.config.eos_token_ids, [4]);
    assert_eq!(model.notes, ["eos_token_id 5 is ignored: it is not below vocab_size 5"]);
}

#[test]
fn generation_options_are_read_and_checked() {
    let load = |text: &str| Small::new().file("generation_config.json", text).load().unwrap().generation;
    let config = load(
        r#"{"max_new_tokens": 7, "min_new_tokens": 0, "do_sample": false, "temperature": 0, "top_k": 0,
            "top_p": 1, "min_p": 0.5, "repetition_penalty": 1.5, "presence_penalty": -1,
            "frequency_penalty": 0.25, "num_beams": 4, "length_penalty": -2.0, "early_stopping": "never",
            "num_return_sequences": 2, "eos_token_id": 1, "bos_token_id": [2],
            "seed": 18446744073709551615, "transformers_version": "5.0", "use_cache": true}"#,
    );
    let options = &config.options;
    assert_eq!((options.max_new_tokens, options.min_new_tokens), (Some(7), Some(0)));
    assert_eq!((options.do_sample, options.temperature, options.top_k), (Some(false), Some(0.0), Some(0)));
    assert_eq!((options.top_p, options.min_p), (Some(1.0), Some(0.5)));
    assert_eq!((options.repetition_penalty, options.presence_penalty), (Some(1.5), Some(-1.0)));
    assert_eq!((options.frequency_penalty, options.num_beams), (Some(0.25), Some(4)));
    assert_eq!((options.length_penalty, options.early_stopping), (Some(-2.0), Some(EarlyStopping::Never)));
    assert_eq!((config.num_return_sequences, options.seed), (Some(2), Some(u64::MAX)));
    assert_eq!((options.eos_token_id.as_deref(), config.bos_token_id), (Some(&[1][..]), Some(2)));
    assert_eq!(load("{}"), load(r#"{"temperature": null, "top_k": null, "something": [1]}"#));
    for (option, message) in [
        ("\"temperature\": -1", "\"temperature\" is -1, expected a number ≥ 0"),
        ("\"temperature\": \"hot\"", "\"temperature\" is \"hot\", expected a number ≥ 0"),
        ("\"temperature\": 1e300", "\"temperature\" is 1e+300, expected a number ≥ 0"),
        ("\"top_k\": -2", "\"top_k\" is -2, expected a whole number from 0 to 4294967295"),
        ("\"top_k\": 1.5", "\"top_k\" is 1.5, expected a whole number from 0 to 4294967295"),
        ("\"top_p\": 0", "\"top_p\" is 0, expected a number > 0 and ≤ 1"),
        ("\"top_p\": 1.5", "\"top_p\" is 1.5, expected a number > 0 and ≤ 1"),
        ("\"min_p\": 2", "\"min_p\" is 2, expected a number from 0 to 1"),
        ("\"repetition_penalty\": 0", "\"repetition_penalty\" is 0, expected a number > 0"),
        ("\"do_sample\": 1", "\"do_sample\" is 1, expected true or false"),
        ("\"num_beams\": 0", "\"num_beams\" is 0, expected a whole number from 1 to 4294967295"),
        ("\"early_stopping\": \"soon\"", "\"early_stopping\" is \"soon\", expected true, false or \"never\""),
        ("\"eos_token_id\": -2", "\"eos_token_id\" is -2, expected a token id or a list of token ids"),
        ("\"seed\": -1", "\"seed\" is -1, expected a whole number from 0"),
    ] {
        let small = Small::new().file("generation_config.json", &format!("{{{option}}}"));
        let model = small.load().unwrap();
        let key = option.split('"').nth(1).unwrap();
        let problem = model.generation.problem(key).unwrap();
        assert!(problem.ends_with(&format!("generation_config.json: key {message}")), "{problem}");
        assert_eq!(model.notes, [format!("{problem}; it is not used")]);
        // Where it is used, it is an error.
        let request = Request { do_sample: key.starts_with("t").then_some(true), ..Request::default() };
        let error = Settings::new(&request, &model).map(|_| ()).map_err(|error| error.to_string());
        match key {
            "early_stopping" => assert_eq!(error, Ok(())),
            _ => assert_eq!(error, Err(format!("{problem}; give another {key}"))),
        }
    }
}
