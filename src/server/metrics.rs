//! What Prometheus scrapes. Names have vLLM's stems.

use super::run::Stage;
use crate::generation::FinishReason;
use crate::generation::engine::Status;
use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};
use std::time::Duration;

/// Upper bounds of the times of whole requests, in seconds.
const LONG: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Upper bounds of the times between tokens, in seconds.
const SHORT: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// Counters, gauges and histograms of one server.
pub(super) struct Metrics {
    registry: Registry,
    running: Gauge,
    waiting: Gauge,
    slots: GaugeVec,
    state_bytes: GaugeVec,
    prompt_tokens: IntCounter,
    generation_tokens: IntCounter,
    cache_queries: Counter,
    cache_hits: Counter,
    success: IntCounterVec,
    cancelled: IntCounterVec,
    rejected: IntCounter,
    failed: IntCounter,
    first_token: Histogram,
    inter_token: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
}

impl Metrics {
    /// Metrics at 0.
    pub fn new() -> Self {
        let registry = Registry::new();
        let gauge = |name, help| register(&registry, Gauge::new(name, help));
        let counter = |name, help| register(&registry, IntCounter::new(name, help));
        let total = |name, help| register(&registry, Counter::new(name, help));
        let labelled = |name, help, label| register(&registry, IntCounterVec::new(Opts::new(name, help), &[label]));
        let histogram = |name, help, bounds: &[f64]| {
            register(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec())))
        };
        let metrics = Self {
            running: gauge("bdh_num_requests_running", "Sequences that have a slot"),
            waiting: gauge("bdh_num_requests_waiting", "Requests that wait for a slot"),
            slots: register(&registry, GaugeVec::new(Opts::new("bdh_slots", "Slots by what they do"), &["state"])),
            state_bytes: register(
                &registry,
                GaugeVec::new(Opts::new("bdh_state_bytes", "Bytes of states that are kept"), &["of"]),
            ),
            prompt_tokens: counter("bdh_prompt_tokens_total", "Tokens of prompts"),
            generation_tokens: counter("bdh_generation_tokens_total", "Tokens drawn"),
            cache_queries: total("bdh_prefix_cache_queries_total", "Tokens of prompts looked for in the prefix cache"),
            cache_hits: total("bdh_prefix_cache_hits_total", "Tokens of prompts found in the prefix cache"),
            success: labelled("bdh_request_success_total", "Sequences that ended", "finished_reason"),
            cancelled: labelled("bdh_cancelled_total", "Requests whose client went", "phase"),
            rejected: counter("bdh_requests_rejected_total", "Requests that found the queue full"),
            failed: counter("bdh_request_failures_total", "Sequences that failed"),
            first_token: histogram("bdh_time_to_first_token_seconds", "From request to first token", &LONG),
            inter_token: histogram("bdh_inter_token_latency_seconds", "Between two tokens", &SHORT),
            end_to_end: histogram("bdh_e2e_request_latency_seconds", "From request to last token", &LONG),
            queue: histogram("bdh_request_queue_time_seconds", "From request to slot", &LONG),
            prefill: histogram("bdh_request_prefill_time_seconds", "From slot to first token", &LONG),
            decode: histogram("bdh_request_decode_time_seconds", "From first token to last", &LONG),
            registry,
        };
        for reason in [FinishReason::Stop, FinishReason::Length] {
            metrics.success.with_label_values(&[finish_word(reason)]);
        }
        for stage in [Stage::Queued, Stage::Prefill, Stage::Decode] {
            metrics.cancelled.with_label_values(&[stage_word(stage)]);
        }
        metrics
    }

    pub fn prompt_tokens(&self, tokens: usize) {
        self.prompt_tokens.inc_by(tokens as u64);
    }

    pub fn generation_tokens(&self, tokens: usize) {
        self.generation_tokens.inc_by(tokens as u64);
    }

    pub fn queue_time(&self, time: Duration) {
        self.queue.observe(time.as_secs_f64());
    }

    /// The first token came, `reading` after the sequence got its slot.
    pub fn first_token(&self, time: Duration, reading: Duration) {
        self.first_token.observe(time.as_secs_f64());
        self.prefill.observe(reading.as_secs_f64());
    }

    /// A burst brought `tokens` tokens, `time` after the one before.
    pub fn inter_token(&self, time: Duration, tokens: usize) {
        for index in 0..tokens {
            self.inter_token.observe(if index == 0 { time.as_secs_f64() } else { 0.0 });
        }
    }

    /// A sequence ended, `drawing` after its first token, or failed.
    pub fn ended(&self, time: Duration, drawing: Duration, reason: FinishReason) {
        if reason == FinishReason::Error {
            return self.failed.inc();
        }
        self.success.with_label_values(&[finish_word(reason)]).inc();
        self.end_to_end.observe(time.as_secs_f64());
        self.decode.observe(drawing.as_secs_f64());
    }

    pub fn cancelled(&self, stage: Stage) {
        self.cancelled.with_label_values(&[stage_word(stage)]).inc();
    }

    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// The text that Prometheus reads.
    pub fn text(&self, status: Status, conversations: u64) -> String {
        self.running.set(status.running as f64);
        self.waiting.set(status.waiting as f64);
        self.slots.with_label_values(&["busy"]).set(status.running as f64);
        self.slots.with_label_values(&["idle"]).set((status.slots - status.running) as f64);
        self.state_bytes.with_label_values(&["prompts"]).set(status.cache_bytes as f64);
        self.state_bytes.with_label_values(&["conversations"]).set(conversations as f64);
        self.cache_queries.inc_by(status.cache_queries as f64 - self.cache_queries.get());
        self.cache_hits.inc_by(status.cache_hits as f64 - self.cache_hits.get());
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            Err(_) => String::new(),
        }
    }
}

/// Adds a metric to the registry.
fn register<T: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<T, prometheus::Error>,
) -> T {
    let metric = metric.expect("names and labels are valid");
    registry.register(Box::new(metric.clone())).expect("names are unique");
    metric
}

/// The OpenAI API's word.
pub(super) fn finish_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Eos | FinishReason::Stop | FinishReason::Error => "stop",
    }
}

fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "queued",
        Stage::Prefill => "prefill",
        Stage::Decode => "decode",
    }
}
