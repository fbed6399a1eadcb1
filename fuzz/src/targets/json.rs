//! JSON bodies: taken exactly if the lenient parser takes them and they mean one thing. The first line is the `Content-Type`, the rest the body.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use futures_util::FutureExt;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use mainstay::extract::{Json, from_value, parse_json};
use mainstay_app::products::input::WriteProduct;
use serde_json::Value;

use crate::input::line;

pub(crate) fn run(data: &[u8]) {
    let (media, body) = line(data);
    let strict = parse_json(body);
    // Names that the parser keeps for itself: what it makes of them is nothing to agree with.
    if strict.as_ref().is_err_and(|error| error.fields().first().is_some_and(|flaw| flaw.code == "unknown_field")) {
        return;
    }
    agrees(body, strict.as_ref().ok());
    if let Ok(value) = &strict {
        let written = serde_json::to_vec(value).unwrap();
        let again = parse_json(&written).unwrap();
        // The parser rounds the last digit of a fraction now and then, so such a one may move.
        assert!(has_fraction(value) || again == *value);
        // Whatever is wrong with a product is said, and is no fault of ours.
        if let Err(error) = from_value::<WriteProduct>(value.clone()).and_then(WriteProduct::parse) {
            assert!(error.status().is_client_error() && !error.fields().is_empty(), "{error}");
        }
    }
    extracted(media, body, strict.ok());
}

/// A repeated member is one more colon in the text than there are members in the value.
fn agrees(body: &[u8], strict: Option<&Value>) {
    let lenient = serde_json::from_slice::<Value>(body).ok();
    let Some(lenient) = lenient else { return assert!(strict.is_none(), "the lenient parser refuses it") };
    let (colons, depth) = measured(body);
    let repeated = colons != members(&lenient);
    if strict.is_some() {
        assert!(!repeated && !has_nul(&lenient) && depth <= 65, "{}", String::from_utf8_lossy(body));
        assert_eq!(strict, Some(&lenient));
    } else {
        assert!(repeated || has_nul(&lenient) || depth > 64, "{}", String::from_utf8_lossy(body));
    }
}

/// Colons outside of texts, and the levels of the deepest place.
fn measured(body: &[u8]) -> (usize, usize) {
    let (mut colons, mut depth, mut deepest, mut in_text, mut escaped) = (0, 0usize, 0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b':' => colons += 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    (colons, deepest)
}

fn members(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(members).sum(),
        Value::Object(object) => object.values().map(|value| 1 + members(value)).sum(),
        _ => 0,
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(object) => object.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(object) => object.values().any(has_fraction),
        _ => false,
    }
}

/// The extractor adds the media type and nothing else.
fn extracted(media: &[u8], body: &[u8], strict: Option<Value>) {
    let Ok(value) = HeaderValue::from_bytes(media) else { return };
    let mut request = Request::new(Body::from(body.to_vec()));
    request.headers_mut().insert(CONTENT_TYPE, value);
    let extracted = <Json<Value> as FromRequest<()>>::from_request(request, &()).now_or_never().unwrap();
    let media = String::from_utf8_lossy(media).to_ascii_lowercase();
    match extracted {
        Ok(Json(value)) => {
            assert!(media.trim().starts_with("application/") && media.contains("json"), "{media:?}");
            assert_eq!(Some(value), strict);
        }
        Err(error) if media == "application/json" => assert!(error.status() == 400 && strict.is_none(), "{error}"),
        Err(error) => assert!(error.status().is_client_error(), "{error}"),
    }
}
