//! The text of a trace as a table, for notebooks: HTML without scripts or style sheets.

use bdh_gpu::Bdh;
use bdh_gpu::inspect::{Csr, Trace, escape_html};
use std::fmt::Write;

/// Colour of the most surprising token, and its opacity: text in black or white stays legible on
/// it.
const COLOUR: &str = "#d95f02";
const OPACITY: f32 = 160.0;
/// Layers that have a row of their own; the mean of all is always there.
const LAYERS: usize = 24;
const CELL: &str = "text-align:left;vertical-align:top";
const TEXT: &str = "text-align:left;white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;\
                    line-height:1.6;max-width:60em";

/// The table, at most `max_bytes` of it unless that is too little for its frame.
pub fn html(trace: &Trace, pieces: Option<&[String]>, bdh: &Bdh, max_bytes: usize) -> String {
    let tokens = trace.tokens.len();
    let highest = trace.surprise.iter().copied().filter(|bits| bits.is_finite()).fold(0.0, f32::max);
    let mut page = format!(
        "<div style=\"max-height:32em;overflow:auto\"><table><thead><tr><th colspan=3 style=\"{CELL}\">{}: {tokens} \
         tokens</th></tr><tr><th style=\"{CELL}\">layer</th><th style=\"{CELL}\">u &gt; 0, a token</th><th \
         style=\"{CELL}\">g &gt; 0, a token</th></tr></thead><tbody>",
        escape_html(&bdh.model().name),
    );
    for layer in (0..trace.layers).take(LAYERS) {
        put_counts(&mut page, trace, &layer.to_string(), |row| row % trace.layers == layer);
    }
    put_counts(&mut page, trace, "all", |_| true);
    let _ = write!(
        page,
        "<tr><td colspan=3 style=\"{CELL}\">The colour is the surprise of a token, from 0 (none) to {highest:.1} bits."
    );
    page.push_str(&format!("</td></tr><tr><td colspan=3 dir=\"auto\" style=\"{TEXT}\">"));
    const END: &str = "</td></tr></tbody></table></div>";
    let room = max_bytes.saturating_sub(END.len() + 64);
    let mut shown = 0;
    for group in groups(trace, pieces) {
        let span = group.span(highest);
        if page.len() + span.len() > room {
            let _ = write!(page, "<i> … and {} tokens more</i>", tokens - shown);
            break;
        }
        page.push_str(&span);
        shown += group.tokens;
    }
    page + END
}

/// A row of how many fire, and how many gates are open, over some rows of the trace.
fn put_counts(page: &mut String, trace: &Trace, name: &str, is_counted: impl Fn(usize) -> bool) {
    let cell = |csr: &Csr| {
        let counted: Vec<usize> = (0..csr.rows()).filter(|row| is_counted(*row)).collect();
        let sum: u64 = counted.iter().map(|&row| csr.indptr[row + 1] - csr.indptr[row]).sum();
        let mean = sum as f64 / counted.len().max(1) as f64;
        format!("<td style=\"{CELL}\">{mean:.1} ({:.1} %)</td>", 100.0 * mean / trace.neurons.max(1) as f64)
    };
    let (u, g) = (cell(&trace.u), cell(&trace.g));
    let _ = write!(page, "<tr><td style=\"{CELL}\">{name}</td>{u}{g}</tr>");
}

/// Tokens that make a text together: one, or those of a character.
struct Group {
    first: usize,
    tokens: usize,
    text: String,
    surprise: f32,
    fired: u64,
    open: u64,
}

/// The groups of a text; each token's id is its text where there is no other.
fn groups<'a>(trace: &'a Trace, pieces: Option<&'a [String]>) -> impl Iterator<Item = Group> + 'a {
    let mut first = 0;
    (0..trace.tokens.len()).filter_map(move |token| {
        let text = pieces.map_or_else(|| format!("{} ", trace.tokens[token]), |pieces| pieces[token].clone());
        if text.is_empty() && token + 1 < trace.tokens.len() {
            return None;
        }
        let rows = [first * trace.layers, (token + 1) * trace.layers];
        let count = |csr: &Csr| csr.indptr[rows[1]] - csr.indptr[rows[0]];
        let group = Group {
            first,
            tokens: token + 1 - first,
            text,
            surprise: trace.surprise[first..=token].iter().sum(),
            fired: count(&trace.u),
            open: count(&trace.g),
        };
        first = token + 1;
        Some(group)
    })
}

impl Group {
    fn span(&self, highest: f32) -> String {
        let Self { first, tokens, text, surprise, fired, open } = self;
        let mut about = match tokens {
            1 => format!("token {first}"),
            _ => format!("tokens {first} to {}", first + tokens - 1),
        };
        let mut style = String::new();
        if surprise.is_finite() {
            let _ = write!(about, ", {surprise:.1} bits");
            let share = (surprise / highest.max(f32::MIN_POSITIVE)).clamp(0.0, 1.0);
            style = format!(" style=\"background:{COLOUR}{:02x}\"", (OPACITY * share).round() as u8);
        }
        let _ = write!(about, ", u {fired}, g {open}");
        format!("<span title=\"{about}\"{style}>{}</span>", escape_html(text))
    }
}
