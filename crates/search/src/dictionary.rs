//! What the words of the index say about a word that was typed: does it occur, what does it begin, what was meant.

use std::collections::HashMap;

use tantivy::collector::Count;
use tantivy::query::{BooleanQuery, FuzzyTermQuery, Query, TermQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{Searcher, Term};

use crate::analyze::stemmed;
use crate::fields::Layout;

/// How many words a beginning stands for. The commonest 12 cover what a reader who goes on typing most likely means.
pub(crate) const EXPANSIONS_MAX: usize = 12;

/// How many words are looked at in each segment for a prefix or a correction: a bound on time. Beyond it the rest of the
/// alphabet is not seen, which takes a prefix of two letters and a dictionary of millions.
const LOOKED_AT_MAX: usize = 20_000;

/// How many words of each segment are compared across segments.
const SEGMENT_WORDS_MAX: usize = 64;

/// How many corrections are tried against the other words of the search.
const TRIED_MAX: usize = 6;

/// Shortest word that is corrected: in three letters every word is one edit from a dozen others.
const CORRECTED_CHARS_MIN: usize = 4;

/// How many of the other words of a search a correction is held against.
const OTHERS_MAX: usize = 3;

/// Shortest word whose correction need not stand in one document with any other word of the search: short words are
/// near to pieces of model numbers (`inch` to the `incz` of `S2INCZ`).
const ALONE_CHARS_MIN: usize = 6;

/// Shortest word that may be two edits off.
const TWO_EDITS_CHARS_MIN: usize = 8;

/// A word of the index and how many documents have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) word: String,
    pub(crate) documents: u64,
}

/// The dictionary as of one searcher.
#[derive(Clone, Copy)]
pub(crate) struct Dictionary<'a> {
    pub(crate) searcher: &'a Searcher,
    pub(crate) layout: &'a Layout,
}

impl Dictionary<'_> {
    /// In how many documents the word occurs just so.
    pub(crate) fn documents(&self, word: &str) -> tantivy::Result<u64> {
        self.searcher.doc_freq(&Term::from_field_text(self.layout.words, word))
    }

    /// In how many documents the word occurs in the form that text fields keep: at most how many in the field that has most.
    pub(crate) fn stem_documents(&self, word: &str) -> tantivy::Result<u64> {
        let stem = stemmed(word);
        let mut most = 0;
        for text in &self.layout.texts {
            most = most.max(self.searcher.doc_freq(&Term::from_field_text(text.field, &stem))?);
        }
        Ok(most)
    }

    /// The commonest words that begin with `prefix` and are longer than it.
    pub(crate) fn expansions(&self, prefix: &str) -> tantivy::Result<Vec<Known>> {
        let mut after = prefix.as_bytes().to_vec();
        // No byte of UTF-8 is 0xFF: every word with the prefix sorts before prefix + 0xFF.
        after.push(0xff);
        let mut found = HashMap::new();
        for segment in self.searcher.segment_readers() {
            let index = segment.inverted_index(self.layout.words)?;
            let mut stream = index.terms().range().gt(prefix).lt(&after).into_stream()?;
            let mut commonest = Commonest::default();
            while let Some((word, info)) = stream.next() {
                if !commonest.see(word, info.doc_freq) {
                    break;
                }
            }
            commonest.add_to(&mut found);
        }
        let mut words = ranked(found);
        words.truncate(EXPANSIONS_MAX);
        Ok(words)
    }

    /// The most plausible word for one that does not occur, or nothing. `others` are words of the same search that do.
    ///
    /// One edit (a letter too many, too few, another, or two swapped; Damerau 1964), for eight letters and more two if one gives
    /// nothing. Words with digits are never corrected: to take a 3060 for a 3070 is worse than to find nothing.
    pub(crate) fn correction(&self, word: &str, others: &[&str]) -> tantivy::Result<Option<Known>> {
        let chars = word.chars().count();
        if chars < CORRECTED_CHARS_MIN || !word.chars().all(char::is_alphabetic) {
            return Ok(None);
        }
        let mut found = self.within(word, 1)?;
        if found.is_empty() && chars >= TWO_EDITS_CHARS_MIN {
            found = self.within(word, 2)?;
        }
        found.retain(|known| known.word.chars().all(char::is_alphabetic));
        found.truncate(TRIED_MAX);
        let mut best: Option<(f64, Known)> = None;
        for known in found {
            let mut together = 0;
            for other in others.iter().take(OTHERS_MAX) {
                together += self.together(&known.word, &[other])?;
            }
            if together == 0 && !others.is_empty() && chars < ALONE_CHARS_MIN {
                continue;
            }
            let plausible = plausibility(word, &known, together);
            if best.as_ref().is_none_or(|(most, _)| plausible > *most) {
                best = Some((plausible, known));
            }
        }
        Ok(best.map(|(_, known)| known))
    }

    /// The two words that were written as one, if they occur and stand in one document.
    pub(crate) fn split(&self, word: &str) -> tantivy::Result<Option<(String, String)>> {
        let mut best = None;
        let mut most = 0;
        for (at, _) in word.char_indices().skip(1) {
            let (left, right) = word.split_at(at);
            let rarer = self.documents(left)?.min(self.documents(right)?);
            if rarer > most && right.chars().nth(1).is_some() {
                let together = self.together(left, &[right])?;
                if together > 0 {
                    most = rarer;
                    best = Some((left.to_owned(), right.to_owned()));
                }
            }
        }
        Ok(best)
    }

    fn within(&self, word: &str, edits: u8) -> tantivy::Result<Vec<Known>> {
        let term = Term::from_field_text(self.layout.words, word);
        let mut found = HashMap::new();
        for segment in self.searcher.segment_readers() {
            let automaton = FuzzyTermQuery::new(term.clone(), edits, true).automaton()?;
            let index = segment.inverted_index(self.layout.words)?;
            let mut stream = index.terms().search(automaton).into_stream()?;
            let mut commonest = Commonest::default();
            while let Some((word, info)) = stream.next() {
                if !commonest.see(word, info.doc_freq) {
                    break;
                }
            }
            commonest.add_to(&mut found);
        }
        Ok(ranked(found))
    }

    /// How many documents have the word and all the others.
    fn together(&self, word: &str, others: &[&str]) -> tantivy::Result<u64> {
        let all: Vec<Box<dyn Query>> = (others.iter().chain(std::iter::once(&word)))
            .map(|word| {
                let term = Term::from_field_text(self.layout.words, word);
                Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Query>
            })
            .collect();
        let count = self.searcher.search(&BooleanQuery::intersection(all), &Count)?;
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

/// How likely `known` is what was meant by `typed`. Orders of magnitude count, hence logarithms; a wrong first letter
/// is rare (Pollock and Zamora, "Automatic spelling correction", CACM 27, 1984: under 8 % of misspellings).
fn plausibility(typed: &str, known: &Known, together: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "logarithms of counts")]
    let weight = (1.0 + known.documents as f64).ln() + 2.0 * (1.0 + together as f64).ln();
    if typed.chars().next() == known.word.chars().next() { weight } else { weight * 0.5 }
}

/// The commonest words of one segment's stream.
#[derive(Default)]
struct Commonest {
    words: Vec<(u32, String)>,
    floor: u32,
    looked_at: usize,
}

impl Commonest {
    /// Takes a word; false when enough were looked at.
    fn see(&mut self, word: &[u8], documents: u32) -> bool {
        self.looked_at += 1;
        if documents > self.floor
            && let Ok(word) = str::from_utf8(word)
        {
            self.words.push((documents, word.to_owned()));
            if self.words.len() >= 2 * SEGMENT_WORDS_MAX {
                self.words.sort_unstable_by(|a, b| b.cmp(a));
                self.words.truncate(SEGMENT_WORDS_MAX);
                self.floor = self.words.last().map_or(0, |(least, _)| *least);
            }
        }
        self.looked_at < LOOKED_AT_MAX
    }

    fn add_to(self, found: &mut HashMap<String, u64>) {
        for (documents, word) in self.words {
            *found.entry(word).or_default() += u64::from(documents);
        }
    }
}

fn ranked(found: HashMap<String, u64>) -> Vec<Known> {
    let mut words: Vec<Known> = (found.into_iter()).map(|(word, documents)| Known { word, documents }).collect();
    words.sort_unstable_by(|a, b| (b.documents.cmp(&a.documents)).then_with(|| a.word.cmp(&b.word)));
    words
}
