//! The rules of passwords: a verdict on the normalised text alone, within the bounds that it names. Lines: name, address, password.

use mainstay::auth::{PasswordContext, Passwords};
use secrecy::SecretString;
use unicode_normalization::UnicodeNormalization;

use crate::input::{line, text};

pub(crate) fn run(data: &[u8]) {
    let (name, rest) = line(data);
    let (email, password) = line(rest);
    let (Some(name), Some(email), Some(password)) = (text(name), text(email), text(password)) else { return };
    let context = PasswordContext { email: Some(email), name: Some(name), service: "mainstay" };
    let verdict = |password: &str| Passwords::check(&SecretString::from(password), &context).map_err(|flaw| flaw.code);
    let normalised: String = password.nfkc().collect();
    let chars = normalised.chars().count();
    let said = verdict(password);
    match said {
        Ok(()) => assert!((8..=128).contains(&chars), "{password:?} has {chars} characters"),
        Err("invalid_length") => assert!(!(8..=128).contains(&chars) || password.chars().count() > 512, "{password:?} has {chars} characters"),
        Err(code) => assert!(["too_common", "too_similar"].contains(&code), "{code}"),
    }
    if password.chars().count() <= 512 {
        assert_eq!(verdict(&normalised), said, "another spelling of {password:?} has another verdict");
    }
    // A password that is the account's own words is refused, whatever stands around it.
    if (8..=128).contains(&name.chars().count()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        assert!(verdict(name).is_err(), "{name:?}");
        assert!(verdict(&format!("{name}1!")).is_err(), "{name:?}");
    }
}
