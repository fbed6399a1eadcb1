//! The declaration of what is searched, filtered and counted, and the index schema that follows from it.
//!
//! The declaration has a fingerprint. It is kept in every commit, and an index whose fingerprint differs is thrown
//! away and built again: there is no migration of an index, because the database is the truth.

use tantivy::schema::{FAST, Field, IndexRecordOption, NumericOptions, STRING, Schema, TextFieldIndexing, TextOptions};

use crate::Error;
use crate::analyze::ANALYSIS_VERSION;

/// Raise when the layout of the index changes without a change of the fields.
const FORMAT_VERSION: u32 = 1;

/// Name of the analyser of text fields (stems) in the index.
pub(crate) const STEMMED: &str = "mainstay_stemmed";
/// Name of the analyser of the dictionary field (whole words).
pub(crate) const UNSTEMMED: &str = "mainstay_words";

/// The fields of the documents of an index.
///
/// ```
/// use mainstay_search::Fields;
/// let fields = Fields::new()
///     .text("name", 5.0)
///     .text("description", 1.0)
///     .keyword("manufacturer")
///     .path("category")
///     .number("price");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Fields {
    pub(crate) texts: Vec<(String, f32)>,
    pub(crate) keywords: Vec<(String, bool)>,
    pub(crate) numbers: Vec<String>,
}

impl Fields {
    /// No fields yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A text that is searched. A match in a field of boost 4 counts four times one in a field of boost 1.
    /// Boosts are no part of the fingerprint: they may change without a rebuild.
    #[must_use]
    pub fn text(mut self, name: &str, boost: f32) -> Self {
        self.texts.push((name.to_owned(), boost));
        self
    }

    /// A word or name, possibly several a document, that is filtered by and counted exactly as written.
    #[must_use]
    pub fn keyword(mut self, name: &str) -> Self {
        self.keywords.push((name.to_owned(), false));
        self
    }

    /// A path such as `Electronics`, `Audio`, `Headphones`: filtered by itself or any beginning of itself, and counted
    /// at every level as `Electronics > Audio`.
    #[must_use]
    pub fn path(mut self, name: &str) -> Self {
        self.keywords.push((name.to_owned(), true));
        self
    }

    /// A whole number that is filtered by range; money belongs here in its smallest unit.
    #[must_use]
    pub fn number(mut self, name: &str) -> Self {
        self.numbers.push(name.to_owned());
        self
    }

    /// What an index is built from, as text: two declarations of one fingerprint read each other's files.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut out = format!("format {FORMAT_VERSION} analysis {ANALYSIS_VERSION}");
        for (name, _) in &self.texts {
            out.push_str(&format!(" text {name:?}"));
        }
        for (name, path) in &self.keywords {
            let kind = if *path { "path" } else { "keyword" };
            out.push_str(&format!(" {kind} {name:?}"));
        }
        for name in &self.numbers {
            out.push_str(&format!(" number {name:?}"));
        }
        out
    }
}

/// A text field in the schema.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) name: String,
    pub(crate) boost: f32,
    pub(crate) field: Field,
}

/// A keyword or path field in the schema.
#[derive(Debug, Clone)]
pub(crate) struct Keyword {
    pub(crate) name: String,
    pub(crate) path: bool,
    pub(crate) field: Field,
    /// Its name in the schema, by which its column is opened.
    pub(crate) column: String,
}

/// The fields with their places in the schema.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) schema: Schema,
    pub(crate) id: Field,
    /// The two halves of the id as columns: a hit is named without touching the store of documents.
    pub(crate) high: Field,
    pub(crate) low: Field,
    /// Every word of every text field, unstemmed: the dictionary for prefixes and corrections.
    pub(crate) words: Field,
    pub(crate) texts: Vec<Text>,
    pub(crate) keywords: Vec<Keyword>,
    pub(crate) numbers: Vec<(String, Field)>,
}

pub(crate) const HIGH: &str = "_high";
pub(crate) const LOW: &str = "_low";

impl Layout {
    pub(crate) fn of(fields: &Fields) -> Self {
        let mut schema = Schema::builder();
        let id = schema.add_text_field("_id", STRING);
        let high = schema.add_u64_field(HIGH, FAST);
        let low = schema.add_u64_field(LOW, FAST);
        let indexing = |tokenizer: &str, option| TextFieldIndexing::default().set_tokenizer(tokenizer).set_index_option(option);
        let words = schema.add_text_field(
            "_words",
            TextOptions::default().set_indexing_options(indexing(UNSTEMMED, IndexRecordOption::Basic).set_fieldnorms(false)),
        );
        let text_options = TextOptions::default().set_indexing_options(indexing(STEMMED, IndexRecordOption::WithFreqsAndPositions)).set_stored();
        let texts = (fields.texts.iter())
            .map(|(name, boost)| Text { name: name.clone(), boost: *boost, field: schema.add_text_field(&format!("t_{name}"), text_options.clone()) })
            .collect();
        let keywords = (fields.keywords.iter())
            .map(|(name, path)| {
                let column = format!("k_{name}");
                Keyword { name: name.clone(), path: *path, field: schema.add_text_field(&column, STRING | FAST), column }
            })
            .collect();
        let numbers = (fields.numbers.iter())
            .map(|name| {
                let options = NumericOptions::default().set_fast();
                (name.clone(), schema.add_i64_field(&format!("n_{name}"), options))
            })
            .collect();
        Self { schema: schema.build(), id, high, low, words, texts, keywords, numbers }
    }

    pub(crate) fn text(&self, name: &str) -> Result<&Text, Error> {
        (self.texts.iter().find(|text| text.name == name)).ok_or_else(|| unknown(name))
    }

    pub(crate) fn keyword(&self, name: &str) -> Result<&Keyword, Error> {
        (self.keywords.iter().find(|keyword| keyword.name == name)).ok_or_else(|| unknown(name))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Field, Error> {
        (self.numbers.iter().find(|(known, _)| known == name)).map(|(_, field)| *field).ok_or_else(|| unknown(name))
    }
}

fn unknown(name: &str) -> Error {
    Error::UnknownField { name: name.to_owned() }
}
