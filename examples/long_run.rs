//! Writes a long text and shows that neither speed nor memory changes along the way:
//!
//!     cargo run --release --example long_run -- cpu 20000
//!
//! Prints, for every 1,000 tokens, the rate and the resident memory; then the start and the end of the text.

use bdh_gpu::generation::{Bdh, DeviceChoice, GenerationOptions, WeightChoice};
use bdh_gpu::model::{Model, forgetting::Forgetting};
use std::ops::ControlFlow;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let device: DeviceChoice = arguments.next().unwrap_or("auto".into()).parse()?;
    let count: usize = arguments.next().unwrap_or("20000".into()).parse()?;

    let bdh = Bdh::new(Model::from_path("models/bdh-shakespeare")?, &device, WeightChoice::Auto)?;
    println!("{} on {}", bdh.model().name, bdh.device());
    let mut session = bdh.session(Forgetting::of_model(&bdh.model().config))?;
    let options =
        GenerationOptions { max_new_tokens: count, seed: Some(1), ..GenerationOptions::of_model(bdh.model()) };

    let (mut written, mut mark, mut start) = (0, 0, Instant::now());
    let generated = session.generate(&options, |tokens| {
        written += tokens.len();
        if written - mark >= 1000 {
            let rate = (written - mark) as f64 / start.elapsed().as_secs_f64();
            println!("{written:8} tokens  {rate:8.1} tokens/s  {}", resident());
            (mark, start) = (written, Instant::now());
        }
        ControlFlow::Continue(())
    })?;
    let end = generated.tokens.len().saturating_sub(400);
    println!("--- start ---\n{}", bdh.decode(&generated.tokens[..generated.tokens.len().min(400)]));
    println!("--- end ---\n{}", bdh.decode(&generated.tokens[end..]));
    Ok(())
}

/// Resident memory, where the system tells (Linux).
fn resident() -> String {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|s| s.split(' ').nth(1)?.parse::<u64>().ok());
    pages.map_or(String::new(), |pages| format!("{:.1} MiB resident", pages as f64 * 4096.0 / 1048576.0))
}
