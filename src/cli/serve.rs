//! `bdh-gpu serve`: the model over HTTP.

use super::args::{ContextArgs, DeviceArgs, ModelArgs, whole};
use super::failure::Failure;
use super::output::Notices;
use bdh_gpu::model::Model;
use bdh_gpu::server::{self, ChatTemplate, Loaded, ServeError, ServerOptions, StateStore, StoreError};
use clap::{Args, ValueHint};
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  bdh-gpu serve
  bdh-gpu serve --model models/mine --port 9000 --parallel 16
  bdh-gpu serve --host 0.0.0.0 --api-key-file keys.txt

Then, from another terminal:
  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\
    -d '{\"prompt\": \"To be or \", \"max_tokens\": 50, \"seed\": 1}'

Every option is also an environment variable: BDH_PORT for --port. Ctrl-C or SIGTERM lets running
requests finish; a second one ends them.";

/// Serve the model over HTTP, as the OpenAI API does
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    notices: Notices,
}

/// Addresses, limits and keys.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
struct ServerArgs {
    /// Address to listen on; 0.0.0.0 is all of this machine's
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// The model's name in the API [default: the name of its directory]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Sequences that run together; auto is as many as the device gains from, or 8 where these fit
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = parallel)]
    parallel: Parallel,
    /// Requests that wait at most; more are turned away
    #[arg(long, value_name = "N", default_value_t = 128)]
    queue: usize,
    /// Memory for the states of prompts, which are not read again; 0 is none
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    prefix_cache: u64,
    /// A key that requests must bring; repeatable
    #[arg(long, value_name = "KEY", value_delimiter = ',', hide_env_values = true)]
    api_key: Vec<String>,
    /// A file with such keys, one per line; lines that begin with # are left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    api_key_file: Option<PathBuf>,
    /// Sites whose pages may use the server, as https://example.org; repeatable
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    cors_origins: Vec<String>,
    /// How conversations become prompts: user-assistant, transcript, or a file with a Jinja template
    /// [default: the model's own; without one there are no chat completions]
    #[arg(long, value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    chat_template: Option<PathBuf>,
    /// A folder where conversations' states are kept too, or s3://, gs:// or az:// (feature
    /// object-stores); servers that share it can go on with each other's
    #[arg(long, value_name = "DIR|URL", value_hint = ValueHint::DirPath)]
    state_store: Option<String>,
    /// Memory for conversations' states
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size)]
    state_budget: u64,
    /// How long a state is kept after its last use: seconds, or 10m, 1h, 2d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    state_ttl: Duration,
    /// Seconds that a request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    request_timeout: u64,
    /// Seconds that running requests have when the server ends
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    shutdown_timeout: u64,
    /// Answer requests for any model's name
    #[arg(long)]
    any_model: bool,
    /// Let requests ask for neurons; the kernels of graphics cards then store what they otherwise keep
    /// to themselves
    #[arg(long)]
    neurons: bool,
    /// Refuse requests with unknown fields
    #[arg(long)]
    strict: bool,
}

/// How many sequences run together.
#[derive(Clone, Copy, Debug)]
enum Parallel {
    Auto,
    Count(usize),
}

fn parallel(text: &str) -> Result<Parallel, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Parallel::Auto);
    }
    match whole(text) {
        Ok(0) | Err(_) => Err("expected a whole number above 0, or auto".to_string()),
        Ok(count) => Ok(Parallel::Count(count)),
    }
}

/// Reads a number of bytes: 1GiB, 500MB, 4096.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("b", 1),
    ];
    let lower = text.trim().to_ascii_lowercase();
    let (number, unit) = UNITS
        .into_iter()
        .find_map(|(unit, bytes)| Some((lower.strip_suffix(unit)?.trim_end(), bytes)))
        .unwrap_or((lower.as_str(), 1));
    let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
    bytes.ok_or_else(|| "expected a size, such as 1GiB or 500MB".to_string())
}

/// Reads a time: 90, 90s, 10m, 1h, 2d.
fn time(text: &str) -> Result<Duration, String> {
    const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let text = text.trim();
    let (number, unit) =
        UNITS.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds))).unwrap_or((text, 1));
    let seconds = number.parse().ok().and_then(|number: u64| number.checked_mul(unit)).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| "expected a time above 0, such as 90s, 10m or 1h".to_string())
}

/// Why there is no store of states.
fn store_failure(error: StoreError) -> Failure {
    let advice = match error {
        StoreError::NotBuilt { .. } => " (`cargo install --path . --features object-stores`)",
        _ => "",
    };
    Failure::Failed(format!("{error}{advice}"))
}

/// The keys in a file.
fn read_keys(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Failed(format!("{}: the keys cannot be read ({error})", path.display())))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    if keys.is_empty() {
        return Err(Failure::Usage(format!("{}: there is no key in it", path.display())));
    }
    Ok(keys)
}

impl Serve {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let Self { server, notices, .. } = self;
        let mut keys = server.api_key.clone();
        if keys.iter().any(|key| key.trim().is_empty()) {
            return Err(Failure::Usage("--api-key must not be empty".to_string()));
        }
        if let Some(path) = &server.api_key_file {
            keys.extend(read_keys(path)?);
        }
        let state_store = server.state_store.as_deref().map(StateStore::open).transpose().map_err(store_failure)?;
        let listener = self.listen()?;
        let address = listener.local_addr().map_err(|error| Failure::Failed(error.to_string()))?;
        let for_log = *notices;
        let options = ServerOptions {
            alias: server.alias.clone(),
            keys,
            cors_origins: server.cors_origins.clone(),
            loopback: address.ip().is_loopback(),
            any_model: server.any_model,
            neurons: server.neurons,
            strict: server.strict,
            request_timeout: Duration::from_secs(server.request_timeout),
            shutdown_timeout: Duration::from_secs(server.shutdown_timeout),
            parallel: match server.parallel {
                Parallel::Auto => None,
                Parallel::Count(count) => Some(count),
            },
            queue: server.queue,
            prefix_cache: server.prefix_cache,
            state_store,
            state_budget: server.state_budget,
            state_ttl: server.state_ttl,
            log: Box::new(move |note| for_log.say(note)),
        };
        let command = self.clone();
        server::serve(listener, options, move || command.load()).map_err(|error| match error {
            ServeError::Load(failure) => failure,
            ServeError::Generation(error) => error.into(),
            error => Failure::Failed(error.to_string()),
        })
    }

    /// Loads the model and puts it on its device.
    fn load(&self) -> Result<Loaded, Failure> {
        let model = self.model.load(&self.notices)?;
        let forgetting = self.context.forgetting(&model.config)?;
        self.device.check(forgetting)?;
        let template = self.template(&model)?;
        let bdh = match self.server.neurons {
            true => self.device.open_watchable(model, &self.notices)?,
            false => self.device.open(model, &self.notices)?,
        };
        Ok(Loaded { bdh, forgetting, template })
    }

    /// The chat template: the one that was asked for, or the model's.
    fn template(&self, model: &Model) -> Result<Option<ChatTemplate>, Failure> {
        let (own, bos, eos) = model.chat();
        let beside = || {
            let path = self.model.model.as_ref()?.join("chat_template.jinja");
            path.is_file().then_some(path)
        };
        let read = |path: PathBuf| {
            let failed = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
            let source = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
            ChatTemplate::parse(&source).map_err(|error| failed(format!("not a chat template: {error}")))
        };
        let template = match &self.server.chat_template {
            Some(given) => match given.to_str().and_then(ChatTemplate::built_in) {
                Some(template) => Some(template),
                None => Some(read(given.clone())?),
            },
            None => match (beside(), own) {
                (Some(path), _) => Some(read(path)?),
                (None, Some(source)) => match ChatTemplate::parse(&source) {
                    Ok(template) => Some(template),
                    Err(error) => {
                        self.notices.say(format_args!("note: the model's chat template is not used: {error}"));
                        None
                    }
                },
                (None, None) => None,
            },
        };
        Ok(template.map(|template| template.with_tokens(bos, eos)))
    }

    fn listen(&self) -> Result<TcpListener, Failure> {
        let (host, port) = (self.server.host.as_str(), self.server.port);
        let failed = |error: std::io::Error| Failure::Failed(format!("cannot listen on {host}:{port}: {error}"));
        let addresses = (host.trim_matches(['[', ']']), port).to_socket_addrs().map_err(failed)?;
        TcpListener::bind(&*addresses.collect::<Vec<_>>()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("500 MB"), Ok(500_000_000));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("7b"), Ok(7));
        for wrong in ["", "GiB", "-1", "1.5GiB", "99999999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        assert!(time("0").is_err() && time("h").is_err() && time("1w").is_err());
    }

    #[test]
    fn parallel_is_a_number_or_auto() {
        assert!(matches!(parallel("AUTO"), Ok(Parallel::Auto)));
        assert!(matches!(parallel("3"), Ok(Parallel::Count(3))));
        assert!(parallel("0").is_err() && parallel("many").is_err());
    }
}
