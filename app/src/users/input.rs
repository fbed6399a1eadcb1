//! What callers write about accounts, parsed into types that are right by construction.

use std::fmt;

use mainstay::auth::{PasswordContext, Passwords, Role};
use mainstay::error::{Fields, Flaw, Result};
use mainstay::extract::Patch;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use unicode_normalization::UnicodeNormalization;
use utoipa::ToSchema;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{Object, ObjectBuilder};

/// RFC 5321, 4.5.3.1.3: a path has 256 octets with its angle brackets.
const EMAIL_BYTES_MAX: usize = 254;
/// RFC 5321, 4.5.3.1.1.
const LOCAL_BYTES_MAX: usize = 64;
/// Letters beyond ASCII for the document: whole ranges of the most used scripts, because a pattern of JSON Schema knows no classes in every language. The
/// service takes the letters of all scripts.
const LETTERS: &str =
    r"\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0391-\u03a1\u03a3-\u03ce\u0400-\u0481\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3";

/// The grammar of [`Email::parse`] for the document. The limits are bytes, and a letter beyond ASCII has up to three.
fn email_pattern() -> String {
    let atoms = "A-Za-z0-9!#$%&'*+/=?^_`{|}~-";
    let local = format!(r"([{atoms}](\.?[{atoms}]){{0,63}}|[{LETTERS}{atoms}](\.?[{LETTERS}{atoms}]){{0,15}})");
    let label = format!("([A-Za-z0-9]([A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?|[A-Za-z0-9{LETTERS}]([A-Za-z0-9{LETTERS}-]{{0,19}}[A-Za-z0-9{LETTERS}])?)");
    let last = format!("[0-9]{{0,3}}[A-Za-z{LETTERS}]([A-Za-z0-9{LETTERS}-]{{0,17}}[A-Za-z0-9{LETTERS}])?");
    format!(r"^{local}@({label}\.)+{last}$")
}

/// What nobody should take for a password here.
pub const SERVICE_NAME: &str = "mainstay";
/// Longer than any name on record that its bearer types himself.
const NAME_CHARS_MAX: usize = 200;

/// An e-mail address: as it was given, and folded for comparison.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    given: String,
    folded: String,
}

impl Email {
    /// Reads an address: the grammar of the HTML standard's `input type=email`, widened by the letters of RFC 6531. Quoted local parts and address literals, which no mail provider gives out, are refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Flaw> {
        let flaw = || Flaw::new("invalid_format", "must be an e-mail address");
        let given: String = text.nfc().collect();
        let (local, domain) = given.rsplit_once('@').ok_or_else(flaw)?;
        let local_char = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(c) || is_letter_beyond_ascii(c);
        let local_ok = (1..=LOCAL_BYTES_MAX).contains(&local.len())
            && local.chars().all(local_char)
            && !local.starts_with('.')
            && !local.ends_with('.')
            && !local.contains("..");
        let label_ok = |label: &str| {
            let chars = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || is_letter_beyond_ascii(c));
            (1..=63).contains(&label.len()) && chars && !label.starts_with('-') && !label.ends_with('-')
        };
        let numeric = domain.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        let domain_ok = domain.contains('.') && domain.split('.').all(label_ok) && !numeric;
        if !local_ok || !domain_ok || given.len() > EMAIL_BYTES_MAX {
            return Err(flaw());
        }
        let folded = given.nfkc().collect::<String>().to_lowercase();
        Ok(Self { given, folded })
    }

    /// As it was given.
    pub fn given(&self) -> &str {
        &self.given
    }

    /// For comparison: the letters' case does not matter (RFC 5321 would let it matter before the `@`; no provider does).
    pub fn folded(&self) -> &str {
        &self.folded
    }
}

fn is_letter_beyond_ascii(c: char) -> bool {
    !c.is_ascii() && c.is_alphanumeric()
}

/// An address in the document, written out where it stands: tools that sign up by themselves do not follow references inside a body.
pub fn email_schema() -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(5)).max_length(Some(EMAIL_BYTES_MAX)).pattern(Some(email_pattern()));
    text.description(Some("An e-mail address. Letters of every script are taken.")).examples([json!("ada@example.com")]).build()
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)") // Personal data stays out of logs.
    }
}

/// A person's name: any text that can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonName(String);

impl PersonName {
    /// Reads a name. It is kept as it was given; only blank ones, long ones and control characters are refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Flaw> {
        let chars = text.chars().count();
        if text.trim().is_empty() {
            return Err(Flaw::new("required", "must not be blank"));
        }
        if chars > NAME_CHARS_MAX {
            return Err(Flaw::new("too_long", format!("must have at most {NAME_CHARS_MAX} characters")));
        }
        if text.chars().any(char::is_control) {
            return Err(Flaw::new("invalid_character", "must not contain control characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// All that an account needs.
#[derive(Debug)]
pub struct NewAccount {
    /// The address.
    pub email: Email,
    /// The person.
    pub name: PersonName,
    /// The password.
    pub password: SecretString,
}

impl NewAccount {
    /// Reads all three, and tells everything that is wrong with them at once.
    ///
    /// # Errors
    /// [`mainstay::error::codes::VALIDATION_FAILED`].
    pub fn parse(email: &str, name: &str, password: SecretString) -> Result<Self> {
        let mut fields = Fields::new();
        let email = fields.take("email", Email::parse(email));
        let name = fields.take("name", PersonName::parse(name));
        let context = PasswordContext { email: email.as_ref().map(Email::given), name: name.as_ref().map(PersonName::as_str), service: SERVICE_NAME };
        fields.take("password", Passwords::check(&password, &context));
        fields.finish()?;
        match (email, name) {
            (Some(email), Some(name)) => Ok(Self { email, name, password }),
            _ => unreachable!("a field that was not taken is a flaw that finish reports"),
        }
    }
}

/// An account as an administrator creates it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "grace@example.com", "name": "Grace Hopper", "password": "nanoseconds are short", "role": "editor"}))]
pub struct CreateUser {
    /// The address.
    #[schema(schema_with = email_schema)]
    email: String,
    /// The person's name.
    #[schema(
        example = "Grace Hopper",
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
    )]
    name: String,
    /// 8 to 128 characters; not a common password, and not made of the name or the address.
    #[schema(value_type = String, format = Password, example = "nanoseconds are short", min_length = 8, max_length = 128, pattern = r"^(?!([\s\S])\1*$)[^\u0000]*$")]
    password: SecretString,
    /// What the account may do; `user` if absent.
    #[schema(example = "editor")]
    role: Option<Role>,
}

impl CreateUser {
    /// # Errors
    /// [`mainstay::error::codes::VALIDATION_FAILED`].
    pub fn parse(self) -> Result<(NewAccount, Role)> {
        let account = NewAccount::parse(&self.email, &self.name, self.password)?;
        Ok((account, self.role.unwrap_or(Role::User)))
    }
}

/// A merge patch of an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Ada King"}))]
pub struct ChangeUser {
    /// The person's name.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false, example = "Ada King", min_length = 1, max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$")]
    name: Patch<String>,
    /// What the account may do.
    #[serde(default)]
    #[schema(value_type = Option<Role>, nullable = false)]
    role: Patch<Role>,
    /// Is the account kept from signing in?
    #[serde(default)]
    #[schema(value_type = Option<bool>, nullable = false, example = false)]
    disabled: Patch<bool>,
}

/// The change, parsed.
#[derive(Debug)]
pub struct Change {
    /// A new name.
    pub name: Option<PersonName>,
    /// A new role.
    pub role: Option<Role>,
    /// May it not sign in?
    pub disabled: Option<bool>,
}

impl Change {
    /// Does it ask for what its owner may not do?
    pub fn is_for_administrators(&self) -> bool {
        self.role.is_some() || self.disabled.is_some()
    }
}

impl ChangeUser {
    /// # Errors
    /// [`mainstay::error::codes::VALIDATION_FAILED`].
    pub fn parse(self) -> Result<Change> {
        let mut fields = Fields::new();
        let required = || Flaw::new("required", "must not be null");
        let name = match self.name {
            Patch::Keep => None,
            Patch::Remove => fields.take("name", Err(required())),
            Patch::Set(name) => fields.take("name", PersonName::parse(&name)),
        };
        let role = match self.role {
            Patch::Keep => None,
            Patch::Remove => fields.take("role", Err(required())),
            Patch::Set(role) => Some(role),
        };
        let disabled = match self.disabled {
            Patch::Keep => None,
            Patch::Remove => fields.take("disabled", Err(required())),
            Patch::Set(disabled) => Some(disabled),
        };
        fields.finish()?;
        Ok(Change { name, role, disabled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_told_from_what_is_none() {
        for good in
            ["a@b.co", "first.last+tag@sub.example.com", "o'brien@example.ie", "用户@例子.公司", "jürgen@müller.example", "x@xn--nxasmq6b.example"]
        {
            assert!(Email::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            "a@",
            "@b.co",
            "a@b",
            "a b@c.de",
            ".a@b.co",
            "a.@b.co",
            "a..b@c.de",
            "a@-b.co",
            "a@b-.co",
            "a@b..co",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "\"a b\"@c.de",
            "a@b.co\n",
            "a\0@b.co",
            "<a@b.co>",
        ] {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Email::parse(&format!("{}@example.com", "a".repeat(65))).is_err());
        assert_eq!(Email::parse("Ada@Example.COM").unwrap().folded(), Email::parse("ada@example.com").unwrap().folded());
        assert_eq!(format!("{:?}", Email::parse("ada@example.com").unwrap()), "Email(..)");
    }

    proptest! {
        #[test]
        fn folding_is_stable_and_no_text_makes_it_panic(text in any::<String>()) {
            drop(PersonName::parse(&text));
            if let Ok(email) = Email::parse(&text) {
                prop_assert_eq!(email.folded().to_lowercase(), email.folded());
            }
        }
    }
}
