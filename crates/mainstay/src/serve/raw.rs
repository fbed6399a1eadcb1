//! The bytes of a head as they came, for what a parser hides.
//!
//! hyper resolves `Transfer-Encoding` beside `Content-Length` by dropping the latter, and RFC 9112 section 6.3 lets it; but the pair
//! is how requests are smuggled, so here it is refused, and for that it must be seen. The tail keeps the last bytes read. Where in
//! them a head lies is known without parsing anything twice: hyper's read buffer is contiguous and ends where the last read
//! ended, and the values of the parsed fields are slices of it, so the distance of their address from that end is their distance
//! from the end of the tail. The bytes found there are compared with the value before they are believed.

use http::HeaderMap;

/// The most that can lie unparsed in hyper's buffer: a head of 16 KiB and one read of 64 KiB (see `BUFFER_BYTES_MAX`), rounded up.
const TAIL_BYTES_MAX: usize = 96 * 1024;

/// The cap on hyper's buffers of one connection, in bytes: bounds what a client that does not read can make us hold, and is large
/// enough that a big body costs few system calls.
pub(crate) const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What the raw bytes of a head show that its parsed form does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawHead {
    /// The head could not be found in the bytes read.
    pub(crate) unseen: bool,
    /// A line ends with a bare LF.
    pub(crate) bare_lf: bool,
    /// The request line contains `#`.
    pub(crate) fragment: bool,
    /// `Content-Length` lines.
    pub(crate) content_lengths: usize,
}

/// The last bytes read from a connection.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    /// The bytes at the end of `bytes` that no head has claimed yet.
    unclaimed: usize,
    /// The address behind the last byte read, in hyper's buffer. Only ever compared.
    end: usize,
}

impl Tail {
    /// Notes a read of `new`, or, when it is empty, that hyper's buffer may have moved.
    /// `fresh`: hyper reads outside of a head only with an empty buffer, so what came before is used up.
    pub(crate) fn push(&mut self, new: &[u8], fresh: bool) {
        self.end = new.as_ptr() as usize + new.len();
        if new.is_empty() {
            return;
        }
        let keep = if fresh { 0 } else { self.unclaimed.min(TAIL_BYTES_MAX.saturating_sub(new.len())) };
        if keep == 0 {
            self.bytes.clear();
        } else {
            self.bytes.drain(..self.bytes.len() - keep);
        }
        if self.bytes.capacity() > 2 * BUFFER_BYTES_MAX {
            self.bytes.shrink_to(BUFFER_BYTES_MAX);
        }
        self.bytes.extend_from_slice(new);
        self.unclaimed = self.bytes.len();
    }

    /// Lets go of everything: the connection has been idle for a while. (A head that came in part, behind a request whose answer
    /// took its time, would then be unseen; only one with a `Transfer-Encoding` is refused for it.)
    pub(crate) fn rest(&mut self) {
        self.bytes = Vec::new();
        self.unclaimed = 0;
    }

    /// Looks at the head that hyper has just parsed into `fields`. `closely`: count `Content-Length` lines, too, which is for the
    /// rare request that has a `Transfer-Encoding`.
    pub(crate) fn claim(&mut self, fields: &HeaderMap, closely: bool) -> RawHead {
        let Some(found) = self.find(fields) else {
            return RawHead { unseen: true, ..RawHead::default() };
        };
        self.unclaimed = self.bytes.len() - found.end;
        let before = self.bytes.get(..found.first).unwrap_or_default();
        if !closely && !found.gaps {
            // Every line is known: the request line, then one for each value.
            let line = before.iter().rposition(|b| *b == b'\n').and_then(|feed| before.get(..feed)).unwrap_or_default();
            return RawHead { bare_lf: found.bare_lf || !line.ends_with(b"\r"), fragment: has_fragment(line), ..RawHead::default() };
        }
        let head = self.bytes.get(start_of_head(before)..found.end).unwrap_or_default();
        let bare = |at: usize| at == 0 || head.get(at - 1) != Some(&b'\r');
        RawHead {
            unseen: false,
            bare_lf: head.iter().enumerate().any(|(at, b)| *b == b'\n' && bare(at)),
            fragment: head.split(|b| *b == b'\n').next().is_some_and(has_fragment),
            content_lengths: head.split(|b| *b == b'\n').filter(|line| is_content_length(line)).count(),
        }
    }

    /// Where in `bytes` the head lies that `fields` were parsed from.
    fn find(&self, fields: &HeaderMap) -> Option<Found> {
        let mut first: Option<(usize, &[u8])> = None;
        let (mut behind, mut gaps, mut bare_lf) = (0, false, false);
        let place = |address: usize| self.bytes.len().checked_sub(self.end.checked_sub(address)?);
        for value in fields.values().map(http::HeaderValue::as_bytes) {
            if value.is_empty() {
                // An empty slice points nowhere.
                gaps = true;
                continue;
            }
            let at = place(value.as_ptr() as usize)?;
            let rest = self.bytes.get(at + value.len()..)?;
            bare_lf |= match rest {
                [b'\r', ..] => false,
                // White space at the end of a line is not part of its value.
                _ => rest.iter().find(|b| !b" \t".contains(b)) != Some(&b'\r'),
            };
            behind = behind.max(at + value.len());
            if first.is_none_or(|(known, _)| at < known) {
                first = Some((at, value));
            }
        }
        let (first, value) = first?;
        if self.bytes.get(first..first + value.len()) != Some(value) {
            return None;
        }
        let rest = self.bytes.get(behind..)?;
        if rest.starts_with(b"\r\n\r\n") {
            return Some(Found { first, end: behind + 4, gaps, bare_lf });
        }
        // Something stands behind the last value: white space, lines that were dropped, or line ends of another kind.
        Some(Found { first, end: behind + end_of_head(rest)?, gaps: true, bare_lf })
    }

    /// The bytes that no head has claimed: what hyper could not parse, when it has just said so.
    pub(crate) fn unclaimed(&self) -> &[u8] {
        self.bytes.get(self.bytes.len() - self.unclaimed..).unwrap_or_default()
    }
}

/// Where a head was found.
struct Found {
    /// The beginning of its first value.
    first: usize,
    /// Behind its empty line.
    end: usize,
    /// It may have lines that the fields do not show.
    gaps: bool,
    /// A line of a field ends with a bare LF.
    bare_lf: bool,
}

/// Whether the target of a request line, the part between its last two spaces, contains `#`.
fn has_fragment(line: &[u8]) -> bool {
    const VERSION_BYTES: usize = " HTTP/1.1".len();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let target = line.get(..line.len().saturating_sub(VERSION_BYTES)).unwrap_or_default();
    target.iter().rev().take_while(|b| **b != b' ').any(|b| *b == b'#')
}

fn is_content_length(line: &[u8]) -> bool {
    line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length:"))
}

/// The length of what is left of a head, its empty line included, seen from behind its last known value.
fn end_of_head(rest: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let line = from + rest.get(from..)?.iter().position(|b| *b == b'\n')? + 1;
        match rest.get(line..)? {
            [b'\n', ..] => return Some(line + 1),
            [b'\r', b'\n', ..] => return Some(line + 2),
            _ => from = line,
        }
    }
}

/// Where the request line begins, seen from the first known value: backwards over every line that has the form of a field.
fn start_of_head(before: &[u8]) -> usize {
    let mut end = before.len();
    loop {
        let start = before.iter().take(end).rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if start == 0 || !is_field(before.get(start..).unwrap_or_default()) {
            return start;
        }
        end = start - 1;
    }
}

/// Whether a line begins with a field name and its colon, which a request line cannot.
pub(crate) fn is_field(line: &[u8]) -> bool {
    let name = line.iter().take_while(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b)).count();
    name > 0 && line.get(name) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{HeaderName, HeaderValue};

    /// A buffer as hyper has it, and the fields cut out of it.
    fn parsed(buffer: &Bytes, values: &[&str]) -> HeaderMap {
        let text = std::str::from_utf8(buffer).unwrap();
        let mut map = HeaderMap::new();
        for (i, value) in values.iter().enumerate() {
            let at = text.rfind(value).unwrap();
            let name: HeaderName = format!("x-{i}").parse().unwrap();
            map.append(name, HeaderValue::from_maybe_shared(buffer.slice(at..at + value.len())).unwrap());
        }
        map
    }

    fn claim(raw: &'static str, values: &[&str]) -> (RawHead, usize) {
        let buffer = Bytes::from_static(raw.as_bytes());
        let mut tail = Tail::default();
        tail.push(&buffer, true);
        let seen = tail.claim(&parsed(&buffer, values), true);
        (seen, tail.unclaimed().len())
    }

    #[test]
    fn a_dropped_content_length_is_seen_wherever_it_stands() {
        for raw in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nHost: hhh\r\nTE: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: hhh\r\ncontent-LENGTH: 3\r\nTE: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: hhh\r\nTE: chunked\r\nContent-Length:3\r\n\r\n0\r\n\r\n",
        ] {
            let (seen, left) = claim(raw, &["hhh", "chunked"]);
            assert_eq!((seen, left), (RawHead { content_lengths: 1, ..RawHead::default() }, 5), "{raw}");
        }
    }

    #[test]
    fn text_in_a_body_or_in_the_request_before_is_not_taken_for_a_field() {
        let raw =
            "POST / HTTP/1.1\r\nHost: aaa\r\n\r\nx\nContent-Length: 1\nPOST / HTTP/1.1\r\nHost: hhh\r\nTE: chunked\r\n\r\n\nContent-Length: 9\n";
        let (seen, left) = claim(raw, &["hhh", "chunked"]);
        assert_eq!((seen, left), (RawHead::default(), 19));
    }

    #[test]
    fn bare_line_feeds_and_fragments_are_seen() {
        for raw in [
            "GET / HTTP/1.1\nHost: hhh\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: hhh\n\r\n",
            "GET / HTTP/1.1\r\nHost: hhh \t\n\r\n",
            "GET / HTTP/1.1\r\nX:\nHost: hhh\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: hhh\r\nX:\n\r\n",
        ] {
            assert!(claim(raw, &["hhh"]).0.bare_lf, "{raw:?}");
        }
        for raw in ["GET / HTTP/1.1\r\nHost: hhh \r\n\r\n\n", "b#\nGET / HTTP/1.1\r\nX:\r\nHost: hhh\r\nX:\r\n\r\n"] {
            assert_eq!(claim(raw, &["hhh"]).0, RawHead::default(), "{raw:?}");
        }
        assert!(claim("GET / HTTP/1.1\r\nHost: hhh\r\n\n", &["hhh"]).0.bare_lf);
        assert!(claim("GET /#a HTTP/1.1\r\nHost: hhh\r\n\r\n", &["hhh"]).0.fragment);
        assert_eq!(claim("GET / HTTP/1.1\r\nHost: hhh\r\nX: #\r\n\r\n", &["hhh"]).0, RawHead::default());
    }

    #[test]
    fn a_head_that_came_in_pieces_is_found() {
        let buffer = Bytes::from_static(b"GET / HTTP/1.1\r\nHost: hhh\r\n\r\nGET");
        let mut tail = Tail::default();
        for cut in [0..4, 4..20, 20..buffer.len()] {
            tail.push(&buffer[cut], false);
        }
        assert_eq!(tail.claim(&parsed(&buffer, &["hhh"]), false), RawHead::default());
        assert_eq!(tail.unclaimed(), b"GET");
    }

    #[test]
    fn what_is_not_in_the_bytes_is_unseen() {
        let (one, two) = (Bytes::from(vec![b'a'; 64]), Bytes::from(b"GET / HTTP/1.1\r\nHost: hhh\r\n\r\n".to_vec()));
        let mut tail = Tail::default();
        tail.push(&one, true);
        assert!(tail.claim(&parsed(&two, &["hhh"]), true).unseen);
        assert!(tail.claim(&HeaderMap::new(), true).unseen);
    }
}
