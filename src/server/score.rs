//! `POST /v1/score`: how likely the model finds a text.

use super::app::App;
use super::error::ApiError;
use super::fields::Fields;
use super::run::Run;
use crate::generation::engine::{Cancel, Event, Job, Logprobs};
use crate::generation::{GenerationError, GenerationOptions, Score};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Scores a text or a list of token ids as one context.
pub(super) async fn score(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let ready = app.ready()?;
    let mut fields = Fields::of_body(&body)?;
    ready.check_model(&mut fields, &app.options)?;
    let (text, tokens) = (fields.text("text")?, fields.ids("tokens")?);
    app.note_unknown(&fields)?;
    let bdh = ready.engine.bdh();
    let (tokens, bytes) = match (text, tokens) {
        (Some(text), None) => {
            let tokens = bdh.encode(text.as_bytes()).map_err(|error| ApiError::of_generation(&error))?;
            (tokens, Some(text.len()))
        }
        (None, Some(tokens)) => (tokens, None),
        _ => return Err(ApiError::invalid("text", "one of text and tokens must be given: what to score")),
    };
    if tokens.len() < 2 {
        return Err(ApiError::of_generation(&GenerationError::TooShort(tokens.len())).param("text"));
    }
    let job = Job {
        prompt: tokens.clone(),
        from: None,
        options: GenerationOptions { max_new_tokens: 0, ..GenerationOptions::default() },
        logprobs: Some(Logprobs { prompt: true, top: 0 }),
        neurons: None,
        keep_state: false,
        cancel: Cancel::default(),
        events: Box::new(|_| ControlFlow::Continue(())),
    };
    let mut run = Run::on_engine(&app, &ready, vec![job])?;
    let (mut logprobs, mut greedy) = (vec![None], vec![None]);
    while let Some((_, event)) = run.next().await? {
        if let Event::Read(read) = event {
            logprobs.extend(read.iter().map(|token| Some(f64::from(token.logprob))));
            greedy.extend(read.iter().map(|token| Some(token.rank == 1)));
        }
    }
    let score = Score { tokens, logprobs, greedy };
    // The first token is not predicted; of bytes it is one.
    let predicted = bytes.filter(|_| bdh.model().tokenizer.byte(0).is_some()).map(|bytes| bytes - 1);
    Ok(Json(json!({
        "object": "score",
        "model": ready.id,
        "tokens": score.tokens.len(),
        "total_logprob": score.total(),
        "mean_loss": score.mean_loss(),
        "perplexity": score.perplexity(),
        "bits_per_token": score.bits_per_token(),
        "bits_per_byte": predicted.map(|bytes| -score.total() / std::f64::consts::LN_2 / bytes as f64),
        "token_logprobs": score.logprobs,
        "usage": {"prompt_tokens": score.tokens.len(), "completion_tokens": 0, "total_tokens": score.tokens.len()},
    })))
}
