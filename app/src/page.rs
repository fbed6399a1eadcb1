//! Lists by page: an opaque cursor that names the last row, and the envelope with the link to the next page.

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Uri, header};
use mainstay::cache::Output;
use mainstay::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codes;

/// Rows of a page when the client does not say.
pub const LIMIT_DEFAULT: u32 = 20;
/// Most rows of a page: a page is read by a person or fetched again, never the whole table.
pub const LIMIT_MAX: u32 = 100;
/// A cursor holds a sort key and an id; the longest name of nothing but escaped characters makes it 4,110 bytes. With the filters it still fits into a
/// target of 8 KiB.
const CURSOR_BYTES_MAX: usize = 5000;

/// The number of rows asked for.
///
/// # Errors
/// [`mainstay::error::codes::INVALID_QUERY`] outside of 1 to 100.
pub fn limit(asked: Option<u32>) -> Result<u32> {
    let limit = asked.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    let error = Error::new(&mainstay::error::codes::INVALID_QUERY).with_message("Query parameter `limit` must be 1 to 100");
    Err(error.with_field("limit", "out_of_range", "must be 1 to 100"))
}

/// Writes a cursor.
pub fn encode_cursor<T: Serialize>(position: &T) -> String {
    // Positions are texts, numbers and ids, which always serialise.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

/// Reads a cursor.
///
/// # Errors
/// [`mainstay::error::codes::INVALID_QUERY`] for what has not the form of a cursor, [`codes::CURSOR_NOT_FOUND`] for what has it and is none that
/// [`encode_cursor`] wrote: like an id that nobody has.
pub fn decode_cursor<T: DeserializeOwned>(text: &str) -> Result<T> {
    let formed = (1..=CURSOR_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !formed {
        let error = Error::new(&mainstay::error::codes::INVALID_QUERY).with_message("Query parameter `cursor` must be a cursor");
        return Err(error.with_field("cursor", "invalid_format", "must be a `next_cursor` of this list"));
    }
    let unknown = || Error::new(&codes::CURSOR_NOT_FOUND).with_field("cursor", "unknown_cursor", "must be a `next_cursor` of this list");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| unknown().caused_by(error))?;
    serde_json::from_slice(&bytes).map_err(|error| unknown().caused_by(error))
}

/// What a list says beside its rows.
#[derive(Debug, Serialize, ToSchema)]
pub struct PageMeta {
    /// The cursor of the next page, or null on the last one.
    #[schema(required, max_length = 5000, pattern = "^[A-Za-z0-9_-]+$", example = "WzE3NjcyMjU2MDAwMDAwMDAsIjNmMmMxYjllIl0")]
    pub next_cursor: Option<String>,
}

/// A list in the envelope.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T, M> {
    /// Always `success`.
    #[schema(pattern = "^success$", max_length = 7, example = "success")]
    pub status: String,
    /// The rows.
    #[schema(max_items = 100)]
    pub data: Vec<T>,
    /// What is to say beside them.
    pub meta: M,
}

impl<T, M> Page<T, M> {
    /// Rows and what is to say beside them.
    pub fn new(data: Vec<T>, meta: M) -> Self {
        Self { status: "success".to_owned(), data, meta }
    }
}

/// A page as an answer, with `Link: <...>; rel="next"` (RFC 8288).
pub fn answer<T: Serialize, M: Serialize>(page: &Page<T, M>, uri: &Uri, next_cursor: Option<&str>) -> Response {
    let mut response = axum::Json(page).into_response();
    if let Some(link) = next_cursor.and_then(|cursor| next_link(uri, cursor)) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The same, to be kept.
///
/// # Errors
/// When a row cannot be written as JSON.
pub fn output<T: Serialize, M: Serialize>(page: &Page<T, M>, uri: &Uri, next_cursor: Option<&str>) -> Result<Output> {
    let output = Output::json(page)?;
    let link = next_cursor.and_then(|cursor| next_link(uri, cursor));
    Ok(link.into_iter().fold(output, |output, link| output.with_field(header::LINK, link)))
}

fn next_link(uri: &Uri, cursor: &str) -> Option<HeaderValue> {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    // The alphabet of a cursor needs no escaping; what is kept of the query came in escaped, and angle brackets would end the link early.
    let query: Vec<_> = kept.map(|pair| pair.replace('<', "%3C").replace('>', "%3E")).chain([format!("cursor={cursor}")]).collect();
    HeaderValue::try_from(format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_link_keeps_the_filters_and_moves_the_cursor() {
        let uri: Uri = "/api/products?limit=5&cursor=old&category=a%20%3E%20b".parse().unwrap();
        assert_eq!(next_link(&uri, "new").unwrap(), "</api/products?limit=5&category=a%20%3E%20b&cursor=new>; rel=\"next\"");
    }

    proptest! {
        #[test]
        fn a_cursor_survives_and_no_text_makes_it_panic(key in any::<String>(), number in any::<i64>(), text in ".{0,60}") {
            prop_assert_eq!(decode_cursor::<(String, i64)>(&encode_cursor(&(&key, number))).unwrap(), (key, number));
            drop(decode_cursor::<(String, i64)>(&text));
        }
    }
}
