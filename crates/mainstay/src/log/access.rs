//! The access line: what one request was and what became of it.

use std::cell::RefCell;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use tracing::Level;
use uuid::Uuid;

use super::{ACCESS, Sink};
use crate::config::LogFormat;
use crate::error::{Error, FieldError};

/// A longer path is the caller's text, not information.
const PATH_CHARS_MAX: usize = 256;

thread_local! {
    /// The line being written; its memory serves the next one.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is known of a request when its answer leaves.
#[derive(Debug)]
pub struct Access<'a> {
    /// When the answer left.
    pub timestamp: Timestamp,
    /// The id.
    pub request_id: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The path, without the query: queries hold what people searched for.
    pub path: &'a str,
    /// The pattern of the route.
    pub route: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// Who asked.
    pub account: Option<Uuid>,
    /// The status, or `None` when the client left before there was one.
    pub status: Option<StatusCode>,
    /// From the head of the request to the head of the answer.
    pub duration: Duration,
    /// The failure.
    pub error: Option<&'a Error>,
}

impl Access<'_> {
    fn level(&self) -> Level {
        match self.status {
            Some(status) if status.is_server_error() => Level::ERROR,
            Some(status) if status.is_client_error() => Level::WARN,
            _ => Level::INFO,
        }
    }

    /// Writes the line, if its level is asked for.
    pub fn write(&self, sink: &Sink) {
        let level = self.level();
        let wanted = match level {
            Level::ERROR => tracing::enabled!(target: ACCESS, Level::ERROR),
            Level::WARN => tracing::enabled!(target: ACCESS, Level::WARN),
            _ => tracing::enabled!(target: ACCESS, Level::INFO),
        };
        if wanted {
            LINE.with_borrow_mut(|line| {
                line.clear();
                // Writing to memory cannot fail.
                let _ = match sink.format() {
                    LogFormat::Json => self.json(line, level),
                    LogFormat::Text => self.text(line, level),
                };
                sink.write(line);
            });
        }
    }

    fn status(&self) -> u16 {
        // 499: the client closed the request, as nginx counts it.
        self.status.map_or(499, |status| status.as_u16())
    }

    fn short_path(&self) -> &str {
        // No more bytes than that are no more characters either.
        if self.path.len() <= PATH_CHARS_MAX {
            return self.path;
        }
        self.path.char_indices().nth(PATH_CHARS_MAX).map_or(self.path, |(end, _)| &self.path[..end])
    }

    fn json(&self, line: &mut Vec<u8>, level: Level) -> std::io::Result<()> {
        // Piece by piece, without the formatting machinery: this line is written for every request.
        line.extend_from_slice(br#"{"timestamp":""#);
        write_timestamp(line, self.timestamp);
        put(line, r#"","level":""#, name(level));
        put(line, r#"","message":"request","request_id":""#, self.request_id);
        // A method is a token (RFC 9110, 9.1), which has nothing to escape.
        put(line, r#"","method":""#, self.method.as_str());
        let path = self.short_path();
        if path.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            put(line, r#"","path":""#, path);
            line.push(b'"');
        } else {
            put(line, r#"","path":"#, "");
            serde_json::to_writer(&mut *line, path)?;
        }
        put(line, r#","route":""#, self.route);
        put(line, r#"","status":"#, itoa::Buffer::new().format(self.status()));
        put(line, r#","duration_us":"#, itoa::Buffer::new().format(u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX)));
        put(line, r#","address":""#, "");
        write_address(line, self.client)?;
        line.push(b'"');
        if let Some(account) = self.account {
            put(line, r#","account":""#, account.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
            line.push(b'"');
        }
        if let Some(error) = self.error {
            write!(line, r#","code":"{}","error":"#, error.code().name)?;
            serde_json::to_writer(&mut *line, error.message())?;
            let causes = error.causes();
            if !causes.is_empty() {
                write!(line, r#","causes":"#)?;
                serde_json::to_writer(&mut *line, &causes)?;
            }
            if !error.fields().is_empty() {
                // Names only: what was in the fields may be anybody's secret.
                write!(line, r#","fields":"#)?;
                let fields: Vec<_> = error.fields().iter().take(20).map(named).collect();
                serde_json::to_writer(&mut *line, &fields)?;
            }
        }
        line.write_all(b"}\n")
    }

    fn text(&self, line: &mut Vec<u8>, level: Level) -> std::io::Result<()> {
        let time = self.timestamp.strftime("%H:%M:%S%.3f");
        let (us, path) = (self.duration.as_micros(), self.short_path().escape_debug());
        write!(line, "{time} {:>5} {} {path} {} {}.{:03} ms", level.as_str(), self.method, self.status(), us / 1000, us % 1000)?;
        if let Some(error) = self.error {
            write!(line, " {} ({})", error.code().name, error.message().escape_debug())?;
            for field in error.fields().iter().take(5) {
                write!(line, " {}", named(field).escape_debug())?;
            }
            for cause in error.causes() {
                write!(line, ": {}", cause.escape_debug())?;
            }
        }
        writeln!(line, " from {} id {}", self.client, self.request_id)
    }
}

/// A field and what is wrong with it. The name of an unknown one is the caller's text, and may be a password in the wrong place.
fn named(field: &FieldError) -> String {
    let ours = field.code != "unknown_field" && field.code != "duplicate_field";
    format!("{}: {}", if ours { field.field.as_str() } else { "?" }, field.code)
}

fn put(line: &mut Vec<u8>, before: &str, value: &str) {
    line.extend_from_slice(before.as_bytes());
    line.extend_from_slice(value.as_bytes());
}

/// RFC 3339 with microseconds. The part that changes once a second is kept by the thread.
fn write_timestamp(line: &mut Vec<u8>, timestamp: Timestamp) {
    thread_local! {
        static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    let us = timestamp.as_microsecond();
    let (second, fraction) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    SECOND.with_borrow_mut(|(kept, text)| {
        if *kept != second {
            *kept = second;
            *text = timestamp.strftime("%Y-%m-%dT%H:%M:%S.").to_string();
        }
        line.extend_from_slice(text.as_bytes());
    });
    // Seven digits of which the first is the one added.
    let mut digits = itoa::Buffer::new();
    line.extend_from_slice(digits.format(fraction + 1_000_000).as_bytes().get(1..).unwrap_or_default());
    line.push(b'Z');
}

fn write_address(line: &mut Vec<u8>, address: IpAddr) -> std::io::Result<()> {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                put(line, if index == 0 { "" } else { "." }, itoa::Buffer::new().format(octet));
            }
            Ok(())
        }
        IpAddr::V6(address) => write!(line, "{address}"),
    }
}

/// A level as log readers know it.
pub(super) fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::codes;

    #[test]
    fn a_line_is_one_line_whatever_the_input_was() {
        let error = Error::new(&codes::ROUTE_NOT_FOUND).with_message("Route GET /a\nb not found").caused_by("x\r\ny");
        let access = Access {
            timestamp: Timestamp::UNIX_EPOCH,
            request_id: "r-1",
            method: &Method::GET,
            path: "/a\n\u{1b}[31m\"b",
            route: "unknown",
            client: "192.0.2.1".parse().unwrap(),
            account: None,
            status: Some(StatusCode::NOT_FOUND),
            duration: Duration::from_micros(1234),
            error: Some(&error),
        };
        let mut json = Vec::new();
        access.json(&mut json, Level::WARN).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((read["level"].as_str(), read["status"].as_u64(), read["duration_us"].as_u64()), (Some("warn"), Some(404), Some(1234)));
        assert_eq!((read["path"].as_str(), read["causes"][0].as_str()), (Some("/a\n\u{1b}[31m\"b"), Some("x\r\ny")));
        let mut text = Vec::new();
        access.text(&mut text, Level::WARN).unwrap();
        for line in [json, text] {
            assert_eq!(line.iter().filter(|byte| byte.is_ascii_control()).count(), 1, "only the line feed at the end");
        }
    }
}
