//! `bdh-gpu serve`: texts that do not depend on the load, streams, states, errors, and how it ends.

#[cfg(target_os = "linux")]
#[path = "../common/faults.rs"]
mod faults;
#[path = "../common/gpu.rs"]
mod gpu;
mod http;

use bdh_gpu::backend::watch::{strongest, strongest_of_layers};
use bdh_gpu::generation::{Bdh, DeviceChoice, GenerationOptions, TokenTrace, WeightChoice};
use bdh_gpu::model::Model;
use http::{Server, read_answer};
use serde_json::{Value, json};
use std::io::Read;
use std::process::Command;

/// A neuron's name in the shipped model: head and index.
fn neuron_name(neuron: u32) -> String {
    format!("{}.{}", neuron / PER_HEAD, neuron % PER_HEAD)
}

/// What the command line writes.
fn generated(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"))
        .args(["generate", "--device", "cpu", "--quiet", "--no-echo"])
        .args(arguments)
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    // The program ends its output with a line end.
    text.strip_suffix('\n').unwrap_or(&text).to_owned()
}

fn texts(answer: &Value) -> Vec<String> {
    let choices = answer["choices"].as_array().expect("choices");
    choices.iter().map(|choice| choice["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn texts_are_those_of_the_command_line() {
    let server = Server::start(&[]);
    for (prompt, seed, options, fields) in [
        ("KING:\n", "1", &[][..], json!({})),
        ("To be or ", "2", &["--temperature", "0.7", "--top-k", "20"], json!({"temperature": 0.7, "top_k": 20})),
        ("", "3", &["--greedy"], json!({"do_sample": false})),
        ("ROMEO:", "4", &["--stop", "\n\n"], json!({"stop": ["\n\n"]})),
        ("A", "5", &["--repetition-penalty", "1.3"], json!({"repeat_penalty": 1.3})),
        ("A", "6", &["--logit-bias", "32=-100,122=3.5"], json!({"logit_bias": {"32": -100, "122": 3.5}})),
    ] {
        let expected = generated(&[&["-p", prompt, "-n", "60", "--seed", seed], options].concat());
        let mut body = json!({"prompt": prompt, "max_tokens": 60, "seed": seed.parse::<u64>().unwrap()});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = server.complete(&body);
        assert_eq!(texts(&answer), std::slice::from_ref(&expected), "{body}");
        assert_eq!(answer["choices"][0]["seed"], body["seed"]);
        assert_eq!(server.stream(body).0, expected);
    }
    // Every sequence of several is what its own seed gives alone.
    let answer = server.complete(&json!({"prompt": ["KING:\n", "A"], "n": 2, "max_tokens": 30, "seed": 9}));
    for (index, choice) in answer["choices"].as_array().unwrap().iter().enumerate() {
        let prompt = ["KING:\n", "A"][index / 2];
        let alone = server.complete(&json!({"prompt": prompt, "max_tokens": 30, "seed": choice["seed"]}));
        assert_eq!((choice["index"].as_u64(), &choice["text"]), (Some(index as u64), &alone["choices"][0]["text"]));
    }
}

#[test]
fn texts_do_not_depend_on_the_load() {
    let server = Server::start(&["--parallel", "4"]);
    let long = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n".repeat(4);
    let request = |index: usize| {
        let prompt = ["KING:\n", "To be", &long, &long[..100]][index % 4];
        let mut body = json!({"prompt": prompt, "max_tokens": 10 + 7 * (index % 5), "seed": index % 6});
        if index.is_multiple_of(3) {
            body["stop"] = json!(["e", "\n\n"]);
        }
        if index.is_multiple_of(5) {
            body["n"] = 3.into();
        }
        body
    };
    let alone: Vec<Vec<String>> = (0..60).map(|index| texts(&server.complete(&request(index)))).collect();
    std::thread::scope(|scope| {
        for worker in 0..12 {
            let (server, alone) = (&server, &alone);
            scope.spawn(move || {
                for index in (0..60).rev().filter(|index| index % 12 == worker) {
                    let body = request(index);
                    if index % 7 == 1 {
                        // Somebody leaves.
                        drop(server.send("POST", "/v1/completions", &[], body.to_string().as_bytes()));
                    }
                    if index % 2 == 0 && body.get("n").is_none() {
                        assert_eq!(server.stream(body).0, alone[index][0], "{index}");
                    } else {
                        assert_eq!(texts(&server.complete(&body)), alone[index], "{index}");
                    }
                }
            });
        }
    });
    assert!(server.metric("bdh_prefix_cache_hits_total") > 0.0);
}

#[test]
fn usage_reasons_and_log_probabilities_are_exact() {
    let server = Server::start(&[]);
    let stopped = server.complete(&json!({"prompt": "KING:\n", "max_tokens": 500, "seed": 1, "stop": "th"}));
    let (choice, usage) = (&stopped["choices"][0], &stopped["usage"]);
    let text = choice["text"].as_str().unwrap();
    assert_eq!((choice["finish_reason"].as_str(), choice["stop_reason"].as_str()), (Some("stop"), Some("th")));
    assert_eq!(usage["completion_tokens"].as_u64(), Some(text.len() as u64 + 2));
    assert_eq!(usage["total_tokens"].as_u64(), Some(text.len() as u64 + 2 + 6));
    let shown =
        json!({"prompt": "KING:\n", "max_tokens": 500, "seed": 1, "stop": "th", "include_stop_str_in_output": true});
    assert_eq!(texts(&server.complete(&shown)), [format!("{text}th")]);
    let by_id = json!({"prompt": "KING:\n", "max_tokens": 500, "seed": 1, "stop_token_ids": [116]});
    let by_id = server.complete(&by_id);
    assert_eq!(by_id["choices"][0]["stop_reason"], 116);
    assert!(!texts(&by_id)[0].contains('t'));

    let echoed = json!({"prompt": "dé", "max_tokens": 3, "echo": true, "logprobs": 2, "temperature": 0});
    let echoed = server.complete(&echoed);
    let (choice, listed) = (&echoed["choices"][0], &echoed["choices"][0]["logprobs"]);
    assert!(choice["text"].as_str().unwrap().starts_with("dé"));
    assert_eq!(listed["tokens"][1], "bytes:\\xc3");
    assert_eq!(listed["text_offset"], json!([0, 1, 1, 2, 3, 4]));
    assert_eq!((&listed["token_logprobs"][0], &listed["top_logprobs"][0]), (&Value::Null, &Value::Null));
    for index in 1..6 {
        let top = listed["top_logprobs"][index].as_object().unwrap();
        let best = top.values().map(|value| value.as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max);
        assert!(top.len() >= 2 && top.contains_key(listed["tokens"][index].as_str().unwrap()));
        // Greedy tokens are the likeliest, to the last digit.
        let own = listed["token_logprobs"][index].as_f64().unwrap();
        assert!(if index < 3 { own <= best } else { own == best }, "{own}, {best}");
    }
    // Nothing is drawn.
    let scored = server.complete(&json!({"prompt": "KING", "max_tokens": 0, "echo": true, "logprobs": 0}));
    assert_eq!(scored["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 4);
    assert_eq!(scored["usage"]["completion_tokens"], 0);
}

#[test]
fn closed_connections_free_their_slots() {
    let server = Server::start(&["--parallel", "2"]);
    let long = "x".repeat(60_000);
    let endless = json!({"prompt": "A", "max_tokens": 100_000_000, "seed": 1});
    let reading = json!({"prompt": long, "max_tokens": 10, "seed": 1});
    let mut streamed = endless.clone();
    streamed["stream"] = true.into();
    for round in 0..8 {
        // One streams, one is read, one is drawn from, and the rest wait.
        let bodies = [&streamed, &reading, &endless, &streamed, &endless, &reading];
        let mut open: Vec<_> = bodies
            .iter()
            .map(|body| server.send("POST", "/v1/completions", &[], body.to_string().as_bytes()))
            .collect();
        server.wait_for_sequences(open.len());
        if round % 2 == 0 {
            open[0].read_exact(&mut [0; 16]).expect("the stream begins");
        }
        drop(open);
        server.wait_until_idle();
    }
    let cancelled: f64 = ["queued", "prefill", "decode"]
        .iter()
        .map(|phase| server.metric(&format!("bdh_cancelled_total{{phase=\"{phase}\"}}")))
        .sum();
    assert_eq!(cancelled, 48.0);
    assert_eq!(texts(&server.complete(&json!({"prompt": "A", "max_tokens": 5, "seed": 1})))[0].len(), 5);
}

#[test]
fn requests_that_make_no_sense_are_errors() {
    let server = Server::start(&["--queue", "0", "--parallel", "1"]);
    for (body, param) in [
        (json!({"prompt": 5}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [999]}), "prompt"),
        (json!({"prompt": [[1], "a"], "n": 0}), "n"),
        (json!({"prompt": [1.5]}), "prompt"),
        (json!({"prompt": "a", "max_tokens": -1}), "max_tokens"),
        (json!({"prompt": "a", "max_tokens": 0}), "max_tokens"),
        (json!({"prompt": "a", "temperature": -1}), "temperature"),
        (json!({"prompt": "a", "temperature": "1"}), "temperature"),
        (json!({"prompt": "a", "top_p": 0}), "top_p"),
        (json!({"prompt": "a", "logprobs": "1"}), "logprobs"),
        (json!({"prompt": "a", "logprobs": 1000}), "logprobs"),
        (json!({"prompt": "a", "stop": [""]}), "stop"),
        (json!({"prompt": "a", "stop": 5}), "stop"),
        (json!({"prompt": "a", "best_of": 1, "n": 2}), "best_of"),
        (json!({"prompt": "a", "best_of": 2, "stream": true}), "best_of"),
        (json!({"prompt": "a", "suffix": "b"}), "suffix"),
        (json!({"prompt": vec!["a"; 100], "n": 100}), "n"),
        (json!({"prompt": "a", "stream": "yes"}), "stream"),
        (json!({"prompt": "a", "logit_bias": {"256": 1}}), "logit_bias"),
        (json!({"prompt": "a", "logit_bias": {"a": 1}}), "logit_bias"),
        (json!({"prompt": "a", "logit_bias": {"1": 101}}), "logit_bias"),
        (json!({"prompt": "a", "stop_token_ids": [256]}), "stop_token_ids"),
        (json!({"prompt": "a", "stream_options": 1}), "stream_options"),
        (json!({"model": 5}), "model"),
    ] {
        let answer = server.post("/v1/completions", &body);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["param"].as_str()), (400, Some(param)), "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    for (method, path, body, status) in [
        ("POST", "/v1/completions", &b"{"[..], 400),
        ("POST", "/v1/completions", b"[]", 400),
        ("POST", "/v1/completions", b"\xff\xfe", 400),
        ("POST", "/v1/completions", br#"{"prompt": "a", "model": "other"}"#, 404),
        ("GET", "/v1/completions", b"", 405),
        ("GET", "/nowhere", b"", 404),
        ("GET", "/v1/models/other", b"", 404),
        ("GET", "/v1/states/state-00000000000000000000000000000000", b"", 404),
        ("GET", "/v1/states/..%2f..%2fetc", b"", 404),
        ("POST", "/tokenize", b"{}", 400),
        ("POST", "/detokenize", br#"{"tokens": [300]}"#, 400),
    ] {
        let answer = server.request(method, path, &[], body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert!(answer.json()["error"]["message"].is_string());
    }
    let endless = json!({"prompt": "A", "max_tokens": 100_000_000, "stream": true}).to_string();
    let mut busy = server.send("POST", "/v1/completions", &[], endless.as_bytes());
    busy.read_exact(&mut [0; 16]).expect("the stream begins");
    server.wait_for_sequences(1);
    let full = std::iter::repeat_with(|| server.post("/v1/completions", &json!({"prompt": "a"})));
    let full = full.take(3).find(|answer| answer.status == 429).expect("the queue is full");
    assert_eq!((full.header("retry-after"), full.json()["error"]["code"].as_str()), (Some("1"), Some("overloaded")));
    drop(busy);
    server.wait_until_idle();
    // Unknown fields are named, once.
    server.complete(&json!({"prompt": "a", "user": null, "nonsense": 1}));
    server.complete(&json!({"prompt": "a", "nonsense": 2}));
    assert_eq!(server.log().matches("nonsense").count(), 1, "{}", server.log());
    let strict = Server::start(&["--strict"]);
    let answer = strict.post("/v1/completions", &json!({"prompt": "a", "nonsense": 1}));
    assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some("nonsense")));
}

/// The error object of an answer that has one.
fn check_error(answer: &http::Answer, what: &str) {
    let error = answer.json()["error"].clone();
    assert!((400..500).contains(&answer.status), "{what}: {} {error}", answer.status);
    assert!(error["message"].is_string() && error["type"].is_string(), "{what}: {}", answer.text());
}

/// A route and a body that makes sense there, but for up to three changes.
fn altered_body(random: &mut impl FnMut(usize) -> usize) -> (&'static str, Vec<u8>) {
    let sound: [(&str, &[u8]); 5] = [
        (
            "/v1/completions",
            br#"{"prompt": "KING", "max_tokens": 3, "n": 1, "stop": ["a", "b"], "logprobs": 2, "seed": 1, "stream": false}"#,
        ),
        (
            "/v1/completions",
            br#"{"prompt": [[1, 2], [3]], "temperature": 0.5, "logit_bias": {"1": 2}, "echo": true, "stream_options": {}}"#,
        ),
        ("/v1/completions", br#"{"prompt": "K", "max_tokens": 2, "neurons": {"top_k": 2, "layers": [1, 3], "prompt": true}}"#),
        ("/v1/neurons", br#"{"prompt": "KING", "neuron": "1.23", "layer": 2, "model": "bdh-shakespeare"}"#),
        ("/v1/neurons", br#"{"prompt": [1, 2, 3], "top_k": 3, "layers": [0, 2]}"#),
    ];
    const PARTS: [&[u8]; 16] = [
        b"{", b"}", b"[", b"]", b"\"", b":", b",", b"-", b"1e400", b"null", b"true", b"\xff", b"\\u0000", b".5", b"\n",
        b"{}",
    ];
    let (path, body) = sound[random(sound.len())];
    let mut body = body.to_vec();
    for _ in 0..1 + random(3) {
        let at = random(body.len());
        let end = (at + random(4)).min(body.len());
        let part = PARTS[random(PARTS.len())];
        body.splice(at..end, part.iter().copied());
    }
    (path, body)
}

/// A head that is no HTTP, or means nothing here.
fn altered_head(random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let byte = [0, 1, 0x7f, b' ', b'\n', b'('][random(6)];
    let some = "x".repeat(1 + random(50));
    let (line, headers) = match random(12) {
        0 => (format!("GET  /health HTTP/1.{}", 2 + random(8)), String::new()),
        1 => (format!("G\u{1}T /{some} HTTP/1.1"), String::new()),
        2 => (format!("GET /{} HTTP/1.1", "y".repeat(70_000 + random(1000))), String::new()),
        3 => ("GET /health HTTP/1.1".into(), format!("{some}\r\n")),
        4 => ("GET /health HTTP/1.1".into(), format!("{some}{}z: 1\r\n", byte as char)),
        5 => ("POST /tokenize HTTP/1.1".into(), format!("Content-Length: {some}\r\n")),
        6 => ("POST /tokenize HTTP/1.1".into(), format!("Content-Length: 1\r\nContent-Length: {}\r\n", 2 + random(9))),
        7 => ("POST /tokenize HTTP/1.1".into(), format!("Transfer-Encoding: {some}\r\n")),
        8 => ("GET /health HTTP/1.1".into(), "a: b\r\n".repeat(101 + random(100))),
        9 => ("GET /health HTTP/1.1".into(), format!("Big: {}\r\n", "z".repeat(1 << 20))),
        10 => ("GET /v1/models HTTP/1.1".into(), format!("Host: {some}.example\r\n")),
        _ => (format!("GET /v1/states/%{some} HTTP/1.1"), "Host: localhost\r\n".into()),
    };
    format!("{line}\r\n{headers}Connection: close\r\n\r\n").into_bytes()
}

#[test]
fn whatever_is_sent_is_answered() {
    let server = Server::start(&["--parallel", "1", "--neurons"]);
    let mut state = 1_u64;
    let mut random = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut errors = 0;
    for _ in 0..700 {
        let (path, body) = altered_body(&mut random);
        let answer = server.request("POST", path, &[], &body);
        let what = String::from_utf8_lossy(&body);
        if answer.status == 200 {
            let answered = if path == "/v1/completions" { "choices" } else { "tokens" };
            assert!(answer.json()[answered].is_array(), "{what}");
        } else {
            check_error(&answer, &what);
            errors += 1;
        }
    }
    assert!(errors > 500, "{errors} bodies made no sense");
    for _ in 0..300 {
        let head = altered_head(&mut random);
        let what = String::from_utf8_lossy(&head[..head.len().min(200)]).into_owned();
        check_error(&read_answer(server.send_bytes(&head)), &what);
    }
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.metric("bdh_num_requests_running"), 0.0);
}

#[test]
#[cfg(target_os = "linux")]
fn a_lost_device_ends_what_runs_and_nothing_else() {
    let device = match gpu::device() {
        DeviceChoice::Name(name) => name,
        _ => "gpu".to_owned(),
    };
    let waiting = json!({"prompt": "KING:\n", "max_tokens": 30, "seed": 1});
    let expected = generated(&["-p", "KING:\n", "-n", "30", "--seed", "1"]);
    let endless = json!({"prompt": "A", "max_tokens": 100_000_000, "seed": 1, "stream": true}).to_string();
    for plan in ["vkWait -4 from 0", "vkQueueSubmit -4 from 0"] {
        let driver = faults::Driver::new("");
        let mut server = Server::start_in(&driver.environment(), &["--device", &device, "--parallel", "3"]);
        server.wait_for("/health", 200);
        let running: Vec<_> = (0..3).map(|_| server.send("POST", "/v1/completions", &[], endless.as_bytes())).collect();
        server.wait_for_metric("bdh_time_to_first_token_seconds_count", 3.0);
        let queued: Vec<_> =
            (0..2).map(|_| server.send("POST", "/v1/completions", &[], waiting.to_string().as_bytes())).collect();
        server.wait_for_metric("bdh_num_requests_waiting", 2.0);
        driver.plan(plan);
        for stream in running {
            let rest = read_rest(stream);
            let end = &rest[rest.len().saturating_sub(300)..];
            assert!(end.contains("data: {\"error\"") && !end.contains("[DONE]"), "{plan}: {end}");
        }
        for stream in queued {
            assert_eq!(texts(&read_answer(stream).json()), std::slice::from_ref(&expected), "{plan}");
        }
        assert_eq!(texts(&server.complete(&waiting)), std::slice::from_ref(&expected), "{plan}");
        assert_eq!(server.metric("bdh_request_failures_total"), 3.0, "{plan}");
        let begun = std::time::Instant::now();
        while !server.log().contains("new sequences run on CPU") {
            assert!(begun.elapsed() < http::PATIENCE, "{plan}: {}", server.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        server.signal("TERM");
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn keys_and_hosts_are_checked() {
    let server = Server::start(&["--api-key", "one,two"]);
    let bearer = |key: &str| {
        let value = format!("Bearer {key}");
        server.request("GET", "/v1/models", &[("Authorization", &value)], &[]).status
    };
    assert_eq!((bearer("one"), bearer("two"), bearer("three"), bearer("")), (200, 200, 401, 401));
    let refused = server.get("/v1/models");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!((server.get("/health").status, server.get("/").status), (200, 200));
    // A state belongs to the key that made it.
    let made = server.request("POST", "/v1/states", &[("Authorization", "Bearer one")], b"{}");
    let path = format!("/v1/states/{}", made.json()["id"].as_str().unwrap());
    let by = |key| server.request("GET", &path, &[("Authorization", key)], &[]).status;
    assert_eq!((by("Bearer one"), by("Bearer two")), (200, 404));

    let open = Server::start(&[]);
    // Programs without a key send an empty one.
    assert_eq!(open.request("GET", "/v1/models", &[("Authorization", "Bearer ")], &[]).status, 200);
    assert_eq!(open.request("GET", "/v1/models", &[("Host", "evil.example")], &[]).status, 403);
}

#[test]
fn states_go_on_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store").display().to_string();
    let mut first = Server::start(&["--state-store", &store]);
    let second = Server::start(&["--state-store", &store]);
    let begun = first.complete(&json!({"prompt": "KING:\n", "max_tokens": 40, "seed": 1, "keep_state": true}));
    let state = begun["choices"][0]["state"].as_str().unwrap().to_owned();
    let go_on = |server: &Server, state: &str| {
        let body = json!({"prompt": "QUEEN:\n", "max_tokens": 40, "seed": 2, "state": state});
        texts(&server.complete(&body)).remove(0)
    };
    let text = go_on(&first, &state);
    // It can be used again, here and elsewhere, copied, saved, loaded and taken away.
    assert_eq!((go_on(&first, &state), go_on(&second, &state)), (text.clone(), text.clone()));
    let fork = first.request("POST", &format!("/v1/states/{state}/fork"), &[], &[]).json();
    assert_eq!(go_on(&first, fork["id"].as_str().unwrap()), text);
    let file = first.get(&format!("/v1/states/{state}/file"));
    let path = folder.path().join("saved.state");
    std::fs::write(&path, &file.body).unwrap();
    let path = path.display().to_string();
    assert_eq!(generated(&["--load-state", &path, "-p", "QUEEN:\n", "-n", "40", "--seed", "2"]), text);
    let empty = second.post("/v1/states", &json!({})).json();
    let empty = empty["id"].as_str().unwrap();
    let other = second.get(&format!("/v1/states/{empty}/file"));
    let fresh = json!({"prompt": "A", "max_tokens": 9, "seed": 3});
    let mut from_empty = fresh.clone();
    from_empty["state"] = empty.into();
    assert_eq!(texts(&second.complete(&from_empty)), texts(&second.complete(&fresh)));
    let put = second.request("PUT", &format!("/v1/states/{empty}/file"), &[], &file.body);
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(go_on(&second, empty), text);
    // What one server replaces or deletes, the other does not remember as it was.
    assert_eq!(go_on(&first, empty), text);
    let put = second.request("PUT", &format!("/v1/states/{empty}/file"), &[], &other.body);
    assert_eq!(put.status, 200, "{}", put.text());
    assert_ne!(go_on(&first, empty), text);
    let gone = first.request("DELETE", &format!("/v1/states/{empty}"), &[], &[]);
    assert_eq!((gone.status, second.get(&format!("/v1/states/{empty}")).status), (200, 404));
    let empty = second.post("/v1/states", &json!({})).json();
    let empty = empty["id"].as_str().unwrap();
    let damaged = second.request("PUT", &format!("/v1/states/{empty}/file"), &[], &file.body[..1000]);
    assert_eq!(damaged.status, 400, "{}", damaged.text());
    assert!(!damaged.text().contains("/tmp"), "{}", damaged.text());
    // A server that is killed leaves its conversations to the others.
    #[cfg(unix)]
    first.signal("KILL");
    first.wait();
    assert_eq!(go_on(&second, fork["id"].as_str().unwrap()), text);
    let gone = second.request("DELETE", &format!("/v1/states/{state}"), &[], &[]);
    assert_eq!(gone.status, 200);
    assert_eq!(second.get(&format!("/v1/states/{state}")).status, 404);
    assert_eq!(second.post("/v1/completions", &json!({"prompt": "a", "state": state})).status, 404);
}

#[test]
fn states_are_forgotten() {
    let keep = |server: &Server| {
        let kept = server.complete(&json!({"prompt": "A", "max_tokens": 1, "keep_state": true}));
        format!("/v1/states/{}", kept["choices"][0]["state"].as_str().unwrap())
    };
    // A state has 8 MiB: the third takes the place of the first.
    let server = Server::start(&["--state-budget", "20MiB"]);
    let states = [keep(&server), keep(&server), keep(&server)];
    assert_eq!(states.map(|path| server.get(&path).status), [404, 200, 200]);
    let server = Server::start(&["--state-ttl", "1s"]);
    let kept = keep(&server);
    // To ask for it would renew it.
    let begun = std::time::Instant::now();
    while server.metric("bdh_state_bytes{of=\"conversations\"}") > 0.0 {
        assert!(begun.elapsed() < http::PATIENCE);
    }
    assert_eq!(server.get(&kept).status, 404);
}

#[test]
#[cfg(unix)]
fn it_ends_when_its_requests_have() {
    let endless = |tokens: u64| json!({"prompt": "A", "max_tokens": tokens, "seed": 1, "stream": true}).to_string();
    // The first signal lets a stream end.
    let mut server = Server::start(&[]);
    let mut open = server.send("POST", "/v1/completions", &[], endless(4000).as_bytes());
    open.read_exact(&mut [0; 16]).expect("the stream begins");
    server.signal("TERM");
    server.wait_for("/readyz", 503);
    let refused = server.post("/v1/completions", &json!({"prompt": "a"}));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(server.get("/livez").status, 200);
    let answer = read_rest(open);
    assert!(answer.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{}", &answer[answer.len().saturating_sub(200)..]);
    assert_eq!(server.wait().code(), Some(0));
    // The second one ends it.
    let mut server = Server::start(&[]);
    let mut open = server.send("POST", "/v1/completions", &[], endless(100_000_000).as_bytes());
    open.read_exact(&mut [0; 16]).expect("the stream begins");
    server.signal("INT");
    server.wait_for("/readyz", 503);
    server.signal("INT");
    let answer = read_rest(open);
    assert!(answer.contains("the server is shutting down"), "{}", &answer[answer.len().saturating_sub(200)..]);
    assert_eq!(server.wait().code(), Some(0));
    // While the model loads there is nothing to wait for.
    let mut server = Server::start_at_once(&["--device", "cpu"]);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

/// What is left of an answer, as it comes over the connection.
#[cfg(unix)]
fn read_rest(mut stream: std::net::TcpStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the answer ends");
    String::from_utf8_lossy(&rest).into_owned()
}

#[test]
fn other_routes_say_what_clients_ask() {
    let server = Server::start(&["--alias", "poet"]);
    let models = server.get("/v1/models").json();
    assert_eq!((models["data"][0]["id"].as_str(), &models["data"][0]["max_model_len"]), (Some("poet"), &Value::Null));
    assert_eq!(server.get("/v1/models/poet").json()["meta"]["n_vocab"], 256);
    assert_eq!(server.post("/tokenize", &json!({"content": "hé"})).json()["tokens"], json!([104, 195, 169]));
    assert_eq!(server.post("/tokenize", &json!({"prompt": "hé"})).json()["count"], 3);
    let text = server.post("/detokenize", &json!({"tokens": [104, 195, 169]})).json();
    assert_eq!((&text["prompt"], &text["content"]), (&json!("hé"), &json!("hé")));
    let info = server.get("/tokenizer_info").json();
    assert!(info.as_object().unwrap().contains_key("eos_token") && info["bos_token"] == "\n");
    let beams = server.complete(&json!({"prompt": "To be", "use_beam_search": true, "n": 2, "max_tokens": 12}));
    let expected = generated(&["-p", "To be", "-n", "12", "--num-beams", "2", "--num-return-sequences", "1"]);
    assert_eq!(texts(&beams)[0], expected);
    for line in server.get("/metrics").text().lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a number");
        assert!(name.starts_with("bdh_") && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn scores_are_those_of_the_command_line() {
    let server = Server::start(&[]);
    let text = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n".repeat(4);
    let output = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"))
        .args(["score", "--device", "cpu", "--quiet", "--format", "json", "--text", &text])
        .output()
        .expect("the program runs");
    let expected: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let score = server.post("/v1/score", &json!({"text": text})).json();
    for (name, same) in [("total_logprob", "total"), ("bits_per_byte", "bits_per_byte")] {
        let (got, expected) = (score[name].as_f64().unwrap(), expected[same].as_f64().unwrap());
        // The server's log-probabilities are 32-bit floats.
        assert!((got - expected).abs() < 1e-6 * expected.abs(), "{name}: {got}, {expected}");
    }
    let tokens = server.post("/v1/score", &json!({"tokens": text.as_bytes()})).json();
    assert_eq!(tokens["token_logprobs"], score["token_logprobs"]);
    assert_eq!(server.post("/v1/score", &json!({"text": "a"})).status, 400);
    assert_eq!(server.post("/v1/score", &json!({})).status, 400);
    let described = server.get("/openapi.json").json();
    assert_eq!(
        described["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
            ["temperature"]["minimum"],
        0.0
    );
}

#[test]
fn chats_are_completions_of_what_the_template_writes() {
    let server = Server::start(&["--chat-template", "user-assistant"]);
    let messages = json!([
        {"role": "user", "content": "Who is there?"},
        {"role": "assistant", "content": "A friend."},
        {"role": "user", "content": [{"type": "text", "text": "What news?"}]},
    ]);
    let written = "User: Who is there?\nAssistant: A friend.\nUser: What news?\nAssistant:";
    let text = server.complete(&json!({"prompt": written, "max_tokens": 50, "seed": 1, "logprobs": 1}));
    let asked = json!({"messages": messages, "max_tokens": 50, "seed": 1, "logprobs": true, "top_logprobs": 1});
    let chat = server.post("/v1/chat/completions", &asked).json();
    assert_eq!(
        (chat["object"].as_str(), chat["choices"][0]["message"]["role"].as_str()),
        (Some("chat.completion"), Some("assistant"))
    );
    assert_eq!(chat["choices"][0]["message"]["content"], text["choices"][0]["text"]);
    assert_eq!((&chat["usage"]["total_tokens"], &chat["choices"][0]["seed"]), (&json!(118), &json!(1)));
    // The same prompt is not read again.
    assert_eq!(chat["usage"]["prompt_tokens_details"]["cached_tokens"], 67);
    let listed = &text["choices"][0]["logprobs"];
    for (index, token) in chat["choices"][0]["logprobs"]["content"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&token["token"], &token["logprob"]), (&listed["tokens"][index], &listed["token_logprobs"][index]));
        assert!(token["bytes"].is_array() && !token["top_logprobs"].as_array().unwrap().is_empty());
    }
    let streamed = json!({"messages": messages, "max_tokens": 50, "seed": 1, "stream": true});
    let events = server.post("/v1/chat/completions", &streamed).events();
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let content = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
    assert_eq!(chunks.iter().map(content).collect::<String>(), text["choices"][0]["text"]);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    for (body, param) in [
        (json!({}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "user", "content": 5}]}), "messages"),
        (json!({"messages": messages, "top_logprobs": 2}), "top_logprobs"),
    ] {
        let answer = server.post("/v1/chat/completions", &body);
        assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some(param)), "{body}");
    }
    let without = Server::start(&[]);
    let refused = without.post("/v1/chat/completions", &json!({"messages": messages}));
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (400, Some("no_chat_template")));
    assert!(refused.text().contains("option chat_template"));
}

/// Neurons of each head of the shipped model.
const PER_HEAD: u32 = 1024;

/// What `Session::watch` shows of a prompt's tokens and of those drawn after it, which are returned
/// too.
fn shown(prompt: &str, max_new_tokens: usize) -> (Vec<TokenTrace>, Vec<u32>) {
    let bdh = Bdh::new(Model::embedded().unwrap(), &DeviceChoice::Cpu, WeightChoice::Auto).unwrap();
    let mut session = bdh.session().unwrap();
    let (sender, seen) = std::sync::mpsc::channel();
    session.watch(move |token| drop(sender.send(token)));
    session.feed(&bdh.encode(prompt.as_bytes()).unwrap()).unwrap();
    let options = GenerationOptions { max_new_tokens, seed: Some(1), ..bdh.options() };
    let tokens = if max_new_tokens > 0 { session.generate(&options).unwrap().tokens } else { Vec::new() };
    // The last token is read for the logits after it.
    session.next_logits().unwrap();
    (seen.try_iter().collect(), tokens)
}

/// The first choice of each of a stream's chunks.
fn choices_of(stream: &http::Answer) -> Vec<Value> {
    let events = stream.events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{}", stream.text());
    let chunk = |event: &String| serde_json::from_str::<Value>(event).expect("JSON")["choices"][0].clone();
    events[..events.len() - 1].iter().map(chunk).collect()
}

/// A token of an answer against what a session has shown of it.
fn check_neurons(answer: &Value, expected: &TokenTrace, layers: &[usize], top_k: usize) {
    assert_eq!((&answer["position"], &answer["id"]), (&json!(expected.position), &json!(expected.token)));
    let own = answer["layers"].as_array().expect("layers");
    assert_eq!(own.iter().map(|layer| layer["layer"].as_u64().unwrap() as usize).collect::<Vec<_>>(), layers);
    for layer in own {
        let fired = &expected.neurons[layer["layer"].as_u64().unwrap() as usize];
        assert_eq!((&layer["u"], &layer["g"]), (&json!(fired.len()), &json!(fired.open())));
        let top = layer["top"].as_array().unwrap();
        assert!(top.len() == top_k.min(fired.len()) && (top_k == 0 || !top.is_empty()));
        for (got, expected) in top.iter().zip(strongest(fired, top_k)) {
            let number = |name: &str| got[name].as_f64().unwrap() as f32;
            assert_eq!((number("u"), number("g")), (expected.u, expected.g));
            assert_eq!(got["neuron"].as_str(), Some(neuron_name(expected.neuron).as_str()));
        }
    }
}

#[test]
fn neurons_come_with_texts_and_change_none() {
    let server = Server::start(&["--parallel", "3", "--neurons"]);
    let plain = json!({"prompt": "KING:\n", "max_tokens": 20, "seed": 1, "return_token_ids": true});
    let expected = server.complete(&plain);
    let tokens: Vec<u32> =
        expected["choices"][0]["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let (shown, drawn) = shown("KING:\n", 20);
    assert_eq!(drawn, tokens);
    let with = |neurons: Value| {
        let mut body = plain.clone();
        body["neurons"] = neurons;
        body
    };
    let all: Vec<usize> = (0..shown[0].neurons.len()).collect();
    for (neurons, first, layers, top_k) in [
        (json!({}), 6, &all[..], 8),
        (json!({"top_k": 3, "layers": [2, 0]}), 6, &[0, 2], 3),
        (json!({"top_k": 0, "prompt": true}), 0, &all, 0),
    ] {
        let answer = server.complete(&with(neurons.clone()));
        assert_eq!((texts(&answer), &answer["usage"]), (texts(&expected), &expected["usage"]), "{neurons}");
        let whole = answer["choices"][0]["neurons"].as_array().unwrap().clone();
        assert_eq!(whole.len(), shown.len() - first);
        for (own, shown) in whole.iter().zip(&shown[first..]) {
            check_neurons(own, shown, layers, top_k);
        }
        // The same in a stream, beside each piece's own tokens.
        let mut body = with(neurons);
        body["stream"] = true.into();
        let mut streamed = Vec::new();
        for choice in choices_of(&server.post("/v1/completions", &body)) {
            let own = choice["neurons"].as_array().unwrap();
            let drawn = own.iter().filter(|token| token["position"].as_u64().unwrap() >= 6);
            assert_eq!(
                drawn.map(|token| token["id"].clone()).collect::<Vec<_>>(),
                *choice["token_ids"].as_array().unwrap()
            );
            streamed.extend(own.clone());
        }
        assert_eq!(streamed, whole);
    }
    assert!(expected["choices"][0].get("neurons").is_none());
    // With the prompt's text come its neurons; in a chat's form they stand beside the message.
    let echoed = server.complete(&json!({"prompt": "KING:\n", "max_tokens": 0, "echo": true, "neurons": {"top_k": 2}}));
    let own = echoed["choices"][0]["neurons"].as_array().unwrap();
    assert_eq!(own.len(), 6);
    own.iter().zip(&shown).for_each(|(own, shown)| check_neurons(own, shown, &all, 2));
    // A stop text has none, nor what comes after it.
    let stopped =
        server.complete(&json!({"prompt": "KING:\n", "max_tokens": 500, "seed": 1, "stop": "th", "neurons": {}}));
    let choice = &stopped["choices"][0];
    assert_eq!(choice["neurons"].as_array().unwrap().len(), choice["text"].as_str().unwrap().len());
}

#[test]
fn a_watched_request_changes_nothing_beside_it() {
    let server = Server::start(&["--parallel", "4", "--neurons"]);
    let long = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n".repeat(3);
    let request = |index: usize| {
        let prompt = ["KING:\n", "To be", &long][index % 3];
        json!({"prompt": prompt, "max_tokens": 12 + 5 * (index % 4), "seed": index % 5})
    };
    let watched = |index: usize| {
        let mut body = request(index);
        body["neurons"] = json!({"top_k": 2, "prompt": index.is_multiple_of(4)});
        body
    };
    let alone: Vec<Value> = (0..24).map(|index| server.complete(&watched(index))).collect();
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let (server, alone) = (&server, &alone);
            scope.spawn(move || {
                for index in (0..24).rev().filter(|index| index % 6 == worker) {
                    if index % 2 == worker / 3 {
                        let answer = server.complete(&watched(index));
                        assert_eq!(answer["choices"], alone[index]["choices"], "{index}");
                    } else {
                        assert_eq!(texts(&server.complete(&request(index))), texts(&alone[index]), "{index}");
                        assert_eq!(server.stream(request(index)).0, texts(&alone[index])[0], "{index}");
                    }
                }
            });
        }
    });
}

#[test]
fn neurons_of_a_prompt_have_the_shapes_of_neuronpedia() {
    let server = Server::start(&["--neurons", "--parallel", "1"]);
    let text = "To be or not to be";
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    let (shown, _) = shown(text, 0);
    let ask = |body: Value| {
        let answer = server.post("/v1/neurons", &body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        answer.json()
    };
    let names: Vec<String> = text.chars().map(String::from).collect();
    let number = |value: &Value| value.as_f64().unwrap() as f32;

    let answer = ask(json!({"prompt": text, "top_k": 3}));
    assert_eq!((&answer["object"], &answer["tokens"]), (&json!("neurons"), &json!(names)));
    assert_eq!(answer["usage"], json!({"prompt_tokens": 18, "completion_tokens": 0, "total_tokens": 18}));
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 18);
    for (position, (result, shown)) in results.iter().zip(&shown).enumerate() {
        assert_eq!((&result["token"], &result["tokenPosition"]), (&json!(names[position]), &json!(position)));
        let layers = shown.neurons.iter().map(|fired| strongest(fired, 3)).enumerate();
        let expected = strongest_of_layers(layers, 3);
        let features = result["topFeatures"].as_array().unwrap();
        assert_eq!(features.len(), 3);
        for (feature, (layer, firing)) in features.iter().zip(expected) {
            assert_eq!((&feature["index"], &feature["layer"]), (&json!(firing.neuron), &json!(layer)));
            assert_eq!(feature["neuron"].as_str(), Some(neuron_name(firing.neuron).as_str()));
            assert_eq!((number(&feature["activationValue"]), number(&feature["u"])), (firing.g, firing.u));
        }
    }
    assert_eq!(ask(json!({"prompt": tokens, "top_k": 3}))["results"], answer["results"]);
    let few = ask(json!({"prompt": text, "layers": [1]}));
    let of_layer = |feature: &Value| feature["layer"] == 1;
    let all = few["results"].as_array().unwrap().iter().flat_map(|own| own["topFeatures"].as_array().unwrap());
    assert!(all.clone().count() == 8 * 18 && all.clone().all(of_layer));

    // The neuron that is strongest somewhere, over the whole text.
    let best = &results[7]["topFeatures"][0];
    let index = best["index"].as_u64().unwrap() as u32;
    let of_all = ask(json!({"prompt": text, "neuron": best["neuron"]}));
    assert_eq!((&of_all["neuron"], &of_all["index"]), (&best["neuron"], &best["index"]));
    for (layer, own) in of_all["activations"].as_array().unwrap().iter().enumerate() {
        assert_eq!(own["layer"], layer);
        for (position, shown) in shown.iter().enumerate() {
            let (u, g) = shown.neurons[layer].find(index).map_or((0.0, 0.0), |firing| (firing.u, firing.g));
            assert_eq!((number(&own["u"][position]), number(&own["values"][position])), (u, g));
        }
        let values: Vec<f32> = own["values"].as_array().unwrap().iter().map(number).collect();
        let largest = values.iter().copied().fold(0.0, f32::max);
        assert_eq!(number(&own["maxValue"]), largest);
        assert_eq!(values[own["maxValueIndex"].as_u64().unwrap() as usize], largest);
    }
    let one = ask(json!({"prompt": text, "neuron": best["neuron"], "layer": best["layer"]}));
    let of_all = &of_all["activations"][best["layer"].as_u64().unwrap() as usize];
    for name in ["layer", "values", "maxValue", "maxValueIndex", "u"] {
        assert_eq!(one[name], of_all[name], "{name}");
    }
    assert_eq!(one["tokens"], json!(names));

    // Who leaves frees the slot.
    let long = json!({"prompt": "x".repeat(4096)}).to_string();
    let endless = json!({"prompt": "A", "max_tokens": 100_000_000, "stream": true}).to_string();
    let busy = server.send("POST", "/v1/completions", &[], endless.as_bytes());
    server.wait_for_sequences(1);
    let waiting = server.send("POST", "/v1/neurons", &[], long.as_bytes());
    server.wait_for_sequences(2);
    drop(busy);
    server.wait_for_metric("bdh_num_requests_waiting", 0.0);
    drop(waiting);
    server.wait_until_idle();
}

#[test]
fn questions_about_neurons_that_make_no_sense_are_errors() {
    let server = Server::start(&["--neurons"]);
    for (path, body, param) in [
        ("/v1/neurons", json!({}), "prompt"),
        ("/v1/neurons", json!({"prompt": ""}), "prompt"),
        ("/v1/neurons", json!({"prompt": "x".repeat(4097)}), "prompt"),
        ("/v1/neurons", json!({"prompt": [256]}), "prompt"),
        ("/v1/neurons", json!({"prompt": "a", "neuron": "4.0"}), "neuron"),
        ("/v1/neurons", json!({"prompt": "a", "neuron": "x"}), "neuron"),
        ("/v1/neurons", json!({"prompt": "a", "neuron": "0.0", "layer": 99}), "layer"),
        ("/v1/neurons", json!({"prompt": "a", "neuron": "0.0", "top_k": 1}), "top_k"),
        ("/v1/neurons", json!({"prompt": "a", "layer": 0}), "layer"),
        ("/v1/neurons", json!({"prompt": "a", "top_k": 65}), "top_k"),
        ("/v1/neurons", json!({"prompt": "a", "layers": [99]}), "layers"),
        ("/v1/completions", json!({"prompt": "a", "neurons": 1}), "neurons"),
        ("/v1/completions", json!({"prompt": "a", "neurons": {"top": 1}}), "neurons"),
        ("/v1/completions", json!({"prompt": "a", "neurons": {"top_k": 65}}), "neurons.top_k"),
        ("/v1/completions", json!({"prompt": "a", "neurons": {"layers": [99]}}), "neurons.layers"),
        ("/v1/completions", json!({"prompt": "a", "neurons": {"prompt": "yes"}}), "neurons.prompt"),
        ("/v1/completions", json!({"prompt": "a", "neurons": {}, "max_tokens": 1_000_000}), "neurons"),
        ("/v1/completions", json!({"prompt": "a", "neurons": {}, "use_beam_search": true}), "neurons"),
    ] {
        let answer = server.post(path, &body);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["param"].as_str()), (400, Some(param)), "{body}: {error}");
    }
    assert_eq!(server.post("/v1/neurons", &json!({"prompt": "a", "model": "other"})).status, 404);
    assert_eq!(server.get("/v1/neurons").status, 405);
    // Without the option nobody is watched, on the CPU neither.
    let without = Server::start(&["--chat-template", "transcript"]);
    for (path, body) in [
        ("/v1/neurons", json!({"prompt": "a"})),
        ("/v1/completions", json!({"prompt": "a", "neurons": {}})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "a"}], "neurons": {}})),
    ] {
        let answer = without.post(path, &body);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["code"].as_str()), (400, Some("no_neurons")), "{path}: {error}");
        assert!(error["message"].as_str().unwrap().contains("option neurons"), "{error}");
    }
}

#[test]
fn chats_bring_neurons_and_graphics_cards_do() {
    let device = match gpu::device() {
        DeviceChoice::Name(name) => name,
        _ => "gpu".to_owned(),
    };
    let server = Server::start_at_once(&["--device", &device, "--neurons", "--chat-template", "user-assistant"]);
    server.wait_for("/health", 200);
    let asked = json!({"messages": [{"role": "user", "content": "Who?"}], "max_tokens": 8, "seed": 1});
    let plain = server.post("/v1/chat/completions", &asked).json();
    let mut asked = asked;
    asked["neurons"] = json!({"top_k": 1, "layers": [0]});
    let watched = server.post("/v1/chat/completions", &asked).json();
    let choice = &watched["choices"][0];
    assert_eq!(choice["message"], plain["choices"][0]["message"]);
    assert_eq!(json!(choice["neurons"].as_array().unwrap().len()), watched["usage"]["completion_tokens"]);
    asked["stream"] = true.into();
    let choices = choices_of(&server.post("/v1/chat/completions", &asked));
    let streamed: Vec<Value> =
        choices.iter().flat_map(|choice| choice["neurons"].as_array().cloned().unwrap_or_default()).collect();
    assert_eq!(json!(streamed), choice["neurons"]);
}
