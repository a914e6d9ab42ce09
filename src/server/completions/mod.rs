//! `POST /v1/completions`, and what it shares with chats.

mod choice;
mod request;
mod stream;

pub(super) use choice::{shortest, token_name};

use super::app::{App, Ready, now_seconds, random_id};
use super::chat::{self, ChatTemplate};
use super::error::ApiError;
use super::fields::Fields;
use super::neurons;
use super::run::Run;
use super::security::Owner;
use super::states::blocking;
use crate::generation::engine::{Ended, Event, Job, Logprobs};
use crate::generation::{BatchEvent, BatchOptions, Bdh, FinishReason, GenerationOptions, Snapshot, random_seed};
use crate::sampling::sequence_seed;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use choice::{Choice, Piece};
use request::Completion;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// Answers a request, in one piece or as a stream.
pub(super) async fn completions(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let ready = app.ready()?;
    let fields = Fields::of_body(&body)?;
    respond(app, ready, owner, fields, Form::Text).await
}

/// Reads a request's body as `POST /v1/completions` does, or with a template as
/// `POST /v1/chat/completions`, and runs nothing.
///
/// # Errors
/// Status and body of the answer to a request that makes no sense.
pub fn check_request(bdh: &Bdh, template: Option<&ChatTemplate>, body: &[u8]) -> Result<(), (u16, Value)> {
    let read = || {
        let mut fields = Fields::of_body(&Bytes::copy_from_slice(body))?;
        if let Some(template) = template {
            chat::to_completion(&mut fields, template)?;
        }
        Completion::read(&mut fields, bdh, None, template.is_none()).map(drop)
    };
    read().map_err(|error: ApiError| (error.status(), error.body()))
}

/// The form of an answer.
pub(super) enum Form {
    /// A text.
    Text,
    /// The next message of a conversation, which ends with one of these texts.
    Chat { stops: Vec<String> },
}

/// Answers a request that has a prompt.
pub(super) async fn respond(
    app: Arc<App>,
    ready: Arc<Ready>,
    owner: Owner,
    mut fields: Fields,
    form: Form,
) -> Result<Response, ApiError> {
    ready.check_model(&mut fields, &app.options)?;
    let from = match fields.text("state")? {
        Some(id) => Some(app.state(&id, &owner).await?.1),
        None => None,
    };
    let mut completion = Completion::read(&mut fields, &ready.engine.bdh(), from, matches!(form, Form::Text))?;
    if let Form::Chat { stops } = &form {
        completion.settings.options.stop.extend(stops.iter().cloned());
    }
    if completion.neurons.is_some() {
        app.check_watching()?;
    }
    app.note_unknown(&fields)?;
    let answer = Answer::new(&app, &ready, owner, form, completion);
    let run = answer.start(&app, &ready)?;
    if answer.completion.stream {
        return Ok(stream::response(answer, run));
    }
    answer.whole(run).await
}

/// A request's answer as it comes about.
struct Answer {
    id: String,
    created: u64,
    model: String,
    completion: Arc<Completion>,
    /// One for each sequence that is drawn: prompt by prompt.
    choices: Vec<Choice>,
    /// The seed of each sequence.
    seeds: Vec<u64>,
    usage: Usage,
    bdh: Bdh,
    owner: Owner,
    app: Arc<App>,
    form: Form,
}

/// Stands for a text that beam search has not found: there are fewer than were asked for.
fn not_found() -> Ended {
    Ended { finish_reason: FinishReason::Error, stop: None, tail: String::new(), drawn: 0, state: None }
}

/// How a sequence ended.
struct End {
    finish_reason: Value,
    stop_reason: Value,
    state: Option<Snapshot>,
}

/// The cost of a request.
#[derive(Clone, Debug, Default)]
struct Usage {
    /// Tokens of each prompt, and how many of them were not read again.
    prompts: Vec<(usize, usize)>,
    completion_tokens: usize,
    /// When the first token had been drawn.
    first_token: Option<Duration>,
}

impl Usage {
    fn json(&self) -> Value {
        let prompt_tokens: usize = self.prompts.iter().map(|(tokens, _)| tokens).sum();
        let cached_tokens: usize = self.prompts.iter().map(|(_, cached)| cached).sum();
        json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        })
    }

    /// The times as llama.cpp's server has them.
    fn timings(&self, elapsed: Duration) -> Value {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let read = self.first_token.unwrap_or(elapsed);
        let written = elapsed.saturating_sub(read);
        let per_second = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
        let per_token = |count: usize, time: Duration| milliseconds(time) / count.max(1) as f64;
        let cached: usize = self.prompts.iter().map(|(_, cached)| cached).sum();
        let prompt = self.prompts.iter().map(|(tokens, _)| tokens).sum::<usize>() - cached;
        json!({
            "cache_n": cached,
            "prompt_n": prompt,
            "prompt_ms": milliseconds(read),
            "prompt_per_token_ms": per_token(prompt, read),
            "prompt_per_second": per_second(prompt, read),
            "predicted_n": self.completion_tokens,
            "predicted_ms": milliseconds(written),
            "predicted_per_token_ms": per_token(self.completion_tokens, written),
            "predicted_per_second": per_second(self.completion_tokens, written),
        })
    }
}

impl Answer {
    fn new(app: &Arc<App>, ready: &Ready, owner: Owner, form: Form, completion: Completion) -> Self {
        let bdh = ready.engine.bdh();
        let count = completion.best_of;
        let mut choices = Vec::new();
        let mut seeds = Vec::new();
        let completion = Arc::new(completion);
        for prompt in 0..completion.prompts.len() {
            let seed = completion.settings.options.seed.unwrap_or_else(random_seed);
            for index in 0..count {
                choices.push(Choice::new(&bdh, &completion, prompt));
                seeds.push(sequence_seed(seed, index as u32));
            }
        }
        let usage = Usage { prompts: vec![(0, 0); completion.prompts.len()], ..Usage::default() };
        Self {
            id: random_id(if matches!(form, Form::Text) { "cmpl-" } else { "chatcmpl-" }),
            created: now_seconds(),
            model: ready.id.clone(),
            completion,
            choices,
            seeds,
            usage,
            bdh,
            owner,
            app: app.clone(),
            form,
        }
    }

    /// Sets the sequences going.
    fn start(&self, app: &Arc<App>, ready: &Ready) -> Result<Run, ApiError> {
        if self.completion.settings.uses_beams() {
            return self.search(app, ready);
        }
        let completion = &self.completion;
        let traces_prompt = completion.prompt_logprobs.is_some() || (completion.echo && completion.logprobs.is_some());
        let wanted = completion.logprobs.max(completion.prompt_logprobs);
        let logprobs = wanted.or((completion.best_of > completion.n).then_some(0));
        let logprobs = logprobs.map(|top| Logprobs { prompt: traces_prompt, top: top.max(1) });
        let jobs = self.seeds.iter().enumerate().map(|(index, &seed)| Job {
            prompt: completion.prompts[index / completion.best_of].tokens.clone(),
            from: completion.from.clone(),
            options: GenerationOptions { seed: Some(seed), ..completion.settings.options.clone() },
            logprobs,
            neurons: completion.neurons.clone(),
            keep_state: completion.keep_state,
            cancel: Default::default(),
            events: Box::new(|_| ControlFlow::Continue(())),
        });
        Run::on_engine(app, ready, jobs.collect())
    }

    /// Searches for the texts with beams, on a thread of its own.
    fn search(&self, app: &Arc<App>, ready: &Ready) -> Result<Run, ApiError> {
        let given = [
            ("logprobs", self.completion.logprobs.is_some()),
            ("prompt_logprobs", self.completion.prompt_logprobs.is_some()),
            ("neurons", self.completion.neurons.is_some()),
            ("state", self.completion.from.is_some()),
            ("keep_state", self.completion.keep_state),
        ];
        if let Some((name, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(ApiError::invalid(name, format!("{name} is not available in beam search")));
        }
        let (bdh, completion) = (ready.engine.bdh(), self.completion.clone());
        let search = app.search.clone();
        let forgetting = ready.forgetting;
        Run::start(app, self.seeds.len(), move |tellers, cancel| {
            tokio::spawn(async move {
                // One search at a time: each takes the memory of its beams.
                let Ok(_permit) = search.acquire().await else { return };
                if cancel.is_cancelled() {
                    return;
                }
                let found = tokio::task::spawn_blocking(move || {
                    let prompts: Vec<Vec<u32>> =
                        completion.prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
                    let n = completion.best_of;
                    let batch = BatchOptions {
                        num_return_sequences: n,
                        slots: None,
                        burst: None,
                        forgetting,
                        seeds: Vec::new(),
                    };
                    for (index, prompt) in prompts.iter().enumerate() {
                        (0..n).for_each(|k| {
                            let _ = tellers[index * n + k].tell(Event::Started { tokens: prompt.len(), cached: 0 });
                        });
                    }
                    bdh.run(&prompts, &completion.settings, &batch, |event| {
                        if let BatchEvent::Done(done) = event {
                            let teller = &tellers[done.prompt * n + done.index];
                            let ended = done.result.map(|text| {
                                let drawn = text.tokens.len();
                                let finish_reason = text.finish_reason;
                                let _ = teller.tell(Event::Drawn(text.tokens, Vec::new()));
                                Ended { finish_reason, stop: None, tail: text.tail, drawn, state: None }
                            });
                            let _ = teller.tell(Event::Done(ended.map_err(Arc::new)));
                            if done.index + 1 == done.of {
                                let rest = done.prompt * n + done.of..(done.prompt + 1) * n;
                                tellers[rest].iter().for_each(|teller| {
                                    let _ = teller.tell(Event::Done(Ok(not_found())));
                                });
                            }
                        }
                        if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })
                    .map_err(|error| {
                        if let Some(teller) = tellers.first() {
                            let _ = teller.tell(Event::Done(Err(Arc::new(error))));
                        }
                    })
                });
                let _ = found.await;
            });
            Ok(())
        })
    }

    /// Takes in what happened to a sequence: its next piece of text, and its end.
    fn take(&mut self, index: usize, event: Event, run: &Run) -> (Piece, Option<End>) {
        let choice = &mut self.choices[index];
        match event {
            Event::Started { tokens, cached } => {
                let prompt = index / self.completion.best_of;
                if index.is_multiple_of(self.completion.best_of) {
                    self.usage.prompts[prompt] = (tokens, cached);
                }
                (Piece::default(), None)
            }
            Event::Read(logprobs) => {
                choice.read(logprobs);
                (Piece::default(), None)
            }
            Event::Watched(tokens) => {
                choice.watched(tokens);
                (Piece::default(), None)
            }
            Event::Drawn(tokens, logprobs) => {
                self.usage.first_token.get_or_insert_with(|| run.elapsed());
                (choice.drawn(&tokens, &logprobs), None)
            }
            Event::Done(Ok(ended)) if ended.finish_reason == FinishReason::Error => (Piece::default(), None),
            Event::Done(Ok(ended)) => {
                self.usage.completion_tokens += ended.drawn;
                let (piece, (finish_reason, stop_reason)) = (choice.end(&ended), choice.reasons(&ended));
                (piece, Some(End { finish_reason, stop_reason, state: ended.state }))
            }
            // The run has reported it.
            Event::Done(Err(_)) => (Piece::default(), None),
        }
    }

    /// Waits for the whole answer.
    async fn whole(mut self, mut run: Run) -> Result<Response, ApiError> {
        let mut texts: Vec<Piece> = self.choices.iter().map(|_| Piece::default()).collect();
        let mut ends: Vec<Option<End>> = self.choices.iter().map(|_| None).collect();
        while let Some((index, event)) = run.next().await? {
            let (piece, ended) = self.take(index, event, &run);
            texts[index].append(piece);
            if ended.is_some() {
                ends[index] = ended;
            }
        }
        let mut choices = Vec::new();
        for prompt in 0..self.completion.prompts.len() {
            for (place, index) in self.best(prompt).into_iter().enumerate() {
                let Some(end) = ends[index].take() else { continue };
                let place = prompt * self.completion.n + place;
                choices.push(self.choice(place, index, std::mem::take(&mut texts[index]), Some(end)).await?);
            }
        }
        let mut body = self.frame(choices);
        body["usage"] = self.usage.json();
        if self.completion.timings {
            body["timings"] = self.usage.timings(run.elapsed());
        }
        Ok(Json(body).into_response())
    }

    /// The sequences of a prompt that are returned.
    fn best(&self, prompt: usize) -> Vec<usize> {
        let (n, best_of) = (self.completion.n, self.completion.best_of);
        let mut all: Vec<usize> = (prompt * best_of..(prompt + 1) * best_of).collect();
        if n < best_of && !self.completion.settings.uses_beams() {
            all.sort_by(|&a, &b| self.choices[b].likelihood().total_cmp(&self.choices[a].likelihood()));
        }
        all.truncate(n);
        all
    }

    /// A choice of an answer or of a chunk of one.
    async fn choice(&self, place: usize, index: usize, mut piece: Piece, end: Option<End>) -> Result<Value, ApiError> {
        let choice = &self.choices[index];
        let logprobs = if self.completion.logprobs.is_some() { piece.logprobs() } else { Value::Null };
        let mut value = json!({"index": place, "logprobs": logprobs, "finish_reason": null});
        self.put_text(&mut value, piece.text);
        if self.completion.neurons.is_some() {
            let (bdh, tokens) = (self.bdh.clone(), piece.neurons);
            // These may be many.
            value["neurons"] =
                blocking(move || Ok(tokens.iter().map(|token| neurons::token(&bdh, token)).collect())).await?;
        }
        if let Some(end) = end {
            value["finish_reason"] = end.finish_reason;
            value["stop_reason"] = end.stop_reason;
            if let Some(state) = end.state {
                value["state"] = self.keep(state).await?.into();
            }
            if !self.completion.settings.uses_beams() {
                value["seed"] = self.seeds[index].into();
            }
            if self.completion.prompt_logprobs.is_some() {
                value["prompt_logprobs"] = choice.prompt_logprobs();
            }
        }
        if self.completion.return_token_ids {
            value["token_ids"] = piece.token_ids.into();
        }
        Ok(value)
    }

    /// Puts a text where clients look for it.
    fn put_text(&self, choice: &mut Value, text: String) {
        match (&self.form, self.completion.stream) {
            (Form::Text, _) => choice["text"] = text.into(),
            (Form::Chat { .. }, false) => choice["message"] = json!({"role": "assistant", "content": text}),
            (Form::Chat { .. }, true) if text.is_empty() => choice["delta"] = json!({}),
            (Form::Chat { .. }, true) => choice["delta"] = json!({"content": text}),
        }
        if matches!(self.form, Form::Chat { .. }) && !choice["logprobs"].is_null() {
            choice["logprobs"] = chat::logprobs(&choice["logprobs"]);
        }
    }

    /// The chunks that a stream begins with: who speaks.
    fn opening(&self) -> Vec<Value> {
        if matches!(self.form, Form::Text) {
            return Vec::new();
        }
        let delta = json!({"role": "assistant", "content": ""});
        let choice = |index| json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
        (0..self.choices.len()).map(|index| self.frame(vec![choice(index)])).collect()
    }

    /// Keeps a sequence's state and returns its id.
    async fn keep(&self, state: Snapshot) -> Result<String, ApiError> {
        let (app, bdh, owner) = (self.app.clone(), self.bdh.clone(), self.owner.clone());
        blocking(move || app.states.keep(&bdh, state, &owner)).await
    }

    /// An answer, or a chunk of one, around its choices.
    fn frame(&self, choices: Vec<Value>) -> Value {
        let object = match (&self.form, self.completion.stream) {
            (Form::Text, _) => "text_completion",
            (Form::Chat { .. }, false) => "chat.completion",
            (Form::Chat { .. }, true) => "chat.completion.chunk",
        };
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}
