//! Bytes as what targets need.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The bytes as text, if they are.
pub(crate) fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// The first line, and what stands behind it.
pub(crate) fn line(data: &[u8]) -> (&[u8], &[u8]) {
    data.iter().position(|byte| *byte == b'\n').map_or((data, &[]), |at| (&data[..at], &data[at + 1..]))
}

/// A field for each line that can be the value of one.
pub(crate) fn fields<'a>(name: &HeaderName, lines: impl IntoIterator<Item = &'a [u8]>) -> HeaderMap {
    lines.into_iter().filter_map(|line| Some((name.clone(), HeaderValue::from_bytes(line).ok()?))).collect()
}

/// Anybody.
pub(crate) fn somebody() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4711))
}

/// A text with one change: the first two bytes of `data` say where, and what follows is the change: nothing takes a byte out, one byte stands in its place,
/// and more are put in. None if that changes nothing, or leaves no text.
pub(crate) fn mutated(original: &str, data: &[u8]) -> Option<String> {
    let [at, byte, rest @ ..] = data else { return None };
    let mut bytes = original.as_bytes().to_vec();
    let at = usize::from(*at) * 256 % bytes.len() + usize::from(*byte) % bytes.len();
    let at = at % bytes.len();
    match rest {
        [] => drop(bytes.remove(at)),
        [byte] => bytes[at] = *byte,
        more => drop(bytes.splice(at..at, more.iter().copied())),
    }
    String::from_utf8(bytes).ok().filter(|changed| changed != original)
}
