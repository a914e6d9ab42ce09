//! Numbers, options and tables for people.

use bdh_gpu::generation::{Mean, Settings};
use bdh_gpu::options::{self, Effect, Kind, Spec, specs};
use clap::ValueEnum;

/// What a message shows of a text that somebody typed: its beginning, without what would move a terminal's cursor.
pub fn excerpt(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut shown: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// A number with its thousands separated.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number in two or three digits and a letter: `1.6M`.
pub fn short(number: u64) -> String {
    scaled(number as f64, 1000.0, &["", "K", "M", "G", "T", "P", "E"])
}

/// A number of bytes: `8.0 MiB`.
pub fn bytes(number: u64) -> String {
    scaled(number as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

fn scaled(mut number: f64, base: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What would be shown as a full thousand belongs to the next unit.
    while number.round() >= base && unit + 1 < units.len() {
        number /= base;
        unit += 1;
    }
    let decimals = if unit == 0 || number >= 99.95 { 0 } else { 1 };
    format!("{number:.decimals$}{}", units[unit])
}

/// The settings that have an effect, as generation_config.json names them.
pub fn settings(settings: &Settings) -> String {
    let request = settings.request();
    let (beams, greedy) = (settings.uses_beams(), settings.options.sampling.is_greedy());
    let has_effect = |spec: &Spec| match spec.effect {
        Effect::Always => true,
        Effect::Drawing => !beams && !greedy,
        Effect::OnlyDrawing => !beams,
        Effect::Beams => beams,
    };
    // Without these nobody knows how long the text gets, or how likely its tokens are.
    let always = [specs::max_new_tokens.name, specs::temperature.name];
    let shown = |spec: &'static Spec| {
        let value = spec.given(&request).filter(|_| has_effect(spec))?;
        let separate = matches!(spec.kind, Kind::Switch | Kind::Texts | Kind::Ids | Kind::Biases);
        let expected = spec.is_default(&value) && spec.effect != Effect::Beams && !always.contains(&spec.name);
        (!separate && !expected).then(|| format!("{} {value}", spec.name))
    };
    let under = |heading| options::in_help_order().filter(move |spec| spec.heading == heading);
    let mut parts: Vec<String> = under(options::LENGTH).filter_map(shown).collect();
    if beams {
        parts.push(format!("num_beams {}", settings.num_beams));
    } else if greedy {
        parts.push("greedy".to_string());
    }
    parts.extend(under(options::CHOOSING).filter_map(shown));
    if !settings.options.eos_token_ids.is_empty() {
        parts.push(format!("eos_token_id {}", ids(&settings.options.eos_token_ids)));
    }
    parts.extend(settings.options.logit_bias.iter().map(|(id, bias)| format!("logit_bias {id}={bias}")));
    parts.extend(settings.options.stop.iter().map(|stop| format!("stop {stop:?}")));
    parts.extend(under(options::BEAMS).filter(|spec| spec.effect == Effect::Beams).filter_map(shown));
    parts.join(", ")
}

/// Token ids after one another.
pub fn ids(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// Lines of a name and a value, the values below one another.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// Columns below one another, a heading first.
pub fn columns<'a>(heading: impl AsRef<[&'a str]>, rows: &[impl AsRef<[String]>]) -> String {
    let heading = heading.as_ref();
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(heading.to_vec());
    for row in rows {
        text.push_str(&line(row.as_ref().iter().map(String::as_str).collect()));
    }
    text
}

/// A mean and its standard error, if it has one: `2.1450 ± 0.0120`.
pub fn mean(mean: Mean) -> String {
    match mean.standard_error {
        Some(error) => format!("{:.4} ± {error:.4}", mean.bits),
        None => format!("{:.4}", mean.bits),
    }
}

/// How to print a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Report {
    #[default]
    Text,
    Json,
    Csv,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_short() {
        assert_eq!([0, 999, 1000, 1_638_400].map(thousands), ["0", "999", "1,000", "1,638,400"]);
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!([7, 999, 1000, 99_949, 99_950, 1_638_400].map(short), ["7", "999", "1.0K", "99.9K", "100K", "1.6M"]);
        assert_eq!([999_499, 999_500, 25_000_000_000].map(short), ["999K", "1.0M", "25.0G"]);
        assert_eq!([0, 1023, 1024, 8 << 20].map(bytes), ["0 B", "1023 B", "1.0 KiB", "8.0 MiB"]);
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn tables_are_aligned() {
        assert_eq!(pairs(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2\n");
        let table = columns(["x", "yy"], &[["µµ".into(), "1".into()], ["b".into(), "2".into()]]);
        assert_eq!(table, "x   yy\nµµ  1\nb   2\n");
    }
}
