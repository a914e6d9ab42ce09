//! Texts of others in HTML.

use std::fmt::Write;

/// Text that is text in HTML, in elements and in quoted attributes. Line ends and tabs are marked;
/// other characters that nobody can see, or that turn the text around them, are written as ⟨U+…⟩.
pub fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' => escaped.push_str("↵\n"),
            '\t' => escaped.push_str("⇥\t"),
            other if is_hidden(other) => {
                let _ = write!(escaped, "⟨U+{:04X}⟩", u32::from(other));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// Whether nobody can see a character, or it turns the text around it.
pub(super) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_acts_on_a_page() {
        assert_eq!(escape_html("<b a='\"'>&\u{202e}\u{0}x\n"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;⟨U+202E⟩⟨U+0000⟩x↵\n");
        assert!(is_hidden('\u{e0041}') && !is_hidden('é'));
    }
}
