//! Heads of HTTP/1.1, read as hyper reads them: one that is let on can be understood in one way only, and written anew it is the same one.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use mainstay::fuzzing::head_fault;

/// A head as hyper hands it on: `Content-Length` is gone when there is a `Transfer-Encoding`.
fn parsed(read: &[u8]) -> Option<(Request<()>, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(end) = head.parse(read).ok()? else { return None };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::from_maybe_shared(Bytes::copy_from_slice(head.path?.as_bytes())).ok()?;
    *request.version_mut() = if head.version? == 1 { http::Version::HTTP_11 } else { http::Version::HTTP_10 };
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    if request.headers().contains_key(TRANSFER_ENCODING) {
        request.headers_mut().remove(CONTENT_LENGTH);
    }
    Some((request, end))
}

pub(crate) fn run(data: &[u8]) {
    let Some((request, end)) = parsed(data) else { return };
    if head_fault(data, &request).is_some() {
        return;
    }
    one_meaning(&data[..end]);
    let written = written(&request);
    let (again, end) = parsed(&written).unwrap_or_else(|| panic!("written anew it cannot be read: {:?}", String::from_utf8_lossy(&written)));
    assert_eq!(end, written.len());
    assert_eq!((again.method(), again.uri(), again.version()), (request.method(), request.uri(), request.version()));
    assert_eq!(again.headers(), request.headers());
    assert_eq!(head_fault(&written, &again), None, "{:?}", String::from_utf8_lossy(&written));
}

/// What a proxy in front could have seen otherwise: looked for in the bytes, line by line, without a parser.
fn one_meaning(head: &[u8]) {
    let words = String::from_utf8_lossy(head);
    let lines: Vec<_> = head.split_inclusive(|byte| *byte == b'\n').skip_while(|line| matches!(*line, b"\r\n" | b"\n")).collect();
    assert!(lines.iter().all(|line| line.ends_with(b"\r\n")), "a line ends with a bare LF: {words:?}");
    let target = lines[0].split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    assert!(!target.contains(&b'#'), "a fragment: {words:?}");
    let of = |name: &str| {
        let named = |line: &&[u8]| line.get(..=name.len()).is_some_and(|start| start.eq_ignore_ascii_case(format!("{name}:").as_bytes()));
        lines[1..].iter().copied().filter(named).collect::<Vec<_>>()
    };
    let (hosts, lengths, codings) = (of("host"), of("content-length"), of("transfer-encoding"));
    assert!(hosts.len() <= 1, "two hosts: {words:?}");
    assert!(codings.is_empty() || lengths.is_empty(), "a length and a coding: {words:?}");
    for coding in &codings {
        let value = String::from_utf8_lossy(&coding["transfer-encoding:".len()..]).trim().to_ascii_lowercase();
        assert!(codings.len() == 1 && value == "chunked", "{words:?}");
    }
}

fn written(request: &Request<()>) -> Vec<u8> {
    let mut head = format!("{} {} {:?}\r\n", request.method(), request.uri(), request.version()).into_bytes();
    for (name, value) in request.headers() {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}
