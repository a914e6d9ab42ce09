//! Conversations as one text.

use crate::server::error::ApiError;
use axum::http::StatusCode;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, context};
use serde::Serialize;

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::server) struct Message {
    pub role: String,
    pub content: String,
}

/// Turns messages into a prompt.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Texts that end an answer.
    stops: Vec<String>,
    bos: Option<String>,
    eos: Option<String>,
}

/// Templates that come with the server, and the texts that end an answer in them.
const BUILT_IN: [(&str, &str, &[&str]); 2] = [
    (
        "user-assistant",
        "{% for message in messages %}\
         {% if message.role == 'user' %}User: {{ message.content }}\n\
         {% elif message.role == 'assistant' %}Assistant: {{ message.content }}\n\
         {% else %}{{ message.content }}\n{% endif %}{% endfor %}Assistant:",
        &["\nUser:", "<|endoftext|>"],
    ),
    (
        "transcript",
        "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\n{% endfor %}assistant:",
        &["\n\nuser:"],
    ),
];

/// Steps that a template may take: none of them runs for ever.
const FUEL: u64 = 10_000_000;

impl ChatTemplate {
    /// The built-in template of this name.
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, source, stops) = BUILT_IN.into_iter().find(|(known, ..)| *known == name)?;
        let stops = stops.iter().map(|&stop| stop.to_owned()).collect();
        Some(Self { stops, ..Self::parse(source).expect("a built-in template is valid") })
    }

    /// Names of the built-in templates.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.into_iter().map(|(name, ..)| name)
    }

    /// A template in Jinja, as models of the Hugging Face Hub have them.
    ///
    /// # Errors
    /// Why it is no template.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        // Templates call it to refuse a conversation.
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned("chat", source.to_owned()).map_err(|error| error.to_string())?;
        Ok(Self { environment, stops: Vec::new(), bos: None, eos: None })
    }

    /// With the model's special tokens, which templates may name.
    pub fn with_tokens(self, bos: Option<String>, eos: Option<String>) -> Self {
        Self { bos, eos, ..self }
    }

    /// Texts that end an answer.
    pub(in crate::server) fn stops(&self) -> &[String] {
        &self.stops
    }

    /// The prompt that asks for the next message.
    pub(in crate::server) fn render(&self, messages: &[Message]) -> Result<String, ApiError> {
        let (bos_token, eos_token) = (self.bos.as_deref(), self.eos.as_deref());
        let messages = Serde(messages);
        let rendered = self
            .environment
            .get_template("chat")
            .and_then(|chat| chat.render(context! { messages, bos_token, eos_token, add_generation_prompt => true }));
        rendered.map_err(|error| {
            let message = format!("the chat template does not take these messages: {error}");
            ApiError::new(StatusCode::BAD_REQUEST, message).param("messages")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
        turns.iter().map(|&(role, content)| Message { role: role.into(), content: content.into() }).collect()
    }

    #[test]
    fn built_in_templates_are_plain_text() {
        let turns = messages(&[("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "{{ 1 }}")]);
        let render = |name| ChatTemplate::built_in(name).unwrap().render(&turns).unwrap();
        assert_eq!(render("user-assistant"), "Be brief.\nUser: Hi\nAssistant: Yes?\nUser: {{ 1 }}\nAssistant:");
        assert_eq!(
            render("transcript"),
            "system: Be brief.\n\nuser: Hi\n\nassistant: Yes?\n\nuser: {{ 1 }}\n\nassistant:"
        );
        assert!(ChatTemplate::built_in("chatml").is_none());
    }

    #[test]
    fn models_templates_use_pythons_methods_and_refuse() {
        let source = "{{ bos_token }}{% for m in messages %}{% if m['role'].startswith('tool') %}\
                      {{ raise_exception('no tools') }}{% endif %}[{{ m['content'].strip() }}]{% endfor %}";
        let template = ChatTemplate::parse(source).unwrap().with_tokens(Some("<s>".into()), None);
        assert_eq!(template.render(&messages(&[("user", " a ")])).unwrap(), "<s>[a]");
        let refused = template.render(&messages(&[("tool", "a")])).unwrap_err();
        assert!(refused.body()["error"]["message"].as_str().unwrap().contains("no tools"));
        assert!(ChatTemplate::parse("{% for %}").is_err());
        let endless =
            ChatTemplate::parse("{% for i in range(100000) %}{% for j in range(100000) %}a{% endfor %}{% endfor %}");
        assert!(endless.unwrap().render(&[]).is_err());
    }
}
