//! Header fields as lines: rendered without a map, and put behind the status line by the wire as they are.
//!
//! A field in a map costs a look-up, an entry, a turn of hyper's loop and the entry's end. For the two dozen fields of the stack that was more than all
//! else that it does; as lines, those that are the same for many answers are one copy of bytes, and the others a few short ones.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response};

/// What the own lines of an answer of this stack need, in bytes: an id, an origin, a standing.
const OWN_BYTES: usize = 192;

/// Fields that never change, as a map and as the bytes of their lines.
#[derive(Debug)]
pub struct Constant {
    fields: HeaderMap,
    bytes: Box<[u8]>,
}

impl Constant {
    /// The lines of these fields. They are about the answer as a whole: nothing that frames it or belongs to its connection.
    pub fn new(fields: HeaderMap) -> Constant {
        let mut bytes = Vec::new();
        for (name, value) in &fields {
            write_line(&mut bytes, name, &[value.as_bytes()]);
        }
        Constant { fields, bytes: bytes.into() }
    }
}

/// Lines of one answer.
#[derive(Debug)]
pub struct Lines {
    constant: Arc<Constant>,
    own: Vec<u8>,
}

impl Lines {
    /// These lines, to which further ones may be added.
    pub fn new(constant: Arc<Constant>) -> Lines {
        Lines { constant, own: Vec::with_capacity(OWN_BYTES) }
    }

    /// Adds a line. `parts` make up its value; what cannot be one (RFC 9110, 5.5) is left out, so that no value ends its line.
    pub fn put(&mut self, name: &HeaderName, parts: &[&[u8]]) {
        // Without a way out of the loop, so that many bytes are looked at together: a third of the time for an id.
        let legal = |part: &[u8]| part.iter().fold(true, |legal, byte| legal & ((*byte >= b' ') & (*byte != 0x7f) | (*byte == b'\t')));
        if parts.iter().all(|part| legal(part)) {
            write_line(&mut self.own, name, parts);
        }
    }

    /// Adds a line with what is known to be a value.
    pub fn put_value(&mut self, name: &HeaderName, value: &HeaderValue) {
        write_line(&mut self.own, name, &[value.as_bytes()]);
    }

    /// As HTTP/1.1 has them, each with its line end.
    pub(crate) fn bytes(&self) -> [&[u8]; 2] {
        [&self.constant.bytes, &self.own]
    }

    /// Puts them into a map, beside what it holds: whoever gives an answer lines gives it no fields of the same names, unless they are lists.
    pub fn append_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.constant.fields {
            headers.append(name.clone(), value.clone());
        }
        for line in self.own.split(|byte| *byte == b'\n') {
            // Names have no colon, and what was written here is legal.
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = line.split_at(colon);
            let value = value.strip_prefix(b": ").and_then(|value| value.strip_suffix(b"\r")).unwrap_or_default();
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
    }
}

fn write_line(bytes: &mut Vec<u8>, name: &HeaderName, parts: &[&[u8]]) {
    bytes.extend_from_slice(name.as_str().as_bytes());
    bytes.extend_from_slice(b": ");
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.extend_from_slice(b"\r\n");
}

/// What a service answers.
#[derive(Debug)]
pub struct Reply<B> {
    /// The answer.
    pub response: Response<B>,
    /// Further fields of it.
    pub lines: Option<Lines>,
}

impl<B> From<Response<B>> for Reply<B> {
    fn from(response: Response<B>) -> Reply<B> {
        Reply { response, lines: None }
    }
}

impl<B> Reply<B> {
    /// The answer with all its fields in its map.
    pub fn into_response(mut self) -> Response<B> {
        if let Some(lines) = self.lines {
            lines.append_to(self.response.headers_mut());
        }
        self.response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{ETAG, LOCATION, VARY, X_FRAME_OPTIONS};
    use proptest::prelude::*;

    fn lines() -> Lines {
        let mut fields = HeaderMap::new();
        fields.append(VARY, HeaderValue::from_static("origin"));
        fields.append(VARY, HeaderValue::from_static("accept"));
        fields.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        Lines::new(Arc::new(Constant::new(fields)))
    }

    #[test]
    fn lines_say_what_the_map_says() {
        let mut lines = lines();
        lines.put(&ETAG, &[b"\"a", b"b:c\""]);
        lines.put_value(&LOCATION, &HeaderValue::from_static("/a"));
        assert_eq!(lines.bytes().concat(), b"vary: origin\r\nvary: accept\r\nx-frame-options: DENY\r\netag: \"ab:c\"\r\nlocation: /a\r\n");
        let mut response = Response::new(());
        response.headers_mut().insert(VARY, HeaderValue::from_static("cookie"));
        let whole = Reply { response, lines: Some(lines) }.into_response();
        assert_eq!(whole.headers().get_all(VARY).iter().collect::<Vec<_>>(), ["cookie", "origin", "accept"]);
        assert_eq!(
            (&whole.headers()[X_FRAME_OPTIONS], &whole.headers()[ETAG]),
            (&HeaderValue::from_static("DENY"), &HeaderValue::from_static("\"ab:c\""))
        );
    }

    proptest! {
        #[test]
        fn a_value_is_one_line_exactly_if_a_map_takes_it(value in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut lines = lines();
            lines.put(&LOCATION, &[&value]);
            let mut headers = HeaderMap::new();
            lines.append_to(&mut headers);
            prop_assert_eq!(headers.get(LOCATION).cloned(), HeaderValue::from_bytes(&value).ok());
            prop_assert_eq!(lines.bytes()[1].iter().filter(|byte| **byte == b'\n').count(), headers.get_all(LOCATION).iter().count());
        }
    }
}
