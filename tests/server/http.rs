//! A server of this program, and a client that can do what clients should not.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A running server, which ends with the test.
pub struct Server {
    process: Child,
    address: String,
    /// What it has said so far.
    log: std::sync::Arc<std::sync::Mutex<String>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The events of a stream.
    pub fn events(&self) -> Vec<String> {
        let text = self.text();
        let events = text.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
        events.map(|event| event.strip_prefix("data: ").expect("an event").to_owned()).collect()
    }
}

impl Server {
    /// Starts a server with the shipped model and waits until it takes requests.
    pub fn start(arguments: &[&str]) -> Self {
        let server = Self::start_at_once(&[&["--device", "cpu"], arguments].concat());
        server.wait_for("/health", 200);
        server
    }

    /// Starts a server.
    pub fn start_at_once(arguments: &[&str]) -> Self {
        Self::start_in(&[], arguments)
    }

    /// Starts a server with more variables in its environment.
    pub fn start_in(environment: &[(&str, PathBuf)], arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"))
            .args(["serve", "--port", "0"])
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe"));
        let mut first = String::new();
        lines.read_line(&mut first).expect("a line");
        let address = first.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{first}")).to_owned();
        let log = std::sync::Arc::new(std::sync::Mutex::new(first));
        let seen = log.clone();
        std::thread::spawn(move || {
            lines.lines().map_while(Result::ok).for_each(|line| *seen.lock().unwrap() += &(line + "\n"));
        });
        Self { process, address, log }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a status.
    pub fn wait_for(&self, path: &str, status: u16) {
        let begun = Instant::now();
        while self.get(path).status != status {
            assert!(begun.elapsed() < PATIENCE, "{path} is never {status}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Opens a connection and sends a request.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.send_bytes(&[(head + "\r\n").as_bytes(), body].concat())
    }

    /// Opens a connection and sends what may be no request.
    pub fn send_bytes(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(bytes);
        stream
    }

    /// Sends a request and reads the answer.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        read_answer(self.send(method, path, headers, body))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], &[])
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    /// A completion that succeeds.
    pub fn complete(&self, body: &Value) -> Value {
        let answer = self.post("/v1/completions", body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        answer.json()
    }

    /// The text of a stream, put together, and its last choice.
    pub fn stream(&self, mut body: Value) -> (String, Value) {
        body["stream"] = true.into();
        let answer = self.post("/v1/completions", &body);
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"), "{}", answer.text());
        let mut events = answer.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"));
        let chunks = events.iter().map(|event| serde_json::from_str::<Value>(event).expect("JSON"));
        let choices: Vec<Value> = chunks.map(|chunk| chunk["choices"][0].clone()).filter(|c| !c.is_null()).collect();
        let text = choices.iter().map(|choice| choice["text"].as_str().expect("a text")).collect();
        (text, choices.last().expect("a choice").clone())
    }

    /// A number of the metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }

    /// Waits until nothing runs and nothing waits.
    pub fn wait_until_idle(&self) {
        self.wait_for_sequences(0);
    }

    /// Waits until so many sequences run and requests wait.
    pub fn wait_for_sequences(&self, count: usize) {
        let begun = Instant::now();
        while self.metric("bdh_num_requests_running") + self.metric("bdh_num_requests_waiting") != count as f64 {
            assert!(begun.elapsed() < PATIENCE, "{}", self.get("/metrics").text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a number of the metrics has a value.
    pub fn wait_for_metric(&self, name: &str, value: f64) {
        let begun = Instant::now();
        while self.metric(name) != value {
            assert!(begun.elapsed() < PATIENCE, "{}", self.get("/metrics").text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("a child") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads an answer to the end of its connection.
pub fn read_answer(stream: TcpStream) -> Answer {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let split = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers: Vec<_> = lines.iter().skip(1).filter_map(split).collect();
    let mut body = Vec::new();
    let _ = reader.read_to_end(&mut body);
    let chunked =
        headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("transfer-encoding") && value == "chunked");
    Answer { status, headers, body: if chunked { unchunked(&body) } else { body } }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|pair| pair == b"\r\n") {
        let length = std::str::from_utf8(&body[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(length) = length.filter(|&length| length > 0 && body.len() >= end + 4 + length) else { break };
        whole.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 4 + length..];
    }
    whole
}
