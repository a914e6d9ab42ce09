//! Documents for a browser: the page's own code around the data, nothing from a network.

use super::arrays::{f32s, u32s};
use super::effects::Readout;
use super::html::{escape_html, is_hidden};
use super::text_page::NONE;
use super::weights::HostWeights;
use crate::generation::Bdh;
use crate::model::forgetting::Forgetting;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Name and version of the format.
pub const FORMAT: &str = "bdh-gpu-inspect-1";
/// Tokens that a neuron's direct effect raises and lowers, each.
pub(super) const EFFECTS: usize = 10;

/// Text beside the data of a page.
#[derive(Clone, Debug, Default)]
pub struct PageText {
    /// Its title.
    pub title: String,
    /// The command that repeats it.
    pub command: Option<String>,
    /// Names of neurons, `{"h.i": {"name", "note", "score"}}`.
    pub labels: Map<String, Value>,
}

/// Fields that every page has.
pub(super) fn heading(kind: &str, bdh: &Bdh, forgetting: Forgetting, text: &PageText) -> Value {
    let (model, config) = (bdh.model(), &bdh.model().config);
    let forgetting = match forgetting {
        Forgetting::Full => Value::Null,
        Forgetting::After { context, tau } => json!({"context": context, "tau": tau}),
        Forgetting::Window { tokens } => json!({"window": tokens}),
    };
    let mut data = json!({
        "format": FORMAT,
        "kind": kind,
        "title": text.title,
        "model": {
            "name": model.name,
            "layers": config.n_layer,
            "heads": config.n_head,
            "neurons_per_head": config.neurons_per_head,
            "width": config.n_embd,
            "vocabulary": config.vocab_size,
            "weights": bdh.backend().weight_type().to_string(),
            "device": bdh.device().to_string(),
        },
        "forgetting": forgetting,
        "labels": text.labels,
    });
    if let Some(command) = &text.command {
        data["command"] = json!(command);
    }
    data
}

/// The direct effects of neurons, whose tokens are added to those `named`.
pub(super) fn effects(bdh: &Bdh, weights: &HostWeights, neurons: &[u32], named: &mut BTreeSet<u32>) -> Value {
    let readout = Readout::new(bdh.model());
    let shape = [neurons.len(), EFFECTS];
    let [mut plus, mut minus] = [Vec::new(), Vec::new()];
    for &neuron in neurons {
        let effects = readout.effects(weights.decoder(neuron), EFFECTS);
        for (all, own) in [(&mut plus, effects.plus), (&mut minus, effects.minus)] {
            all.extend(own.into_iter().chain(std::iter::repeat((NONE, 0.0))).take(EFFECTS));
        }
    }
    named.extend(plus.iter().chain(&minus).map(|(token, _)| *token).filter(|token| *token != NONE));
    let ids = |all: &[(u32, f32)]| u32s(&shape, &all.iter().map(|(token, _)| *token).collect::<Vec<_>>());
    let values = |all: &[(u32, f32)]| f32s(&shape, &all.iter().map(|(_, value)| *value).collect::<Vec<_>>());
    json!({
        "k": EFFECTS,
        "neurons": u32s(&[neurons.len()], neurons),
        "plus": ids(&plus),
        "plus_values": values(&plus),
        "minus": ids(&minus),
        "minus_values": values(&minus),
    })
}

/// The text of `tokens`, where each token is in it, and the texts of the tokens that the data name.
pub(super) fn put_text(data: &mut Value, bdh: &Bdh, tokens: &[u32], mut named: BTreeSet<u32>) {
    let pieces = bdh.text_stream().pieces(tokens);
    let mut starts = vec![0];
    starts.extend(pieces.iter().scan(0, |end, piece| {
        *end += piece.encode_utf16().count() as u32;
        Some(*end)
    }));
    data["text"] = json!(pieces.concat());
    data["tokens"] = json!({"ids": u32s(&[tokens.len()], tokens), "starts": u32s(&[starts.len()], &starts)});
    named.extend(tokens);
    data["token_texts"] = token_texts(bdh, &named);
}

/// Texts by id.
pub(super) fn token_texts(bdh: &Bdh, ids: &BTreeSet<u32>) -> Value {
    ids.iter().map(|&id| (id.to_string(), Value::String(bdh.decode(&[id])))).collect::<Map<_, _>>().into()
}

/// The code of pages: files that make one module together, in this order.
pub const SCRIPT: &str = concat!(
    include_str!("page/arrays.js"),
    include_str!("page/words.js"),
    include_str!("page/elements.js"),
    include_str!("page/colours.js"),
    include_str!("page/route.js"),
    include_str!("page/trace.js"),
    include_str!("page/layout.js"),
    include_str!("page/textview.js"),
    include_str!("page/tip.js"),
    include_str!("page/charts.js"),
    include_str!("page/token.js"),
    include_str!("page/synapses.js"),
    include_str!("page/entry.js"),
    include_str!("page/neuron.js"),
    include_str!("page/state.js"),
    include_str!("page/sparsity.js"),
    include_str!("page/search.js"),
    include_str!("page/atlas.js"),
    include_str!("page/frame.js"),
    include_str!("page/mount.js"),
);
/// Its style.
pub const STYLE: &str = include_str!("page/style.css");
const SHELL: &str = include_str!("page/shell.html");

/// Sources of a page's scripts beside its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shards {
    None,
    /// From files beside it.
    Beside,
}

/// The document around data.
pub(super) fn html(data: &Value, shards: Shards) -> String {
    let digest = BASE64_STANDARD.encode(Sha256::digest(SCRIPT));
    let beside = if shards == Shards::Beside { " 'self' file:" } else { "" };
    let policy =
        format!("default-src 'none'; script-src 'sha256-{digest}'{beside}; style-src 'unsafe-inline'; img-src data:");
    let title = data["title"].as_str().unwrap_or_default();
    let fields = [
        ("title", escape_html(title)),
        ("policy", policy),
        ("style", STYLE.to_string()),
        ("data", escape_json(&data.to_string())),
        ("script", SCRIPT.to_string()),
    ];
    let mut document = String::new();
    let mut rest = SHELL;
    while let Some((before, after)) = rest.split_once("{{") {
        document.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        let field = fields.iter().find(|(field, _)| *field == name);
        document.push_str(field.map_or("", |(_, value)| value));
        rest = after;
    }
    document + rest
}

/// JSON that means the same within a script element, whatever texts are in it.
pub(super) fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len() + json.len() / 64);
    let mut units = [0; 2];
    for character in json.chars() {
        // All of these are in strings only: the JSON is on one line.
        if matches!(character, '<' | '>' | '&') || is_hidden(character) {
            for unit in character.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_end_the_element_that_they_are_in() {
        let data = json!({"title": "</title><script>", "text": "</script><!--\u{2028}&{{script}}"});
        let document = html(&data, Shards::None);
        assert!(!document.contains("</title><script>") && !document.contains("</script><!--"));
        let (_, after) = document.split_once("id=\"data\">").unwrap();
        let (found, _) = after.split_once("</script>").unwrap();
        assert_eq!(serde_json::from_str::<Value>(found).unwrap(), data);
        assert_eq!(document.matches("{{").count(), STYLE.matches("{{").count() + SCRIPT.matches("{{").count() + 1);
    }
}
