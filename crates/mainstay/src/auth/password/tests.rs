//! Hashing and verifying as callers see it.

use std::net::IpAddr;

use argon2::password_hash::PasswordHasher;

use super::*;
use crate::client::ClientKey;

const WRONG: Verified = Verified { right: false, rehash: false };
const RIGHT: Verified = Verified { right: true, rehash: false };
const OLD: Verified = Verified { right: true, rehash: true };

const OURSELVES: Asker = Asker::Known(None);

fn client(number: u8) -> Asker {
    Asker::Stranger(Some(ClientKey::from(IpAddr::from([203, 0, 113, number]))))
}

async fn verify(passwords: &Passwords, password: &str, hash: Option<&str>) -> Verified {
    passwords.verify(password.into(), hash.map(str::to_owned), OURSELVES).await.unwrap()
}

#[tokio::test]
async fn a_password_is_told_from_another_and_nobody_has_one() {
    let passwords = Passwords::new(1).unwrap();
    let hash = passwords.hash("Gr\u{fc}ne Stra\u{df}e 9".into(), OURSELVES).await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && passwords.knows(&hash), "{hash}");
    assert_eq!(verify(&passwords, "Gru\u{308}ne Stra\u{df}e 9", Some(&hash)).await, RIGHT, "composed and decomposed are the same");
    assert_eq!(verify(&passwords, "Gru\u{308}ne Stra\u{df}e \u{ff19}", Some(&hash)).await, RIGHT, "and so is the width");
    assert_eq!(verify(&passwords, "gr\u{fc}ne stra\u{df}e 9", Some(&hash)).await, WRONG);
    assert_eq!(verify(&passwords, "no account has this password", None).await, WRONG);
    assert_eq!(verify(&passwords, "anything", Some("not a hash")).await, WRONG);
    assert_eq!(verify(&passwords, &"a".repeat(1_000_000), Some(&hash)).await, WRONG);
}

#[tokio::test]
async fn a_hash_that_was_made_otherwise_is_verified_and_asks_for_a_new_one() {
    let passwords = Passwords::new(1).unwrap();
    let typed = "Gru\u{308}ne Stra\u{df}e 9";
    let cheap = Argon2::new(Algorithm::Argon2i, Version::V0x10, Params::new(64, 1, 2, None).unwrap());
    // As that library writes hashes by itself.
    let made = |password: &str| cheap.hash_password(password.as_bytes()).unwrap().to_string();
    let (before, elsewhere) = (made(normalised(&typed.into()).expose_secret()), made(typed));
    for (hash, whose) in [(before, "ours from before"), (elsewhere, "of a system that does not normalise")] {
        assert_eq!(verify(&passwords, typed, Some(&hash)).await, OLD, "{whose}: {hash}");
        assert_eq!(verify(&passwords, "something else", Some(&hash)).await, WRONG, "{whose}");
    }
    let bcrypt = "$2b$04$abcdefghijklmnopqrstuu8hjSoim66GPlHphQEPMBhjri78k1PCO";
    assert_eq!(verify(&passwords, "imported long ago", Some(bcrypt)).await, OLD);
    assert_eq!(verify(&passwords, "imported long agO", Some(bcrypt)).await, WRONG);
    let dear = bcrypt.replace("$04$", "$31$");
    assert!(passwords.knows(bcrypt) && !passwords.knows(&dear));
    assert_eq!(verify(&passwords, "imported long ago", Some(&dear)).await, WRONG, "what would take hours is not begun");
}

#[tokio::test]
async fn a_wrong_password_waits_as_long_as_it_is_told_and_a_right_one_does_not() {
    let wait = Duration::from_secs(3);
    let passwords = Passwords::new(1).unwrap().answering_wrong_after(wait);
    let bcrypt = "$2b$04$abcdefghijklmnopqrstuu8hjSoim66GPlHphQEPMBhjri78k1PCO";
    let begun = Instant::now();
    let (known, unknown) = tokio::join!(verify(&passwords, "wrong", Some(bcrypt)), verify(&passwords, "wrong", None));
    assert!(begun.elapsed() >= wait && (known, unknown) == (WRONG, WRONG), "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(verify(&passwords, "imported long ago", Some(bcrypt)).await, OLD);
    assert!(begun.elapsed() < wait, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_crowd_beyond_the_bound_is_sent_away_at_once_and_another_client_is_not() {
    let passwords = Passwords::new(1).unwrap();
    let ask = |client| {
        let passwords = passwords.clone();
        tokio::spawn(async move { passwords.verify("a password".into(), None, client).await })
    };
    let crowd: Vec<_> = (0..100).map(|_| ask(client(1))).collect();
    // All of them have asked when the last one has been told that there is no place.
    let mut refused = 0;
    let mut crowd = crowd.into_iter().rev();
    let last = crowd.next().unwrap().await.unwrap();
    assert_eq!(last.unwrap_err().code(), &codes::OVERLOADED);
    let honest = ask(client(2)).await.unwrap();
    assert_eq!(honest.unwrap(), WRONG, "there is a place for it among the hundred");
    for answer in crowd {
        if let Err(error) = answer.await.unwrap() {
            assert_eq!(error.code(), &codes::OVERLOADED);
            refused += 1;
        }
    }
    assert!((1..99).contains(&refused), "{refused}");
    assert_eq!(verify(&passwords, "a password", None).await, WRONG, "and afterwards there is room again");
}

#[tokio::test]
async fn a_flood_from_everywhere_keeps_strangers_out_and_nobody_who_is_known() {
    let passwords = Passwords::new(1).unwrap();
    let ask = |asker| {
        let passwords = passwords.clone();
        tokio::spawn(async move { passwords.verify("a password".into(), None, asker).await })
    };
    let mut flood: Vec<_> = (0..100).map(|number| ask(client(number))).collect();
    let last = flood.pop().unwrap().await.unwrap();
    assert_eq!(last.unwrap_err().code(), &codes::OVERLOADED);
    let Asker::Stranger(home) = client(200) else { unreachable!() };
    assert_eq!(ask(Asker::Known(home)).await.unwrap().unwrap(), WRONG, "there is a place, and a turn");
    assert!(flood.iter().any(|stranger| !stranger.is_finished()), "before the strangers' end");
}

#[tokio::test]
async fn who_has_left_gets_no_core() {
    let passwords = Passwords::new(1).unwrap();
    let (open, opened) = std::sync::mpsc::channel::<()>();
    let busy = tokio::spawn({
        let passwords = passwords.clone();
        async move { passwords.on_a_core(OURSELVES, move |_, _| opened.recv().is_ok()).await }
    });
    let (told, hears) = std::sync::mpsc::channel::<()>();
    let waiting = passwords.on_a_core(OURSELVES, move |_, _| told.send(()));
    // Asked once, so it stands in line behind the other; then its caller leaves.
    tokio::task::yield_now().await;
    tokio::select! {
        biased;
        _ = waiting => panic!("the core is taken"),
        () = std::future::ready(()) => {}
    }
    open.send(()).unwrap();
    assert!(busy.await.unwrap().unwrap());
    assert!(passwords.on_a_core(OURSELVES, |_, _| ()).await.is_ok());
    assert!(hears.recv().is_err(), "its work was not done");
}

#[tokio::test]
async fn a_panic_costs_one_answer() {
    let passwords = Passwords::new(1).unwrap();
    let lost: Result<()> = passwords.on_a_core(OURSELVES, |_, _| panic!("on purpose")).await;
    assert_eq!(lost.unwrap_err().code(), &codes::INTERNAL);
    assert_eq!(verify(&passwords, "a password", None).await, WRONG);
}
