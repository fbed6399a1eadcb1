//! What may come from a server at once: how long an answer to us can be is known, so a longer one is none of ours.
//!
//! The library gathers an answer until it is whole, whatever length it announces. Here the bytes are measured as they come, and a connection over which
//! something too long comes, or something that is no answer, ends before it is gathered.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one answer. The longest are those that the cache shares, 256 KiB, and the map of a cluster: 100 bytes or so for each range of slots.
const ANSWER_MAX: u64 = 1 << 20;
/// Values in one answer; each is larger in memory than on the way.
const VALUES_MAX: u64 = 1 << 16;
/// Digits of a length, with its sign and its end.
const LENGTH_MAX: usize = 16;

/// A stream from a server whose answers are measured.
#[derive(Debug)]
pub(super) struct Measured<S> {
    stream: S,
    measure: Measure,
}

impl<S> Measured<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, measure: Measure::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Measured<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.measure.take(&buffer.filled()[before..]).map_err(|words| io::Error::new(io::ErrorKind::InvalidData, words)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Measured<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

const TOO_LONG: &str = "it sends more than an answer has";
const NO_ANSWER: &str = "what it sends is no answer of a Redis";

/// Where in an answer the bytes are.
#[derive(Debug, Default)]
struct Measure {
    at: At,
    /// Values of this answer that have not ended, the one that is being read among them.
    open: u64,
    bytes: u64,
    values: u64,
}

#[derive(Debug, Default)]
enum At {
    /// Before a value.
    #[default]
    Kind,
    /// In a line without a length, until its end; was the last byte a CR?
    Line(bool),
    /// In the length of a value of this kind.
    Length(u8, Vec<u8>),
    /// Within bytes of which so many are left, the end of the line among them.
    Bytes(u64),
}

impl Measure {
    /// Measures what has come.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while let Some((first, rest)) = bytes.split_first() {
            let taken = match &mut self.at {
                At::Kind => {
                    if self.open == 0 {
                        (self.open, self.bytes, self.values) = (1, 0, 0);
                    }
                    self.values += 1;
                    self.at = match first {
                        b'+' | b'-' | b':' => At::Line(false),
                        b'$' | b'*' => At::Length(*first, Vec::new()),
                        // What version 2 of the protocol has not.
                        _ => return Err(NO_ANSWER),
                    };
                    1
                }
                At::Line(behind_cr) => {
                    // The library ends a line at CR LF and nowhere else. Were an LF alone taken for its end, it would gather what is here measured as many.
                    let ends = |(at, byte): (usize, &u8)| *byte == b'\n' && at.checked_sub(1).map_or(*behind_cr, |before| bytes[before] == b'\r');
                    match bytes.iter().enumerate().position(ends) {
                        Some(end) => {
                            self.value_ended();
                            end + 1
                        }
                        None => {
                            *behind_cr = bytes.ends_with(b"\r");
                            bytes.len()
                        }
                    }
                }
                At::Length(kind, digits) => {
                    digits.push(*first);
                    if digits.len() > LENGTH_MAX {
                        return Err(NO_ANSWER);
                    }
                    if *first == b'\n' {
                        let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.strip_suffix("\r\n")?.parse().ok());
                        let (kind, length) = (*kind, length.ok_or(NO_ANSWER)?);
                        self.begin(kind, length)?;
                    }
                    1
                }
                At::Bytes(left) => {
                    let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    *left -= here as u64;
                    if *left == 0 {
                        self.value_ended();
                    }
                    here
                }
            };
            self.bytes += taken as u64;
            if self.bytes > ANSWER_MAX || self.values > VALUES_MAX {
                return Err(TOO_LONG);
            }
            bytes = if taken == 1 { rest } else { &bytes[taken..] };
        }
        Ok(())
    }

    /// A length was read: nothing if it is negative, else so many bytes, or so many values.
    fn begin(&mut self, kind: u8, length: i64) -> Result<(), &'static str> {
        let Ok(length) = u64::try_from(length) else {
            self.value_ended();
            return Ok(());
        };
        if kind == b'$' {
            if self.bytes.saturating_add(length) > ANSWER_MAX {
                return Err(TOO_LONG);
            }
            self.at = At::Bytes(length + 2);
        } else {
            // The library makes room for what is announced.
            if self.values.saturating_add(self.open).saturating_add(length) > VALUES_MAX {
                return Err(TOO_LONG);
            }
            self.open += length;
            self.value_ended();
        }
        Ok(())
    }

    fn value_ended(&mut self) {
        self.at = At::Kind;
        self.open = self.open.saturating_sub(1);
    }
}

/// Where answers end in these bytes, measured in pieces of so many, and whether what comes is refused, for the fuzz target.
#[cfg(feature = "fuzzing")]
pub fn measured(bytes: &[u8], piece: usize) -> (Vec<usize>, bool) {
    let (mut measure, mut ends, mut at) = (Measure::default(), Vec::new(), 0);
    for piece in bytes.chunks(piece.max(1)) {
        if measure.take(piece).is_err() {
            return (ends, true);
        }
        at += piece.len();
        if measure.open == 0 {
            ends.push(at);
        }
    }
    (ends, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measures these bytes in pieces of so many.
    fn measured(bytes: &[u8], piece: usize) -> Result<Measure, &'static str> {
        let mut measure = Measure::default();
        bytes.chunks(piece).try_for_each(|piece| measure.take(piece))?;
        Ok(measure)
    }

    #[test]
    fn answers_pass_however_they_are_cut_and_are_measured_one_by_one() {
        let answers =
            b"+OK\r\n-ERR no\r\n:-12\r\n$5\r\nhe\r\no\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n*2\r\n*2\r\n:1\r\n$2\r\nab\r\n*1\r\n+x\r\n".repeat(20_000);
        assert!(answers.len() as u64 > ANSWER_MAX);
        for piece in [1, 2, 3, 7, 4_096, answers.len()] {
            let measure = measured(&answers, piece).unwrap();
            assert!(matches!(measure.at, At::Kind) && measure.open == 0, "{measure:?}");
        }
    }

    #[test]
    fn what_is_too_long_ends_before_it_has_come() {
        let million = format!("${}\r\n", 100 << 20);
        let many = format!("*{}\r\n", u32::MAX);
        let nested = "*60000\r\n".repeat(2);
        for announced in [million.as_str(), &many, &nested] {
            assert_eq!(measured(announced.as_bytes(), 5).unwrap_err(), TOO_LONG, "{announced}");
        }
        let endless = [b"+".as_slice(), &b"x".repeat(2 << 20)].concat();
        assert_eq!(measured(&endless, 16_384).unwrap_err(), TOO_LONG);
        let in_pieces = [b"*3\r\n".as_slice(), &[b"$500000\r\n".as_slice(), &b"x".repeat(500_000), b"\r\n"].concat().repeat(3)].concat();
        assert_eq!(measured(&in_pieces, 16_384).unwrap_err(), TOO_LONG);
    }

    #[test]
    fn a_line_ends_where_the_library_ends_it() {
        for piece in [1, 2, 3, 4_096] {
            assert_eq!(measured(&b"+a\n".repeat(1 << 20), piece).unwrap_err(), TOO_LONG, "lines that the library gathers as one");
            assert!(measured(b"+a\n\rb\r", piece).unwrap().open == 1 && measured(b"+a\n\rb\r\n:1\r\n", piece).unwrap().open == 0);
        }
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for bytes in ["HTTP/1.1 400 Bad Request\r\n", "$x\r\n", "$1\n", "*99999999999999999999\r\n", "\u{15}\u{3}\u{3}", ">3\r\n"] {
            assert_eq!(measured(bytes.as_bytes(), 1).unwrap_err(), NO_ANSWER, "{bytes}");
        }
    }
}
