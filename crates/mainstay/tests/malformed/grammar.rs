//! Requests that are wrong: good ones, each changed in one or two places of the grammar, with another request hidden where a careless reader would find it.

use super::framing::{chunk, coding, length};
use mainstay::testing::Chance;

/// A request in its parts.
pub(crate) struct Draft {
    pub(crate) line: Vec<u8>,
    pub(crate) fields: Vec<Vec<u8>>,
    pub(crate) body: Vec<u8>,
    /// The lines of the head that end with something else than CR LF.
    ends: Vec<(usize, &'static [u8])>,
}

impl Draft {
    fn written(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, line) in [&self.line].into_iter().chain(&self.fields).chain([&Vec::new()]).enumerate() {
            bytes.extend(line);
            bytes.extend(self.ends.iter().find(|(at, _)| *at == number).map_or(b"\r\n".as_slice(), |(_, end)| end));
        }
        bytes.extend(&self.body);
        bytes
    }

    pub(crate) fn insert(&mut self, chance: &mut Chance, field: impl AsRef<[u8]>) {
        let at = chance.below(self.fields.len() + 1);
        self.fields.insert(at, field.as_ref().to_vec());
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.fields.retain(|field| !field.to_ascii_lowercase().starts_with(name.as_bytes()));
    }
}

/// What one connection sends: perhaps a good request, one that is changed, and a canary behind it.
pub(crate) fn stream(number: usize, chance: &mut Chance) -> Vec<u8> {
    let mut bytes = Vec::new();
    if chance.once_in(4) {
        bytes.extend(format!("GET /r/{number}-before HTTP/1.1\r\nHost: a\r\n\r\n").bytes());
    }
    let mut draft = good(number, chance);
    for _ in 0..1 + usize::from(chance.once_in(4)) {
        change(&mut draft, number, chance);
    }
    let mut changed = draft.written();
    if chance.once_in(8) {
        damage(&mut changed, chance);
    }
    bytes.extend(changed);
    bytes.extend(format!("GET /r/{number}-canary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").bytes());
    bytes
}

fn good(number: usize, chance: &mut Chance) -> Draft {
    let hidden = format!("GET /r/{number}-hidden HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut fields = vec![b"Host: a".to_vec()];
    let (method, body) = match chance.below(3) {
        0 => ("GET", Vec::new()),
        1 => {
            fields.push(format!("Content-Length: {}", hidden.len()).into_bytes());
            ("POST", hidden.into_bytes())
        }
        _ => {
            fields.push(b"Transfer-Encoding: chunked".to_vec());
            ("POST", format!("5\r\nhello\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()).into_bytes())
        }
    };
    Draft { line: format!("{method} /r/{number}-it HTTP/1.1").into_bytes(), fields, body, ends: Vec::new() }
}

/// Changes one place.
fn change(draft: &mut Draft, number: usize, chance: &mut Chance) {
    match chance.below(12) {
        0 => request_line(draft, number, chance),
        1 => host(draft, chance),
        2 => field(draft, chance),
        3 | 4 => length(draft, chance),
        5 | 6 => coding(draft, number, chance),
        7 | 8 => chunk(draft, number, chance),
        9 => line_end(draft, chance),
        10 => connection(draft, chance),
        _ => size(draft, chance),
    }
}

fn request_line(draft: &mut Draft, number: usize, chance: &mut Chance) {
    let target = format!("/r/{number}-it");
    let absolute = format!("http://b.example{target}");
    let target = match chance.below(4) {
        0 => chance.of(&[
            "*",
            "a:80",
            "r/x",
            "//",
            "http://",
            "http:///r/x",
            "http://u@a/r/x",
            "ftp://a/r/x",
            "/r/x#f",
            "/r/\u{1}",
            "/r/\u{7f}",
            "",
            "?x",
            "http://a b/",
        ]),
        1 => absolute.as_str(),
        _ => target.as_str(),
    };
    let method =
        chance.of(&["GET", "GET", "POST", "HEAD", "OPTIONS", "CONNECT", "get", "G\0T", "G(T", "", "G T", "PRI", "TRACE", "G\u{e9}T", "GET:"]);
    let version = chance.of(&[
        "HTTP/1.1",
        "HTTP/1.1",
        "HTTP/1.0",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/0.9",
        "HTTP/3",
        "HTTP/11",
        "HTTP/1.1.1",
        "http/1.1",
        "HTP/1.1",
        "HTTP 1.1",
        "HTTP/1,1",
        "HTTP/ 1.1",
        "HTTP/1.1x",
        "HTTP/01.1",
        "",
    ]);
    let space = |chance: &mut Chance| chance.of(&[" ", " ", " ", " ", " ", "  ", "\t", "\u{b}", "\u{c}", "\r", "", "\u{a0}", "\0"]);
    let (first, second) = (space(chance), space(chance));
    let (before, behind) = (chance.of(&["", "", "", "", " ", "\t", "\n", "\r\n", "\0"]), chance.of(&["", "", "", "", " ", "\t", " x", "\0"]));
    draft.line = format!("{before}{method}{first}{target}{second}{version}{behind}").into_bytes();
}

fn host(draft: &mut Draft, chance: &mut Chance) {
    draft.remove("host");
    match chance.below(4) {
        0 => {}
        1 => {
            let two = chance.of(&[("Host: a", "Host: a"), ("Host: a", "host: b"), ("HOST: a", "Host:"), ("Host:", "Host: a")]);
            draft.insert(chance, two.0);
            draft.insert(chance, two.1);
        }
        _ => {
            let value = chance.of(&[
                "", " ", "a b", "a/b", "u@a", "a,b:c", "a:x", "a:-1", "a:80:80", "[::1", "::1", "[::g]", "[::1]x", "a\\b", "a?b", "a#b", "http://a",
                "a%4", "a%zz", "\"a\"", "<a>", "\u{e4}", "a\tb", "a;b c", "a:80 ", "[::1]:80", "a%41",
            ]);
            draft.insert(chance, format!("Host: {value}"));
        }
    }
}

/// A field that is none, or holds what no field may.
fn field(draft: &mut Draft, chance: &mut Chance) {
    let byte = chance.of(&[0, 1, 8, b'\t', 0xb, 0xc, b'\r', b'\n', 0x1b, 0x1f, b' ', 0x7f, 0x80, 0xff]);
    let whole: &[&[u8]] = &[
        b"X : y",
        b"X\t: y",
        b" X: y",
        b"\tX: y",
        b": y",
        b"X y: z",
        b"X",
        b"X(: y",
        b"X\xe9: y",
        b"X: a\r\n b",
        b"X: a\r\n\tb",
        b"X:\r\n y",
        b"X: a\rb",
        b"X: a\nb",
        b"X: a\r\nY",
        b"X: a\0b",
        b"X\r\n: y",
        b"\0",
        b" ",
        b"X;: y",
        b"\"X\": y",
        b"X:y",
        b"X:",
        b"X: \xe9",
        b"{}: y",
    ];
    let mut field = chance.of(whole).to_vec();
    if chance.once_in(2) {
        field = b"X-Field: some value".to_vec();
        field.insert(chance.below(field.len()), byte);
    }
    if chance.once_in(3) {
        // The same, of a field that decides.
        let at = chance.below(draft.fields.len());
        if let Some(field) = draft.fields.get_mut(at) {
            let at = chance.below(field.len());
            field.insert(at, byte);
        }
        return;
    }
    draft.insert(chance, field);
}

fn line_end(draft: &mut Draft, chance: &mut Chance) {
    let line = chance.below(draft.fields.len() + 2);
    draft.ends.push((
        line,
        chance.of(&[b"\n".as_slice(), b"\r", b"\r\r\n", b"\n\r", b"", b" \r\n", b"\r\n\r\n", b"\n\n", b"\r\n ", b"\0\r\n", b"\x85", b"\x0b\r\n"]),
    ));
    if chance.once_in(6) {
        draft.ends = (0..draft.fields.len() + 2).map(|line| (line, b"\n".as_slice())).collect();
    }
}

/// What is said of the connection, which decides whether anything behind counts.
fn connection(draft: &mut Draft, chance: &mut Chance) {
    for _ in 0..1 + chance.below(2) {
        let value = chance.of(&[
            "close",
            "Close",
            "keep-alive",
            "keep-alive, close",
            "close,x",
            " ,close, ",
            "\"close\"",
            "closed",
            "host",
            "content-length",
            "upgrade",
            "",
        ]);
        draft.insert(chance, format!("Connection: {value}"));
    }
    if chance.once_in(4) {
        let upgrade = chance.of(&["Upgrade: h2c", "Upgrade: websocket", "HTTP2-Settings: AAMAAABkAAQAAP__"]);
        draft.insert(chance, upgrade);
    }
    if chance.once_in(3) {
        draft.line = String::from_utf8_lossy(&draft.line).replace("HTTP/1.1", "HTTP/1.0").into_bytes();
    }
}

fn size(draft: &mut Draft, chance: &mut Chance) {
    match chance.below(4) {
        0 => draft.insert(chance, format!("X: {}", "y".repeat(20_000))),
        1 => draft.insert(chance, format!("{}: y", "x".repeat(20_000))),
        2 => (0..120).for_each(|number| draft.insert(chance, format!("X-{number}: y"))),
        _ => {
            let line = String::from_utf8_lossy(&draft.line).replacen("-it", &format!("-{}", "x".repeat(9_000)), 1);
            draft.line = line.into_bytes();
        }
    }
}

/// One place anywhere.
fn damage(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.below(bytes.len());
    match chance.below(5) {
        0 => bytes[at] ^= 1 << chance.below(8),
        1 => bytes.insert(at, chance.byte()),
        2 => drop(bytes.remove(at)),
        3 => bytes.truncate(at),
        _ => {
            let piece = bytes[at..bytes.len().min(at + 1 + chance.below(40))].to_vec();
            let to = chance.below(bytes.len());
            bytes.splice(to..to, piece);
        }
    }
}
