//! How much a batch gains over one sequence at a time:
//!
//!     cargo run --release --example batch -- cpu 64 3 100
//!
//! Generates for 64 prompts, 3 sequences each, 100 tokens every time, together and one after another, and
//! prints the tokens per second of both, prompts included.

use bdh_gpu::generation::{BatchEvent, BatchOptions, Bdh, DeviceChoice, GenerationOptions, WeightChoice};
use bdh_gpu::model::{Model, forgetting::Forgetting};
use std::ops::ControlFlow;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let device: DeviceChoice = arguments.next().unwrap_or("auto".into()).parse()?;
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse::<usize>());
    let (count, num_return_sequences, max_new_tokens) = (number(64)?, number(3)?, number(100)?);

    let bdh = Bdh::new(Model::from_path("models/bdh-shakespeare")?, &device, WeightChoice::Auto)?;
    let forgetting = Forgetting::of_model(&bdh.model().config);
    println!("{} on {}", bdh.model().name, bdh.device());
    let text = b"First Citizen: before we proceed any further, hear me speak. All: speak, speak. KING RICHARD: ";
    let prompts: Vec<Vec<u32>> =
        (0..count).map(|i| bdh.encode(&text[i % 7..i % 7 + 8 + i % 32])).collect::<Result<_, _>>()?;
    let options = GenerationOptions { max_new_tokens, seed: Some(1), ..GenerationOptions::of_model(bdh.model()) };
    let batch = BatchOptions { num_return_sequences, slots: None, burst: None, forgetting, seeds: Vec::new() };

    // In turns, so that a machine whose speed drifts is fair to both. One at a time, a few prompts suffice.
    for round in 1..=3 {
        let (mut alone, mut tokens) = (Instant::now(), 0);
        let start = alone;
        for prompt in prompts.iter().take(count.div_ceil(8)) {
            for _ in 0..num_return_sequences {
                let mut session = bdh.session_with(forgetting)?;
                session.feed(prompt)?;
                tokens += session.generate(&options)?.tokens.len();
            }
            alone = Instant::now();
        }
        let alone = tokens as f64 / (alone - start).as_secs_f64();
        let (start, mut tokens) = (Instant::now(), 0);
        bdh.run_batch(&prompts, &options, &batch, |event| {
            if let BatchEvent::Progress { drawn: new, .. } = event {
                tokens += new;
            }
            ControlFlow::Continue(())
        })?;
        let together = tokens as f64 / start.elapsed().as_secs_f64();
        println!(
            "round {round}: one at a time {alone:.1} tokens/s, together {together:.1} tokens/s, ratio {:.2}",
            together / alone
        );
    }
    Ok(())
}
