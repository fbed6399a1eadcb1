//! The bytes of a head as they came, for what a parser hides.
//!
//! hyper resolves `Transfer-Encoding` beside `Content-Length` by dropping the latter, and RFC 9112 section 6.3 lets it; and a bare LF
//! ends a line for it. But this is how requests are smuggled, so here it is refused, and for that it must be seen. The tail keeps what has been read and is
//! neither of a head that was parsed nor of its body. So it begins where the next head does: a body is as long as its `Content-Length`, or as its chunks, read
//! strictly ([`chunks`](super::chunks)), say. Nothing of a read is left out: one byte that is missing here, and the next head is taken for a part of a body. It is as much as
//! hyper holds unparsed, and bounded by what it reads at once: twice [`BUFFER_BYTES_MAX`] and a head.

use super::chunks::{Chunks, Piece, is_token};
use super::head::Framing;

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
    /// There is a `Content-Length` beside the coding, which hyper drops.
    pub(crate) length_dropped: bool,
    /// What has come of the chunked body is none.
    pub(crate) broken_chunks: bool,
}

/// The last bytes read from a connection: those that no head has claimed yet.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    /// How many of them, at their beginning, are used up: they go with the next read.
    claimed: usize,
    /// The body whose bytes come next; they are not kept.
    body: Body,
}

/// What belongs to the body of the last head.
#[derive(Debug, Default)]
enum Body {
    #[default]
    Nothing,
    /// So many bytes.
    Length(u64),
    Chunks(Chunks),
}

impl Body {
    fn of(framing: &Framing<'_>) -> Body {
        if framing.has_coding() { Body::Chunks(Chunks::default()) } else { framing.length().map_or(Body::Nothing, Body::Length) }
    }

    /// How many of the bytes that come next are its own; `None` if it cannot go on with them.
    fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        match self {
            Body::Nothing => Some(0),
            Body::Length(left) => {
                let own = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= own as u64;
                Some(own)
            }
            Body::Chunks(chunks) => match chunks.read(bytes) {
                Piece::Open => Some(bytes.len()),
                Piece::Ended(own) => {
                    *self = Body::Nothing;
                    Some(own)
                }
                Piece::Broken => None,
            },
        }
    }
}

impl Tail {
    /// Notes a read. `false`: it is a part of a chunked body, and broken, so hyper must not see it.
    #[must_use]
    pub(crate) fn push(&mut self, new: &[u8]) -> bool {
        let Some(own) = self.body.read(new) else {
            return false;
        };
        self.bytes.drain(..self.claimed);
        self.claimed = 0;
        if self.bytes.capacity() > BUFFER_BYTES_MAX {
            self.bytes.shrink_to(BUFFER_BYTES_MAX);
        }
        self.bytes.extend_from_slice(new.get(own..).unwrap_or_default());
        true
    }

    /// Lets go of the memory: the connection has been idle for a while. What has come of a head stays.
    pub(crate) fn rest(&mut self) {
        self.bytes.drain(..self.claimed);
        self.claimed = 0;
        self.bytes.shrink_to_fit();
    }

    /// Forgets what no head has claimed: it is going to be read again.
    pub(crate) fn forget(&mut self) {
        (self.bytes, self.claimed) = (Vec::new(), 0);
    }

    /// Looks at the head that hyper has just parsed, of which `framing` tells, and at what has come of its body.
    pub(crate) fn claim(&mut self, framing: &Framing<'_>) -> RawHead {
        let unclaimed = self.bytes.get(self.claimed..).unwrap_or_default();
        let Some((mut raw, end)) = look_at(unclaimed) else {
            return RawHead { unseen: true, ..RawHead::default() };
        };
        let (head, behind) = unclaimed.split_at_checked(end).unwrap_or((unclaimed, &[]));
        raw.length_dropped = framing.has_coding() && head.split(|byte| *byte == b'\n').any(is_content_length);
        self.body = Body::of(framing);
        let own = self.body.read(behind);
        raw.broken_chunks = own.is_none();
        if own.is_none() {
            // The answer to it is the last one here, whatever comes.
            self.body = Body::Nothing;
        }
        self.claimed = self.bytes.len() - behind.len() + own.unwrap_or(0);
        raw
    }

    /// The bytes that no head has claimed: what hyper could not parse, when it has just said so.
    pub(crate) fn unclaimed(&self) -> &[u8] {
        self.bytes.get(self.claimed..).unwrap_or_default()
    }
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"" | b"\r")
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

/// What the lines of the head show that `bytes` begin with, and where it ends: behind its empty line, as hyper sees it, which passes over empty lines before it.
fn look_at(bytes: &[u8]) -> Option<(RawHead, usize)> {
    let (mut raw, mut from, mut begun) = (RawHead::default(), 0, false);
    loop {
        let rest = bytes.get(from..)?;
        let feed = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest.get(..feed)?;
        from += feed + 1;
        raw.bare_lf |= !line.ends_with(b"\r");
        let blank = is_blank(line);
        if blank && begun {
            return Some((raw, from));
        }
        if !blank && !begun {
            raw.fragment = has_fragment(line);
            begun = true;
        }
    }
}

/// Whether a line begins with a field name and its colon, which a request line cannot.
pub(crate) fn is_field(line: &[u8]) -> bool {
    let name = line.iter().take_while(|b| is_token(**b)).count();
    name > 0 && line.get(name) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderName, HeaderValue};

    fn framed(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    /// What is seen of a head with this field of framing, and how many bytes are no part of it and its body.
    fn claim(raw: &str, framing: &HeaderMap) -> (RawHead, usize) {
        let mut tail = Tail::default();
        assert!(tail.push(raw.as_bytes()));
        (tail.claim(&Framing::of(framing)), tail.unclaimed().len())
    }

    fn chunked(raw: &str) -> (RawHead, usize) {
        claim(raw, &framed("transfer-encoding", "chunked"))
    }

    #[test]
    fn a_dropped_content_length_is_seen_wherever_it_stands() {
        for raw in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nHost: hhh\r\nTE: chunked\r\n\r\n0\r\n\r\nGET",
            "POST / HTTP/1.1\r\nHost: hhh\r\ncontent-LENGTH: 3\r\nTE: chunked\r\n\r\n0\r\n\r\nGET",
            "POST / HTTP/1.1\r\nHost: hhh\r\nTE: chunked\r\nContent-Length:3\r\n\r\n0\r\n\r\nGET",
        ] {
            assert_eq!(chunked(raw), (RawHead { length_dropped: true, ..RawHead::default() }, 3), "{raw}");
        }
    }

    #[test]
    fn text_in_a_body_is_not_taken_for_a_field() {
        let raw = "POST / HTTP/1.1\r\nHost: hhh\r\nTE: chunked\r\n\r\n13\r\n\nContent-Length: 9\n\r\n0\r\n\r\n";
        assert_eq!(chunked(raw), (RawHead::default(), 0));
        let raw = "POST / HTTP/1.1\r\nHost: hhh\r\nTE: chunked\r\n\r\n\nContent-Length: 9\n";
        assert_eq!(chunked(raw), (RawHead { broken_chunks: true, ..RawHead::default() }, 19));
    }

    #[test]
    fn bare_line_feeds_and_fragments_are_seen() {
        for raw in [
            "GET / HTTP/1.1\nHost: hhh\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: hhh\n\r\n",
            "GET / HTTP/1.1\r\nHost: hhh \t\n\r\n",
            "GET / HTTP/1.1\r\nX:\nHost: hhh\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: hhh\r\nX:\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 0\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: hhh\r\n\n",
            "GET / HTTP/1.0\n\n",
            "\nGET / HTTP/1.1\r\nHost: hhh\r\n\r\n",
        ] {
            assert_eq!(claim(raw, &HeaderMap::new()), (RawHead { bare_lf: true, ..RawHead::default() }, 0), "{raw:?}");
        }
        for raw in [
            "GET / HTTP/1.1\r\nHost: hhh \r\n\r\n\n",
            "\r\n\r\nGET / HTTP/1.1\r\nX:\r\nHost: hhh\r\nX:\r\n\r\n\n",
            "GET / HTTP/1.1\r\nHost: hhh\r\nX: #\r\n\r\n\n",
        ] {
            assert_eq!(claim(raw, &HeaderMap::new()), (RawHead::default(), 1), "{raw:?}");
        }
        for raw in ["GET /#a HTTP/1.1\r\nHost: hhh\r\n\r\n", "\r\nGET /#a HTTP/1.1\r\nHost: hhh\r\n\r\n"] {
            assert!(claim(raw, &HeaderMap::new()).0.fragment, "{raw:?}");
        }
    }

    #[test]
    fn a_body_is_no_head_and_what_has_come_of_the_next_head_outlives_a_rest() {
        for (framing, body) in [(framed("content-length", "5"), "hello"), (framed("transfer-encoding", "chunked"), "5\r\nhello\r\n0\r\n\r\n")] {
            let head = "POST / HTTP/1.1\r\nHost: aaa\r\n\r\n";
            let all = format!("{head}{body}GET / HTTP/1.1\nHost: hhh\r\n\r\nGET").into_bytes();
            for cut in head.len()..all.len() {
                let mut tail = Tail::default();
                assert!(tail.push(&all[..head.len()]));
                assert_eq!(tail.claim(&Framing::of(&framing)), RawHead::default());
                for piece in [head.len()..cut, cut..all.len()] {
                    assert!(tail.push(&all[piece]));
                    tail.rest();
                }
                assert_eq!(tail.unclaimed(), &all[head.len() + body.len()..], "{cut}");
                assert!(tail.claim(&Framing::default()).bare_lf, "{cut}");
                assert_eq!(tail.unclaimed(), b"GET");
            }
        }
    }

    #[test]
    fn a_read_is_kept_whole_however_long_it_is() {
        let long = "x".repeat(500_000);
        for (framing, body) in
            [(framed("content-length", "500000"), long.clone()), (framed("transfer-encoding", "chunked"), format!("7a120\r\n{long}\r\n0\r\n\r\n"))]
        {
            let mut tail = Tail::default();
            assert!(tail.push(format!("POST / HTTP/1.1\r\nHost: aaa\r\n\r\n{body}GET / HTTP/1.1\nHost: hhh\r\n\r\nGET").as_bytes()));
            assert_eq!(tail.claim(&Framing::of(&framing)), RawHead::default());
            assert!(tail.claim(&Framing::default()).bare_lf);
            assert_eq!(tail.unclaimed(), b"GET");
        }
    }

    #[test]
    fn what_is_not_in_the_bytes_is_unseen() {
        let mut tail = Tail::default();
        assert!(tail.claim(&Framing::default()).unseen);
        assert!(tail.push(b"\r\nGET / HTTP/1.1\r\nHost: hhh\r\n"));
        assert!(tail.claim(&Framing::default()).unseen);
        tail.forget();
        assert!(tail.unclaimed().is_empty());
    }
}
