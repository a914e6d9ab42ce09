//! What is downloaded, where it lies, and how a broken download goes on.

use super::server::{Faults, NAME, etag};
use super::{COMMIT, Hub, expected, published, shipped};

/// The stored weights' requests: where each began, and how many bytes it was sent.
fn weights_requests(hub: &Hub) -> Vec<(u64, usize)> {
    let requests = hub.server.requests().into_iter();
    let gets = requests.filter(|request| request.method == "GET" && request.path.starts_with("/stored/"));
    let start = |range: &str| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    gets.map(|request| (request.header("range").map_or(0, start), request.sent)).collect()
}

#[test]
fn a_model_is_downloaded_once_and_generates_as_from_its_directory() {
    let hub = Hub::shipped();
    let run = hub.generate(NAME);
    assert!(run.stderr.contains("tiny-dragon"), "the model's name: {run:?}");
    assert!(!run.stderr.contains("left"), "no progress bar without a terminal: {run:?}");
    assert_eq!(run.ok(), expected());
    let requests = hub.server.requests();
    assert!(requests.iter().all(|request| !request.path.contains("README")), "{requests:?}");

    // The layout of the cache that the Hub's other programs share.
    assert_eq!(std::fs::read_to_string(hub.cached("refs/main")).unwrap(), COMMIT);
    let weights = shipped("model.safetensors");
    let blob = etag("model.safetensors", &weights);
    assert_eq!(std::fs::read(hub.cached(&format!("blobs/{blob}"))).unwrap(), weights);
    assert_eq!(hub.blobs().len(), 3, "three files and nothing else: {:?}", hub.blobs());
    let snapshot = hub.cached(&format!("snapshots/{COMMIT}"));
    assert_eq!(std::fs::read_dir(&snapshot).unwrap().count(), 3);
    #[cfg(unix)]
    {
        let link = std::fs::read_link(snapshot.join("model.safetensors")).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("../../blobs/{blob}"));
    }

    // What is there is not downloaded again, only the revision is asked for.
    assert_eq!(hub.generate(NAME).ok(), expected());
    let requests = hub.server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
}

#[test]
fn a_download_that_breaks_goes_on_where_it_broke() {
    let hub = Hub::shipped();
    hub.server.set(Faults { breaks: Some((1_000_000, 1)), ..Faults::default() });
    assert_eq!(hub.generate(NAME).ok(), expected());
    let total = shipped("model.safetensors").len();
    assert_eq!(weights_requests(&hub), [(0, 1_000_000), (1_000_000, total - 1_000_000)]);
}

#[test]
fn the_next_run_goes_on_with_a_download_that_never_came_through() {
    let hub = Hub::shipped();
    hub.server.set(Faults { breaks: Some((100_000, usize::MAX)), ..Faults::default() });
    let error = hub.error(NAME);
    assert!(error.contains("model.safetensors: the download broke off after 500000 of "), "{error}");
    assert!(error.contains("run it again"), "{error}");
    let tried = weights_requests(&hub);
    assert_eq!(tried, [0, 1, 2, 3, 4].map(|attempt| (attempt * 100_000, 100_000)));
    assert!(!hub.cached("refs/main").exists(), "a model without weights is not in use");

    hub.server.set(Faults::default());
    assert_eq!(hub.generate(NAME).ok(), expected());
    let total = shipped("model.safetensors").len();
    assert_eq!(weights_requests(&hub), [(500_000, total - 500_000)]);
    assert!(hub.blobs().iter().all(|blob| !blob.ends_with(".incomplete")), "{:?}", hub.blobs());
}

#[test]
fn a_server_without_ranges_sends_all_of_it_again() {
    let hub = Hub::shipped();
    hub.server.set(Faults { breaks: Some((1_000_000, 1)), ignores_ranges: true, ..Faults::default() });
    assert_eq!(hub.generate(NAME).ok(), expected());
    let total = shipped("model.safetensors").len();
    assert_eq!(weights_requests(&hub), [(0, 1_000_000), (1_000_000, total)]);
}

#[test]
fn a_file_that_ends_with_the_connection_is_complete_when_its_length_says_so() {
    let hub = Hub::shipped();
    hub.server.set(Faults { hides_length: true, breaks: Some((1_000_000, 1)), ..Faults::default() });
    assert_eq!(hub.generate(NAME).ok(), expected());
    assert_eq!(weights_requests(&hub).len(), 2);
}

#[test]
fn the_hub_is_told_the_token_and_no_other_server_is() {
    let mut repository = published(super::files());
    repository.token = Some("hf_secret");
    let hub = Hub::new(repository);
    assert_eq!(hub.generate_with(NAME, &[("HF_TOKEN", "hf_secret")]).ok(), expected());
    let (stored, own): (Vec<_>, Vec<_>) =
        hub.server.requests().into_iter().partition(|request| request.path.starts_with("/stored/"));
    assert!(!stored.is_empty() && stored.iter().all(|request| request.header("authorization").is_none()), "{stored:?}");
    assert!(own.iter().all(|request| request.header("authorization") == Some("Bearer hf_secret")), "{own:?}");
}

#[test]
fn two_programs_at_once_download_a_file_once() {
    let hub = Hub::shipped();
    std::thread::scope(|scope| {
        let runs = [(), ()].map(|()| scope.spawn(|| hub.generate(NAME)));
        for run in runs {
            assert_eq!(run.join().unwrap().ok(), expected());
        }
    });
    assert_eq!(weights_requests(&hub).len(), 1);
}

#[test]
fn every_command_takes_names() {
    let hub = Hub::shipped();
    let info = hub.run(&["info", "--model", NAME, "--format", "json"]).json();
    assert_eq!(info["name"], "tiny-dragon");
    hub.run(&["convert", "--from", NAME, "--to", "converted"]).ok();
    assert!(hub.home.path().join("converted/model.safetensors").is_file());
    hub.run(&["merge", NAME, "converted", "--to", "merged"]).ok();
    assert!(hub.home.path().join("merged/model.safetensors").is_file());
}
