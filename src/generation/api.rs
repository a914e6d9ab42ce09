//! The simple calls: a model by its path, text in, text out.
//!
//! They forget as the model says ([`Forgetting::of_model`]) and take the options as they are given;
//! [`GenerationOptions::of_model`] makes those that the model asks for.

use super::{
    BatchEvent, BatchOptions, Bdh, DeviceChoice, Generated, GenerationError, GenerationOptions, OpenError, WeightChoice,
};
use crate::model::forgetting::Forgetting;
use crate::model::{LoadOptions, Model};
use maybe_async::maybe_async;
use std::ops::ControlFlow;
use std::path::Path;

#[maybe_async]
impl Bdh {
    /// Loads a model directory, a weights file or a model of the Hugging Face Hub, `owner/name`,
    /// and puts it on the best device there is. [`Bdh::new`] chooses another one,
    /// [`Model::from_pretrained`] tells how a download goes.
    ///
    /// # Errors
    /// As [`Model::from_pretrained`] and [`Bdh::new`].
    pub async fn from_pretrained(model: impl AsRef<Path>) -> Result<Self, OpenError> {
        let model = Model::from_pretrained(model, &LoadOptions::default(), &mut |_| ControlFlow::Continue(()))?;
        Ok(Self::new(model, &DeviceChoice::Auto, WeightChoice::Auto).await?)
    }

    /// Puts the model inside the program on the best device there is.
    ///
    /// # Errors
    /// As [`Bdh::new`].
    #[cfg(feature = "embedded-model")]
    pub async fn embedded() -> Result<Self, OpenError> {
        Ok(Self::new(Model::embedded()?, &DeviceChoice::Auto, WeightChoice::Auto).await?)
    }

    /// Continues a prompt; the text that is returned begins with it. An empty prompt starts from
    /// [`Bdh::default_prompt`].
    ///
    /// # Errors
    /// [`GenerationError`] for options out of range or a prompt that the model has no tokens for, before any work
    /// starts; logits that allow no draw; a device that fails.
    ///
    /// ```
    /// # #[cfg(feature = "embedded-model")] {
    /// use bdh_gpu::{Bdh, GenerationOptions};
    ///
    /// let model = Bdh::embedded()?;
    /// let options = GenerationOptions { max_new_tokens: 20, seed: Some(7), ..Default::default() };
    /// let text = model.generate_text("To be or ", &options)?;
    /// assert!(text.starts_with("To be or ") && text.len() > 9);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn generate_text(&self, prompt: &str, options: &GenerationOptions) -> Result<String, GenerationError> {
        let tokens = self.encode(prompt.as_bytes())?;
        let generated = self.generate(&tokens, options).await?;
        Ok(prompt.to_owned() + &self.text_after(&tokens, &generated))
    }

    /// Continues a list of token ids; what is returned are the new ones. An empty list stands for
    /// [`Bdh::default_prompt`].
    ///
    /// # Errors
    /// As [`Bdh::generate_text`], and for an id outside the vocabulary.
    ///
    /// ```
    /// # #[cfg(feature = "embedded-model")] {
    /// use bdh_gpu::{Bdh, GenerationOptions, SamplingOptions};
    ///
    /// let model = Bdh::embedded()?;
    /// let options =
    ///     GenerationOptions { max_new_tokens: 5, sampling: SamplingOptions::greedy(), ..Default::default() };
    /// let generated = model.generate(&[75, 73, 78, 71, 58], &options)?;
    /// assert_eq!(generated.tokens.len(), 5);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn generate(&self, prompt: &[u32], options: &GenerationOptions) -> Result<Generated, GenerationError> {
        options.validate()?;
        let mut session = self.session().await?;
        session.feed(prompt).await?;
        session.generate(options).await
    }

    /// The text that was generated after a prompt that was a text.
    fn text_after(&self, prompt: &[u32], generated: &Generated) -> String {
        let mut stream = self.continuation(prompt);
        stream.settle();
        stream.text(&generated.tokens) + &generated.tail
    }

    /// Continues many prompts side by side; the texts begin with their prompts and are in their order. A text
    /// does not depend on its company: it is what [`Bdh::generate_text`] makes of its prompt with the same seed.
    /// [`Bdh::run_batch`] can do more.
    ///
    /// # Errors
    /// As [`Bdh::generate_text`], if only for one of the prompts.
    ///
    /// ```
    /// # #[cfg(feature = "embedded-model")] {
    /// use bdh_gpu::{Bdh, GenerationOptions};
    ///
    /// let model = Bdh::embedded()?;
    /// let options = GenerationOptions { max_new_tokens: 10, ..Default::default() };
    /// let texts = model.generate_batch(&["Hello", "In the beginning"], &options)?;
    /// assert!(texts[0].starts_with("Hello") && texts[1].starts_with("In the beginning"));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn generate_batch(
        &self,
        prompts: &[impl AsRef<str>],
        options: &GenerationOptions,
    ) -> Result<Vec<String>, GenerationError> {
        let tokens = prompts.iter().map(|prompt| self.encode(prompt.as_ref().as_bytes()));
        let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
        let forgetting = Forgetting::of_model(&self.model().config);
        let batch = BatchOptions { num_return_sequences: 1, slots: None, burst: None, forgetting, seeds: Vec::new() };
        let mut texts: Vec<String> = prompts.iter().map(|prompt| prompt.as_ref().to_owned()).collect();
        let mut failure = None;
        self.run_batch(&tokens, options, &batch, |event| {
            if let BatchEvent::Done(done) = event {
                match done.result {
                    Ok(generated) => {
                        let at = done.prompt;
                        texts[at] += &self.text_after(&tokens[at], &generated);
                    }
                    Err(error) => {
                        failure = Some(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        })
        .await?;
        if let Some(error) = failure {
            return Err(error);
        }
        Ok(texts)
    }
}
