//! A file, or standard input, as lines: unpacked while it is read, each line bounded.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The same as the API's largest body: a line that the API would not take is not taken here.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Lines to import.
pub struct Source {
    lines: Box<dyn BufRead + Send>,
    read: Arc<AtomicU64>,
    total: Option<u64>,
    line: Vec<u8>,
}

/// What was found next.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line with something on it.
    Text(&'a [u8]),
    /// Nothing but white space.
    Blank,
    /// More than 1 MiB; it was skipped.
    TooLong,
    /// There is no more.
    End,
}

/// Counts the bytes that come from the file, packed as they are, for the progress bar.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Source {
    /// A file, or standard input if the path is `-`. What is packed with gzip or zstd is known by its first bytes, whatever its name.
    ///
    /// # Errors
    /// When it cannot be opened or read.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Self::unpack(io::stdin(), None);
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::other("it is a folder"));
        }
        // A pipe has no length to show progress by.
        let total = metadata.is_file().then_some(metadata.len());
        Self::unpack(file, total)
    }

    /// Bytes that are there already.
    ///
    /// # Errors
    /// When they are packed and cannot be unpacked.
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> io::Result<Self> {
        let total = bytes.as_ref().len() as u64;
        Self::unpack(io::Cursor::new(bytes), Some(total))
    }

    fn unpack(inner: impl Read + Send + 'static, total: Option<u64>) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let mut raw = BufReader::with_capacity(1 << 16, Counted { inner, read: read.clone() });
        let head = raw.fill_buf()?;
        let lines: Box<dyn BufRead + Send> = if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            // RFC 8878, 3.1.1. The window of a frame is bounded by the library's default, 128 MiB.
            Box::new(BufReader::new(zstd::Decoder::with_buffer(raw)?))
        } else if head.starts_with(&[0x1f, 0x8b]) {
            // RFC 1952, 2.3.1.
            Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(raw)))
        } else {
            Box::new(raw)
        };
        Ok(Self { lines, read, total, line: Vec::new() })
    }

    /// Bytes of the file read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes of the file, if it is one.
    pub fn bytes_total(&self) -> Option<u64> {
        self.total
    }

    /// The next line.
    ///
    /// # Errors
    /// When the file cannot be read, or what is packed is damaged.
    pub fn next_line(&mut self) -> io::Result<Line<'_>> {
        self.line.clear();
        let mut too_long = false;
        loop {
            let available = self.lines.fill_buf()?;
            if available.is_empty() {
                if self.line.is_empty() && !too_long {
                    return Ok(Line::End);
                }
                break;
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            too_long |= self.line.len() + part.len() > LINE_BYTES_MAX;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.lines.consume(used);
            if end.is_some() {
                break;
            }
        }
        match self.line.trim_ascii() {
            _ if too_long => Ok(Line::TooLong),
            [] => Ok(Line::Blank),
            text => Ok(Line::Text(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &'static [u8]) -> Vec<String> {
        let mut source = Source::from_bytes(bytes).unwrap();
        let mut found = Vec::new();
        loop {
            found.push(match source.next_line().unwrap() {
                Line::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Line::Blank => "(blank)".to_owned(),
                Line::TooLong => "(too long)".to_owned(),
                Line::End => return found,
            });
        }
    }

    #[test]
    fn lines_end_as_on_any_system_and_the_last_one_needs_no_end() {
        assert_eq!(lines(b"{\"a\":1}\r\n\n  \n{\"b\":2}"), ["{\"a\":1}", "(blank)", "(blank)", "{\"b\":2}"]);
        assert_eq!(lines(b""), [""; 0]);
    }

    #[test]
    fn packed_lines_are_unpacked_whatever_the_name() {
        let packed: &'static [u8] = zstd::encode_all(&b"a\nb\n"[..], 1).unwrap().leak();
        assert_eq!(lines(packed), ["a", "b"]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, b"a\nb\n").unwrap();
        assert_eq!(lines(gzip.finish().unwrap().leak()), ["a", "b"]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut long = vec![b'x'; 3 << 20];
        long.extend_from_slice(b"\nshort\n");
        assert_eq!(lines(long.leak()), ["(too long)", "short"]);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_end() {
        let mut packed = zstd::encode_all(&[b'a'; 100_000][..], 1).unwrap();
        packed.truncate(packed.len() / 2);
        let mut source = Source::from_bytes(packed.leak()).unwrap();
        let outcome = loop {
            match source.next_line() {
                Ok(Line::End) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        assert!(outcome.is_err());
    }
}
