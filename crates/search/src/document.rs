//! Documents and changes as the application hands them in, and their form in the index.

use tantivy::TantivyDocument;
use uuid::Uuid;

use crate::Error;
use crate::fields::Layout;

/// Longest text of one field that is searched, in bytes; the rest of a longer one is not indexed.
/// 64 KiB is some forty printed pages: a longer description is a document store's, not a search field's.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// How much of a text field is kept for snippets, in bytes. A snippet is 160 characters, and the first
/// 4 KiB hold all but a handful of the descriptions of two sample catalogues whole.
pub const SNIPPET_SOURCE_BYTES_MAX: usize = 4 * 1024;

/// Longest keyword in bytes; longer ones are cut, in documents and in filters alike, so that they still meet.
pub const KEYWORD_BYTES_MAX: usize = 512;

/// Most values of one keyword field, and most levels of one path: beyond that it is data, not a facet.
pub const KEYWORD_VALUES_MAX: usize = 256;

/// Stands between the levels of a path, in facets and nowhere else.
pub const PATH_SEPARATOR: &str = " > ";

/// What the index knows of one thing: its id, and values by the names declared in [`Fields`](crate::Fields).
#[derive(Debug, Clone)]
pub struct Document {
    id: Uuid,
    texts: Vec<(&'static str, String)>,
    keywords: Vec<(&'static str, Vec<String>)>,
    numbers: Vec<(&'static str, i64)>,
}

impl Document {
    /// A document without fields.
    #[must_use]
    pub fn new(id: Uuid) -> Self {
        Self { id, texts: Vec::new(), keywords: Vec::new(), numbers: Vec::new() }
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Adds a text; a second one of the same name is a second value, and no phrase reaches across the two.
    #[must_use]
    pub fn text(mut self, field: &'static str, value: impl Into<String>) -> Self {
        self.texts.push((field, value.into()));
        self
    }

    /// Adds the values of a keyword field, or the levels of a path field from the root down.
    #[must_use]
    pub fn keywords<S: Into<String>>(mut self, field: &'static str, values: impl IntoIterator<Item = S>) -> Self {
        let values = values.into_iter().take(KEYWORD_VALUES_MAX).map(Into::into).collect();
        self.keywords.push((field, values));
        self
    }

    /// Sets a number.
    #[must_use]
    pub fn number(mut self, field: &'static str, value: i64) -> Self {
        self.numbers.push((field, value));
        self
    }

    /// The document in the form of the index.
    pub(crate) fn into_row(self, layout: &Layout) -> Result<TantivyDocument, Error> {
        let mut row = TantivyDocument::default();
        row.add_text(layout.id, id_text(self.id));
        let (high, low) = self.id.as_u64_pair();
        row.add_u64(layout.high, high);
        row.add_u64(layout.low, low);
        for (name, value) in &self.texts {
            let value = cut(value, TEXT_BYTES_MAX);
            row.add_text(layout.text(name)?.field, value);
            row.add_text(layout.words, value);
        }
        for (name, values) in &self.keywords {
            let keyword = layout.keyword(name)?;
            if keyword.path {
                for level in path_levels(values) {
                    row.add_text(keyword.field, level);
                }
            } else {
                for value in values {
                    row.add_text(keyword.field, cut(value, KEYWORD_BYTES_MAX));
                }
            }
        }
        for (name, value) in &self.numbers {
            row.add_i64(layout.number(name)?, *value);
        }
        Ok(row)
    }
}

/// One entry of the application's change log.
#[derive(Debug, Clone)]
pub enum Change {
    /// The document is now this; whatever was known of its id before is gone.
    Put(Document),
    /// There is no such document any more; to remove one that never was is no error.
    Remove(Uuid),
    /// There is no document any more: the application's data is another one. What follows in later batches fills the index anew.
    RemoveAll,
}

/// The id as a term. Hex without dashes: the shortest text that sorts like the id.
pub(crate) fn id_text(id: Uuid) -> String {
    id.simple().to_string()
}

/// `a`, `a > b`, `a > b > c`: every level is a term, so that a prefix of the path is one lookup.
pub(crate) fn path_levels<S: AsRef<str>>(path: &[S]) -> Vec<String> {
    let mut levels: Vec<String> = Vec::with_capacity(path.len().min(KEYWORD_VALUES_MAX));
    for level in path.iter().take(KEYWORD_VALUES_MAX) {
        let whole = match levels.last() {
            Some(above) => format!("{above}{PATH_SEPARATOR}{}", level.as_ref()),
            None => level.as_ref().to_owned(),
        };
        if whole.len() > KEYWORD_BYTES_MAX {
            break;
        }
        levels.push(whole);
    }
    levels
}

/// The longest beginning of `text` within `bytes_max` that ends at a character's end.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}
