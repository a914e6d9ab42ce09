//! Drawing: a conversation goes on.

use super::Session;
#[cfg(doc)]
use crate::generation::Bdh;
use crate::generation::batch::Drawing;
use crate::generation::chooser::{Chooser, Process};
use crate::generation::stop::StopScan;
use crate::generation::tally::{Tally, mark_eos};
use crate::generation::{FinishReason, Generated, GenerationError, GenerationOptions};
use crate::sampling::BiasRow;
use maybe_async::maybe_async;
use std::ops::ControlFlow;

/// With stop texts, the state is kept every so many tokens: what lies between is read again after a stop.
const CHECKPOINT_TOKENS: usize = 512;

#[maybe_async]
impl Session {
    /// Continues the conversation.
    ///
    /// An empty conversation starts from [`Bdh::default_prompt`]. A generation that follows another one
    /// directly goes on with it: penalties and `min_new_tokens` count its tokens too. The random numbers go on
    /// in any case, so that the same seed never repeats them within a conversation.
    ///
    /// # Errors
    /// As [`Session::feed`]; options out of range, before any work starts; and logits that allow no draw.
    pub async fn generate(&mut self, options: &GenerationOptions) -> Result<Generated, GenerationError> {
        self.generate_with(options, |_| ControlFlow::Continue(())).await
    }

    /// As [`Session::generate`]. `each` receives the new tokens in bursts, as the device delivers
    /// them, and may end the generation. Tokens that may be part of a stop text wait until that is known.
    ///
    /// # Errors
    /// See there. `each` has received every token that was drawn before.
    pub async fn generate_with(
        &mut self,
        options: &GenerationOptions,
        each: impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<Generated, GenerationError> {
        self.continue_text(options, None, each).await
    }

    /// As [`Session::generate_with`], for callers who have a say in every token: `process` receives
    /// the tokens drawn so far in this generation and the logits `[V]` of the next one, and may
    /// change them. Minus infinity forbids a token; at least one must be left. Penalties,
    /// temperature and the rest follow. If it changes nothing, the text is the one of
    /// [`Session::generate_with`].
    ///
    /// The logits come to the host for every token, so the device works on one token at a time.
    ///
    /// # Errors
    /// As [`Session::generate_with`].
    ///
    /// ```
    /// # #[cfg(feature = "embedded-model")] {
    /// use bdh_gpu::Bdh;
    /// use std::ops::ControlFlow;
    ///
    /// let model = Bdh::embedded()?;
    /// let mut session = model.session()?;
    /// session.feed(&model.encode(b"In the year ")?)?;
    /// let digits = |_: &[u32], logits: &mut [f32]| {
    ///     for (byte, logit) in logits.iter_mut().enumerate() {
    ///         if !(byte as u8).is_ascii_digit() {
    ///             *logit = f32::NEG_INFINITY;
    ///         }
    ///     }
    /// };
    /// let options = bdh_gpu::GenerationOptions { max_new_tokens: 4, ..model.options() };
    /// let year = session.generate_processed(&options, digits, |_| ControlFlow::Continue(()))?;
    /// assert!(model.decode(&year.tokens).parse::<u32>().is_ok());
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn generate_processed(
        &mut self,
        options: &GenerationOptions,
        mut process: impl FnMut(&[u32], &mut [f32]),
        each: impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<Generated, GenerationError> {
        self.continue_text(options, Some(&mut process), each).await
    }

    /// Draws on the device, or on the host from logits that `process` has changed.
    async fn continue_text(
        &mut self,
        options: &GenerationOptions,
        process: Option<&mut Process<'_>>,
        mut each: impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<Generated, GenerationError> {
        options.validate()?;
        self.bdh.check_stops(&options.stop)?;
        let biases = BiasRow::new(&options.logit_bias, self.bdh.model().config.vocab_size)?;
        let seed = options.seed.unwrap_or_else(rand::random);
        self.start().await?;
        self.seed = Some(seed);
        let params = self.tally.start(options, seed);
        let before = self.text_stream();
        let mut scan = StopScan::new(&options.stop, before.clone());
        let mut checkpoint = if scan.is_active() { Some((self.snapshot().await?, 0)) } else { None };
        let counts = |tally: &Tally| mark_eos(tally.counts.clone(), &options.eos_token_ids);
        let mut chooser = process.map(|process| {
            let drawing = Drawing { params, counts: &counts(&self.tally), biases: &biases, drawn: self.tally.drawn };
            Chooser::new(&drawing, process)
        });
        let limit = self.batch.room_for(0, options.max_new_tokens)?;
        self.batch.hurry();
        let mut tokens = Vec::new();
        let mut drawn = 0;
        let mut finish_reason = FinishReason::Length;
        while drawn < limit {
            let advanced = match &mut chooser {
                Some(chooser) => {
                    let mut progress = chooser.advance(&mut self.batch, 0).await;
                    progress.iter_mut().for_each(|progress| self.show(progress));
                    progress
                }
                None => {
                    // At the start, and where another device goes on.
                    if !self.batch.is_drawing(0) {
                        let counts = &counts(&self.tally);
                        let drawing = Drawing { params, counts, biases: &biases, drawn: self.tally.drawn };
                        self.batch.draw(0, limit - drawn, &drawing).await?;
                    }
                    self.advance().await
                }
            };
            let progress = match advanced {
                Ok(progress) => progress,
                Err(error) => match self.survive(Err(error)).await {
                    Ok(()) => continue,
                    Err(error) => {
                        release(&mut scan, &mut tokens, &mut each);
                        self.text.skip(&tokens);
                        return Err(error);
                    }
                },
            };
            drawn += progress.drawn.len();
            self.tally.draw(&progress.drawn);
            self.remember(&progress.drawn);
            let known = tokens.len();
            let stopped = scan.push(&progress.drawn, &mut tokens);
            let flow = if tokens.len() > known { each(&tokens[known..]) } else { ControlFlow::Continue(()) };
            if let Some(failure) = progress.failure {
                release(&mut scan, &mut tokens, &mut each);
                self.text.skip(&tokens);
                return Err(failure);
            }
            if stopped {
                if let Some((snapshot, position)) = &checkpoint {
                    self.rewind(snapshot, &tokens[*position..]).await?;
                }
                self.batch.rest(0);
                self.text = before;
                self.text.skip(&tokens);
                let tail = scan.take_tail();
                let finish_reason = FinishReason::Stop;
                return Ok(Generated { tokens, tail, finish_reason, seed: Some(seed), score: None });
            }
            if progress.ended {
                finish_reason = FinishReason::Eos;
                break;
            }
            if flow.is_break() {
                finish_reason = FinishReason::Stop;
                break;
            }
            if let Some((_, position)) = checkpoint
                && tokens.len() == drawn
                && drawn - position >= CHECKPOINT_TOKENS
            {
                // Nothing is held back here.
                checkpoint = Some((self.snapshot().await?, drawn));
            }
        }
        self.batch.rest(0);
        release(&mut scan, &mut tokens, &mut each);
        self.text.skip(&tokens);
        Ok(Generated { tokens, tail: String::new(), finish_reason, seed: Some(seed), score: None })
    }

    /// The logits `[V]` of the token that comes next, as the model gives them: without penalties
    /// and temperature. The conversation stays as it is; an empty one gets its beginning as in
    /// [`Session::generate`].
    ///
    /// # Errors
    /// A device that fails; a conversation that is full.
    pub async fn next_logits(&mut self) -> Result<Vec<f32>, GenerationError> {
        self.start().await?;
        let (snapshot, text) = (self.snapshot().await?, self.text.clone());
        let logits = match self.last_logits().await {
            // Unless the conversation has gone to the CPU, this gives the error back.
            Err(error) => match self.survive(Err(error)).await {
                Ok(()) => self.last_logits().await,
                Err(error) => Err(error),
            },
            logits => logits,
        };
        self.restore(&snapshot).await?;
        self.text = text;
        logits
    }

    /// The logits after the last token, which is read now.
    async fn last_logits(&mut self) -> Result<Vec<f32>, GenerationError> {
        let mut last = Vec::new();
        // A token is read when there is one after it. The one added here is never read.
        self.trace(&[0], |_, logits| {
            last.clear();
            last.extend_from_slice(logits);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        Ok(last)
    }
}

/// Hands out what was held back for a stop text: no more tokens will come.
fn release(scan: &mut StopScan, tokens: &mut Vec<u32>, each: &mut impl FnMut(&[u32]) -> ControlFlow<()>) {
    let known = tokens.len();
    scan.finish(tokens);
    if tokens.len() > known {
        let _ = each(&tokens[known..]);
    }
}
