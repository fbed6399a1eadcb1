//! Query strings: the strict extractor against a reader of pairs that is written here, byte by byte.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use futures_util::FutureExt;
use http::Request;
use mainstay::extract::{Query, parse_uuid_v4};
use serde::Deserialize;

use crate::input::text;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    limit: Option<u32>,
    q: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

pub(crate) fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Some(id) = parse_uuid_v4(text) {
        assert!(id.to_string().eq_ignore_ascii_case(text) && id.get_version_num() == 4, "{text:?}");
    }
    let Ok(request) = Request::get(format!("/?{text}")).body(()) else { return };
    let (mut parts, ()) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let extracted = <Query<Asked> as FromRequestParts<()>>::from_request_parts(&mut parts, &()).now_or_never().unwrap();
    let pairs = pairs(&query);
    let names: BTreeMap<&str, &str> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    match extracted {
        Ok(Query(asked)) => {
            assert_eq!(names.len(), pairs.len(), "a name that stands there twice was taken: {query:?}");
            assert!(names.keys().all(|name| ["limit", "q", "type"].contains(name)), "an unknown name was taken: {query:?}");
            let value = |name| names.get(name).map(|value| (*value).to_owned());
            assert_eq!((asked.q, asked.kind), (value("q"), value("type")), "{query:?}");
            assert_eq!(asked.limit, value("limit").map(|limit| limit.parse().unwrap()), "{query:?}");
        }
        Err(error) => {
            assert_eq!(error.status(), 400);
            let known = names.keys().all(|name| ["limit", "q", "type"].contains(name)) && names.len() == pairs.len();
            let number = names.get("limit").is_none_or(|limit| limit.parse::<u32>().is_ok());
            assert!(!known || !number, "refused without a reason: {query:?}: {error}");
            assert!(error.fields().len() == 1 && error.fields()[0].field.chars().count() <= 64);
        }
    }
}

/// `application/x-www-form-urlencoded` of the URL standard.
fn pairs(query: &str) -> Vec<(String, String)> {
    let decoded = |part: &str| {
        let (mut bytes, mut rest) = (Vec::new(), part.as_bytes());
        while let [first, after @ ..] = rest {
            let hex = |byte: u8| char::from(byte).to_digit(16);
            let escaped = match after {
                [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
                _ => None,
            };
            match (first, escaped) {
                (_, Some(byte)) => bytes.extend(u8::try_from(byte)),
                (b'+', None) => bytes.push(b' '),
                (byte, None) => bytes.push(*byte),
            }
            rest = if escaped.is_some() { &after[2..] } else { after };
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pair = |part: &str| part.split_once('=').map_or((decoded(part), String::new()), |(name, value)| (decoded(name), decoded(value)));
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}
