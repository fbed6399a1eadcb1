//! From a letter to its words: subject, plain text and HTML, of one template, so that the two parts say the same.
//!
//! A template is a line `Subject: ...` and paragraphs. `{greeting}`, `{service}` and `{link}` are replaced once: what comes in is never looked at again, and in
//! HTML it is escaped.

use secrecy::{ExposeSecret, SecretString};

use super::letter::{Letter, To};

const LAYOUT: &str = include_str!("templates/layout.html");

/// Characters of a name that a greeting takes; a longer one is no greeting.
const NAME_CHARS_MAX: usize = 60;

/// What a letter says.
pub(super) struct Words {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
    pub(super) link: Option<SecretString>,
}

/// Writes a letter out.
pub(super) fn write(letter: &Letter, to: &To, service: &str, public_url: &str) -> Words {
    let link = letter.link(public_url);
    let name = to.name.as_deref().filter(|_| letter.may_name()).and_then(greetable);
    let greeting = name.map_or_else(|| "Hello,".to_owned(), |name| format!("Hello {name},"));
    let service = one_line(service);
    let value = |name: &str| match name {
        "greeting" => Some(greeting.as_str()),
        "service" => Some(service.as_str()),
        "link" => link.as_ref().map(ExposeSecret::expose_secret),
        _ => None,
    };
    let (subject, paragraphs) = letter.template().split_once("\n\n").unwrap_or((letter.template(), ""));
    let subject = one_line(subject.trim_start_matches("Subject: "));
    let text = fill(paragraphs, |name| value(name).map(str::to_owned));
    let body: String = paragraphs.trim_end().split("\n\n").map(|paragraph| html_paragraph(paragraph, value)).collect();
    let html = fill(LAYOUT, |name| match name {
        "subject" => Some(escape(&subject)),
        "service" => Some(escape(&service)),
        "body" => Some(body.trim_end().to_owned()),
        _ => None,
    });
    Words { subject, text, html, link }
}

fn html_paragraph<'a>(paragraph: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    if paragraph == "{link}" {
        let link = escape(value("link").unwrap_or_default());
        return format!("<p><a href=\"{link}\" style=\"word-break:break-all\">{link}</a></p>\n");
    }
    format!("<p>{}</p>\n", fill(&escape(paragraph), |name| value(name).map(escape)))
}

/// Replaces `{name}` by its value, in one pass. A name without a value stays as it is.
fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        match after.split_once('}').and_then(|(name, after)| Some((value(name)?, after))) {
            Some((value, after)) => {
                filled.push_str(&value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled + rest
}

/// For text and for attributes in double or single quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Without line breaks and other control characters, so that it cannot become a header of its own.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned()
}

/// A name that can be greeted: no link, no address, nothing that turns the line around or hides in it. Anybody may choose a name, and a mail program makes a
/// link of `example.com`.
fn greetable(name: &str) -> Option<String> {
    let name = name.trim();
    let hidden =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
    let allowed = |c: char| if c.is_ascii() { c.is_ascii_alphabetic() || " .'-".contains(c) } else { !c.is_control() && !hidden(c) };
    // A dot ends a word: `J. R. Tolkien` and not `evil.example`.
    let dots = name.split('.').skip(1).all(|after| after.is_empty() || after.starts_with([' ', '-']));
    let taken = !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX && dots && name.chars().all(allowed);
    taken.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::letter::{Token, tests::all};
    use super::*;

    #[test]
    fn every_template_has_a_subject_and_nothing_left_to_replace() {
        for letter in all() {
            let words = write(&letter, &To::person("ada@example.com", "Ada"), "Mainstay", "https://app.example.com");
            let name = letter.name();
            assert!(!words.subject.is_empty() && letter.template().starts_with("Subject: "), "{name}");
            for part in [&words.subject, &words.text, &words.html] {
                assert!(!part.contains(['{', '}']), "{name}: {part}");
            }
            assert_eq!(words.link.is_some(), letter.template().contains("{link}"), "{name}: a link is in the letter or there is none");
            assert!(words.text.contains("Mainstay") && words.html.contains("Mainstay"), "{name}");
            assert!(words.text.lines().all(|line| line.len() < 900), "{name}: a line of a mail has at most 998 bytes (RFC 5322, 2.1.1)");
        }
    }

    #[test]
    fn both_parts_say_the_same() {
        let letter = Letter::ResetPassword { token: Token::new("abc_123".to_owned()) };
        let words = write(&letter, &To::person("ada@example.com", "Ada Lovelace"), "Mainstay", "https://app.example.com");
        assert_eq!(words.subject, "Choose a new password");
        assert_eq!(
            words.text,
            "Hello Ada Lovelace,\n\nsomebody, perhaps you, asked for a new password for your account at Mainstay. Choose one here:\n\n\
             https://app.example.com/reset-password#token=abc_123\n\n\
             The link works once and for a limited time. If you did not ask for it, you need not do anything: your password stays as it is.\n"
        );
        assert!(
            words.html.contains("<h1 style=\"margin:0 0 16px;font-size:20px\">Choose a new password</h1>\n<p>Hello Ada Lovelace,</p>\n<p>somebody, ")
        );
        assert!(words.html.contains(
            "<p><a href=\"https://app.example.com/reset-password#token=abc_123\" style=\"word-break:break-all\">https://app.example.com/reset-password#token=abc_123</a></p>"
        ));
        assert!(words.html.contains("your password stays as it is.</p>\n</div>"), "{}", words.html);
    }

    #[test]
    fn hostile_names_are_not_greeted_and_nothing_hostile_reaches_the_html() {
        let hostile = [
            "<script>alert(1)</script>",
            "a\r\nBcc: everybody@example.com",
            "Visit https://evil.example now",
            "evil.example",
            "www.evil.example",
            "me@evil.example",
            "{link}",
            "admin\u{202e}gnp.exe",
            "ad\u{200b}min",
            "\"quoted\"",
            "'; DROP TABLE users; --",
            "",
            "   ",
            &"x".repeat(200),
        ];
        for name in hostile {
            let words = write(&Letter::PasswordChanged, &To::person("ada@example.com", name), "Mainstay", "https://app.example.com");
            assert!(words.text.starts_with("Hello,\n"), "{name}: {}", words.text);
            assert!(words.html.contains("<p>Hello,</p>"), "{name}");
        }
        for name in ["Ada", "O'Brien", "J. R. R. Tolkien", "Jean-Luc", "Zoë", "李小龍", "अमिताभ", "Müller Jr."] {
            let words = write(&Letter::PasswordChanged, &To::person("ada@example.com", name), "Mainstay", "https://app.example.com");
            assert!(words.text.starts_with(&format!("Hello {name},\n")), "{name}: {}", words.text);
        }
    }

    #[test]
    fn a_letter_to_an_address_that_was_not_proven_names_nobody() {
        for letter in all().into_iter().filter(|letter| !letter.may_name()) {
            let words = write(&letter, &To::person("ada@example.com", "Ada"), "Mainstay", "https://app.example.com");
            assert!(!words.text.contains("Ada") && !words.html.contains("Ada"), "{}", letter.name());
        }
    }

    #[test]
    fn the_name_of_the_service_is_escaped_and_one_line() {
        let words = write(&Letter::AccountDisabled, &To::address("a@example.com"), "A & <B>\r\nBcc: c", "https://app.example.com");
        assert!(words.html.contains("A &amp; &lt;B&gt;Bcc: c") && !words.html.contains("<B>"), "{}", words.html);
        assert!(words.text.contains("A & <B>Bcc: c"));
    }

    #[test]
    fn a_value_is_not_looked_at_again() {
        let value = |name: &str| (name == "a").then(|| "{a}{b}".to_owned());
        assert_eq!(fill("x{a}y{b}z{", value), "x{a}{b}y{b}z{");
    }
}
