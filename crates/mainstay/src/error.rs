//! One error for every failure, one table of codes, one place where a failure becomes an answer.
//!
//! A handler or a layer returns [`Error`]; the outermost layer ([`crate::stack::Observe`]) renders it, because only there the
//! request id and the form that the client asked for are known. Two renderings of the same value:
//! the envelope `{"status":"error",...}` and, for clients that accept `application/problem+json`, RFC 9457.
//!
//! What the client reads is the code, the message and the fields. The cause is private: it goes to the log, and into the answer only in development.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

pub mod codes;
mod fields;
mod from_store;
mod render;

pub use codes::Code;
pub use fields::{FieldError, Fields, Flaw};
pub use render::{Detail, ErrorBody, Form, ProblemBody};

/// What a fallible piece of the stack or a handler returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A private cause, for the log.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Any failure on the way of a request, with the answer that it deserves.
pub struct Error(Box<Inner>);

struct Inner {
    code: &'static Code,
    message: Cow<'static, str>,
    fields: Vec<FieldError>,
    headers: HeaderMap,
    cause: Option<Cause>,
}

impl Error {
    /// The failure that `code` names, with the message of the table.
    pub fn new(code: &'static Code) -> Self {
        let mut headers = HeaderMap::new();
        if code.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, 11.6.1: a 401 always says how to authenticate.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Self(Box::new(Inner { code, message: Cow::Borrowed(code.message), fields: Vec::new(), headers, cause: None }))
    }

    /// A message for the client in place of the table's.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Names a field of the input and what is wrong with it.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        self.0.fields.push(FieldError { field: field.into(), code, message: message.into() });
        self
    }

    /// All that is wrong with an input, field by field.
    #[must_use]
    pub fn with_fields(mut self, fields: Vec<FieldError>) -> Self {
        self.0.fields = fields;
        self
    }

    /// The private cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Cause>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// A header of the answer, in place of one of the same name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// `Retry-After` in whole seconds, rounded up, at least 1 (RFC 9110, 10.2.3), so that a client that waits as told is not refused again.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
        let value = HeaderValue::try_from(seconds.to_string()).unwrap_or(HeaderValue::from_static("1"));
        self.with_header(header::RETRY_AFTER, value)
    }

    /// Tells the client that the connection ends with this answer: what is left of the request is not worth reading.
    #[must_use]
    pub fn closing(self) -> Self {
        self.with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The same failure, for another request that waited for the same work. Its causes are words now.
    pub(crate) fn twin(&self) -> Self {
        let Inner { code, message, fields, headers, .. } = &*self.0;
        let causes = self.causes();
        let cause = (!causes.is_empty()).then(|| causes.join(": ").into());
        Self(Box::new(Inner { code, message: message.clone(), fields: fields.clone(), headers: headers.clone(), cause }))
    }

    /// The code of the table.
    pub fn code(&self) -> &'static Code {
        self.0.code
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.0.code.status
    }

    /// The fields that are wrong, if the input was.
    pub fn fields(&self) -> &[FieldError] {
        &self.0.fields
    }

    /// The message for the client.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The causes, outermost first, for the log.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.0.cause.as_deref().map(|cause| cause as &dyn std::error::Error);
        // Eight links tell every story met so far; a cycle or a hostile chain ends here.
        while let (Some(cause), true) = (next, causes.len() < 8) {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("code", &self.0.code.name).field("message", &self.0.message).field("causes", &self.causes()).finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.name, self.0.message)?;
        self.causes().iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for Error {}

/// An error on its way out: found in the extensions of a response whose body [`crate::stack::Observe`] still has to write.
#[derive(Clone)]
pub(crate) struct Report(pub(crate) Arc<Error>);

impl IntoResponse for Error {
    /// The status and the headers; the body is written by the outermost layer, which knows the request id and the form.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        response.headers_mut().extend(self.0.headers.clone());
        // No cache may keep a failure (RFC 9111, 4.2.2 allows heuristics for 404, 405, 410, 414).
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.extensions_mut().insert(Report(Arc::new(self)));
        response
    }
}

/// A success in the envelope `{"status":"success","data":...}`.
#[derive(Debug, Serialize)]
pub struct Success<T> {
    /// Always `success`.
    pub status: &'static str,
    /// What was asked for.
    pub data: T,
}
