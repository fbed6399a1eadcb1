//! The table of codes: the stable name of each failure, its status and its message.
//!
//! A name, once published, never changes its meaning. A service adds its own with [`Code::new`] and lists them beside [`ALL`] in its documentation.

use http::StatusCode;

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// The stable name, `snake_case`.
    pub name: &'static str,
    /// The status of the answer.
    pub status: StatusCode,
    /// What a client is told unless the place of the failure knows better.
    pub message: &'static str,
}

impl Code {
    /// A code of a service's own.
    ///
    /// # Panics
    /// At compile time, when `status` is not a status from 400 to 599.
    pub const fn new(name: &'static str, status: u16, message: &'static str) -> Self {
        assert!(status >= 400 && status < 600, "a code stands for a failure");
        match StatusCode::from_u16(status) {
            Ok(status) => Self { name, status, message },
            Err(_) => panic!("a status has three digits"),
        }
    }

    /// Is the service at fault (5xx)? Such failures are logged as errors, all others as warnings.
    pub fn is_fault(&self) -> bool {
        self.status.is_server_error()
    }
}

macro_rules! table {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $status:literal, $message:literal;)*) => {
        $($(#[$doc])* pub static $constant: Code = Code::new($name, $status, $message);)*
        /// Every code of the foundation, in the order of their status.
        pub static ALL: &[&Code] = &[$(&$constant),*];
    };
}

table! {
    /// The request's head is not HTTP as RFC 9112 has it.
    MALFORMED_REQUEST = "malformed_request", 400, "Malformed request";
    /// The body is not JSON.
    INVALID_JSON = "invalid_json", 400, "Request body is not valid JSON";
    /// A body is needed and there is none.
    MISSING_BODY = "missing_body", 400, "Request body is missing";
    /// The input was understood and is not allowed; `errors` names the fields.
    VALIDATION_FAILED = "validation_failed", 400, "Validation failed";
    /// A parameter of the path has the wrong form.
    INVALID_PATH = "invalid_path_parameter", 400, "Invalid path parameter";
    /// A parameter of the query is unknown, repeated or has the wrong form.
    INVALID_QUERY = "invalid_query_parameter", 400, "Invalid query parameter";
    /// Nobody is signed in.
    AUTHENTICATION_REQUIRED = "authentication_required", 401, "Authentication required";
    /// The token is not one of ours, or not valid for this.
    INVALID_TOKEN = "invalid_token", 401, "Invalid or expired token";
    /// The caller is known and may not do this.
    FORBIDDEN = "forbidden", 403, "You do not have permission to do this";
    /// The API key may not be used for this; the message and `WWW-Authenticate` name the scope.
    INSUFFICIENT_SCOPE = "insufficient_scope", 403, "The API key lacks the scope for this";
    /// Whatever people sign in with is for people: no API key will do.
    PERSON_REQUIRED = "person_required", 403, "An API key may not do this, please sign in";
    /// No such route.
    ROUTE_NOT_FOUND = "route_not_found", 404, "Route not found";
    /// The route exists with other methods; `Allow` lists them.
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "Method not allowed";
    /// The request's body came too slowly.
    REQUEST_TIMEOUT = "request_timeout", 408, "The request took too long to arrive";
    /// The body is over the limit.
    PAYLOAD_TOO_LARGE = "payload_too_large", 413, "Request body is too large";
    /// The target is over the limit.
    URI_TOO_LONG = "uri_too_long", 414, "Request target is too long";
    /// The body's media type, charset or content coding is not supported.
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415, "Unsupported media type";
    /// Too many requests from this client; `Retry-After` says when one passes again.
    RATE_LIMITED = "rate_limited", 429, "Too many requests, please try again later";
    /// Too many tries of passwords or codes for this account, from this address or by strangers everywhere; `Retry-After` says when one passes again.
    TOO_MANY_ATTEMPTS = "too_many_attempts", 429, "Too many attempts, please try again later";
    /// The header fields are too many or too large.
    HEADERS_TOO_LARGE = "headers_too_large", 431, "Request header fields are too large";
    /// Something went wrong that is nobody's business outside.
    INTERNAL = "internal_error", 500, "Internal server error";
    /// The method is not one that any route has.
    NOT_IMPLEMENTED = "not_implemented", 501, "Method is not supported";
    /// More work than the service takes at once.
    OVERLOADED = "overloaded", 503, "The service is busy, please try again later";
    /// The database does not answer, or has no connection to spare.
    DATABASE_UNAVAILABLE = "database_unavailable", 503, "The database is unavailable, please try again later";
    /// The database took longer than a statement, or the request, may take.
    DATABASE_TIMEOUT = "database_timeout", 503, "The database did not answer in time, please try again later";
    /// The process is starting, or draining: traffic should go to another instance.
    NOT_READY = "not_ready", 503, "Not ready for traffic";
    /// Two transactions met, this one lost and may be tried again.
    TRANSACTION_CONFLICT = "transaction_conflict", 503, "The request met another one, please try again";
    /// The time budget of the request is used up.
    DEADLINE_EXCEEDED = "deadline_exceeded", 504, "The request took too long";
}

/// The code that fits a bare status, for failures that come from code which does not know this table.
pub fn for_status(status: StatusCode) -> &'static Code {
    match status.as_u16() {
        401 => &AUTHENTICATION_REQUIRED,
        403 => &FORBIDDEN,
        404 => &ROUTE_NOT_FOUND,
        405 => &METHOD_NOT_ALLOWED,
        408 => &REQUEST_TIMEOUT,
        413 => &PAYLOAD_TOO_LARGE,
        414 => &URI_TOO_LONG,
        415 => &UNSUPPORTED_MEDIA_TYPE,
        429 => &RATE_LIMITED,
        431 => &HEADERS_TOO_LARGE,
        501 => &NOT_IMPLEMENTED,
        503 => &OVERLOADED,
        504 => &DEADLINE_EXCEEDED,
        400..=499 => &MALFORMED_REQUEST,
        _ => &INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_once() {
        let mut names: Vec<_> = ALL.iter().map(|code| code.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_bare_status_keeps_its_class() {
        for status in (400..600).filter_map(|status| StatusCode::from_u16(status).ok()) {
            assert_eq!(for_status(status).is_fault(), status.is_server_error(), "{status}");
        }
    }
}
