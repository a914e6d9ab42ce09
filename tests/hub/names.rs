//! What is a name and what is a path.

use super::server::NAME;
use super::{GENERATE, Hub, expected, files};

#[test]
fn what_is_on_disk_wins_over_a_name() {
    let hub = Hub::shipped();
    let directory = hub.home.path().join(NAME);
    std::fs::create_dir_all(&directory).unwrap();
    let error = hub.error(NAME);
    assert!(error.contains("holds no weights, expected model.safetensors"), "{error}");
    for (name, content) in files() {
        std::fs::write(directory.join(name), content).unwrap();
    }
    assert_eq!(hub.generate(NAME).ok(), expected());
    assert!(hub.server.requests().is_empty());
}

#[test]
fn paths_are_never_looked_up() {
    let hub = Hub::shipped();
    for path in ["nowhere", "./somebody/tiny-dragon", "/somebody/tiny-dragon", "~/tiny-dragon", "a/b/c", "a/model.pt"] {
        let error = hub.error(path);
        assert!(error.contains(": no such file or directory; expected a model directory"), "{error}");
    }
    assert!(hub.server.requests().is_empty());
}

#[test]
fn an_impossible_name_is_bad_usage() {
    let hub = Hub::shipped();
    for name in ["a/b@", "a/b:", "a/b:../c", "a/b@x y"] {
        let error = hub.run(&[&["generate", "--model", name][..], &GENERATE].concat()).error(2);
        assert!(error.contains("expected owner/name[@revision][:file]"), "{error}");
    }
    assert!(hub.server.requests().is_empty());
}
