//! What can go wrong with an index. No text of a search is among it: every text is a search.

use std::fmt;
use std::path::PathBuf;

/// Why an index could not be opened, written or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Another process (or another [`Index`](crate::Index) of this one) holds the directory.
    Busy {
        /// The directory asked for.
        dir: PathBuf,
    },
    /// A document, filter or facet names a field that was not declared: a mistake of the program, never of its user.
    UnknownField {
        /// The name as given.
        name: String,
    },
    /// The file system refused.
    Io(std::io::Error),
    /// The index itself refused; what had been committed before is untouched.
    Storage(tantivy::TantivyError),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { dir } => {
                write!(out, "the search index in {} is held by another process; every process needs a directory of its own", dir.display())
            }
            Self::UnknownField { name } => write!(out, "the search index has no field {name:?}"),
            Self::Io(cause) => write!(out, "the search index: {cause}"),
            Self::Storage(cause) => write!(out, "the search index: {cause}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(cause) => Some(cause),
            Self::Storage(cause) => Some(cause),
            Self::Busy { .. } | Self::UnknownField { .. } => None,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(cause: std::io::Error) -> Self {
        Self::Io(cause)
    }
}

impl From<tantivy::TantivyError> for Error {
    fn from(cause: tantivy::TantivyError) -> Self {
        Self::Storage(cause)
    }
}
