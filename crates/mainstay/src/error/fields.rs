//! What is wrong with an input, field by field: everything is told at once, not one mistake a request.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Error, Result, codes};

/// One field of an input and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where: `email`, `attributes.size`, `tags[3]`.
    #[schema(max_length = 1000, pattern = r"^[\s\S]*$", example = "email")]
    pub field: String,
    /// A stable name of the mistake.
    #[schema(value_type = String, max_length = 64, pattern = "^[a-z][a-z0-9_]*$", example = "invalid_format")]
    pub code: &'static str,
    /// The mistake in words.
    #[schema(max_length = 1000, pattern = r"^[\s\S]*$", example = "must be an e-mail address")]
    pub message: String,
}

/// Why a value was not taken: the code and the words of a [`FieldError`], still without the name of the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// A stable name of the mistake.
    pub code: &'static str,
    /// The mistake in words, as they stand behind the name of the field.
    pub message: String,
}

impl Flaw {
    /// A flaw of this code, in these words.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Collects the flaws of one input while it is parsed into the types that the service works with.
#[derive(Debug, Default)]
pub struct Fields(Vec<FieldError>);

impl Fields {
    /// Nothing wrong so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value, or `None` after its flaw was noted under the name of the field.
    pub fn take<T>(&mut self, field: &str, parsed: std::result::Result<T, Flaw>) -> Option<T> {
        parsed.map_err(|flaw| self.note(field, flaw)).ok()
    }

    /// Notes a flaw.
    pub fn note(&mut self, field: &str, flaw: Flaw) {
        // A hundred mistakes make the point; an input of a hundred thousand gets no answer of its own size.
        if self.0.len() < 100 {
            self.0.push(FieldError { field: field.to_owned(), code: flaw.code, message: flaw.message });
        }
    }

    /// # Errors
    /// [`codes::VALIDATION_FAILED`] with every flaw noted, if there is one.
    pub fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::new(&codes::VALIDATION_FAILED).with_fields(self.0)) }
    }
}
