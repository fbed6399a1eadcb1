//! Changes of what says where a request ends: lengths, codings, chunks.

use super::grammar::Draft;
use mainstay::testing::Chance;

pub(crate) fn length(draft: &mut Draft, chance: &mut Chance) {
    let real = draft.body.len();
    let near = [real.saturating_sub(1), real + 1, real + 7, real / 2, 0][chance.below(5)];
    let values = [
        format!("-{real}"),
        format!("+{real}"),
        format!("{real}x"),
        format!("0x{real:x}"),
        format!("{real} {real}"),
        format!("{real}, {real}"),
        format!("{real}, {near}"),
        format!("{real},"),
        format!(",{real}"),
        format!("{real}.0"),
        format!("{real}e0"),
        format!("\"{real}\""),
        format!("{real};"),
        format!("\u{b}{real}"),
        format!("{real}\u{c}"),
        format!("{real}\0"),
        format!("{real}_0"),
        format!("000{real}"),
        String::new(),
        "99999999999999999999".to_owned(),
        "18446744073709551615".to_owned(),
        "18446744073709551616".to_owned(),
        "9223372036854775808".to_owned(),
        "340282366920938463463374607431768211456".to_owned(),
        "\u{661}".to_owned(),
        near.to_string(),
    ];
    let value = &values[chance.below(values.len())];
    let name = chance.of(&[
        "Content-Length",
        "Content-Length",
        "content-length",
        "CONTENT-LENGTH",
        "Content-Length ",
        "Content-Length\t",
        "Content_Length",
        " Content-Length",
    ]);
    match chance.below(4) {
        // Beside the one that is there.
        0 => draft.insert(chance, format!("{name}: {value}")),
        1 => {
            draft.remove("content-length");
            draft.insert(chance, format!("Content-Length: {real}"));
            let second = chance.of(&[near, real]);
            draft.insert(chance, format!("Content-Length: {second}"));
        }
        _ => {
            draft.remove("content-length");
            draft.insert(chance, format!("{name}: {value}"));
        }
    }
}

pub(crate) fn coding(draft: &mut Draft, number: usize, chance: &mut Chance) {
    let hidden = format!("GET /r/{number}-hidden HTTP/1.1\r\nHost: a\r\n\r\n");
    let value = chance.of(&[
        "chunked",
        "xchunked",
        "chunkedx",
        "x chunked",
        "chunked, identity",
        "identity, chunked",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "\"chunked\"",
        "'chunked'",
        "chunked;q=1",
        "chunked;",
        "\tchunked",
        "\u{b}chunked",
        "\u{c}chunked",
        "chunked\u{b}",
        "chunked\0",
        "chunked\u{a0}",
        "\u{ff43}hunked",
        "chun\u{212a}ed",
        "Chunked",
        "CHUNKED",
        "",
        "chunked\t",
        "c hunked",
        "cHuNkEd,identity",
        "trailers",
        "0",
    ]);
    let name = chance.of(&[
        "Transfer-Encoding:",
        "Transfer-Encoding:",
        "Transfer-Encoding:",
        "transfer-encoding:",
        "Transfer-Encoding :",
        "Transfer-Encoding\t:",
        " Transfer-Encoding:",
        "Transfer_Encoding:",
        "Transfer-Encoding",
        "X: y\nTransfer-Encoding:",
        "X: y\rTransfer-Encoding:",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding\r\n :",
        "Transfer-Encoding:\u{b}",
        "Transfer\u{ad}-Encoding:",
    ]);
    if chance.once_in(3) {
        draft.remove("transfer-encoding");
    }
    let odd = format!("{name} {value}");
    draft.insert(chance, odd);
    match chance.below(6) {
        // The length ends before what the chunks hide, or the chunks before what the length hides.
        0 => {
            draft.body = format!("0\r\n\r\n{hidden}").into_bytes();
            let length = format!("Content-Length: {}", draft.body.len());
            draft.insert(chance, length);
        }
        1 => {
            let line = format!("{:x}\r\n", hidden.len());
            draft.body = format!("{line}{hidden}\r\n0\r\n\r\n").into_bytes();
            draft.insert(chance, format!("Content-Length: {}", line.len()));
        }
        2 => draft.insert(chance, "Transfer-Encoding: chunked"),
        3 => draft.line = String::from_utf8_lossy(&draft.line).replace("HTTP/1.1", "HTTP/1.0").into_bytes(),
        _ => {}
    }
}

/// A body in chunks that are none.
pub(crate) fn chunk(draft: &mut Draft, number: usize, chance: &mut Chance) {
    let hidden = format!("GET /r/{number}-hidden HTTP/1.1\r\nHost: a\r\n\r\n");
    draft.line = format!("POST /r/{number}-it HTTP/1.1").into_bytes();
    draft.fields = vec![b"Host: a".to_vec(), b"Transfer-Encoding: chunked".to_vec()];
    let size = chance.of(&[
        "5",
        "5",
        "5",
        "05",
        "0000000000000005",
        "00000000000000005",
        "+5",
        "-5",
        "0x5",
        "5h",
        "5 5",
        " 5",
        "\t5",
        "5 ",
        "5\t",
        "",
        "5,5",
        "5_",
        "10000000000000005",
        "ffffffffffffffff",
        "fffffffffffffffffffff5",
        "7fffffffffffffff",
        "4",
        "6",
        "5\0",
        "5\u{b}",
        "\u{665}",
        "\n5",
        "\r\n5",
    ]);
    let flood = format!(";{}", "x".repeat(17_000));
    let floods = ";a=b".repeat(5_000);
    let extension = chance.of(&[
        "",
        "",
        "",
        "",
        ";a",
        ";a=b",
        "; a = b",
        " ;a",
        ";a=\"b\"",
        ";a=\"b;c\"",
        ";a=\"",
        ";a=\"\\\"",
        ";",
        ";a\nb",
        ";a\rb",
        ";a\0",
        ";\u{1}",
        "\n",
        ";a=\"\r\n\"",
        "\u{b};a",
        flood.as_str(),
        floods.as_str(),
    ]);
    let end = |chance: &mut Chance| {
        chance.of(&["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\n\r", "", " \r\n", "\r\n\r\n", "\r\n ", "\0\r\n"])
    };
    let (behind_size, behind_data, behind_last) = (end(chance), end(chance), end(chance));
    let (data, last) = (
        chance.of(&["hello", "hello", "hello", "\r\n\r\n\r", "0\r\n\r\n"]),
        chance.of(&["0", "0", "0", "0", "00", "-0", "+0", "0x0", "0;a", "0 ", "", "0\0"]),
    );
    let long = format!("X: {}\r\n", "y".repeat(17_000));
    let many = "X: y\r\n".repeat(200);
    let trailers = chance.of(&[
        "",
        "",
        "",
        "",
        "X: y\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: b\r\n",
        "X : y\r\n",
        "X\r\n",
        " X: y\r\n",
        "X: y\r\n z\r\n",
        "X: y\n",
        "X: y\r",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X: y\n\n",
        "\n",
        "\r",
        ": y\r\n",
        "X(: y\r\n",
        long.as_str(),
        many.as_str(),
    ]);
    let close = end(chance);
    // What stands behind is found by whoever ends the body sooner.
    let hidden = if chance.once_in(2) { hidden.as_str() } else { "" };
    draft.body = format!("{size}{extension}{behind_size}{data}{behind_data}{last}{behind_last}{trailers}{close}{hidden}").into_bytes();
}
