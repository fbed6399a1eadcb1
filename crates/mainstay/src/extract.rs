//! What handlers read of a request: typed, bounded, and refused in the one error form with the field named.

mod json;
mod objects;
mod patch;
mod path;
mod query;
mod strict;

pub use json::{Json, RawBody, from_value};
pub use patch::Patch;
pub use path::{Path, PathId, parse_uuid_v4};
pub use query::Query;
pub use strict::parse as parse_json;

use crate::error::FieldError;

/// Puts serde's complaint into our words and names the field. serde's messages are part of its interface by long habit; a message that is not
/// recognised is passed on as it is, without the names of Rust types.
fn describe(path: &serde_path_to_error::Path, message: &str) -> FieldError {
    let path = path.to_string();
    let path = if path == "." { String::new() } else { path };
    let quoted = |text: &str| text.split('`').nth(1).unwrap_or_default().to_owned();
    let below = |name: String| {
        if path.is_empty() || path == name || path.ends_with(&format!(".{name}")) { path_or(&path, name) } else { format!("{path}.{name}") }
    };
    if message.starts_with("unknown field") {
        return FieldError { field: below(quoted(message)), code: "unknown_field", message: "is not known here".to_owned() };
    }
    if message.starts_with("missing field") {
        return FieldError { field: below(quoted(message)), code: "missing_field", message: "is required".to_owned() };
    }
    let message = message.split(" at line ").next().unwrap_or_default();
    if let Some((_, expected)) =
        message.split_once("expected ").filter(|_| message.starts_with("invalid type") || message.starts_with("invalid value"))
    {
        return FieldError { field: path, code: "invalid_type", message: format!("must be {}", plain(expected)) };
    }
    if message.starts_with("invalid digit") || message.starts_with("number too") || message.starts_with("cannot parse integer") {
        return FieldError { field: path, code: "invalid_type", message: "must be a whole number in range".to_owned() };
    }
    FieldError { field: path, code: "invalid_value", message: message.to_owned() }
}

fn path_or(path: &str, name: String) -> String {
    if path.is_empty() { name } else { path.to_owned() }
}

/// What serde expects, in words that a client of a JSON API knows.
fn plain(expected: &str) -> &str {
    match expected.trim_matches('`') {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "bool" => "true or false",
        "a sequence" => "a list",
        other if other.starts_with("struct") || other.starts_with("a map") || other.starts_with("internally") => "an object",
        other => other,
    }
}
