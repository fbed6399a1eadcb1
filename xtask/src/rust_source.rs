//! Rust source as far as tidy must understand it: what is code and what is words, where functions begin and end, what
//! is only compiled for tests.
//!
//! No parser: comments and literals are blanked out, then braces can be counted. It promises to keep every line where
//! it was, and to be right for code that rustfmt has formatted.

/// The source with the inside of comments, strings and characters replaced by spaces. Line breaks stay.
pub(crate) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = word_end(bytes, at);
        if end == at {
            code.push(byte(bytes, at));
            at += 1;
        } else {
            code.extend((at..end).map(|i| if byte(bytes, i) == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// A function: its name and its first and last line, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// Every function with a body, those inside others included. Takes what [`code_only`] gives.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && is_name(byte(bytes, at - 1)) {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) = body_start(bytes, at + 3) else { continue };
        if !name.is_empty() {
            found.push(Function { name, first: line_of(code, at), last: line_of(code, block_end(bytes, open)) });
        }
    }
    found
}

/// The lines, first and last, of every item under `#[cfg(test)]`. Takes what [`code_only`] gives.
pub(crate) fn test_lines(code: &str) -> Vec<(usize, usize)> {
    let bytes = code.as_bytes();
    let blocks = code.match_indices("#[cfg(test)]").filter_map(|(at, mark)| {
        let open = body_start(bytes, at + mark.len())?;
        Some((line_of(code, at), line_of(code, block_end(bytes, open))))
    });
    blocks.collect()
}

/// The line, counted from 1, that holds the byte at `at`.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&b| b == b'\n').count() + 1
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn word_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return comment_end(bytes, at);
    }
    let after_name = at > 0 && is_name(byte(bytes, at - 1));
    match byte(bytes, at) {
        b'"' => string_end(bytes, at),
        b'b' | b'c' if !after_name && byte(bytes, at + 1) == b'"' => string_end(bytes, at + 1),
        b'r' if !after_name => raw_string_end(bytes, at + 1).unwrap_or(at),
        b'b' | b'c' if !after_name && byte(bytes, at + 1) == b'r' => raw_string_end(bytes, at + 2).unwrap_or(at),
        b'\'' => character_end(bytes, at).unwrap_or(at),
        _ => at,
    }
}

/// Block comments nest.
fn comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        let (step, change) = match &bytes[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth += change;
        if depth == 0 {
            break;
        }
    }
    at.min(bytes.len())
}

/// `at` is the opening quote.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while at < bytes.len() {
        match byte(bytes, at) {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `at` is behind the `r`. None when no raw string follows (a name that begins with r, `r#keyword`).
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at.min(bytes.len())..].iter().take_while(|&&b| b == b'#').count();
    if byte(bytes, at + hashes) != b'"' {
        return None;
    }
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    let body = at + hashes + 1;
    let length = bytes[body..].windows(close.len()).position(|window| window == close)?;
    Some(body + length + close.len())
}

/// A character literal; None for a lifetime.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    if byte(bytes, at + 1) == b'\\' {
        let close = bytes[(at + 3).min(bytes.len())..].iter().position(|&b| b == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    // One character of up to four bytes, then the closing quote.
    (2..=5).find(|&n| byte(bytes, at + n) == b'\'').filter(|&n| n == 2 || byte(bytes, at + 1) >= 0x80).map(|n| at + n + 1)
}

/// The opening brace of the item whose head begins at `at`; None when it ends in a semicolon.
fn body_start(bytes: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0;
    for (i, &b) in bytes.iter().enumerate().skip(at) {
        match b {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(i),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The brace that closes the one at `open`.
fn block_end(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0;
    for (i, &b) in bytes.iter().enumerate().skip(open) {
        match b {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return i;
        }
    }
    bytes.len()
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_comments_strings_and_characters_are_not_code() {
        let source = r###"a /* { /* nested { */ */ b "{ \" {" c '{' d '\'' e r#"{"#  f b"{" g // {"###;
        assert_eq!(code_only(source).split_whitespace().collect::<String>(), "abcdefg");
    }

    #[test]
    fn lifetimes_and_names_that_begin_like_literals_stay() {
        for source in ["fn a<'a>(x: &'a str) -> &'static str", "r#type + bar + rest", "match c { 'a'..='z' => 1 }"] {
            let code = code_only(source);
            assert_eq!(code.len(), source.len());
            assert_eq!(code.matches('{').count(), source.matches('{').count(), "{code}");
        }
        assert!(code_only("fn a<'a>(x: &'a str)").contains("'a>(x: &'a str)"));
    }

    #[test]
    fn lines_stay_where_they_were() {
        let source = "a\n\"b\nc\"\n/* d\n*/\ne é 'é'\n";
        assert_eq!(code_only(source).lines().count(), source.lines().count());
    }

    #[test]
    fn a_function_reaches_from_its_name_to_its_closing_brace() {
        let source = "trait T {\n    fn head(&self, f: fn(u8) -> u8);\n    fn body(&self) -> [u8; 2] {\n        {}\n    }\n}\n";
        let expected = Function { name: "body".to_owned(), first: 3, last: 5 };
        assert_eq!(functions(&code_only(source)), [expected]);
    }

    #[test]
    fn the_test_module_is_known_by_its_attribute() {
        let source = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod more;\n";
        assert_eq!(test_lines(&code_only(source)), [(2, 5)]);
    }
}
