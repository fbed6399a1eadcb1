//! Chunked bodies. One that is taken ends where every other reader would end it: the laxest that there could be, and the library that hyper reads heads with.
//! How it is cut makes no difference.

use mainstay::fuzzing::end_of_chunks;

/// The first byte says how the body is cut.
pub(crate) fn run(data: &[u8]) {
    let [cut, body @ ..] = data else { return };
    let whole = end_of_chunks([body]);
    assert_eq!(end_of_chunks(body.chunks(usize::from(*cut) % 16 + 1)), whole, "{:?}", String::from_utf8_lossy(body));
    match whole {
        Ok(Some(end)) => {
            assert_eq!(laxly(body), Some(end), "{:?}", String::from_utf8_lossy(body));
            assert!(by_httparse(body).is_none_or(|other| other == end), "{:?}", String::from_utf8_lossy(body));
            // Nothing behind it is looked at.
            assert_eq!(end_of_chunks([&body[..end]]), whole);
        }
        Ok(None) => assert_eq!(laxly(body), None, "to somebody it has ended: {:?}", String::from_utf8_lossy(body)),
        Err(()) => {}
    }
}

/// Where the body ends to a reader that takes a bare LF for a line end everywhere, the digits that a line begins with for a size, and any line for a trailer.
fn laxly(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = line(body, &mut at)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        at = at.checked_add(usize::try_from(size).ok()?).filter(|at| *at <= body.len())?;
        line_end(body, &mut at)?;
    }
    while !line(body, &mut at)?.is_empty() {}
    Some(at)
}

/// The line that begins at `at`, without its end, behind which `at` stands then.
fn line<'a>(body: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &body[*at..];
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    *at += end + 1;
    Some(rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]))
}

fn line_end(body: &[u8], at: &mut usize) -> Option<()> {
    line(body, at)?.is_empty().then_some(())
}

/// Where the body ends to httparse, if that can read it at all.
fn by_httparse(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let httparse::Status::Complete((bytes, size)) = httparse::parse_chunk_size(&body[at..]).ok()? else { return None };
        at += bytes;
        if size == 0 {
            break;
        }
        at += usize::try_from(size).ok()? + 2;
    }
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let httparse::Status::Complete((bytes, _)) = httparse::parse_headers(body.get(at..)?, &mut fields).ok()? else { return None };
    Some(at + bytes)
}
