//! The letters that the service writes, and to whom. Their words stand in `templates/`.

use std::fmt;

use mainstay::error::Result;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whom a letter goes to.
#[derive(Clone, Serialize, Deserialize)]
pub struct To {
    /// The address, as it was given.
    pub address: String,
    /// The person's name, if the account has one.
    pub name: Option<String>,
}

/// Personal data stays out of logs.
impl fmt::Debug for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("To(..)")
    }
}

impl To {
    /// An address with a name, an account's.
    pub fn person(address: &str, name: &str) -> Self {
        Self { address: address.to_owned(), name: Some(name.to_owned()) }
    }

    /// An address alone.
    pub fn address(address: &str) -> Self {
        Self { address: address.to_owned(), name: None }
    }
}

/// What a link of a letter proves when it comes back.
#[derive(Clone)]
pub struct Token(SecretString);

impl Token {
    /// The token in the form in which it is taken back.
    pub fn new(token: impl Into<SecretString>) -> Self {
        Self(token.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Only into a job that is marked as secret.
impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Everything that the service has to say by mail.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "letter", rename_all = "snake_case")]
pub enum Letter {
    /// Is the address of a new account its owner's?
    VerifyAddress {
        /// Comes back from `PUBLIC_URL/verify-email`.
        token: Token,
    },
    /// Somebody tried to register with the address of an account.
    AccountExists,
    /// A way to a new password.
    ResetPassword {
        /// Comes back from `PUBLIC_URL/reset-password`.
        token: Token,
    },
    /// The password was changed.
    PasswordChanged,
    /// To the new address: is it theirs?
    ConfirmNewAddress {
        /// Comes back from `PUBLIC_URL/confirm-address`.
        token: Token,
    },
    /// To the old address: is it to be changed? Nothing changes before both have confirmed, and either can refuse.
    AddressChangeRequested {
        /// Comes back from `PUBLIC_URL/confirm-address`.
        token: Token,
    },
    /// To the old address: it was changed.
    AddressChanged,
    /// A refresh token came twice, and its session was ended.
    SessionRevokedForReuse,
    /// The second factor was added, changed or removed.
    SecondFactorChanged,
    /// An API key was made.
    KeyMade,
    /// The account was disabled.
    AccountDisabled,
}

impl Letter {
    /// In logs and in the names of templates.
    pub fn name(&self) -> &'static str {
        self.parts().0
    }

    /// The words: a subject and paragraphs.
    pub(super) fn template(&self) -> &'static str {
        self.parts().1
    }

    fn parts(&self) -> (&'static str, &'static str) {
        macro_rules! template {
            ($name:literal) => {
                ($name, include_str!(concat!("templates/", $name, ".txt")))
            };
        }
        match self {
            Self::VerifyAddress { .. } => template!("verify_address"),
            Self::AccountExists => template!("account_exists"),
            Self::ResetPassword { .. } => template!("reset_password"),
            Self::PasswordChanged => template!("password_changed"),
            Self::ConfirmNewAddress { .. } => template!("confirm_new_address"),
            Self::AddressChangeRequested { .. } => template!("address_change_requested"),
            Self::AddressChanged => template!("address_changed"),
            Self::SessionRevokedForReuse => template!("session_revoked_for_reuse"),
            Self::SecondFactorChanged => template!("second_factor_changed"),
            Self::KeyMade => template!("key_made"),
            Self::AccountDisabled => template!("account_disabled"),
        }
    }

    /// The page that takes the token, and the token: behind `#`, where no server, no log and no `Referer` sees it.
    pub(super) fn link(&self, public_url: &str) -> Option<SecretString> {
        let (page, token) = match self {
            Self::VerifyAddress { token } => ("verify-email", token),
            Self::ResetPassword { token } => ("reset-password", token),
            Self::ConfirmNewAddress { token } | Self::AddressChangeRequested { token } => ("confirm-address", token),
            _ => return None,
        };
        let token = utf8_percent_encode(token.0.expose_secret(), UNRESERVED);
        Some(format!("{public_url}/{page}#token={token}").into())
    }

    /// May the letter name its recipient? Not where the name was chosen by somebody who has not shown that the address is theirs: a name such as `Win at
    /// example.com` would make the service send it to anybody.
    pub(super) fn may_name(&self) -> bool {
        !matches!(self, Self::VerifyAddress { .. } | Self::AccountExists | Self::ConfirmNewAddress { .. })
    }

    /// Does it hold what nobody else may read?
    pub(super) fn secret(&self) -> bool {
        self.link("").is_some()
    }
}

/// What a URI never needs to encode (RFC 3986, 2.3).
const UNRESERVED: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One of each.
    pub(crate) fn all() -> Vec<Letter> {
        let token = || Token::new("marked token/+?&\"<".to_owned());
        vec![
            Letter::VerifyAddress { token: token() },
            Letter::AccountExists,
            Letter::ResetPassword { token: token() },
            Letter::PasswordChanged,
            Letter::ConfirmNewAddress { token: token() },
            Letter::AddressChangeRequested { token: token() },
            Letter::AddressChanged,
            Letter::SessionRevokedForReuse,
            Letter::SecondFactorChanged,
            Letter::KeyMade,
            Letter::AccountDisabled,
        ]
    }

    #[test]
    fn a_letter_survives_its_job_and_does_not_print_its_token() {
        for letter in all() {
            let payload = serde_json::to_value(&letter).unwrap();
            let back: Letter = serde_json::from_value(payload).unwrap();
            assert_eq!((back.name(), back.template()), (letter.name(), letter.template()));
            let (link, link_back) = (letter.link("https://a"), back.link("https://a"));
            assert_eq!(link.as_ref().map(ExposeSecret::expose_secret), link_back.as_ref().map(ExposeSecret::expose_secret));
            assert!(!format!("{letter:?}").contains("marked"), "{letter:?}");
        }
    }

    #[test]
    fn a_link_is_one_word_whatever_the_token() {
        let link = Letter::ResetPassword { token: Token::new("a b/#\"<\u{e9}".to_owned()) }.link("https://app.example.com").unwrap();
        assert_eq!(link.expose_secret(), "https://app.example.com/reset-password#token=a%20b%2F%23%22%3C%C3%A9");
    }
}
