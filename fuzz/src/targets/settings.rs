//! Settings: a value that is taken says the same when it is written anew, sizes and durations are those of a model, and a file of settings is read to its end.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use mainstay::config::{ByteSize, Origins, Reader, Setting, Settings};
use mainstay::redis::{Address, TlsFiles};
use secrecy::SecretString;

use crate::input::text;

pub(crate) fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    assert_eq!(again::<Duration>(text).map(|read| read.as_millis()), duration_ms(text), "{text:?}");
    assert_eq!(again::<ByteSize>(text).map(|read| read.0 as u128), size(text), "{text:?}");
    again::<bool>(text);
    again::<u16>(text);
    again::<IpAddr>(text);
    again::<SocketAddr>(text);
    again::<Vec<IpNet>>(text);
    if let Some(origins) = again::<Origins>(text) {
        assert!(!origins.any || origins.list.is_empty());
        for origin in &origins.list {
            assert!(origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains(['/', '@', '?', '#'])), "{origin:?}");
        }
    }
    redis(text);
    file(text);
}

/// The value, if it is one; what it is written as is read as the same.
fn again<T: Setting + PartialEq + std::fmt::Debug>(text: &str) -> Option<T> {
    let value = T::parse(text).ok()?;
    assert_eq!(T::parse(&value.written()).as_ref(), Ok(&value), "{text:?} is written as {:?}", value.written());
    Some(value)
}

fn number(text: &str) -> Option<u128> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // With its zeros in front a number may have any length.
    let text = text.trim_start_matches('0');
    (digits && text.len() <= 30).then(|| text.bytes().fold(0, |number, digit| number * 10 + u128::from(digit - b'0')))
}

fn duration_ms(text: &str) -> Option<u128> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let read = units.into_iter().find_map(|(unit, ms)| Some((number(text.strip_suffix(unit)?)?, ms)));
    read.filter(|(number, _)| *number <= u128::from(u64::MAX)).map(|(number, ms)| number * ms).filter(|ms| *ms <= u128::from(u64::MAX))
}

fn size(text: &str) -> Option<u128> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "kib" => 1 << 10,
        "mb" | "mib" => 1 << 20,
        "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    let bytes = number(digits).filter(|number| *number <= u128::from(u64::MAX))? * unit;
    (bytes <= usize::MAX as u128).then_some(bytes)
}

/// What is wrong with an address is said without the address: it holds a password. What is behind `rediss://` asks the system for its authorities, each time.
fn redis(text: &str) {
    if text.starts_with("redis://")
        && let Err(unusable) = Address::new(&SecretString::from(text), &TlsFiles::default())
        && let Some((_, secret)) = text.split_once('@').and_then(|(account, _)| account.split_once("://:"))
        && secret.len() >= 12
    {
        // The words may have it of their own, and then they have it whatever the password is.
        let other = Address::new(&SecretString::from(text.replacen(secret, &"Q".repeat(secret.len()), 1)), &TlsFiles::default());
        let own = other.is_err_and(|other| other.words == unusable.words);
        assert!(own || !unusable.words.contains(secret), "the password is told: {unusable}");
    }
}

/// The text as `mainstay.toml`, unless it may name files, which would be read.
fn file(text: &str) {
    if text.to_ascii_lowercase().contains("redis") {
        return;
    }
    let mut reader = Reader::default();
    reader.add_file(text);
    let settings = Settings::read(&mut reader);
    let within = (1..=1_000_000).contains(&settings.connections_max) && (1..=10_000).contains(&settings.db_pool_max);
    assert!(within && settings.header_timeout <= Duration::from_secs(120), "a bound was passed: {text:?}");
    match reader.finish() {
        Ok(entries) => assert!(entries.len() > 40),
        Err(problems) => assert!(!problems.0.is_empty() && !problems.to_string().is_empty()),
    }
}
