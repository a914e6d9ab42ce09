//! Writes a long text and shows that neither speed nor memory changes along the way:
//!
//!     cargo run --release --example long_run -- cpu 1000000
//!     cargo run --release --example long_run -- gpu 100000
//!     cargo run --release --example long_run -- gpu 50000 long.state
//!
//! Prints the rate and the resident memory for every 10,000 tokens (or every hundredth part of a shorter run), then
//! the start and the end of the text. With a state file, goes on from it where it exists, and writes it in the end. A run
//! whose memory has grown by more than 8 MiB after its first tenth fails.

use bdh_gpu::generation::{Bdh, DeviceChoice, GenerationOptions, Snapshot, WeightChoice};
use bdh_gpu::model::{Model, forgetting::Forgetting};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let device: DeviceChoice = arguments.next().unwrap_or("auto".into()).parse()?;
    let count: usize = arguments.next().unwrap_or("20000".into()).parse()?;
    let state = arguments.next().map(PathBuf::from);

    let bdh = Bdh::new(Model::from_path("models/bdh-shakespeare")?, &device, WeightChoice::Auto)?;
    println!("{} on {}", bdh.model().name, bdh.device());
    let mut session = bdh.session_with(Forgetting::of_model(&bdh.model().config))?;
    if let Some(path) = state.as_deref().filter(|path| path.exists()) {
        session.restore(&Snapshot::load(&bdh, path)?)?;
        println!("{}: from position {}", path.display(), session.position());
    }
    let sample = (count / 100).clamp(1, 10_000);
    let options =
        GenerationOptions { max_new_tokens: count, seed: Some(1), ..GenerationOptions::of_model(bdh.model()) };

    let (mut written, mut mark, mut start) = (0, 0, Instant::now());
    let mut samples = Vec::new();
    let generated = session.generate_with(&options, |tokens| {
        written += tokens.len();
        if written - mark >= sample {
            let rate = (written - mark) as f64 / start.elapsed().as_secs_f64();
            let memory = resident();
            let shown = memory.map_or(String::new(), |mib| format!("{mib:.1} MiB resident"));
            println!("{written:8} tokens  {rate:8.1} tokens/s  {shown}");
            samples.extend(memory);
            (mark, start) = (written, Instant::now());
        }
        ControlFlow::Continue(())
    })?;
    let end = generated.tokens.len().saturating_sub(400);
    println!("--- start ---\n{}", bdh.decode(&generated.tokens[..generated.tokens.len().min(400)]));
    println!("--- end ---\n{}", bdh.decode(&generated.tokens[end..]));
    if let Some(path) = &state {
        session.snapshot()?.save(&bdh, path)?;
        println!("{}: saved at position {}", path.display(), session.position());
    }
    check_flat(&samples)
}

/// Fails where memory has grown since the first tenth of the samples. The list of the tokens themselves, of which the
/// run keeps two (four bytes each, doubling as they grow), is a part of it.
fn check_flat(samples: &[f64]) -> Result<(), Box<dyn std::error::Error>> {
    const ALLOWED: f64 = 8.0;
    let warm = &samples[..samples.len().div_ceil(10)];
    let most = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
    let (early, all) = (most(warm), most(samples));
    println!("resident memory: at most {early:.1} MiB in the first tenth, {all:.1} MiB in all");
    if all > early + ALLOWED { Err(format!("memory grew by {:.1} MiB", all - early).into()) } else { Ok(()) }
}

/// Resident memory in MiB, where the system tells (Linux).
fn resident() -> Option<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages as f64 * 4096.0 / 1048576.0)
}
