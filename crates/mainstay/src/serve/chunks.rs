//! The framing of a chunked body, read strictly beside hyper and before it.
//!
//! hyper ends a chunk's line and a trailer where RFC 9112 section 7.1 says, but it lets through what others end elsewhere: with `0 CR LF LF` a parser that takes
//! a bare LF for a line end is done, and what follows is a request to it; to hyper the same bytes are trailers up to the next empty line. So the two disagree
//! about how many requests there are, which is what smuggling lives on. White space behind a size, control characters and quotes that do not end are of the
//! same family. Here all of them are broken framing, and the connection ends.

/// Digits of a size: those of 64 bits. More are zeros, or a number that somebody cuts off.
const DIGITS_MAX: u8 = 16;

/// How a piece of a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The body goes on behind it.
    Open,
    /// The body ends in it, after so many of its bytes.
    Ended(usize),
    /// It is no chunked body.
    Broken,
}

/// Where in a chunked body a reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    /// White space behind the size, which only an extension may follow.
    Space,
    Extension,
    Quoted,
    Escaped,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The beginning of a trailer, or of the empty line that ends the body.
    Line,
    Name,
    Value,
    ValueLf,
    LastLf,
    End,
}

/// A reader of one chunked body, which is given it piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    at: At,
    digits: u8,
    /// What is left of the chunk.
    left: u64,
}

impl Chunks {
    /// Reads on. Once a body has ended or is broken, there is nothing more to read.
    pub(crate) fn read(&mut self, piece: &[u8]) -> Piece {
        let mut rest = piece;
        while let [byte, behind @ ..] = rest {
            if self.at == At::Data {
                let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                self.left -= skipped as u64;
                rest = rest.get(skipped..).unwrap_or_default();
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            match self.next(*byte) {
                Some(at) => self.at = at,
                None => return Piece::Broken,
            }
            rest = behind;
            if self.at == At::End {
                return Piece::Ended(piece.len() - rest.len());
            }
        }
        Piece::Open
    }

    /// Where a byte leads that is not data. `None`: it must not stand here.
    fn next(&mut self, byte: u8) -> Option<At> {
        let is_text = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        Some(match (self.at, byte) {
            (At::Size, _) if byte.is_ascii_hexdigit() && self.digits < DIGITS_MAX => {
                self.digits += 1;
                // 16 digits of four bits are 64.
                self.left = self.left << 4 | u64::from(char::from(byte).to_digit(16)?);
                At::Size
            }
            (At::Size, b'\r') if self.digits > 0 => At::SizeLf,
            (At::Size, b' ' | b'\t') if self.digits > 0 => At::Space,
            (At::Size, b';') if self.digits > 0 => At::Extension,
            (At::Space, b' ' | b'\t') => At::Space,
            (At::Space, b';') => At::Extension,
            (At::Extension, b'\r') => At::SizeLf,
            (At::Extension, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::Extension,
            (At::Quoted, b'\\') => At::Escaped,
            (At::Extension, _) if is_text => At::Extension,
            (At::Quoted | At::Escaped, _) if is_text => At::Quoted,
            (At::SizeLf, b'\n') if self.left == 0 => At::Line,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                *self = Chunks::default();
                At::Size
            }
            (At::Line, b'\r') => At::LastLf,
            (At::Line | At::Name, _) if is_token(byte) => At::Name,
            (At::Name, b':') => At::Value,
            (At::Value, b'\r') => At::ValueLf,
            (At::Value, _) if is_text => At::Value,
            (At::ValueLf, b'\n') => At::Line,
            (At::LastLf, b'\n') => At::End,
            _ => return None,
        })
    }
}

/// What the name of a field is made of (RFC 9110 section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body in one piece and byte by byte, which must say the same.
    fn read(body: &str) -> Piece {
        let whole = Chunks::default().read(body.as_bytes());
        let mut chunks = Chunks::default();
        let bytes = body.bytes().enumerate().map(|(at, byte)| match chunks.read(&[byte]) {
            Piece::Ended(_) => Piece::Ended(at + 1),
            other => other,
        });
        let single = bytes.into_iter().find(|piece| *piece != Piece::Open).unwrap_or(Piece::Open);
        assert_eq!(single, whole, "{body:?}");
        whole
    }

    #[test]
    fn a_body_ends_behind_its_last_empty_line() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "005 ; a=\"b;\\\"c\" ; d\r\nhello\r\nA\r\n0\r\n\r\n\n\n0\n\n\r\n0;e\r\n\r\n",
            "5\r\nhello\r\n000\r\nX: y\r\nContent-Length:\t3\r\nZ:\r\n\r\n",
        ] {
            assert_eq!(read(&format!("{body}GET / HTTP/1.1\r\n\r\n")), Piece::Ended(body.len()), "{body:?}");
            for end in 0..body.len() {
                assert_eq!(read(&body[..end]), Piece::Open, "{:?}", &body[..end]);
            }
        }
        assert_eq!(read("ffffffffffffffff\r\n0\r\n\r\n"), Piece::Open);
    }

    #[test]
    fn what_others_could_end_elsewhere_is_broken() {
        for body in [
            "0\r\n\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
            "0\r\nX: y\n\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
            "0\r\nX: y\rZ: w\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\nX: y\r\n z\r\n\r\n",
            "0\r\nX: a\0b\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\n\r\n",
            "0\r\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "5;a=\"\r\nhello\r\n0\r\n\r\n",
            "5;\0\r\nhello\r\n0\r\n\r\n",
            ";a\r\n\r\n",
            "\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "00000000000000005\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "4\r\nhello\r\n0\r\n\r\n",
        ] {
            assert_eq!(read(body), Piece::Broken, "{body:?}");
        }
    }
}
