//! Generation options as the fields of a request: one per row of the table of options, under its
//! own name and those that clients of other servers use.

use super::error::ApiError;
use super::fields::Fields;
use crate::options::{OPTIONS, Request, Spec, specs};

/// Other names of options.
const ALIASES: [(&str, &Spec); 5] = [
    ("max_tokens", &specs::max_new_tokens),
    ("max_completion_tokens", &specs::max_new_tokens),
    ("n_predict", &specs::max_new_tokens),
    ("repeat_penalty", &specs::repetition_penalty),
    ("min_tokens", &specs::min_new_tokens),
];

/// Every field that gives an option.
pub(super) fn names() -> impl Iterator<Item = (&'static str, &'static Spec)> {
    ALIASES.into_iter().chain(OPTIONS.into_iter().map(|spec| (spec.name, spec)))
}

/// The options that a request gives. Of two names of one option, the first of [`names`] counts.
pub(super) fn read(fields: &mut Fields) -> Result<Request, ApiError> {
    let mut request = Request::default();
    for (name, spec) in names() {
        let Some(value) = fields.take(name, &spec.kind.to_string(), |value| spec.from_json(value))? else { continue };
        if let Err(error) = spec.check(&value) {
            return Err(ApiError::invalid(name, format!("{name} must be {}, got {}", error.range, error.value)));
        }
        if spec.given(&request).is_none() {
            spec.give(&mut request, value).map_err(|error| {
                ApiError::invalid(name, format!("{name} must be {}, got {}", error.range, error.value))
            })?;
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;

    fn request(text: &'static str) -> Result<Request, String> {
        let mut fields = Fields::of_body(&Bytes::from_static(text.as_bytes())).unwrap();
        read(&mut fields).map_err(|error| error.body()["error"]["message"].as_str().unwrap().to_owned())
    }

    #[test]
    fn options_have_their_own_names_and_those_of_other_servers() {
        let given = request(
            r#"{"max_tokens": 5, "n_predict": 9, "top_k": -1, "temperature": 0, "repeat_penalty": 1.5,
                "stop": "a", "seed": -1, "top_p": null, "eos_token_id": 3}"#,
        )
        .unwrap();
        let expected = Request {
            max_new_tokens: Some(5),
            top_k: Some(0),
            temperature: Some(0.0),
            repetition_penalty: Some(1.5),
            stop: Some(vec!["a".to_owned()]),
            seed: Some(u64::MAX),
            eos_token_id: Some(vec![3]),
            ..Request::default()
        };
        assert_eq!(given, expected);
    }

    #[test]
    fn errors_have_the_name_that_was_used() {
        for (text, message) in [
            (r#"{"repeat_penalty": 0}"#, "repeat_penalty must be finite and above 0, got 0"),
            (r#"{"max_tokens": -1}"#, "max_tokens must be a whole number from 0 to 18446744073709551615, got -1"),
            (r#"{"temperature": "hot"}"#, "temperature must be a number, got \"hot\""),
            (r#"{"temperature": 1e300}"#, "temperature must be finite and at least 0, got inf"),
        ] {
            assert_eq!(request(text), Err(message.to_owned()));
        }
    }
}
