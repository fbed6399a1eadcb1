//! From the text of a search to what is looked for: words, their alternatives and how much each counts.
//!
//! Every word typed becomes a [`Unit`]. Its alternatives are the word itself, the word together with its neighbour
//! (`spider man` is also `spiderman`), its parts as a phrase (`rtx3060ti` is also `rtx 3060 ti`), what it begins when it is the last, and
//! what was meant when it does not occur.

use tantivy::Searcher;

use crate::analyze::{Script, Words, stemmed};
use crate::dictionary::Dictionary;
use crate::document::cut;
use crate::fields::Layout;

/// How much of a search text is read, in bytes; the rest is left out. Thirty-two words of forty four-byte characters would be 5 KiB,
/// and no search anyone typed comes near.
pub const QUERY_BYTES_MAX: usize = 4 * 1024;

/// How many different words of a search count; the first ones do.
pub const QUERY_WORDS_MAX: usize = 32;

/// Shortest beginning of a word that stands for the words it begins.
const PREFIX_CHARS_MIN: usize = 2;

/// A completed word counts this much when what was typed is itself a word, so that the word itself ranks first...
const COMPLETED_BESIDE_EXACT: f32 = 0.25;
/// ...and this much when it is not.
const COMPLETED: f32 = 0.8;
/// Two words written as one count like the two.
const JOINED: f32 = 1.0;
/// A word that was corrected.
const CORRECTED: f32 = 1.0;

/// One way to match a unit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alternative {
    /// One term, or several that must stand side by side. In the form of text fields.
    pub(crate) terms: Vec<String>,
    pub(crate) weight: f32,
}

/// A word of the search with everything that stands for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unit {
    pub(crate) alternatives: Vec<Alternative>,
    /// How many documents have it, at least: its rarity, the same in every field and for every alternative.
    pub(crate) documents: u64,
    /// The first and last part, for phrases with the neighbours; none when the word itself does not occur.
    pub(crate) edges: Option<(String, String)>,
}

/// What a search text comes to.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) units: Vec<Unit>,
    /// Whether there was anything to look for: blank text matches everything, text of unknown words nothing.
    pub(crate) blank: bool,
    pub(crate) corrected: Option<String>,
}

/// A run of letters and digits as typed.
struct Run {
    whole: String,
    parts: Vec<String>,
    script: Script,
    from: usize,
    to: usize,
}

pub(crate) fn plan(searcher: &Searcher, layout: &Layout, text: &str) -> tantivy::Result<Plan> {
    let text = cut(text, QUERY_BYTES_MAX);
    let dictionary = Dictionary { searcher, layout };
    let runs = runs(text);
    let mut plan = Plan { blank: text.trim().is_empty(), ..Plan::default() };
    for run in &runs {
        plan.units.push(unit(dictionary, run)?);
    }
    join(dictionary, &runs, &mut plan.units)?;
    let typing = !text.ends_with(char::is_whitespace);
    if let (true, Some(run), Some(unit)) = (typing, runs.last(), plan.units.last_mut())
        && run.script == Script::Spaced
    {
        complete(dictionary, run, unit)?;
    }
    correct(dictionary, text, &runs, &mut plan)?;
    plan.units.retain(|unit| !unit.alternatives.is_empty());
    Ok(plan)
}

/// The different runs of the text, at most as many as count.
fn runs(text: &str) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut take = |run: Run| {
        if !run.whole.is_empty() && !runs.iter().any(|known| known.whole == run.whole) {
            runs.push(run);
        }
        runs.len() < QUERY_WORDS_MAX
    };
    'text: for word in Words::new(text) {
        let bounds: Vec<(usize, usize)> = match word.script {
            Script::Spaced => word.run_bounds().collect(),
            // Overlapping pairs: two characters are about a word.
            Script::Unspaced => (0..word.parts.len().saturating_sub(1).max(1)).map(|first| (first, (first + 2).min(word.parts.len()))).collect(),
        };
        for (first, end) in bounds {
            let parts = word.parts.get(first..end).unwrap_or_default();
            let more = take(Run {
                whole: word.joined(first, end),
                parts: parts.iter().map(|part| part.term.clone()).collect(),
                script: word.script,
                from: parts.first().map_or(0, |part| part.from),
                to: parts.last().map_or(0, |part| part.to),
            });
            if !more {
                break 'text;
            }
        }
    }
    runs
}

fn unit(dictionary: Dictionary<'_>, run: &Run) -> tantivy::Result<Unit> {
    let mut unit = Unit::default();
    let single = run.script == Script::Spaced || run.parts.len() == 1;
    if single {
        unit.documents = dictionary.stem_documents(&run.whole)?;
        if unit.documents > 0 {
            unit.alternatives.push(alternative([&run.whole], 1.0));
        }
    }
    if run.parts.len() > 1 {
        let mut rarest = u64::MAX;
        for part in &run.parts {
            rarest = rarest.min(dictionary.stem_documents(part)?);
        }
        if rarest > 0 {
            unit.alternatives.push(alternative(&run.parts, 1.0));
            unit.documents = unit.documents.max(if single { 1 } else { rarest });
        }
    }
    if let (false, Some(first), Some(last)) = (unit.alternatives.is_empty(), run.parts.first(), run.parts.last()) {
        unit.edges = Some((stemmed(first), stemmed(last)));
    }
    Ok(unit)
}

fn alternative<S: AsRef<str>>(terms: impl IntoIterator<Item = S>, weight: f32) -> Alternative {
    Alternative { terms: terms.into_iter().map(|term| stemmed(term.as_ref())).collect(), weight }
}

/// `spider man` also finds `Spiderman`: each of two neighbours may be found by both written as one.
fn join(dictionary: Dictionary<'_>, runs: &[Run], units: &mut [Unit]) -> tantivy::Result<()> {
    for (at, pair) in runs.windows(2).enumerate() {
        let [left, right] = pair else { continue };
        if left.script != Script::Spaced || right.script != Script::Spaced {
            continue;
        }
        let whole = format!("{}{}", left.whole, right.whole);
        let documents = dictionary.stem_documents(&whole)?;
        if documents == 0 {
            continue;
        }
        for unit in units.iter_mut().skip(at).take(2) {
            unit.alternatives.push(alternative([&whole], JOINED));
            unit.documents = unit.documents.max(documents);
        }
    }
    Ok(())
}

/// The last word as the beginning of others.
fn complete(dictionary: Dictionary<'_>, run: &Run, unit: &mut Unit) -> tantivy::Result<()> {
    if run.whole.chars().nth(PREFIX_CHARS_MIN - 1).is_none() {
        return Ok(());
    }
    let weight = if unit.alternatives.is_empty() { COMPLETED } else { COMPLETED_BESIDE_EXACT };
    let mut sum = 0;
    for known in dictionary.expansions(&run.whole)? {
        let more = alternative([&known.word], weight);
        if unit.alternatives.iter().all(|have| have.terms != more.terms) {
            sum += known.documents;
            unit.alternatives.push(more);
        }
    }
    if unit.documents == 0 {
        unit.documents = sum;
    }
    Ok(())
}

/// Words that do not occur become the words that were meant.
fn correct(dictionary: Dictionary<'_>, text: &str, runs: &[Run], plan: &mut Plan) -> tantivy::Result<()> {
    let others: Vec<&str> = (runs.iter().zip(&plan.units))
        .filter(|(run, unit)| run.script == Script::Spaced && unit.edges.is_some())
        .map(|(run, _)| run.whole.as_str())
        .collect();
    let mut corrected = String::new();
    let mut upto = 0;
    for (run, unit) in runs.iter().zip(&mut plan.units) {
        if run.script != Script::Spaced || !unit.alternatives.is_empty() {
            continue;
        }
        let meant = if let Some((left, right)) = dictionary.split(&run.whole)? {
            unit.documents = dictionary.stem_documents(&left)?.min(dictionary.stem_documents(&right)?);
            unit.alternatives.push(alternative([&left, &right], CORRECTED));
            format!("{left} {right}")
        } else if let Some(known) = dictionary.correction(&run.whole, &others)? {
            unit.documents = known.documents;
            unit.alternatives.push(alternative([&known.word], CORRECTED));
            unit.edges = Some((stemmed(&known.word), stemmed(&known.word)));
            known.word
        } else {
            continue;
        };
        corrected.push_str(text.get(upto..run.from).unwrap_or_default());
        corrected.push_str(&meant);
        upto = run.to;
    }
    if upto > 0 {
        corrected.push_str(text.get(upto..).unwrap_or_default());
        plan.corrected = Some(corrected);
    }
    Ok(())
}
