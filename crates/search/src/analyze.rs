//! Text to terms, the same way for documents, searches and snippets.
//!
//! Characters are brought to compatibility form (NFKD without marks, then NFC), lower case and without diacritics:
//! `Ｃafé` is `cafe`. Words are runs of letters and digits. An apostrophe joins (`assassin's` is `assassins`), a change between
//! letters and digits divides but keeps the whole (`3060Ti` is `3060`, `ti` and `3060ti`), and so do the marks inside model
//! numbers (`DDR4-3200` is `ddr`, `4`, `3200`, `ddr4` and `ddr43200`). Scripts without spaces (Han, kana, Hangul, Thai and
//! their neighbours) are terms of one character each and are searched as pairs. Emoji are words. Words of plain Latin letters lose their English
//! plural in text fields, and keep it in the dictionary.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use unicode_normalization::UnicodeNormalization;

/// Raise when the same text gives other terms than before: it is part of the fingerprint of an index.
pub(crate) const ANALYSIS_VERSION: u32 = 1;

/// Longest term in characters: the longest run of letters and digits in two sample catalogues has 41. Of a longer one the
/// beginning counts, for documents and searches alike.
pub(crate) const TERM_CHARS_MAX: usize = 40;

/// Most parts that one compound keeps together: `a-b-c-...` without end is not a model number.
const PARTS_MAX: usize = 8;

/// A term and where it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) term: String,
    /// Bytes of the original text, from the first to after the last.
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) position: usize,
}

/// What kind of writing a word is of; it decides how it is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// Letters and digits with spaces between words.
    Spaced,
    /// One character is a term.
    Unspaced,
}

/// A run between spaces or other dividing marks.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) script: Script,
    pub(crate) parts: Vec<Part>,
    /// Indices of the parts that begin a run of letters and digits (`ddr4` and `3200` in `DDR4-3200`).
    pub(crate) runs: Vec<usize>,
}

impl Word {
    /// The parts from `first` to before `end`, written together.
    pub(crate) fn joined(&self, first: usize, end: usize) -> String {
        let parts = self.parts.get(first..end).unwrap_or_default();
        let whole: String = parts.iter().map(|part| part.term.as_str()).collect();
        whole.chars().take(TERM_CHARS_MAX).collect()
    }

    /// The bounds of each run, as indices of parts.
    pub(crate) fn run_bounds(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (self.runs.iter().enumerate()).map(|(at, first)| {
            let end = self.runs.get(at + 1).copied().unwrap_or(self.parts.len());
            (*first, end)
        })
    }

    /// Parts and wholes in order of position, as a document has them.
    fn into_terms(self, out: &mut Vec<Part>) {
        let joins = self.script == Script::Spaced && self.parts.len() > 1;
        for first in 0..self.parts.len() {
            if joins && first == 0 && self.runs.len() > 1 {
                out.extend(self.whole(0, self.parts.len()));
            }
            if joins
                && let Some((_, end)) = self.run_bounds().find(|(start, _)| *start == first)
                && end - first > 1
            {
                out.extend(self.whole(first, end));
            }
            out.extend(self.parts.get(first).cloned());
        }
    }

    fn whole(&self, first: usize, end: usize) -> Option<Part> {
        Some(Part {
            term: self.joined(first, end),
            from: self.parts.get(first)?.from,
            to: self.parts.get(end.checked_sub(1)?)?.to,
            position: self.parts.get(first)?.position,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    /// A character that is a term by itself and lets its neighbours form a run.
    Single,
    /// A symbol that is a word by itself.
    Symbol,
    /// Belongs to the word and says nothing: apostrophes, combining marks, soft hyphens, joiners.
    Silent,
    /// Divides a word but keeps it a compound, when letters or digits stand on both sides.
    Connector,
    Space,
    Line,
}

fn class(c: char) -> Class {
    match c {
        '\n' => Class::Line,
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Digit,
        '\'' | '\u{2018}' | '\u{2019}' | '\u{2bc}' | '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' => Class::Silent,
        '-' | '.' | '_' | '\u{b7}' | '\u{2010}'..='\u{2013}' | '\u{2212}' | '\u{30fb}' => Class::Connector,
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => Class::Silent,
        // Thai to Tibetan, Myanmar, Khmer, kana and bopomofo, Han, Hangul: no spaces, or none that bound a word.
        '\u{e00}'..='\u{fff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' if c.is_alphanumeric() => Class::Single,
        '\u{1100}'..='\u{11ff}' | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{3100}'..='\u{31bf}' => Class::Single,
        '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9d}' => Class::Single,
        '\u{20000}'..='\u{3ffff}' => Class::Single,
        '\u{2600}'..='\u{27bf}' | '\u{1f000}'..='\u{1faff}' => Class::Symbol,
        _ if c.is_numeric() => Class::Digit,
        _ if c.is_alphabetic() => Class::Letter,
        _ if unicode_normalization::char::is_combining_mark(c) => Class::Silent,
        _ => Class::Space,
    }
}

/// Appends the folded form of one character.
fn fold(c: char, out: &mut String) {
    if c.is_ascii() {
        out.push(c.to_ascii_lowercase());
        return;
    }
    let kept = std::iter::once(c).nfkd().filter(|part| !is_folded_mark(*part));
    for part in kept.nfc().flat_map(char::to_lowercase) {
        match part {
            'ß' => out.push_str("ss"),
            'æ' => out.push_str("ae"),
            'œ' => out.push_str("oe"),
            'þ' => out.push_str("th"),
            'ø' => out.push('o'),
            'ł' => out.push('l'),
            'đ' | 'ð' => out.push('d'),
            'ħ' => out.push('h'),
            'ı' => out.push('i'),
            'ς' => out.push('σ'),
            other if other.is_alphanumeric() || class(other) == Class::Symbol => out.push(other),
            other if unicode_normalization::char::is_combining_mark(other) && !is_folded_mark(other) => out.push(other),
            _ => {}
        }
    }
}

/// Marks that are left out: Latin, Greek and Cyrillic accents, Hebrew points, Arabic vowels. The vowel signs of other
/// scripts are letters to their readers and stay.
fn is_folded_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}'
        | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}')
}

/// Reads a text word by word.
pub(crate) struct Words<'a> {
    text: &'a str,
    at: usize,
    position: usize,
}

impl<'a> Words<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, position: 0 }
    }

    fn peek(&self, at: usize) -> Option<(char, Class)> {
        self.text.get(at..)?.chars().next().map(|c| (c, class(c)))
    }

    /// The class of the first character from `at` on that is not silent.
    fn class_after_silent(&self, at: usize) -> Option<Class> {
        self.text.get(at..)?.chars().map(class).find(|class| *class != Class::Silent)
    }

    fn spaced(&mut self) -> Word {
        let mut word = Word { script: Script::Spaced, parts: Vec::new(), runs: Vec::new() };
        let mut last = None;
        let mut length = 0;
        while let Some((c, class)) = self.peek(self.at) {
            let here = self.at;
            match class {
                Class::Letter | Class::Digit => {
                    if last != Some(class) {
                        if word.parts.len() >= PARTS_MAX {
                            break;
                        }
                        if last.is_none() {
                            word.runs.push(word.parts.len());
                        }
                        word.parts.push(Part { term: String::new(), from: here, to: here, position: self.position });
                        self.position += 1;
                        length = 0;
                    }
                    last = Some(class);
                    length += 1;
                    if let Some(part) = word.parts.last_mut() {
                        if length <= TERM_CHARS_MAX {
                            fold(c, &mut part.term);
                        }
                        part.to = here + c.len_utf8();
                    }
                }
                Class::Silent => {
                    // A mark that is not folded away (a vowel sign) is part of the term.
                    if let Some(part) = word.parts.last_mut().filter(|_| last.is_some() && length < TERM_CHARS_MAX) {
                        fold_mark(c, &mut part.term);
                    }
                }
                Class::Connector
                    if match (last, self.class_after_silent(here + c.len_utf8())) {
                        // 3.5 is not 35.
                        (Some(Class::Digit), Some(Class::Digit)) => c != '.',
                        (Some(_), Some(next)) => matches!(next, Class::Letter | Class::Digit),
                        _ => false,
                    } =>
                {
                    last = None;
                }
                _ => break,
            }
            self.at += c.len_utf8();
        }
        word.parts.retain(|part| !part.term.is_empty());
        word
    }

    fn unspaced(&mut self) -> Word {
        let mut word = Word { script: Script::Unspaced, parts: Vec::new(), runs: vec![0] };
        while let Some((c, class)) = self.peek(self.at) {
            let to = self.at + c.len_utf8();
            match class {
                Class::Single if word.parts.len() < TERM_CHARS_MAX => {
                    let mut term = String::new();
                    fold(c, &mut term);
                    if !term.is_empty() {
                        word.parts.push(Part { term, from: self.at, to, position: self.position });
                        self.position += 1;
                    }
                }
                Class::Silent => {
                    if let Some(part) = word.parts.last_mut() {
                        part.to = to;
                    }
                }
                _ => break,
            }
            self.at = to;
        }
        word
    }
}

fn fold_mark(c: char, term: &mut String) {
    if unicode_normalization::char::is_combining_mark(c) && !is_folded_mark(c) {
        term.push(c);
    }
}

impl Iterator for Words<'_> {
    type Item = Word;

    fn next(&mut self) -> Option<Word> {
        loop {
            let (c, class) = self.peek(self.at)?;
            let word = match class {
                Class::Letter | Class::Digit => self.spaced(),
                Class::Single => self.unspaced(),
                Class::Symbol => {
                    let from = self.at;
                    self.at += c.len_utf8();
                    self.position += 1;
                    let part = Part { term: c.to_string(), from, to: self.at, position: self.position - 1 };
                    Word { script: Script::Unspaced, parts: vec![part], runs: vec![0] }
                }
                Class::Line => {
                    // A gap: no phrase reaches across lines.
                    self.position += 1;
                    self.at += c.len_utf8();
                    continue;
                }
                Class::Silent | Class::Connector | Class::Space => {
                    self.at += c.len_utf8();
                    continue;
                }
            };
            if !word.parts.is_empty() {
                return Some(word);
            }
        }
    }
}

/// All terms of a text as a document has them, unstemmed.
pub(crate) fn terms(text: &str) -> Vec<Part> {
    let mut out = Vec::new();
    for word in Words::new(text) {
        word.into_terms(&mut out);
    }
    out
}

/// Takes the English plural off a word of plain letters (Harman, "How effective is suffixing?", JASIS 42, 1991: the S
/// stemmer). It knows no other endings on purpose: names and models are what is searched, and stronger stemmers confuse them.
pub(crate) fn stem(term: &mut String) {
    let bytes = term.as_bytes();
    if bytes.len() < 4 || !bytes.iter().all(u8::is_ascii_lowercase) {
        return;
    }
    if term.ends_with("ies") && !term.ends_with("eies") && !term.ends_with("aies") {
        term.truncate(term.len() - 3);
        term.push('y');
    } else if term.ends_with('s') && !["us", "ss", "aes", "ees", "oes"].iter().any(|end| term.ends_with(end)) {
        term.truncate(term.len() - 1);
    }
}

pub(crate) fn stemmed(term: &str) -> String {
    let mut out = term.to_owned();
    stem(&mut out);
    out
}

/// The analysis in the form in which the index asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Analyzer {
    pub(crate) stems: bool,
}

/// The terms of one text, one after another.
pub(crate) struct Terms {
    parts: std::vec::IntoIter<Part>,
    token: Token,
}

impl Tokenizer for Analyzer {
    type TokenStream<'a> = Terms;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Terms {
        let mut parts = terms(text);
        if self.stems {
            for part in &mut parts {
                stem(&mut part.term);
            }
        }
        Terms { parts: parts.into_iter(), token: Token::default() }
    }
}

impl TokenStream for Terms {
    fn advance(&mut self) -> bool {
        match self.parts.next() {
            Some(part) => {
                self.token.offset_from = part.from;
                self.token.offset_to = part.to;
                self.token.position = part.position;
                self.token.text = part.term;
                true
            }
            None => false,
        }
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}
