//! Reads back the messages that `message.rs` writes, for the command that shows them. It is no reader of other people's mail.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A mail as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Whom it goes to.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// When it was written.
    pub date: String,
    /// The plain text.
    pub text: String,
}

/// Reads a message.
pub fn parse(bytes: &[u8]) -> Option<Mail> {
    let message = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let (head, body) = message.split_once("\n\n")?;
    let kind = field(head, "Content-Type")?;
    let boundary = kind.split("boundary=").nth(1)?.trim_matches(['"', ' ', ';']).to_owned();
    let part = body
        .split(&format!("--{boundary}"))
        .find(|part| field(part.trim_start(), "Content-Type").is_some_and(|kind| kind.starts_with("text/plain")))?;
    let (part_head, part_body) = part.trim_start().split_once("\n\n")?;
    let text = match field(part_head, "Content-Transfer-Encoding").as_deref() {
        Some("quoted-printable") => quoted_printable::decode(part_body, quoted_printable::ParseMode::Robust).ok()?,
        Some("base64") => STANDARD.decode(part_body.split_whitespace().collect::<String>()).ok()?,
        _ => part_body.as_bytes().to_vec(),
    };
    let text = String::from_utf8_lossy(&text).replace("\r\n", "\n").trim_end().to_owned() + "\n";
    Some(Mail { to: field(head, "To")?, subject: field(head, "Subject")?, date: field(head, "Date")?, text })
}

/// The value of a header field, its continuations joined (RFC 5322, 2.2.3).
fn field(head: &str, name: &str) -> Option<String> {
    let head = head.split_once("\n\n").map_or(head, |(head, _)| head).replace("\n ", " ").replace("\n\t", " ");
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_part_is_decoded_and_the_fields_are_unfolded() {
        let message = "To: ada@example.com\r\nSubject: A long\r\n subject\r\nDate: today\r\nContent-Type: multipart/alternative;\r\n boundary=\"b\"\r\n\r\n\
                       --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nZo=C3=AB =\r\nagain\r\n\
                       --b\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b--\r\n";
        let mail = parse(message.as_bytes()).unwrap();
        assert_eq!((mail.subject.as_str(), mail.text.as_str()), ("A long subject", "Zoë again\n"));
    }

    #[test]
    fn what_is_no_mail_of_ours_is_none() {
        for bytes in [&b""[..], b"\xff\xfe", b"Subject: x\r\n\r\nbody", b"Content-Type: multipart/alternative; boundary=b\n\n--b\n\n--b--"] {
            assert_eq!(parse(bytes), None);
        }
    }
}
