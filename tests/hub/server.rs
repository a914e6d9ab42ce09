//! A small Hub on this machine: the routes, headers and redirections of the real one, and its
//! failures on request.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server was asked, and how many bytes of a body it sent.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub sent: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Names and values.
pub type Headers = Vec<(&'static str, String)>;

/// What to do instead of what the real Hub does.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Answers with this status and these headers where an address contains this text.
    pub answers: Vec<(&'static str, &'static str, Headers)>,
    /// Closes the connection after this many bytes of each large file, this many times.
    pub breaks: Option<(usize, usize)>,
    /// Sends whole files, whatever range is asked for.
    pub ignores_ranges: bool,
    /// Sends this in place of large files.
    pub replaces: Option<Vec<u8>>,
    /// Leaves out the length of large files: they end with the connection.
    pub hides_length: bool,
    /// Says this of large files.
    pub headers: Headers,
    /// Says this instead of describing the model.
    pub description: Option<String>,
}

/// One model: its revisions, and the files of each commit.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub revisions: BTreeMap<String, String>,
    pub commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The token without which nobody sees it.
    pub token: Option<&'static str>,
}

#[derive(Default)]
struct State {
    repository: Repository,
    faults: Faults,
    requests: Vec<Request>,
    closed: bool,
}

/// The name of the one model.
pub const NAME: &str = "somebody/tiny-dragon";

pub struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start(repository: Repository) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State { repository, ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.lock().unwrap().closed {
                    return;
                }
                let state = shared.clone();
                std::thread::spawn(move || answer(stream, port, &state));
            }
        });
        Self { port, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Changes the failures of the requests to come.
    pub fn set(&self, faults: Faults) {
        self.state.lock().unwrap().faults = faults;
    }

    /// Changes the model.
    pub fn publish(&self, repository: Repository) {
        self.state.lock().unwrap().repository = repository;
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Closes the port.
    pub fn stop(&self) {
        self.state.lock().unwrap().closed = true;
        // The listener goes when it has accepted one more connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            std::thread::yield_now();
        }
    }
}

/// Whether a file is stored apart from the others, with its SHA-256 as its ETag.
fn is_large(file: &str) -> bool {
    [".safetensors", ".pt", ".npz"].iter().any(|end| file.ends_with(end))
}

/// A file's ETag.
pub fn etag(file: &str, content: &[u8]) -> String {
    let mut hash = Context::new(if is_large(file) { &SHA256 } else { &SHA1_FOR_LEGACY_USE_ONLY });
    if !is_large(file) {
        hash.update(format!("blob {}\0", content.len()).as_bytes());
    }
    hash.update(content);
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let headers = headers.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    });
    Some(Request { method, headers: headers.collect(), path, sent: 0 })
}

/// An answer: its status, its headers, and a body with a length or without.
struct Answer {
    status: &'static str,
    headers: Headers,
    body: Vec<u8>,
    /// Bytes of the body after which the connection breaks.
    breaks: Option<usize>,
    hides_length: bool,
}

impl Answer {
    fn new(status: &'static str, headers: Headers, body: Vec<u8>) -> Self {
        Self { status, headers, body, breaks: None, hides_length: false }
    }
}

fn answer(mut stream: TcpStream, port: u16, state: &Mutex<State>) {
    let Some(mut request) = read_request(&stream) else { return };
    let answer = decide(&request, port, &mut state.lock().unwrap());
    let is_sized = |name: &str| answer.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !answer.hides_length && !is_sized("content-length") {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    let length = if request.method == "HEAD" { 0 } else { answer.breaks.unwrap_or(usize::MAX).min(answer.body.len()) };
    request.sent = length;
    // Written down first: the client may look once it has the answer.
    state.lock().unwrap().requests.push(request);
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(&answer.body[..length]);
}

fn decide(request: &Request, port: u16, state: &mut State) -> Answer {
    let path = request.path.as_str();
    if let Some((_, status, headers)) = state.faults.answers.iter().find(|(part, ..)| path.contains(part)) {
        return Answer::new(status, headers.clone(), b"{}".to_vec());
    }
    if let Some(file) = path.strip_prefix("/stored/") {
        return stored(request, file, state);
    }
    let missing = |code: &str| {
        let message = ("X-Error-Message", "there is none".to_owned());
        Answer::new("404 Not Found", vec![("X-Error-Code", code.to_owned()), message], Vec::new())
    };
    if let Some(token) = state.repository.token
        && request.header("authorization") != Some(&format!("Bearer {token}"))
    {
        return Answer::new("401 Unauthorized", vec![("X-Error-Code", "RepoNotFound".to_owned())], Vec::new());
    }
    let commit_of = |revision: &str| {
        let revision = revision.replace("%2F", "/");
        let commit = state.repository.revisions.get(&revision).unwrap_or(&revision);
        state.repository.commits.get_key_value(commit)
    };
    if let Some(revision) = path.strip_prefix(&format!("/api/models/{NAME}/revision/")) {
        let Some((commit, files)) = commit_of(revision) else { return missing("RevisionNotFound") };
        let siblings: Vec<_> = files.keys().map(|file| json!({ "rfilename": file })).collect();
        let description = json!({ "id": NAME, "sha": commit, "siblings": siblings }).to_string();
        let description = state.faults.description.clone().unwrap_or(description);
        return Answer::new("200 OK", vec![("Content-Type", "application/json".to_owned())], description.into());
    }
    // Small files are served by another path of the same server, after a relative redirection.
    let cached = path.strip_prefix(&format!("/api/resolve-cache/models/{NAME}/"));
    let Some(rest) = cached.or_else(|| path.strip_prefix(&format!("/{NAME}/resolve/"))) else {
        return missing("RepoNotFound");
    };
    let Some((revision, file)) = rest.split_once('/') else { return missing("EntryNotFound") };
    let Some((commit, files)) = commit_of(revision) else { return missing("RevisionNotFound") };
    let file = file.replace("%20", " ");
    let Some(content) = files.get(&file) else { return missing("EntryNotFound") };
    let mut headers = vec![("X-Repo-Commit", commit.clone())];
    if is_large(&file) {
        headers.extend([
            ("X-Linked-Size", content.len().to_string()),
            ("X-Linked-ETag", format!("\"{}\"", etag(&file, content))),
            ("ETag", "\"of the redirection\"".to_owned()),
            ("Location", format!("http://localhost:{port}/stored/{commit}/{}", file.replace(' ', "%20"))),
        ]);
        for (name, value) in &state.faults.headers {
            headers.retain(|(other, _)| other != name);
            headers.push((name, value.clone()));
        }
        return Answer::new("302 Found", headers, Vec::new());
    }
    if cached.is_none() {
        headers.push(("Location", format!("/api/resolve-cache/models/{NAME}/{commit}/{file}")));
        return Answer::new("307 Temporary Redirect", headers, Vec::new());
    }
    headers.push(("ETag", format!("\"{}\"", etag(&file, content))));
    Answer::new("200 OK", headers, content.clone())
}

/// The server behind the Hub that has the large files.
fn stored(request: &Request, file: &str, state: &mut State) -> Answer {
    let file = file.replace("%20", " ");
    let (commit, file) = file.split_once('/').expect("a commit and a file");
    let faults = &mut state.faults;
    let mut content = faults.replaces.clone().unwrap_or_else(|| state.repository.commits[commit][file].clone());
    let start = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let start: usize = start.filter(|_| !faults.ignores_ranges).unwrap_or(0);
    let mut headers = vec![("ETag", "\"of the storage\"".to_owned())];
    if start > 0 && start >= content.len() {
        return Answer::new("416 Range Not Satisfiable", headers, Vec::new());
    }
    if start > 0 {
        headers.push(("Content-Range", format!("bytes {start}-{}/{}", content.len() - 1, content.len())));
        content.drain(..start);
    }
    let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
    let mut answer = Answer::new(status, headers, content);
    answer.hides_length = faults.hides_length;
    if request.method == "GET"
        && let Some((after, times)) = &mut faults.breaks
        && *times > 0
    {
        *times -= 1;
        answer.breaks = Some(*after);
    }
    answer
}
