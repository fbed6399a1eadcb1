//! The two forms of an error on the wire, written from the same value.

use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{Array, ArrayBuilder, ObjectBuilder};

use super::{Error, FieldError};

/// Which of the two forms the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/json`, the envelope.
    Envelope,
    /// `application/problem+json`, RFC 9457.
    Problem,
}

impl Form {
    /// The form that an `Accept` header asks for: problem details only when they are named.
    pub fn accepted(accept: Option<&HeaderValue>) -> Self {
        const NAME: &str = "application/problem+json";
        let named = accept.filter(|value| value.len() >= NAME.len()).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(',').any(|range| {
                let mut parts = range.split(';').map(str::trim);
                let problem = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(NAME));
                problem && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
            })
        });
        if named { Self::Problem } else { Self::Envelope }
    }

    /// The `Content-Type` of this form.
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Envelope => "application/json",
            Self::Problem => "application/problem+json",
        })
    }
}

/// How much of a fault the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Code and message: production.
    Message,
    /// The chain of causes as well: development.
    Causes,
}

/// An error in the envelope.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    /// Always `error`.
    #[schema(value_type = String, pattern = "^error$", max_length = 5, example = "error")]
    pub status: &'static str,
    /// The stable name of the failure.
    #[schema(value_type = String, max_length = 64, pattern = "^[a-z][a-z0-9_]*$", example = "validation_failed")]
    pub code: &'static str,
    /// What went wrong, in words.
    #[schema(max_length = 1000, pattern = r"^[\s\S]*$", example = "Validation failed")]
    pub message: String,
    /// The fields that are wrong; empty unless the input was.
    #[schema(max_items = 100)]
    pub errors: Vec<FieldError>,
    /// The chain of causes of a fault, in development only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = causes_schema)]
    pub causes: Vec<String>,
    /// The id under which the log knows this request.
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9._-]+$", example = "0198c5c2e1f47c6f9d0a3b5e8f214a77")]
    pub request_id: String,
    /// When it happened, RFC 3339.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    pub timestamp: Timestamp,
}

/// An error as problem details, RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Identifies the kind of problem.
    #[serde(rename = "type")]
    #[schema(max_length = 100, pattern = "^urn:", example = "urn:mainstay:error:validation_failed")]
    pub kind: String,
    /// The kind of problem in words.
    #[schema(value_type = String, max_length = 200, pattern = r"^[\s\S]*$", example = "Validation failed")]
    pub title: &'static str,
    /// The status of the answer.
    #[schema(example = 400, minimum = 400, maximum = 599)]
    pub status: u16,
    /// What went wrong this time.
    #[schema(max_length = 1000, pattern = r"^[\s\S]*$", example = "Validation failed")]
    pub detail: String,
    /// The stable name of the failure.
    #[schema(value_type = String, max_length = 64, pattern = "^[a-z][a-z0-9_]*$", example = "validation_failed")]
    pub code: &'static str,
    /// The fields that are wrong; empty unless the input was.
    #[schema(max_items = 100)]
    pub errors: Vec<FieldError>,
    /// The chain of causes of a fault, in development only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = causes_schema)]
    pub causes: Vec<String>,
    /// The id under which the log knows this request.
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9._-]+$", example = "0198c5c2e1f47c6f9d0a3b5e8f214a77")]
    pub request_id: String,
    /// When it happened, RFC 3339.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    pub timestamp: Timestamp,
}

/// The longest text of an answer: names of unknown members and the like are the caller's own words, and come back shortened.
const TEXT_CHARS_MAX: usize = 1000;

fn clipped(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        None => text,
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
    }
}

fn causes_schema() -> Array {
    let cause = ObjectBuilder::new().schema_type(Type::String).max_length(Some(TEXT_CHARS_MAX)).pattern(Some(r"^[\s\S]*$"));
    // As many as `Error::causes` follows.
    ArrayBuilder::new().items(cause).max_items(Some(8)).description(Some("The chain of causes of a failure, in development only.")).build()
}

impl Error {
    /// The body of the answer. `status` is the one on the status line, which RFC 9457, 3.1.2 wants repeated.
    pub(crate) fn render(&self, status: StatusCode, form: Form, detail: Detail, request_id: &str, timestamp: Timestamp) -> Vec<u8> {
        let code = self.code();
        let request_id = request_id.to_owned();
        let causes = if detail == Detail::Causes { self.causes() } else { Vec::new() };
        let causes = causes.into_iter().map(clipped).collect();
        let message = clipped(self.message().to_owned());
        let errors =
            self.fields().iter().cloned().map(|flaw| FieldError { field: clipped(flaw.field), code: flaw.code, message: clipped(flaw.message) });
        let errors = errors.collect();
        let written = match form {
            Form::Envelope => serde_json::to_vec(&ErrorBody { status: "error", code: code.name, message, errors, causes, request_id, timestamp }),
            Form::Problem => serde_json::to_vec(&ProblemBody {
                kind: format!("urn:mainstay:error:{}", code.name),
                title: code.message,
                status: status.as_u16(),
                detail: message,
                code: code.name,
                errors,
                causes,
                request_id,
                timestamp,
            }),
        };
        // Strings and numbers cannot fail to serialise; an empty body is still an answer.
        written.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::codes;

    fn accepted(accept: &'static str) -> Form {
        Form::accepted(Some(&HeaderValue::from_static(accept)))
    }

    #[test]
    fn problem_details_are_sent_to_those_who_name_them() {
        assert_eq!(accepted("application/problem+json"), Form::Problem);
        assert_eq!(accepted("application/json, Application/Problem+JSON;q=0.8"), Form::Problem);
        assert_eq!(accepted("application/problem+json;q=0"), Form::Envelope);
        assert_eq!(accepted("*/*"), Form::Envelope);
        assert_eq!(Form::accepted(None), Form::Envelope);
    }

    #[test]
    fn causes_are_told_in_development_only() {
        let error = Error::new(&codes::INTERNAL).caused_by("the disk is on fire");
        let told = |detail| String::from_utf8(error.render(error.status(), Form::Envelope, detail, "id", Timestamp::UNIX_EPOCH)).unwrap();
        assert!(told(Detail::Causes).contains("the disk is on fire"));
        assert!(!told(Detail::Message).contains("fire"));
    }

    #[test]
    fn the_callers_own_words_come_back_shortened() {
        let error = Error::new(&codes::VALIDATION_FAILED).with_field("é".repeat(5000), "unknown_field", "is not known here");
        let body: serde_json::Value =
            serde_json::from_slice(&error.render(error.status(), Form::Envelope, Detail::Message, "id", Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(body["errors"][0]["field"].as_str().unwrap().chars().count(), TEXT_CHARS_MAX);
    }

    #[test]
    fn both_forms_tell_the_same() {
        let error = Error::new(&codes::VALIDATION_FAILED).with_field("email", "required", "is required");
        for form in [Form::Envelope, Form::Problem] {
            let body: serde_json::Value =
                serde_json::from_slice(&error.render(error.status(), form, Detail::Message, "r-1", Timestamp::UNIX_EPOCH)).unwrap();
            assert_eq!(body["code"], "validation_failed");
            assert_eq!(body["errors"][0]["field"], "email");
            assert_eq!(body["request_id"], "r-1");
            assert_eq!(body["timestamp"], "1970-01-01T00:00:00Z");
        }
    }
}
