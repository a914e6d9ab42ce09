//! The library's errors in the words of the command line: options are flags, and advice follows.

use bdh_gpu::backend::BackendError;
use bdh_gpu::bench::{BenchError, POSITIONS};
use bdh_gpu::generation::{BeamError, GenerationError, StateError};
use bdh_gpu::model::{HubError, ModelError};
use bdh_gpu::needle::NeedleError;
use bdh_gpu::options::OutOfRange;
use bdh_gpu::sampling::SamplingError;
use bdh_gpu::tokenizer::EncodeError;
use bdh_gpu::verify::{StartError, VerifyError};

/// How the user writes an option of the library.
pub type Spelling = fn(&str) -> String;

/// An option as a flag: `--num-beams`.
pub fn flag(option: &str) -> String {
    let name = match option {
        "batches" => "batch",
        other => other,
    };
    format!("--{}", name.replace('_', "-"))
}

/// A device's error.
pub fn backend(error: &BackendError) -> String {
    let advice = match error {
        BackendError::NoAdapter { adapters, .. } if adapters.is_empty() => ", or use --device cpu",
        BackendError::NoAdapter { .. } => "",
        BackendError::Limit { .. } => "; use another adapter (`bdh-gpu devices` lists them) or --device cpu",
        BackendError::Overflow { .. } => "; use --weights f32 or auto",
        BackendError::OutOfMemory { .. } => "; free memory, use fewer sequences, or use --device cpu",
        BackendError::Open { .. } => "; free its memory, update its driver, or use --device cpu",
        BackendError::Lost { .. } => "; start again, or use --device cpu",
        BackendError::NoTimestamps { .. } => "; leave out --profile",
        BackendError::NoSlidingWindow { .. } => ": give --device cpu",
        BackendError::NotWatchable { .. } | BackendError::Weights(_) => "",
        BackendError::Garbage { .. } | BackendError::Driver { .. } => {
            "; `bdh-gpu verify` checks this device, --device cpu avoids it"
        }
    };
    format!("{error}{advice}")
}

/// A model's error.
pub fn model(error: &ModelError) -> String {
    let advice = match error {
        ModelError::NoConfig { .. } => " (`bdh-gpu convert --n-layer N` makes one from the tensors)",
        ModelError::UnknownRope { .. } | ModelError::RepeatedFrequencies { .. } => " or as --rope",
        ModelError::OtherFrequencies { .. } => " and no --rope",
        ModelError::Exists { .. } => "; --force replaces it",
        ModelError::Hub(HubError::NotBuilt { .. }) => " (`cargo install --path . --features hub`)",
        ModelError::Overflow { .. } => "; choose another --dtype",
        _ => "",
    };
    format!("{error}{advice}")
}

/// An error of generating or scoring; `spell` names the options in it.
pub fn generation(error: &GenerationError, spell: Spelling) -> String {
    match error {
        GenerationError::Backend(error) => backend(error),
        GenerationError::Encode(error) => encode(error),
        GenerationError::OutOfRange(error)
        | GenerationError::Options(SamplingError::OutOfRange(error))
        | GenerationError::Beams(BeamError::OutOfRange(error)) => out_of_range(error, spell),
        GenerationError::Sampling { source: None, .. } => format!("{error}; `bdh-gpu verify` checks it"),
        GenerationError::DrawingInBeamSearch { option } => {
            let (option, beams) = (spell(option), spell("num_beams"));
            format!("{option} has no effect in beam search, which draws nothing; leave out {option} or {beams}")
        }
        GenerationError::FadingState => format!("{error}: --state i16, or --context N"),
        GenerationError::RoundedWindow => format!("{error}: --state f32"),
        GenerationError::NoBeams => {
            "--length-penalty and --early-stopping are for beam search; give --num-beams N, above 1, too".to_string()
        }
        GenerationError::ForgetTauOfFull => {
            "--forget-tau means nothing with --context full; give --context N or leave it out".to_string()
        }
        GenerationError::ForgetTauAlone => {
            "--forget-tau needs --context N: the model does not say what context it was trained with".to_string()
        }
        error => error.to_string(),
    }
}

/// An error of turning text into tokens.
pub fn encode(error: &EncodeError) -> String {
    match error {
        EncodeError::NoTokenizer { vocab, why } => format!(
            "the model has {vocab} tokens and {why}, so that text cannot be turned into tokens or back; give its \
             tokenizer (--tokenizer PATH, a tokenizer.json or its folder), or use token ids"
        ),
        error => error.to_string(),
    }
}

fn out_of_range(OutOfRange { option, range, value }: &OutOfRange, spell: Spelling) -> String {
    format!("{} must be {range}, got {value}", spell(option))
}

/// A state file's error.
pub fn state(error: &StateError) -> String {
    let advice = match error {
        StateError::Device(error) => return generation(error, flag),
        StateError::NotAState { .. } => "; expected a file that --save-state or /save wrote",
        StateError::OtherModel { .. } => "; give its model with --model",
        _ => "",
    };
    format!("{error}{advice}")
}

/// A verification's error.
pub fn verify(error: &VerifyError) -> String {
    let advice = match error {
        VerifyError::Model(error) => return model(error),
        VerifyError::Backend(error) => return backend(error),
        VerifyError::CpuIsTheReference => "; choose an adapter: --device gpu, INDEX or NAME",
        VerifyError::NoModel => "; name one with --model",
        VerifyError::UnknownKernel { .. } => "",
    };
    format!("{error}{advice}")
}

/// An error of `--check`.
pub fn start(error: &StartError) -> String {
    match error {
        StartError::Backend(error) => backend(error),
        StartError::Generation(error) => generation(error, flag),
        StartError::Differs { .. } => {
            format!("{error}; `bdh-gpu verify` names the kernel, --device cpu avoids this device")
        }
    }
}

/// An error of measuring.
pub fn bench(error: &BenchError) -> String {
    match error {
        BenchError::OutOfRange(error) => out_of_range(error, flag),
        BenchError::Backend(error) => backend(error),
        BenchError::Generation(error) => generation(error, flag),
        BenchError::NothingToMeasure => {
            "there is nothing to measure: give --prompt-tokens or --new-tokens above 0".to_string()
        }
        BenchError::TooDeep { depth, tokens } => {
            format!("--depth {depth} leaves too few positions for {tokens} tokens: there are {POSITIONS}")
        }
    }
}

/// An error of looking for needles.
pub fn needle(error: &NeedleError) -> String {
    match error {
        NeedleError::Generation(error) => generation(error, flag),
        error => error.to_string().replace("give another needle_text", "give another --needle-text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_named_as_the_user_writes_them() {
        let error = OutOfRange::new("num_return_sequences", "at least 1", 0).into();
        assert_eq!(generation(&error, flag), "--num-return-sequences must be at least 1, got 0");
        assert_eq!(
            generation(&error, |option| format!("/{option}")),
            "/num_return_sequences must be at least 1, got 0"
        );
        assert_eq!(error.to_string(), "num_return_sequences must be at least 1, got 0");
        let error = GenerationError::DrawingInBeamSearch { option: "top_k" };
        assert!(generation(&error, flag).ends_with("leave out --top-k or --num-beams"));
        assert!(error.to_string().ends_with("leave out top_k or num_beams"));
    }

    #[test]
    fn advice_follows_what_went_wrong() {
        let lost = || BackendError::Lost { device: "GPU".into(), reason: "reset".into() };
        let expected = "GPU: the device was lost (reset); start again, or use --device cpu";
        assert_eq!(lost().to_string(), "GPU: the device was lost (reset)");
        assert_eq!(generation(&lost().into(), flag), expected);
        assert_eq!(state(&GenerationError::from(lost()).into()), expected);
        assert_eq!(start(&lost().into()), expected);
        let none = BackendError::NoAdapter { wanted: "a graphics adapter".into(), adapters: Vec::new() };
        assert!(backend(&none).ends_with("(Debian: mesa-vulkan-drivers), or use --device cpu"));
    }
}
