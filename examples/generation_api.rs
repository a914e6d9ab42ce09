//! The simple calls, one after the other:
//!
//!     cargo run --release --example generation_api
//!     cargo run --release --example generation_api -- path/to/a/model

use bdh_gpu::{Bdh, GenerationOptions, SamplingOptions};
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Load a model.
    let path = std::env::args().nth(1).unwrap_or("models/bdh-shakespeare".to_string());
    let model = Bdh::from_pretrained(path)?;

    // Simple generation.
    let text =
        model.generate_text("To be or not to be", &GenerationOptions { max_new_tokens: 50, ..Default::default() })?;
    println!("{text}");

    // With custom parameters.
    let sampling =
        SamplingOptions { temperature: 0.9, top_k: 40, top_p: 0.95, repetition_penalty: 1.1, ..Default::default() };
    let options = GenerationOptions { max_new_tokens: 100, sampling, ..Default::default() };
    println!("{}", model.generate_text("Once upon a time", &options)?);

    // Batch generation.
    let prompts = ["Hello", "The meaning of life", "In the beginning"];
    let sampling = SamplingOptions { temperature: 0.8, ..Default::default() };
    let options = GenerationOptions { max_new_tokens: 50, sampling, ..Default::default() };
    for (prompt, text) in prompts.iter().zip(model.generate_batch(&prompts, &options)?) {
        println!("{prompt} -> {text}");
    }

    // Streaming generation.
    println!("Streaming:");
    let options = GenerationOptions { max_new_tokens: 100, ..Default::default() };
    for piece in model.generate_stream("The future of AI", &options)? {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    println!();
    Ok(())
}
