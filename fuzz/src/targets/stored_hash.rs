//! Hashes of passwords, as accounts bring them: what is taken costs no more than is promised, and bcrypt is read as its form says.

use std::sync::LazyLock;

use mainstay::auth::Passwords;

use crate::input::text;

static PASSWORDS: LazyLock<Passwords> = LazyLock::new(|| Passwords::new(1).unwrap());

pub(crate) fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let known = PASSWORDS.knows(text);
    if text.starts_with("$2") {
        assert_eq!(known, is_bcrypt(text), "{text:?}");
    } else if known {
        let costs = |name: char| {
            let list = text.split('$').find(|part| part.starts_with("m=") || part.contains(",m="))?;
            // Of a cost that is named twice the library takes the last, where it is judged as where it is paid.
            list.split(',').rev().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        // What is not said is the library's default, which is ours.
        let (memory, passes, lanes) = (costs('m').unwrap_or(19 * 1024), costs('t').unwrap_or(2), costs('p').unwrap_or(1));
        assert!(memory <= 64 * 1024 && memory * passes <= 1024 * 1024 && lanes <= 16, "{text:?} would cost {memory} KiB, {passes} passes");
        assert!(["$argon2id$", "$argon2i$", "$argon2d$"].iter().any(|kind| text.starts_with(kind)), "{text:?}");
    }
}

/// `$2b$12$`, then 53 of the 64 letters. The last letter of the hash has two bits that mean nothing, and that of the salt four: any is taken.
fn is_bcrypt(text: &str) -> bool {
    let bytes = text.as_bytes();
    let cost = text.get(4..6).filter(|cost| cost.bytes().all(|byte| byte.is_ascii_digit())).and_then(|cost| cost.parse::<u32>().ok());
    bytes.len() == 60
        && [b'a', b'b', b'x', b'y'].contains(&bytes[2])
        && bytes[3] == b'$'
        && cost.is_some_and(|cost| (4..=14).contains(&cost))
        && bytes[6] == b'$'
        && bytes[7..].iter().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(byte))
}
