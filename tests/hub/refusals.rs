//! Whatever a server may answer: one line, no panic, no memory for what a header only says.

use super::server::{Faults, NAME, etag};
use super::{Hub, expected, files, published, shipped};

#[test]
fn a_model_that_is_not_there_is_named() {
    let hub = Hub::shipped();
    let error = hub.error("somebody/nothing");
    let told = format!("somebody/nothing: no such file or directory, and no such model at {}", hub.server.endpoint());
    assert!(error.contains(&told) && error.contains("check the spelling"), "{error}");
}

#[test]
fn a_model_without_a_token_is_refused() {
    let mut repository = published(files());
    repository.token = Some("right");
    let hub = Hub::new(repository);
    let error = hub.error(NAME);
    assert!(error.contains("without a token") && error.contains("set HF_TOKEN"), "{error}");
    let error = hub.generate_with(NAME, &[("HF_TOKEN", "wrong")]).error(1);
    assert!(error.contains("does not accept the token; renew HF_TOKEN"), "{error}");
    assert!(!error.contains("wrong"), "a token is a secret: {error}");
}

#[test]
fn a_model_behind_a_gate_says_where_to_ask() {
    let hub = Hub::shipped();
    for (part, status) in
        [("/resolve/", "403 Forbidden"), ("/resolve/", "401 Unauthorized"), ("/api/", "403 Forbidden")]
    {
        let headers = vec![("X-Error-Code", "GatedRepo".to_owned()), ("X-Error-Message", "Ask the owner.".to_owned())];
        hub.server.set(Faults { answers: vec![(part, status, headers)], ..Faults::default() });
        let error = hub.error(NAME);
        let told = format!("access is restricted: Ask the owner; ask for it at {}/{NAME}", hub.server.endpoint());
        assert!(error.contains(&told) && error.contains("HF_TOKEN"), "{error}");
    }
}

#[test]
fn weights_of_another_length_are_refused_and_removed() {
    let hub = Hub::shipped();
    let whole = shipped("model.safetensors");
    let longer = [&whole[..], b"more"].concat();
    for (content, found) in [(&whole[..1000], "1000"), (&longer[..], &*longer.len().to_string())] {
        hub.server.set(Faults { replaces: Some(content.to_vec()), ..Faults::default() });
        let error = hub.error(NAME);
        assert!(error.contains(&format!("has {found} bytes, expected {}", whole.len())), "{error}");
        assert_eq!(hub.blobs().len(), 2, "nothing of the weights is kept: {:?}", hub.blobs());
    }
    hub.server.set(Faults { replaces: Some(longer), hides_length: true, ..Faults::default() });
    let error = hub.error(NAME);
    assert!(error.contains(&format!("has more bytes, expected {}", whole.len())), "{error}");
    hub.server.set(Faults::default());
    assert_eq!(hub.generate(NAME).ok(), expected());
}

#[test]
fn weights_with_another_hash_are_refused_and_removed() {
    let hub = Hub::shipped();
    let mut altered = shipped("model.safetensors");
    let expected_hash = etag("model.safetensors", &altered);
    let last = altered.len() - 1;
    altered[last] ^= 1;
    let found = etag("model.safetensors", &altered);
    hub.server.set(Faults { replaces: Some(altered), ..Faults::default() });
    let error = hub.error(NAME);
    assert!(
        error.contains(&format!("has the SHA-256 hash {found}, expected {expected_hash}; it was removed")),
        "{error}"
    );
    assert_eq!(hub.blobs().len(), 2, "{:?}", hub.blobs());
    hub.server.set(Faults::default());
    assert_eq!(hub.generate(NAME).ok(), expected());
}

#[test]
fn what_was_altered_between_two_attempts_is_noticed() {
    let hub = Hub::shipped();
    let mut altered = shipped("model.safetensors");
    altered[10_000] ^= 1;
    hub.server.set(Faults { replaces: Some(altered), breaks: Some((100_000, usize::MAX)), ..Faults::default() });
    hub.error(NAME);
    hub.server.set(Faults::default());
    let error = hub.error(NAME);
    assert!(error.contains("SHA-256"), "{error}");
    assert_eq!(hub.generate(NAME).ok(), expected(), "and then it is downloaded anew");
}

#[test]
fn small_files_are_checked_by_gits_hash() {
    let hub = Hub::shipped();
    let headers = vec![("ETag", format!("\"{}\"", "0".repeat(40))), ("Content-Length", "2".to_owned())];
    hub.server.set(Faults { answers: vec![("/resolve-cache/", "200 OK", headers)], ..Faults::default() });
    let error = hub.error(NAME);
    assert!(error.contains("config.json: has the SHA-1 hash ") && error.contains(&"0".repeat(40)), "{error}");
}

#[test]
fn a_file_of_any_announced_size_takes_only_what_comes() {
    let hub = Hub::shipped();
    for size in [u64::MAX, 1 << 50] {
        hub.server.set(Faults { headers: vec![("X-Linked-Size", size.to_string())], ..Faults::default() });
        let error = hub.error(NAME);
        assert!(error.contains(&format!(" bytes, expected {size}")), "{error}");
    }
}

#[test]
fn etags_and_lengths_that_mean_nothing_are_refused() {
    let hub = Hub::shipped();
    let long = "x".repeat(10_000);
    for etag in ["\"../../../../escaped\"", "\"/escaped\"", "", "\"a b\"", &long] {
        hub.server.set(Faults { headers: vec![("X-Linked-ETag", etag.to_owned())], ..Faults::default() });
        let error = hub.error(NAME);
        assert!(error.contains("the ETag is ") && error.len() < 500, "{error}");
    }
    for size in ["-1", "many", "", "1e300", "340282366920938463463374607431768211456"] {
        hub.server.set(Faults { headers: vec![("X-Linked-Size", size.to_owned())], ..Faults::default() });
        let error = hub.error(NAME);
        assert!(error.contains("the size is "), "{error}");
    }
    assert_eq!(std::fs::read_dir(hub.home.path()).unwrap().count(), 1, "nothing outside of the cache");
}

#[test]
fn descriptions_that_describe_nothing_are_refused() {
    let hub = Hub::shipped();
    let deep = "[".repeat(100_000);
    let path = r#"{"sha": "../../../../../../../../etc/passwd-0123456", "siblings": []}"#;
    let texts = ["", "{}", "[]", "null", "<html></html>", r#"{"sha": 7, "siblings": []}"#, &deep, path];
    for text in texts {
        hub.server.set(Faults { description: Some(text.to_owned()), ..Faults::default() });
        let error = hub.error(NAME);
        assert!(error.contains("expected the description of a model, as JSON"), "{error}");
    }
    let escape = format!(r#"{{"sha": "{}", "siblings": [{{"rfilename": "../../model.safetensors"}}]}}"#, super::COMMIT);
    hub.server.set(Faults { description: Some(escape), ..Faults::default() });
    let error = hub.error(NAME);
    assert!(error.contains("holds no weights"), "{error}");
}

#[test]
fn strange_statuses_are_errors_of_one_line() {
    let hub = Hub::shipped();
    let looping = vec![("Location", format!("/{NAME}/resolve/again"))];
    let control = vec![("X-Error-Message", "a\tb\u{fc}".to_owned())];
    let nowhere = vec![("Location", "http://".to_owned())];
    let cases = [
        ("/resolve/", "302 Found", looping.clone()),
        ("/api/", "302 Found", vec![("Location", format!("/api/models/{NAME}/revision/main"))]),
        ("/resolve/", "302 Found", vec![]),
        ("/resolve/", "302 Found", nowhere.clone()),
        ("/api/", "302 Found", nowhere),
        ("/resolve/", "404 Not Found", vec![]),
        ("/resolve/", "418 I'm a teapot", control.clone()),
        ("/api/", "418 I'm a teapot", control),
        ("/api/", "429 Too Many Requests", vec![("Retry-After", "100000000000".to_owned())]),
        ("/stored/", "404 Not Found", vec![]),
        ("/stored/", "204 No Content", vec![]),
        ("/stored/", "302 Found", looping),
        ("/stored/", "206 Partial Content", vec![("Content-Range", "bytes 7-9/10".to_owned())]),
        ("/stored/", "206 Partial Content", vec![]),
        ("/stored/", "416 Range Not Satisfiable", vec![]),
        ("/stored/", "500 Internal Server Error", vec![]),
        ("/stored/", "999 Whatever", vec![]),
    ];
    for (part, status, headers) in cases {
        hub.server.set(Faults { answers: vec![(part, status, headers)], ..Faults::default() });
        let error = hub.error(NAME);
        assert!(error.contains(&hub.server.endpoint()) || error.contains("localhost"), "{part} {status}: {error}");
    }
    hub.server.set(Faults::default());
    assert_eq!(hub.generate(NAME).ok(), expected());
}

#[test]
fn an_endpoint_that_is_none_is_named() {
    let hub = Hub::shipped();
    for endpoint in ["nonsense", "http://", "ftp://127.0.0.1/", "http://127.0.0.1:1", "http://[::1", "http://a b/"] {
        let error = hub.generate_with(NAME, &[("HF_ENDPOINT", endpoint)]).error(1);
        assert!(error.contains("cannot be reached") && error.contains("HF_ENDPOINT"), "{endpoint}: {error}");
    }
}
