//! JSON to searchable text, for fields whose shape the application does not know.

use serde_json::Value;

/// Deepest nesting that is read; a product's attributes have two or three levels, and an attacker's have thousands.
const DEPTH_MAX: usize = 8;
/// Longest text that comes out, in bytes: what one text field searches is bounded by 64 KiB, and attributes are one of
/// several.
const BYTES_MAX: usize = 16 * 1024;
/// The analysis counts a line break as a gap.
const SEPARATOR: &str = ",\n";

/// The words of a JSON value, one value after another, each on a line of its own so that no phrase reaches
/// across two.
///
/// Strings and numbers give themselves; a `true` gives its key (`{"wireless": true}` is found by `wireless`); `false`
/// and `null` give nothing. Other keys give nothing: that a product *has* a `color` distinguishes it from no other.
/// Reads at most eight levels and gives at most 16 KiB.
#[must_use]
pub fn flatten_json(value: &Value) -> String {
    let mut out = String::new();
    walk(value, None, 0, &mut out);
    out
}

fn walk(value: &Value, key: Option<&str>, depth: usize, out: &mut String) {
    if depth > DEPTH_MAX || out.len() >= BYTES_MAX {
        return;
    }
    match value {
        Value::Null | Value::Bool(false) => {}
        Value::Bool(true) => push(out, key.unwrap_or_default()),
        Value::Number(number) => push(out, &number.to_string()),
        Value::String(text) => push(out, text),
        Value::Array(values) => {
            for inner in values {
                walk(inner, key, depth + 1, out);
            }
        }
        Value::Object(entries) => {
            for (name, inner) in entries {
                walk(inner, Some(name), depth + 1, out);
            }
        }
    }
}

fn push(out: &mut String, text: &str) {
    let room = BYTES_MAX.saturating_sub(out.len());
    if text.is_empty() || room < 4 {
        return;
    }
    if !out.is_empty() {
        out.push_str(SEPARATOR);
    }
    out.push_str(crate::document::cut(text, room - SEPARATOR.len()));
}
