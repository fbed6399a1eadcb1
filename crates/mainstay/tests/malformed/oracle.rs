//! What a stream of bytes means by RFC 9112, read by whoever has all of it at hand: which requests it holds, and how it ends.
//!
//! Written from the text of the RFC and sharing nothing with the transport, so that both are wrong together only by chance. It is strict: what the RFC lets a
//! recipient mend, and another one read otherwise, has to be refused.

/// One request, as it has to be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Understood {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: Vec<u8>,
    pub(crate) body: Vec<u8>,
    /// Nobody can read it in another way, but a recipient may decline it all the same.
    pub(crate) may_be_refused: bool,
    /// Nothing behind it counts.
    pub(crate) closes: bool,
}

/// What stands behind the last request that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Something that must be refused, and the connection closed.
    Refused,
    /// Whatever it is, the connection is closed before it.
    Closed,
    /// A part of a request, or nothing.
    Waiting,
}

/// A stream, read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) requests: Vec<Understood>,
    pub(crate) end: End,
}

/// Why a request cannot be read.
enum Fault {
    Malformed,
    Incomplete,
}

type Read<T> = Result<T, Fault>;

/// Bodies beyond this are refused whatever is in them.
const BODY_BYTES_MAX: u64 = 1 << 20;
const HEAD_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 100;
const TARGET_BYTES_MAX: usize = 8 * 1024;

pub(crate) fn read(mut stream: &[u8]) -> Reading {
    let mut requests = Vec::new();
    loop {
        match request(stream) {
            Ok((understood, rest)) => {
                let closes = understood.closes;
                requests.push(understood);
                if closes {
                    return Reading { requests, end: End::Closed };
                }
                stream = rest;
            }
            Err(Fault::Malformed) => return Reading { requests, end: End::Refused },
            Err(Fault::Incomplete) => return Reading { requests, end: End::Waiting },
        }
    }
}

fn request(stream: &[u8]) -> Read<(Understood, &[u8])> {
    let stream = behind_empty_lines(stream)?;
    let end = end_of_head(stream).ok_or(if stream.len() > HEAD_BYTES_MAX { Fault::Malformed } else { Fault::Incomplete })?;
    let (head, rest) = stream.split_at(end);
    let lines = lines(head).ok_or(Fault::Malformed)?;
    let (line, fields) = lines.split_first().ok_or(Fault::Malformed)?;
    let fields: Vec<(String, &[u8])> = fields.iter().map(|line| field(line)).collect::<Option<_>>().ok_or(Fault::Malformed)?;
    if head.len() > HEAD_BYTES_MAX || fields.len() > FIELDS_MAX {
        return Err(Fault::Malformed);
    }
    let line = request_line(line).ok_or(Fault::Malformed)?;
    let of = |name: &str| fields.iter().filter(|(known, _)| known == name).map(|(_, value)| *value).collect::<Vec<_>>();
    let odd_host = host(&of("host"), line.old)?;
    let (framing, odd_length) = framing(&of("transfer-encoding"), &of("content-length"), line.old)?;
    let (body, rest) = match framing {
        Framing::Length(length) => split(rest, length).ok_or(Fault::Incomplete)?,
        Framing::Chunked => chunks(rest)?,
    };
    let options = of("connection").join(&b',').to_ascii_lowercase();
    let says = |option: &[u8]| options.split(|byte| *byte == b',').any(|known| known.trim_ascii() == option);
    let understood = Understood {
        method: line.method,
        target: line.target,
        body,
        may_be_refused: line.odd || odd_host || odd_length,
        // Whatever else it says, `close` counts (section 9.6).
        closes: says(b"close") || line.old && !says(b"keep-alive"),
    };
    Ok((understood, rest))
}

/// Empty lines before a request line are passed over (section 2.2).
fn behind_empty_lines(mut stream: &[u8]) -> Read<&[u8]> {
    loop {
        stream = match stream {
            [b'\r', b'\n', rest @ ..] => rest,
            [b'\r'] => return Err(Fault::Incomplete),
            [b'\r' | b'\n', ..] => return Err(Fault::Malformed),
            _ => return Ok(stream),
        };
    }
}

/// Behind the first empty line, whatever the line ends look like: there anybody would end the head.
fn end_of_head(stream: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let feed = from + stream.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        if matches!(&stream[from..feed], b"" | b"\r") {
            return Some(feed + 1);
        }
        from = feed + 1;
    }
}

/// The lines of a head without its empty one, each of which has to end with CR LF and to have neither of them elsewhere.
fn lines(head: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines: Vec<&[u8]> =
        head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r")).take_while(|line| *line != Some(b"")).collect::<Option<_>>()?;
    let behind = lines.iter().map(|line| line.len() + 2).sum::<usize>();
    lines.retain(|line| !line.is_empty());
    (&head[behind..] == b"\r\n" && lines.iter().all(|line| !line.contains(&b'\r'))).then_some(lines)
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Visible, white space, or beyond ASCII (RFC 9110, section 5.5).
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

fn field(line: &[u8]) -> Option<(String, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let legal = is_token(name) && value.iter().all(|byte| is_text(*byte));
    legal.then(|| (String::from_utf8_lossy(name).to_ascii_lowercase(), value.trim_ascii()))
}

struct Line {
    method: String,
    target: Vec<u8>,
    /// HTTP/1.0.
    old: bool,
    /// Understood by everybody, but not as RFC 3986 has it.
    odd: bool,
}

fn request_line(line: &[u8]) -> Option<Line> {
    let [method, target, version] = line.split(|byte| *byte == b' ').collect::<Vec<_>>().try_into().ok()?;
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return None,
    };
    let visible = target.iter().all(|byte| matches!(byte, b'!'..=b'~' | 0x80..));
    if !is_token(method) || method == b"CONNECT" || !visible || target.contains(&b'#') || target.len() > TARGET_BYTES_MAX {
        return None;
    }
    let lower = target.to_ascii_lowercase();
    let scheme = [b"http://".as_slice(), b"https://"].into_iter().find(|scheme| lower.starts_with(scheme));
    let path = match scheme {
        Some(scheme) => {
            let rest = &target[scheme.len()..];
            let (authority, path) = rest.split_at(rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len()));
            host_form(authority).filter(|odd| !odd)?;
            if path.starts_with(b"/") { path.to_vec() } else { [b"/", path].concat() }
        }
        None if target == b"*" && method == b"OPTIONS" => target.to_vec(),
        None if target.starts_with(b"/") => target.to_vec(),
        None => return None,
    };
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(byte);
    let broken_escape = |at: usize| path[at] == b'%' && !path.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    let odd = !path.iter().all(legal) || (0..path.len()).any(broken_escape);
    Some(Line { method: String::from_utf8_lossy(method).into_owned(), target: path, old, odd })
}

/// Exactly one valid `Host` (section 3.2); HTTP/1.0 may do without.
fn host(values: &[&[u8]], old: bool) -> Read<bool> {
    match values {
        [] if old => Ok(false),
        [value] => host_form(value).ok_or(Fault::Malformed),
        _ => Err(Fault::Malformed),
    }
}

/// `uri-host [ ":" port ]`: `None` if it is not, and whether it is one that may be declined.
fn host_form(value: &[u8]) -> Option<bool> {
    let text = std::str::from_utf8(value).ok()?;
    let (name, port) = match text.rfind(']') {
        Some(close) => text.split_at(close + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = if port.is_empty() { "" } else { port.strip_prefix(':')? };
    let named = match name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && registered(name.as_bytes()),
    };
    (named && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(port.len() > 5)
}

fn registered(name: &[u8]) -> bool {
    match name {
        [] => true,
        [b'%', high, low, rest @ ..] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit() && registered(rest),
        [byte, rest @ ..] => (byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte)) && registered(rest),
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

/// Section 6.3, without what it allows to mend; and whether it may be declined.
fn framing(codings: &[&[u8]], lengths: &[&[u8]], old: bool) -> Read<(Framing, bool)> {
    if !codings.is_empty() {
        let one = matches!(codings, [coding] if coding.eq_ignore_ascii_case(b"chunked"));
        return if one && lengths.is_empty() && !old { Ok((Framing::Chunked, false)) } else { Err(Fault::Malformed) };
    }
    let listed = lengths.iter().any(|value| value.contains(&b','));
    let joined = lengths.join(&b',');
    let values = if lengths.is_empty() { vec![b"0".as_slice()] } else { joined.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect() };
    let numbers = values.iter().map(|value| number(value, 10)).collect::<Option<Vec<_>>>().ok_or(Fault::Malformed)?;
    if numbers.iter().any(|number| *number != numbers[0]) || numbers[0] > BODY_BYTES_MAX {
        return Err(Fault::Malformed);
    }
    let length = usize::try_from(numbers[0]).map_err(|_| Fault::Malformed)?;
    Ok((Framing::Length(length), listed || lengths.len() > 1))
}

/// Digits and nothing else.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let all = !digits.is_empty() && digits.iter().all(|byte| char::from(*byte).is_digit(radix));
    u64::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| all)?, radix).ok()
}

fn split(bytes: &[u8], at: usize) -> Option<(Vec<u8>, &[u8])> {
    Some((bytes.get(..at)?.to_vec(), bytes.get(at..)?))
}

/// Section 7.1. A body of which only a part is there is not complete, unless what is there is wrong already.
fn chunks(mut rest: &[u8]) -> Read<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (line, behind) = line(rest)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = number(&line[..digits], 16).filter(|_| digits <= 16).ok_or(Fault::Malformed)?;
        extensions(&line[digits..]).ok_or(Fault::Malformed)?;
        if size == 0 {
            return Ok((body, trailers(behind)?));
        }
        let (data, behind) = split(behind, usize::try_from(size).unwrap_or(usize::MAX)).ok_or(Fault::Incomplete)?;
        body.extend(data);
        rest = match behind {
            [b'\r', b'\n', behind @ ..] => behind,
            [] | [b'\r'] => return Err(Fault::Incomplete),
            _ => return Err(Fault::Malformed),
        };
    }
}

/// The line that `bytes` begin with, and what stands behind its CR LF.
fn line(bytes: &[u8]) -> Read<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    match &bytes[end..] {
        [b'\r', b'\n', behind @ ..] => Ok((&bytes[..end], behind)),
        [] | [b'\r'] => Err(Fault::Incomplete),
        _ => Err(Fault::Malformed),
    }
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, as far as it matters where it ends: what stands in quotes does not end in the middle.
fn extensions(text: &[u8]) -> Option<()> {
    let named = text.iter().find(|byte| !matches!(byte, b' ' | b'\t')) == Some(&b';');
    let (mut quoted, mut escaped) = (false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    let legal = named && !quoted && text.len() < HEAD_BYTES_MAX && text.iter().all(|byte| is_text(*byte));
    (legal || text.is_empty()).then_some(())
}

fn trailers(mut rest: &[u8]) -> Read<&[u8]> {
    let (mut bytes, mut count) = (0, 0);
    loop {
        let (text, behind) = line(rest)?;
        if text.is_empty() {
            return Ok(behind);
        }
        (bytes, count) = (bytes + text.len() + 2, count + 1);
        field(text).filter(|_| bytes <= HEAD_BYTES_MAX && count <= FIELDS_MAX).ok_or(Fault::Malformed)?;
        rest = behind;
    }
}
