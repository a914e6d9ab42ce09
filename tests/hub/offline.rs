//! The cache without the Hub.

use super::server::{Faults, NAME};
use super::{COMMIT, Hub, expected};

const OFFLINE: [(&str, &str); 1] = [("HF_HUB_OFFLINE", "1")];

#[test]
fn a_downloaded_model_works_without_the_hub() {
    let hub = Hub::shipped();
    hub.generate(NAME).ok();
    hub.server.requests();

    let run = hub.generate_with(NAME, &OFFLINE);
    assert!(!run.stderr.contains("note"), "{run:?}");
    assert_eq!(run.ok(), expected());
    assert!(hub.server.requests().is_empty(), "offline means that nobody is asked");

    hub.server.stop();
    let run = hub.generate(NAME);
    let note = format!("note: {} cannot be reached (", hub.server.endpoint());
    assert!(run.stderr.contains(&note), "{run:?}");
    assert!(run.stderr.contains(&format!("; the cached {NAME} is used")), "{run:?}");
    assert_eq!(run.ok(), expected());
    assert_eq!(hub.generate_with(&format!("{NAME}@{COMMIT}:model.safetensors"), &OFFLINE).ok(), expected());
    assert_eq!(hub.generate_with(NAME, &OFFLINE).ok(), expected());
}

#[test]
fn a_hub_that_has_trouble_is_as_good_as_none() {
    let hub = Hub::shipped();
    hub.generate(NAME).ok();
    hub.server.set(Faults { answers: vec![("/api/", "503 Service Unavailable", vec![])], ..Faults::default() });
    let run = hub.generate(NAME);
    assert!(run.stderr.contains("cannot be reached (answers 503 Service Unavailable)"), "{run:?}");
    assert_eq!(run.ok(), expected());
}

#[test]
fn what_was_never_downloaded_is_refused() {
    let hub = Hub::shipped();
    let error = hub.generate_with(NAME, &OFFLINE).error(1);
    assert!(error.contains("not in the cache") && error.contains("HF_HUB_OFFLINE is set: unset it"), "{error}");
    assert!(hub.server.requests().is_empty());
    hub.server.stop();
    let error = hub.error(NAME);
    assert!(error.contains(&format!("{}: cannot be reached: ", hub.server.endpoint())), "{error}");
    assert!(error.contains("is not in the cache") && error.contains("check the connection"), "{error}");
}

#[test]
fn neither_another_revision_nor_another_file_stands_in() {
    let hub = Hub::shipped();
    hub.generate(NAME).ok();
    for other in ["somebody/tiny-dragon@v1.0", "somebody/tiny-dragon:other.pt", "somebody/other"] {
        let error = hub.generate_with(other, &OFFLINE).error(1);
        assert!(error.contains("not in the cache"), "{error}");
    }
}

#[test]
fn a_model_whose_weights_never_came_is_not_in_the_cache() {
    let hub = Hub::shipped();
    hub.server.set(Faults { breaks: Some((1000, usize::MAX)), ..Faults::default() });
    hub.error(NAME);
    for model in [NAME.to_owned(), format!("{NAME}@{COMMIT}")] {
        let error = hub.generate_with(&model, &OFFLINE).error(1);
        assert!(error.contains("not in the cache"), "{error}");
    }
}

#[test]
fn the_cache_may_lie_elsewhere() {
    let hub = Hub::shipped();
    let elsewhere = hub.home.path().join("elsewhere");
    let variables = [("HF_HUB_CACHE", super::text(&elsewhere))];
    assert_eq!(hub.generate_with(NAME, &variables).ok(), expected());
    assert!(elsewhere.join("models--somebody--tiny-dragon/refs/main").is_file());
    assert!(!hub.home.path().join("hub").exists());

    std::fs::write(hub.home.path().join("file"), "").unwrap();
    let file = hub.home.path().join("file");
    let error = hub.generate_with(NAME, &[("HF_HUB_CACHE", super::text(&file))]).error(1);
    assert!(error.contains("cannot be written") && error.contains("set HF_HOME to a folder"), "{error}");
}
