//! An embedded full-text index that follows a database.
//!
//! It knows documents and fields; it knows no database and no resource. The application reads its own change log and
//! calls [`Index::apply`] with the changes and a cursor, which the index keeps in the same commit. What is lost or torn
//! is rebuilt from the database: [`Index::open`] says so, and from where to read on.
//!
//! Searching is synchronous, needs no disk beyond mapped files, and every text is a search: there is no query
//! language, so there is nothing that can be malformed. Every bound is a public constant.

mod analyze;
mod collect;
mod dictionary;
mod directory;
mod document;
mod error;
mod fields;
mod flatten;
mod index;
mod plan;
mod search;
mod seed;
mod snippet;

pub use collect::FACET_VALUES_MAX;
pub use document::{Change, Document, KEYWORD_BYTES_MAX, KEYWORD_VALUES_MAX, PATH_SEPARATOR, SNIPPET_SOURCE_BYTES_MAX, TEXT_BYTES_MAX};
pub use error::Error;
pub use fields::Fields;
pub use flatten::flatten_json;
pub use index::{FreshReason, Index, Opened};
pub use plan::{QUERY_BYTES_MAX, QUERY_WORDS_MAX};
pub use search::{Filter, Hit, Hits, LIMIT_MAX, OFFSET_MAX, Query};
pub use snippet::{Highlight, SNIPPET_CHARS};
