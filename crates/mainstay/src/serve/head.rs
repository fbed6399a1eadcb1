//! What a head must look like before the service may act on it: a pure function over its parts.
//!
//! It refuses what two programs could understand in two ways (RFC 9112 sections 3.2, 6.3, 11.2) and what is larger than the
//! limits, and nothing else: values that are merely odd are the service's business.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};

use super::limits::Limits;
use super::raw::RawHead;

/// What is wrong with a head: the status, the stable code and the message of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadFault {
    /// The status of the answer.
    pub status: StatusCode,
    /// The stable code of the error form.
    pub code: &'static str,
    /// What the client is told.
    pub message: &'static str,
}

macro_rules! faults {
    ($($name:ident $status:ident $code:literal $message:literal)*) => {
        impl HeadFault {
            $(#[doc = $message] pub const $name: HeadFault =
                HeadFault { status: StatusCode::$status, code: $code, message: $message };)*
        }
    };
}

faults! {
    MALFORMED BAD_REQUEST "request_malformed" "Request is not well-formed HTTP"
    HOST_MISSING BAD_REQUEST "host_missing" "Host header is required"
    HOST_REPEATED BAD_REQUEST "host_repeated" "Host header must not be repeated"
    HOST_INVALID BAD_REQUEST "host_invalid" "Host header is invalid"
    TARGET_INVALID BAD_REQUEST "target_invalid" "Request target is invalid"
    TRANSFER_ENCODING_INVALID BAD_REQUEST "transfer_encoding_invalid" "Transfer-Encoding must be exactly one chunked"
    CHUNKS_INVALID BAD_REQUEST "chunks_invalid" "Chunked body is not well-formed"
    LENGTH_AMBIGUOUS BAD_REQUEST "length_ambiguous" "Transfer-Encoding and Content-Length must not stand together"
    LINE_ENDING_INVALID BAD_REQUEST "line_ending_invalid" "Header lines must end with CR LF"
    TARGET_TOO_LONG URI_TOO_LONG "target_too_long" "Request target is too long"
    HEADERS_TOO_LARGE REQUEST_HEADER_FIELDS_TOO_LARGE "headers_too_large" "Request header fields are too large or too many"
    HEADERS_TOO_SLOW REQUEST_TIMEOUT "headers_too_slow" "Request header fields did not arrive in time"
    CONNECT_UNSUPPORTED NOT_IMPLEMENTED "connect_unsupported" "CONNECT is not supported"
}

/// What the checks need of the fields, gathered in one pass.
#[derive(Default)]
pub(crate) struct Framing<'a> {
    host: Option<&'a [u8]>,
    hosts: usize,
    coding: Option<&'a [u8]>,
    codings: usize,
    length: Option<&'a [u8]>,
    /// A value begins or ends with white space, which over HTTP/1 is none of it.
    padded: bool,
    /// The client says `close`, so nothing behind the request counts (RFC 9112 section 9.6). hyper looks into no value with a byte beyond ASCII.
    pub(crate) closes: bool,
}

impl<'a> Framing<'a> {
    pub(crate) fn of(fields: &'a HeaderMap) -> Framing<'a> {
        let mut framing = Framing::default();
        for (name, value) in fields {
            framing.padded |= matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
            if *name == HOST {
                framing.hosts += 1;
                framing.host = Some(value.as_bytes());
            } else if *name == TRANSFER_ENCODING {
                framing.codings += 1;
                framing.coding = Some(value.as_bytes());
            } else if *name == CONTENT_LENGTH {
                framing.length = Some(value.as_bytes());
            } else if *name == CONNECTION {
                framing.closes |= value.as_bytes().split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
            }
        }
        framing
    }

    /// Whether the body's length comes from a transfer coding.
    pub(crate) fn has_coding(&self) -> bool {
        self.codings > 0
    }

    /// The length of the body, of which hyper has made sure that it is a number.
    pub(crate) fn length(&self) -> Option<u64> {
        std::str::from_utf8(self.length?).ok()?.parse().ok()
    }
}

/// What is wrong with the head, if anything. `raw` is what its bytes showed; over HTTP/2 there is nothing to show.
pub(crate) fn check<B>(request: &Request<B>, framing: &Framing<'_>, raw: RawHead, limits: &Limits) -> Option<HeadFault> {
    if request.headers().len() > limits.header_count_max {
        return Some(HeadFault::HEADERS_TOO_LARGE);
    }
    if raw.unseen {
        // What cannot be looked at is not believed.
        return Some(HeadFault::MALFORMED);
    }
    if raw.bare_lf {
        // RFC 9112 section 2.2 allows to accept it; a proxy that does not would see other fields than we do.
        return Some(HeadFault::LINE_ENDING_INVALID);
    }
    let version = request.version();
    if framing.padded && version == Version::HTTP_2 {
        // RFC 9113 section 8.2.1. Whoever writes it down for HTTP/1 writes another value.
        return Some(HeadFault::MALFORMED);
    }
    transfer_encoding(framing, raw, version)
        .or_else(|| target(request.method(), request.uri(), version, raw, limits))
        .or_else(|| host(framing, request.uri(), version))
}

fn transfer_encoding(framing: &Framing<'_>, raw: RawHead, version: Version) -> Option<HeadFault> {
    let coding = framing.coding?;
    // In HTTP/2 the field is connection-specific and malformed (RFC 9113 section 8.2.2); h2 refuses it already.
    if version == Version::HTTP_2 || framing.codings > 1 || !coding.eq_ignore_ascii_case(b"chunked") {
        return Some(HeadFault::TRANSFER_ENCODING_INVALID);
    }
    if raw.length_dropped || framing.length.is_some() {
        return Some(HeadFault::LENGTH_AMBIGUOUS);
    }
    raw.broken_chunks.then_some(HeadFault::CHUNKS_INVALID)
}

/// The four forms of RFC 9112 section 3.2, of which an origin server serves two, and `*` for OPTIONS.
fn target(method: &Method, uri: &Uri, version: Version, raw: RawHead, limits: &Limits) -> Option<HeadFault> {
    if method == Method::CONNECT {
        return Some(HeadFault::CONNECT_UNSUPPORTED);
    }
    let path = uri.path_and_query().map_or("", |p| p.as_str());
    let authority = uri.authority().map_or("", Authority::as_str);
    if path.len() + authority.len() > limits.target_bytes_max {
        return Some(HeadFault::TARGET_TOO_LONG);
    }
    let origin = path.starts_with('/') || (path == "*" && method == Method::OPTIONS);
    let served = match uri.scheme() {
        // Over HTTP/2 the path comes by itself, and is one (RFC 9113 section 8.3.1).
        Some(scheme) => {
            (*scheme == Scheme::HTTP || *scheme == Scheme::HTTPS) && host_is_valid(authority.as_bytes()) && (origin || version != Version::HTTP_2)
        }
        None => authority.is_empty() && origin,
    };
    (!served || raw.fragment).then_some(HeadFault::TARGET_INVALID)
}

fn host(framing: &Framing<'_>, uri: &Uri, version: Version) -> Option<HeadFault> {
    match framing.host {
        _ if framing.hosts > 1 => Some(HeadFault::HOST_REPEATED),
        // HTTP/2 has `:authority`, too, and who is asked must not depend on which of them is read (RFC 9113 section 8.3.1).
        Some(host) if version == Version::HTTP_2 && uri.authority().is_some_and(|asked| !host.eq_ignore_ascii_case(asked.as_str().as_bytes())) => {
            Some(HeadFault::HOST_INVALID)
        }
        Some(host) => (!host_is_valid(host)).then_some(HeadFault::HOST_INVALID),
        // HTTP/2 has `:authority` instead; HTTP/1.0 knew no Host.
        None => match version {
            Version::HTTP_2 => uri.authority().is_none().then_some(HeadFault::HOST_MISSING),
            Version::HTTP_11 => Some(HeadFault::HOST_MISSING),
            _ => None,
        },
    }
}

/// `uri-host [ ":" port ]` of RFC 9110 section 7.2, not empty (section 4.2.1 forbids an empty host for `http`).
fn host_is_valid(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', ..] => match value.iter().position(|b| *b == b']') {
            Some(close) => value.split_at(close + 1),
            None => return false,
        },
        _ => value.split_at(value.iter().position(|b| *b == b':').unwrap_or(value.len())),
    };
    let port_is_valid = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    port_is_valid && host_name_is_valid(host)
}

/// `unreserved` and `sub-delims` of RFC 3986.
static HOST_BYTES: [bool; 256] = {
    let (mut table, marks, mut at) = ([false; 256], b"-._~!$&'()*+,;=", 0);
    while at < 128 {
        // Below 128, so it is a byte and an index.
        table[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

fn host_name_is_valid(host: &[u8]) -> bool {
    match host {
        [] => false,
        [b'[', inner @ .., b']'] => std::str::from_utf8(inner).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()),
        // What almost every host is.
        _ if host.iter().all(|b| HOST_BYTES[usize::from(*b)]) => true, // a byte has 256 values
        _ => {
            let mut rest = host;
            while let [b, after @ ..] = rest {
                rest = match (b, after) {
                    (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
                    (b'%', _) => return false,
                    _ if HOST_BYTES[usize::from(*b)] => after, // a byte has 256 values
                    _ => return false,
                };
            }
            true
        }
    }
}

/// The fault behind an answer that hyper gave by itself, from its status and the bytes it could not parse.
pub(crate) fn fault_of(status: &[u8], unparsed: &[u8], limits: &Limits) -> HeadFault {
    match status {
        b"414" => HeadFault::TARGET_TOO_LONG,
        // hyper gives up on size before it knows which part is large: a request line over its own limit is a long target.
        b"431" if unparsed.split(|b| *b == b'\n').any(|line| line.len() > limits.target_bytes_max && !super::raw::is_field(line)) => {
            HeadFault::TARGET_TOO_LONG
        }
        b"431" => HeadFault::HEADERS_TOO_LARGE,
        b"408" => HeadFault::HEADERS_TOO_SLOW,
        _ => HeadFault::MALFORMED,
    }
}

/// Whether a `Connection`-independent field asks for `100 Continue`; reading the body would send it. hyper looks at the last line of several, so any counts.
pub(crate) fn expects_continue(fields: &HeaderMap<HeaderValue>) -> bool {
    fields.get_all(http::header::EXPECT).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(method: &str, uri: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = http::Request::builder().method(method).uri(uri).version(Version::HTTP_11);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn judge(head: &Request<()>, raw: RawHead) -> Option<HeadFault> {
        check(head, &Framing::of(head.headers()), raw, &Limits::default())
    }

    fn verdict(method: &str, uri: &str, fields: &[(&str, &str)]) -> Option<&'static str> {
        judge(&head(method, uri, fields), RawHead::default()).map(|fault| fault.code)
    }

    #[test]
    fn legal_heads_pass() {
        for host in ["a", "a.example:80", "127.0.0.1:3000", "[::1]", "[::1]:3000", "a:", "ex%41mple", "under_score"] {
            assert_eq!(verdict("GET", "/", &[("host", host)]), None, "{host}");
        }
        assert_eq!(verdict("GET", "http://a.example/b?c", &[("host", "other")]), None);
        assert_eq!(verdict("OPTIONS", "*", &[("host", "a")]), None);
        assert_eq!(verdict("POST", "/", &[("host", "a"), ("transfer-encoding", "Chunked")]), None);
    }

    #[test]
    fn hosts_that_are_missing_repeated_or_invalid_are_refused() {
        assert_eq!(verdict("GET", "/", &[]), Some("host_missing"));
        assert_eq!(verdict("GET", "/", &[("host", "a"), ("host", "a")]), Some("host_repeated"));
        for host in
            ["", "a b", "a/b", "a@b", "a:b", "a:123456", "[::1", "[zz]", "::1", "a,b:c", "a%4", "ä", "a\\b", "a?b", "a#b", "http://a", "[::1]x"]
        {
            assert_eq!(verdict("GET", "/", &[("host", host)]), Some("host_invalid"), "{host:?}");
        }
    }

    #[test]
    fn an_old_client_needs_no_host() {
        let mut old = head("GET", "/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(judge(&old, RawHead::default()), None);
    }

    #[test]
    fn transfer_encodings_other_than_one_chunked_are_refused() {
        for value in ["gzip", "chunked, chunked", "gzip, chunked", "identity", "", "chunked;a=b", "xchunked", "\tchunked"] {
            let got = verdict("POST", "/", &[("host", "a"), ("transfer-encoding", value)]);
            assert_eq!(got, Some("transfer_encoding_invalid"), "{value:?}");
        }
        let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(verdict("POST", "/", &twice), Some("transfer_encoding_invalid"));
    }

    #[test]
    fn two_lengths_are_refused_and_so_are_broken_chunks_and_an_unseen_head() {
        let chunked = head("POST", "/", &[("host", "a"), ("transfer-encoding", "chunked")]);
        for (raw, fault) in [
            (RawHead { length_dropped: true, ..RawHead::default() }, HeadFault::LENGTH_AMBIGUOUS),
            (RawHead { broken_chunks: true, ..RawHead::default() }, HeadFault::CHUNKS_INVALID),
            (RawHead { unseen: true, ..RawHead::default() }, HeadFault::MALFORMED),
        ] {
            assert_eq!(judge(&chunked, raw), Some(fault));
        }
    }

    #[test]
    fn targets_of_other_forms_are_refused() {
        assert_eq!(verdict("GET", "*", &[("host", "a")]), Some("target_invalid"));
        assert_eq!(verdict("GET", "a.example:80", &[("host", "a")]), Some("target_invalid"));
        assert_eq!(verdict("GET", "ftp://a/", &[("host", "a")]), Some("target_invalid"));
        assert_eq!(verdict("GET", "http://user@a/", &[("host", "a")]), Some("target_invalid"));
        assert_eq!(verdict("CONNECT", "a.example:80", &[("host", "a")]), Some("connect_unsupported"));
        assert_eq!(verdict("GET", &format!("/{}", "a".repeat(8192)), &[("host", "a")]), Some("target_too_long"));
        assert_eq!(verdict("GET", &format!("/{}", "a".repeat(8191)), &[("host", "a")]), None);
    }

    proptest! {
        #[test]
        fn a_host_is_valid_exactly_if_it_is_an_address_or_a_name_with_an_optional_port(
            name in "[a-z0-9.-]{1,40}", port in proptest::option::of(0u32..99_999),
        ) {
            let value = port.map_or(name.clone(), |port| format!("{name}:{port}"));
            prop_assert!(host_is_valid(value.as_bytes()));
        }

        #[test]
        fn no_valid_host_contains_a_delimiter_of_a_target(value in "\\PC{0,20}") {
            if host_is_valid(value.as_bytes()) {
                prop_assert!(!value.is_empty());
                prop_assert!(!value.contains(['/', '?', '#', '@', ' ', '\\', '\t']));
            }
        }

        #[test]
        fn no_head_makes_the_check_panic(
            method in "[A-Z]{1,8}", path in "/[a-z?&=%]{0,30}",
            fields in proptest::collection::vec(("(host|transfer-encoding|content-length|x)", "[ -~]{0,20}"), 0..6),
        ) {
            let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let got = verdict(&method, &path, &fields);
            let hosts = fields.iter().filter(|(n, _)| *n == "host").count();
            prop_assert!(hosts == 1 || got.is_some());
        }
    }
}
