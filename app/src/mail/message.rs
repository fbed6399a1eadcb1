//! From words to a message of RFC 5322: headers, two parts, encodings. The same job makes the same bytes each time.

use std::time::SystemTime;

use jiff::Timestamp;
use lettre::Address;
use lettre::address::Envelope;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};
use mainstay::jobs::Failure;
use uuid::Uuid;

use super::words::Words;

/// Who writes.
#[derive(Debug, Clone)]
pub(super) struct Sender(Mailbox);

impl Sender {
    /// Reads `Name <address>` or an address.
    ///
    /// # Errors
    /// What is wrong, in words that follow the setting's name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("is `{text}`; it must be an address such as `Shop <no-reply@example.com>`");
        let mailbox: Mailbox = text.parse().map_err(|_| wrong())?;
        let ascii = mailbox.email.user().is_ascii() && !text.chars().any(char::is_control);
        if ascii { Ok(Self(mailbox)) } else { Err(wrong()) }
    }

    /// What letters call the service: the name beside the address, or its domain.
    pub(super) fn service(&self) -> &str {
        self.0.name.as_deref().unwrap_or_else(|| self.0.email.domain())
    }

    /// The domain, which names us to mail servers.
    pub(super) fn domain(&self) -> &str {
        self.0.email.domain()
    }
}

/// A message, ready to go.
pub(super) struct Composed {
    pub(super) envelope: Envelope,
    pub(super) bytes: Vec<u8>,
}

/// Composes the message of a job.
pub(super) fn compose(words: &Words, to: &str, from: &Sender, id: Uuid, written_at: Timestamp) -> Result<Composed, Failure> {
    let to = address(to).ok_or_else(|| Failure::never("the address is none that a mail server knows"))?;
    let never = |_| Failure::never("the message cannot be written");
    let envelope = Envelope::new(Some(from.0.email.clone()), vec![to.clone()]).map_err(never)?;
    let parts = MultiPart::alternative()
        .boundary(format!("part-{}", id.simple()))
        .singlepart(SinglePart::plain(words.text.clone()))
        .singlepart(SinglePart::html(words.html.clone()));
    let message = Message::builder()
        .from(from.0.clone())
        .to(Mailbox::new(None, to))
        .subject(words.subject.clone())
        // The same for every try: whoever gets the message twice can tell.
        .message_id(Some(format!("<{}@{}>", id.simple(), from.domain())))
        .date(SystemTime::from(written_at))
        // RFC 3834: no machine should answer a machine.
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
        .multipart(parts)
        .map_err(|_| Failure::never("the message cannot be written"))?;
    Ok(Composed { envelope, bytes: message.formatted() })
}

/// An address as mail servers write it: the domain in ASCII (RFC 5890), what stands before the `@` as it is (RFC 6531).
fn address(text: &str) -> Option<Address> {
    let (local, domain) = text.rsplit_once('@')?;
    Address::new(local, idna::domain_to_ascii(domain).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::letter::{Letter, To, Token};
    use super::super::{read, words};
    use super::*;
    use proptest::prelude::*;

    fn composed(letter: &Letter, to: &str) -> Result<Composed, Failure> {
        let words = words::write(letter, &To::person(to, "Zoë"), "Mainstay", "https://app.example.com");
        compose(&words, to, &Sender::parse("Läden <no-reply@example.com>").unwrap(), Uuid::from_u128(7), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_message_holds_both_parts_and_is_the_same_each_time() {
        let letter = Letter::ResetPassword { token: Token::new("abc".to_owned()) };
        let message = composed(&letter, "ada@example.com").unwrap();
        let again = composed(&letter, "ada@example.com").unwrap();
        assert_eq!(message.bytes, again.bytes);
        let text = String::from_utf8(message.bytes.clone()).unwrap();
        assert!(text.is_ascii(), "every server takes it");
        for line in [
            "Message-ID: <00000000000000000000000000000007@example.com>\r\n",
            "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n",
            "To: ada@example.com\r\n",
            "Subject: Choose a new password\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "MIME-Version: 1.0\r\n",
            "multipart/alternative",
            "text/plain",
            "text/html",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let mail = read::parse(&message.bytes).unwrap();
        assert!(mail.text.starts_with("Hello Zoë,\n") && mail.text.contains("\nhttps://app.example.com/reset-password#token=abc\n"), "{}", mail.text);
        assert_eq!((mail.to.as_str(), mail.subject.as_str()), ("ada@example.com", "Choose a new password"));
    }

    #[test]
    fn a_domain_of_any_script_is_written_in_ascii_and_a_local_part_stays() {
        assert_eq!(composed(&Letter::PasswordChanged, "ada@bücher.example").unwrap().envelope.to()[0].to_string(), "ada@xn--bcher-kva.example");
        assert_eq!(composed(&Letter::PasswordChanged, "zoë@example.com").unwrap().envelope.to()[0].to_string(), "zoë@example.com");
    }

    #[test]
    fn an_address_that_is_none_fails_for_good() {
        for wrong in ["", "nobody", "@", "a b@example.com", "a@b@", "a\r\nRCPT TO:<x@y.z>@example.com", "a@exa\r\nmple.com"] {
            assert!(composed(&Letter::PasswordChanged, wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "nobody", "A\r\nBcc: b@c.d <a@b.c>", "zoë@example.com"] {
            assert!(Sender::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_address_adds_a_header_or_a_line(to in any::<String>()) {
            if let Ok(message) = composed(&Letter::PasswordChanged, &to) {
                let bytes = String::from_utf8_lossy(&message.bytes).into_owned();
                let (head, _) = bytes.split_once("\r\n\r\n").unwrap();
                let fields = head.split("\r\n").filter(|line| !line.starts_with(' ')).count();
                prop_assert_eq!(fields, 8, "{}", head);
            }
        }
    }
}
