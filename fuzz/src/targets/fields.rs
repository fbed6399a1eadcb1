//! What the layers read of the fields of a request: its id, the trace, the form of errors, the coding, the entity tags. Each line of the input is one field.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mainstay::cache::Output;
use mainstay::client::Networks;
use mainstay::context::REQUEST_ID;
use mainstay::error::Form;
use mainstay::fuzzing::{arriving, coding, respond};

use crate::input::somebody;

static OUTPUT: LazyLock<Output> = LazyLock::new(|| Output::new(HeaderValue::from_static("application/json"), Bytes::from(vec![b' '; 4096])));

pub(crate) fn run(data: &[u8]) {
    const NAMES: [HeaderName; 5] = [REQUEST_ID, HeaderName::from_static("traceparent"), ACCEPT, ACCEPT_ENCODING, IF_NONE_MATCH];
    let mut fields = HeaderMap::new();
    for (name, line) in NAMES.into_iter().zip(data.split(|byte| *byte == b'\n')) {
        // `@` stands for the tag that the output has, so that it can be found.
        let tag = respond(&OUTPUT, &arriving(somebody(), HeaderMap::new(), &Networks::default())).headers()[ETAG].clone();
        let line = if name == IF_NONE_MATCH { String::from_utf8_lossy(line).replace('@', tag.to_str().unwrap()).into_bytes() } else { line.to_vec() };
        if let Ok(value) = HeaderValue::from_bytes(&line) {
            fields.insert(name, value);
        }
    }
    let context = arriving(somebody(), fields.clone(), &Networks::default());
    let given = |name: HeaderName| fields.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    id(context.id.as_str(), given(REQUEST_ID), given(HeaderName::from_static("traceparent")));
    assert_eq!(context.id.header().as_bytes(), context.id.as_str().as_bytes());
    assert!(context.form == Form::Envelope || given(ACCEPT).to_ascii_lowercase().contains("application/problem+json"));
    accepted(coding(&context), given(ACCEPT_ENCODING));
    let answer = respond(&OUTPUT, &context);
    let tag = answer.headers()[ETAG].to_str().unwrap();
    let plain = tag.trim_matches('"').split('-').next().unwrap_or_default();
    match answer.status() {
        StatusCode::NOT_MODIFIED => assert!(given(IF_NONE_MATCH).contains('*') || given(IF_NONE_MATCH).contains(plain)),
        status => {
            assert_eq!(status, StatusCode::OK);
            let listed: Vec<_> = given(IF_NONE_MATCH).split(',').map(str::trim).collect();
            assert!(!listed.contains(&"*") && !listed.contains(&tag), "a body is sent to who has it: {listed:?}");
        }
    }
}

/// It can stand in a line of the log and in a field as it is; a good one is kept; the id of a trace is lower case hexadecimal.
fn id(id: &str, given: &str, trace: &str) {
    let good = |id: &str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    assert!(good(id), "{id:?}");
    if good(given) {
        assert_eq!(id, given);
    } else if trace.contains(id) {
        assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && id.bytes().any(|byte| byte != b'0'), "{id:?}");
    } else {
        assert_eq!(id.len(), 32, "{id:?}");
    }
}

/// A coding that is chosen stands in the list, or everything does.
fn accepted(chosen: Option<&str>, listed: &str) {
    let names: Vec<_> = listed.split(',').map(|item| item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()).collect();
    if let Some(chosen) = chosen {
        assert!(names.iter().any(|name| name == chosen || name == "*"), "{chosen} of {listed:?}");
    }
    if names.len() == 1 && !listed.contains(';') && ["gzip", "br", "zstd"].contains(&names[0].as_str()) {
        assert_eq!(chosen, Some(names[0].as_str()), "{listed:?}");
    }
}
