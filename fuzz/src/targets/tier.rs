//! Entries of the shared cache: what is read of one is what is written of it.

use mainstay::fuzzing::rewritten;

pub(crate) fn run(data: &[u8]) {
    let Some(written) = rewritten(data) else { return };
    assert_eq!(rewritten(&written).as_ref(), Some(&written), "what was written is read as something else");
    let end = |bytes: &[u8]| 16 + bytes[16..].iter().position(|byte| *byte == b'\n').unwrap();
    let head: serde_json::Value = serde_json::from_slice(&written[16..end(&written)]).unwrap();
    // Without a type there was nothing there, and nothing is.
    let body = if head["media"].is_null() { &[] } else { &data[end(data)..][1..] };
    assert_eq!(&written[end(&written) + 1..], body);
    for text in head["fields"].as_array().unwrap().iter().flat_map(|field| field.as_array().unwrap()) {
        assert!(!text.as_str().unwrap().contains(['\r', '\n', '\0']), "a field that ends a field: {text}");
    }
}
