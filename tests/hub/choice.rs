//! Which files: revisions, a file of several, split weights, tokenizers.

use super::server::{NAME, Repository};
use super::{COMMIT, Hub, expected, files, published, shipped};
use serde_json::{Value, json};

const OLDER: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// The shipped model, and an older commit of it that generates one token.
fn two_commits() -> Repository {
    let mut repository = published(files());
    let mut older = files();
    older.insert("generation_config.json".to_owned(), br#"{"max_new_tokens": 1}"#.to_vec());
    repository.commits.insert(OLDER.to_owned(), older);
    for tag in ["v1.0", "refs/pr/7"] {
        repository.revisions.insert(tag.to_owned(), OLDER.to_owned());
    }
    repository
}

fn default_length(hub: &Hub, model: &str) -> Value {
    hub.run(&["info", "--model", model, "--format", "json"]).json()["generation"]["max_new_tokens"].clone()
}

#[test]
fn a_revision_is_a_branch_a_tag_or_a_commit() {
    let hub = Hub::new(two_commits());
    let newer = default_length(&hub, NAME);
    assert_ne!(newer, 1);
    for revision in ["v1.0", "refs/pr/7", OLDER] {
        assert_eq!(default_length(&hub, &format!("{NAME}@{revision}")), 1, "{revision}");
    }
    assert_eq!(default_length(&hub, &format!("{NAME}@{COMMIT}")), newer);
    assert_eq!(std::fs::read_to_string(hub.cached("refs/refs/pr/7")).unwrap(), OLDER);
    assert!(!hub.cached(&format!("refs/{OLDER}")).exists(), "a commit needs no reference");
    assert_eq!(hub.blobs().len(), 4, "equal files are stored once: {:?}", hub.blobs());

    let error = hub.error(&format!("{NAME}@v2.0"));
    assert!(error.contains("has no revision \"v2.0\"; expected a branch, a tag or a commit hash"), "{error}");
}

#[test]
fn what_main_has_become_is_downloaded() {
    let hub = Hub::new(two_commits());
    default_length(&hub, NAME);
    let mut repository = two_commits();
    repository.revisions.insert("main".to_owned(), OLDER.to_owned());
    hub.server.publish(repository);
    assert_eq!(default_length(&hub, NAME), 1);
    assert_eq!(std::fs::read_to_string(hub.cached("refs/main")).unwrap(), OLDER);
}

#[test]
fn of_several_weights_files_one_is_named() {
    let mut repository = files();
    let weights = repository.remove("model.safetensors").unwrap();
    repository.insert("first.safetensors".to_owned(), weights.clone());
    repository.insert("second one.safetensors".to_owned(), weights.clone());
    repository.insert("inner/third.safetensors".to_owned(), weights);
    repository.insert("inner/config.json".to_owned(), shipped("config.json"));
    let hub = Hub::new(published(repository));

    let error = hub.error(NAME);
    let told =
        "holds first.safetensors, second one.safetensors, expected one weights file; name one, as owner/name:file";
    assert!(error.contains(told), "{error}");
    assert_eq!(hub.generate(&format!("{NAME}:second one.safetensors")).ok(), expected());
    assert_eq!(hub.generate(&format!("{NAME}@main:inner/third.safetensors")).ok(), expected());
    let snapshot = hub.cached(&format!("snapshots/{COMMIT}"));
    assert!(!snapshot.join("first.safetensors").exists(), "only what was named is downloaded");
    assert!(!snapshot.join("inner/generation_config.json").exists());

    let error = hub.error(&format!("{NAME}:third.safetensors"));
    assert!(error.contains("has no file \"third.safetensors\" at revision main"), "{error}");
    assert!(error.contains("first.safetensors, second one.safetensors"), "{error}");
}

#[test]
fn weights_in_parts_come_with_their_index() {
    let mut repository = files();
    let weights = repository.remove("model.safetensors").unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let part = "model-00001-of-00001.safetensors";
    let map: serde_json::Map<String, Value> =
        tensors.names().iter().map(|name| ((*name).to_owned(), part.into())).collect();
    repository.insert(part.to_owned(), weights.clone());
    repository.insert("another-part.safetensors".to_owned(), weights.clone());
    let index = json!({ "weight_map": map }).to_string();
    repository.insert("model.safetensors.index.json".to_owned(), index.into_bytes());
    let hub = Hub::new(published(repository.clone()));
    assert_eq!(hub.generate(NAME).ok(), expected());
    let snapshot = hub.cached(&format!("snapshots/{COMMIT}"));
    assert!(snapshot.join(part).exists() && !snapshot.join("another-part.safetensors").exists());

    repository.remove(part);
    let error = Hub::new(published(repository.clone())).error(NAME);
    assert!(error.contains("model-00001-of-00001.safetensors") && error.contains("no such file"), "{error}");

    let elsewhere = json!({ "weight_map": { "encoder": "../../../secret" } }).to_string();
    repository.insert("model.safetensors.index.json".to_owned(), elsewhere.into_bytes());
    let error = Hub::new(published(repository)).error(NAME);
    assert!(error.contains("the name of a file beside the index"), "{error}");
}

#[test]
fn a_tokenizer_comes_from_wherever_a_directory_would_have_it() {
    let config: Value = serde_json::from_slice(&shipped("config.json")).unwrap();
    for (place, key) in [("", Value::Null), ("tokenizer/", Value::Null), ("bpe/", "bpe".into())] {
        let mut repository = files();
        let mut config = config.clone();
        config["tokenizer_path"] = key;
        repository.insert("config.json".to_owned(), config.to_string().into_bytes());
        let byt5 = br#"{"tokenizer_class": "ByT5Tokenizer"}"#.to_vec();
        repository.insert(format!("{place}tokenizer_config.json"), byt5);
        repository.insert("other/tokenizer_config.json".to_owned(), b"{}".to_vec());
        let hub = Hub::new(published(repository));
        let info = hub.run(&["info", "--model", NAME, "--format", "json"]).json();
        let snapshot = hub.cached(&format!("snapshots/{COMMIT}"));
        assert!(snapshot.join(format!("{place}tokenizer_config.json")).is_file(), "{place}: {info}");
        assert!(!snapshot.join("other").exists());
    }
}
