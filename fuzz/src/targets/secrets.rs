//! Secrets that somebody shows: one spelling each, nothing made up passes, nothing sealed opens after a change.

use std::sync::LazyLock;

use mainstay::auth::{ApiKey, KeyKind, Kind, RecoveryCode, Scopes, Sealer};
use mainstay_app::sessions::RefreshToken;
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret, SecretSlice};
use uuid::Uuid;

use crate::input::{mutated, text};

const KEYS: KeyKind = KeyKind::new("msk");
const LINKS: Kind = Kind::new("mvt");
const ACCOUNT: Uuid = Uuid::from_u128(7);

static KEY: LazyLock<ApiKey> = LazyLock::new(|| KEYS.make(&SystemRandom::new()).unwrap());
static SEALER: LazyLock<Sealer> = LazyLock::new(|| Sealer::new(&[SecretSlice::from(vec![7; 32])]).unwrap());
static SEALED: LazyLock<String> = LazyLock::new(|| SEALER.seal("totp", ACCOUNT, b"twenty bytes of a key", &SystemRandom::new()).unwrap());

pub(crate) fn run(data: &[u8]) {
    if let Some(changed) = mutated(KEY.text().expose_secret(), data) {
        // Two errors may make up for each other in a checksum; what is stored tells them apart.
        assert!(KEYS.parse(&changed).is_none_or(|key| !key.is(&KEY.stored())), "{changed:?}");
    }
    if let Some(changed) = mutated(&SEALED, data) {
        assert!(SEALER.open("totp", ACCOUNT, &changed).is_err(), "{changed:?}");
    }
    let Some(text) = text(data) else { return };
    if let Some(key) = KEYS.parse(text) {
        assert!(key.text().expose_secret() == text && text.starts_with(&format!("msk_{}_", key.name())) && text.len() == 62, "{text:?}");
    }
    if let Some(token) = LINKS.parse(text) {
        assert!(token.text().expose_secret() == text && token.is(&token.stored()), "{text:?}");
    }
    if let Some(token) = RefreshToken::parse(text) {
        assert_eq!(token.text().expose_secret(), text);
        assert!(LINKS.parse(text).is_none() && KEYS.parse(text).is_none(), "one kind passes for another: {text:?}");
    }
    if let Some(code) = RecoveryCode::parse(text) {
        let shown = RecoveryCode::parse(code.text().expose_secret()).unwrap();
        assert_eq!(shown.stored(ACCOUNT), code.stored(ACCOUNT), "{text:?}");
        assert_eq!(code.text().expose_secret().len(), 19);
    }
    assert!(SEALER.open("totp", ACCOUNT, text).is_err(), "something that nobody sealed was opened: {text:?}");
    let scopes = Scopes::parse(text);
    assert_eq!(Scopes::parse(&scopes.to_string()), scopes);
    assert!(scopes.iter().all(|scope| text.split(' ').any(|name| name == scope.as_str())), "{text:?} gave {scopes}");
}
