//! The piece of a text that shows why it was found.

use std::collections::HashMap;

use crate::analyze::{stem, terms};

/// Length of a snippet in characters of the text, without marks and escapes: two lines of a result list.
pub const SNIPPET_CHARS: usize = 160;

/// How many characters stand before the first mark when the text begins earlier.
const LEAD_CHARS: usize = 40;

/// A piece of one field, as HTML: everything escaped, and the words found between `<mark>` and `</mark>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Highlight {
    /// The field, by its declared name.
    pub field: String,
    /// The piece.
    pub html: String,
}

/// The best piece of `text`, and how much of what was looked for it shows; nothing if it shows none of it.
pub(crate) fn snippet(text: &str, wanted: &HashMap<String, f32>) -> Option<(f32, String)> {
    let mut marks: Vec<(usize, usize, String)> = Vec::new();
    for mut part in terms(text) {
        stem(&mut part.term);
        if !wanted.contains_key(&part.term) {
            continue;
        }
        match marks.last_mut() {
            // A whole and its parts are one mark.
            Some((_, to, _)) if part.from < *to => *to = part.to.max(*to),
            _ => marks.push((part.from, part.to, part.term)),
        }
    }
    let chars_to = |from: usize, to: usize| text.get(from..to).map_or(usize::MAX, |piece| piece.chars().count());
    let mut best = (0.0, 0);
    for (at, (from, _, _)) in marks.iter().enumerate() {
        let mut seen: Vec<&str> = Vec::new();
        let mut value = 0.0;
        for (_, to, term) in marks.iter().skip(at) {
            if to - from > SNIPPET_CHARS * 4 || chars_to(*from, *to) > SNIPPET_CHARS - LEAD_CHARS {
                break;
            }
            if !seen.contains(&term.as_str()) {
                seen.push(term);
                value += wanted.get(term).copied().unwrap_or_default();
            }
        }
        if value > best.0 {
            best = (value, *from);
        }
    }
    let (value, first) = best;
    (value > 0.0).then(|| (value, render(text, &marks, first)))
}

fn render(text: &str, marks: &[(usize, usize, String)], first: usize) -> String {
    let start = start_of(text, first);
    let end = end_of(text, start);
    let mut html = String::with_capacity(end - start + 64);
    if start > 0 {
        html.push('…');
    }
    let mut at = start;
    for (from, to, _) in marks {
        if *from < start || *to > end {
            continue;
        }
        escape(text.get(at..*from).unwrap_or_default(), &mut html);
        html.push_str("<mark>");
        escape(text.get(*from..*to).unwrap_or_default(), &mut html);
        html.push_str("</mark>");
        at = *to;
    }
    escape(text.get(at..end).unwrap_or_default(), &mut html);
    if end < text.len() {
        html.push('…');
    }
    html
}

/// A beginning of a word at most [`LEAD_CHARS`] before `first`.
fn start_of(text: &str, first: usize) -> usize {
    let before = text.get(..first).unwrap_or_default();
    let Some((back, _)) = before.char_indices().rev().nth(LEAD_CHARS - 1) else {
        return 0;
    };
    let lead = before.get(back..).unwrap_or_default();
    lead.find(char::is_whitespace)
        .map_or(first, |space| back + space + lead.get(space..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8))
}

/// The end of the last word that fits.
fn end_of(text: &str, start: usize) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    let Some((limit, _)) = rest.char_indices().nth(SNIPPET_CHARS) else {
        return text.len();
    };
    let fits = rest.get(..limit).unwrap_or_default();
    match fits.rfind(char::is_whitespace) {
        Some(space) if space > limit / 2 => start + space,
        _ => start + limit,
    }
}

/// Text as HTML, with white space as single spaces and control characters left out.
fn escape(text: &str, out: &mut String) {
    let mut spaced = out.ends_with(' ');
    for c in text.chars() {
        if c.is_whitespace() {
            if !spaced {
                out.push(' ');
            }
            spaced = true;
            continue;
        }
        spaced = false;
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ if c.is_control() => {}
            _ => out.push(c),
        }
    }
}
