//! What is done by mail: addresses proven and changed, passwords set; and passwords changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use mainstay_app::one_time;
use serde_json::json;

use crate::client::{Answer, Client};
use crate::ground::{ADMIN, Ground, PASSWORD, Service, Time};

on_both! {
    with_open_registration_a_letter_asks_and_its_link_proves_the_address_once
    with_verified_registration_the_answer_tells_nothing_and_the_letter_makes_the_account
    nobody_slips_a_password_under_the_link_of_somebody_else
    a_forgotten_password_is_set_by_the_newest_link_once_and_all_sessions_end
    of_many_uses_of_one_link_at_once_one_counts
    a_link_ends_with_its_time_its_password_and_its_account
    an_unknown_address_is_answered_as_a_known_one_and_gets_no_letter
    a_mailbox_gets_five_letters_an_hour_from_strangers
    a_changed_password_ends_all_sessions_but_this_one
    an_address_changes_when_both_mailboxes_have_confirmed
    either_mailbox_refuses_a_change_of_the_address
    an_address_that_is_taken_tells_so_to_nobody_but_its_owner
}

pub(crate) const OTHER: &str = "a longer sentence is better";
pub(crate) const ADA: &str = "ada@example.com";

async fn register(client: &Client, email: &str, password: &str) -> Answer {
    client.post("/api/auth/register", &json!({"email": email, "name": "Ada", "password": password})).await
}

pub(crate) async fn sign_in(client: &Client, email: &str, password: &str) -> Answer {
    client.post("/api/auth/login", &json!({"email": email, "password": password})).await
}

/// A client that has just signed in.
pub(crate) async fn signed_in(client: &Client, email: &str, password: &str) -> Client {
    client.with_token(sign_in(client, email, password).await.expect(200).data()["access_token"].as_str().unwrap())
}

async fn follow(client: &Client, what: &str, token: &str) -> Answer {
    client.post(&format!("/api/auth/{what}"), &json!({"token": token})).await
}

pub(crate) async fn reset(client: &Client, token: &str, password: &str) -> Answer {
    client.post("/api/auth/reset-password", &json!({"token": token, "password": password})).await
}

pub(crate) async fn forgot(client: &Client, email: &str) -> Answer {
    client.post("/api/auth/forgot-password", &json!({"email": email})).await.expect(202)
}

#[track_caller]
fn no_link(answer: Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (404, "invalid_link"), "{}", answer.text());
}

/// What was done to the account of this address, the oldest first.
pub(crate) async fn told(service: &Service, id: &str) -> Vec<String> {
    let entries = service.admin().await.client.get(&format!("/api/audit?limit=100&subject={id}")).await.expect(200).data();
    entries.as_array().unwrap().iter().rev().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
}

/// An account with this address, and a client that is signed in to it.
pub(crate) async fn ada(service: &Service) -> (String, Client) {
    let stranger = service.stranger();
    let id = register(&stranger, ADA, PASSWORD).await.expect(201).data()["id"].as_str().unwrap().to_owned();
    (id, signed_in(&stranger, ADA, PASSWORD).await)
}

async fn with_open_registration_a_letter_asks_and_its_link_proves_the_address_once(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    let (id, me) = ada(&service).await;
    assert_eq!(me.get("/api/users/me").await.expect(200).data()["verified"], false, "it may sign in before");
    let first = ground.last_letter(ADA, "Confirm your e-mail").await.token();
    stranger.post("/api/auth/resend-verification", &json!({"email": "ADA@example.com"})).await.expect(202);
    let letters = ground.letters_to(ADA).await;
    assert_eq!(letters.len(), 2);
    let second = letters[1].token();
    no_link(follow(&stranger, "verify-email", &first).await);
    no_link(reset(&stranger, &second, OTHER).await);
    follow(&stranger, "verify-email", &second).await.expect(204);
    no_link(follow(&stranger, "verify-email", &second).await);
    assert_eq!(me.get("/api/users/me").await.expect(200).data()["verified"], true);
    stranger.post("/api/auth/resend-verification", &json!({"email": ADA})).await.expect(202);
    assert_eq!(ground.letters_to(ADA).await.len(), 2, "there is nothing left to prove");
    assert_eq!(told(&service, &id).await, ["user.registered", "session.opened", "user.verified"]);
}

async fn with_verified_registration_the_answer_tells_nothing_and_the_letter_makes_the_account(ground: Arc<Ground>) {
    let service = ground.start(&[("REGISTRATION", "verified")]).await;
    let stranger = service.stranger();
    let (new, taken) = (register(&stranger, ADA, PASSWORD).await.expect(202), register(&stranger, ADMIN, PASSWORD).await.expect(202));
    assert_eq!(new.body, taken.body);
    let names = |answer: &Answer| answer.headers.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
    assert_eq!(names(&new), names(&taken));
    // Before the link was followed there is no account.
    let (before, unknown) =
        (sign_in(&stranger, ADA, PASSWORD).await.expect(401), sign_in(&stranger, "nobody@example.com", PASSWORD).await.expect(401));
    assert_eq!((before.code(), unknown.code()), ("invalid_credentials".to_owned(), "invalid_credentials".to_owned()));
    let letters = ground.letters().await;
    assert_eq!(letters.len(), 2, "one each: {letters:#?}");
    assert!(!letters.iter().any(|letter| letter.text.contains("Ada")), "nobody makes us write words of his own to somebody else");
    assert_eq!(ground.last_letter(ADMIN, "You already have").await.text.matches("#token").count(), 0);
    // A newer link takes the place of the older.
    let old = ground.last_letter(ADA, "Confirm").await.token();
    stranger.post("/api/auth/resend-verification", &json!({"email": ADA})).await.expect(202);
    let token = ground.last_letter(ADA, "Confirm").await.token();
    no_link(follow(&stranger, "verify-email", &old).await);
    follow(&stranger, "verify-email", &token).await.expect(204);
    no_link(follow(&stranger, "verify-email", &token).await);
    let me = signed_in(&stranger, ADA, PASSWORD).await.get("/api/users/me").await.expect(200).data();
    assert_eq!([&me["verified"], &me["role"], &me["name"]], [&json!(true), &json!("user"), &json!("Ada")]);
    let stored = ground.number("SELECT count(*) AS n FROM registrations").await
        + ground.number("SELECT count(*) AS n FROM jobs WHERE payload IS NOT NULL").await;
    assert_eq!(stored, 0, "nothing of it is left behind");
    register(&stranger, "bent", PASSWORD).await.names("email");
    register(&stranger, ADMIN, "password").await.names("password");
}

async fn nobody_slips_a_password_under_the_link_of_somebody_else(ground: Arc<Ground>) {
    let service = ground.start(&[("REGISTRATION", "verified")]).await;
    let stranger = service.stranger();
    register(&stranger, ADA, OTHER).await.expect(202);
    let of_mallory = ground.last_letter(ADA, "Confirm").await.token();
    register(&stranger, ADA, PASSWORD).await.expect(202);
    let of_ada = ground.letters_to(ADA).await.into_iter().map(|letter| letter.token()).find(|token| *token != of_mallory).unwrap();
    register(&stranger, ADA, OTHER).await.expect(202);
    assert_eq!(ground.letters_to(ADA).await.len(), 3);
    follow(&stranger, "verify-email", &of_ada).await.expect(204);
    no_link(follow(&stranger, "verify-email", &of_mallory).await);
    sign_in(&stranger, ADA, PASSWORD).await.expect(200);
    sign_in(&stranger, ADA, OTHER).await.expect(401);
}

async fn a_forgotten_password_is_set_by_the_newest_link_once_and_all_sessions_end(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (id, me) = ada(&service).await;
    let stranger = service.stranger();
    forgot(&stranger, ADA).await;
    let first = ground.last_letter(ADA, "Choose").await.token();
    forgot(&stranger, "Ada@Example.com").await;
    let second = ground.last_letter(ADA, "Choose").await.token();
    assert_ne!(first, second);
    no_link(reset(&stranger, &first, OTHER).await);
    no_link(follow(&stranger, "verify-email", &second).await);
    for weak in ["short", "password1", "ada@example.com"] {
        reset(&stranger, &second, weak).await.names("password");
    }
    me.get("/api/users/me").await.expect(200);
    reset(&stranger, &second, OTHER).await.expect(204);
    me.get("/api/users/me").await.expect(401);
    no_link(reset(&stranger, &second, PASSWORD).await);
    sign_in(&stranger, ADA, PASSWORD).await.expect(401);
    let me = signed_in(&stranger, ADA, OTHER).await.get("/api/users/me").await.expect(200).data();
    assert_eq!(me["verified"], true, "whoever followed the link reads the mailbox");
    let letters = ground.letters_to(ADA).await;
    assert_eq!(letters.iter().filter(|letter| letter.subject == "Your password was changed").count(), 1);
    assert!(told(&service, &id).await.contains(&"password.reset".to_owned()));
    assert_eq!(ground.number("SELECT count(*) AS n FROM one_time_tokens WHERE hash LIKE 'mot%'").await, 0, "no token is stored");
    for bent in ["", "mot_", "mot_AAAA", &format!("mot_{}", "A".repeat(43)), &second.to_uppercase(), &format!("{second} ")] {
        no_link(reset(&stranger, bent, PASSWORD).await);
    }
}

async fn of_many_uses_of_one_link_at_once_one_counts(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    ada(&service).await;
    forgot(&service.stranger(), ADA).await;
    let token = ground.last_letter(ADA, "Choose").await.token();
    let asked = (0..10).map(|number| {
        let (client, token) = (service.stranger(), token.clone());
        tokio::spawn(async move { reset(&client, &token, &format!("{OTHER} {number}")).await.status })
    });
    let mut statuses = Vec::new();
    for asked in asked.collect::<Vec<_>>() {
        statuses.push(asked.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 404, 404, 404, 404, 404, 404, 404, 404, 404]);
    assert_eq!(ground.letters_to(ADA).await.iter().filter(|letter| letter.subject == "Your password was changed").count(), 1);
}

async fn a_link_ends_with_its_time_its_password_and_its_account(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[]).await;
    let (id, me) = ada(&service).await;
    let stranger = service.stranger();
    let link = async || {
        forgot(&stranger, ADA).await;
        ground.last_letter(ADA, "Choose").await.token()
    };
    let late = link().await;
    time.pass(3600);
    no_link(reset(&stranger, &late, OTHER).await);
    assert_eq!(one_time::sweep(&service.app.database, service.app.clock().now()).await.unwrap(), 0, "just now");
    time.pass(1);
    assert_eq!(one_time::sweep(&service.app.database, service.app.clock().now()).await.unwrap(), 1);
    let of_the_password_before = link().await;
    let me = me.with_token(sign_in(&stranger, ADA, PASSWORD).await.expect(200).data()["access_token"].as_str().unwrap());
    me.post("/api/auth/change-password", &json!({"current_password": PASSWORD, "new_password": OTHER})).await.expect(204);
    no_link(reset(&stranger, &of_the_password_before, PASSWORD).await);
    let of_a_disabled_account = link().await;
    let admin = service.admin().await.client;
    admin.patch(&format!("/api/users/{id}"), &json!({"disabled": true})).await.expect(200);
    no_link(reset(&stranger, &of_a_disabled_account, PASSWORD).await);
    admin.delete(&format!("/api/users/{id}")).await.expect(204);
    assert_eq!(ground.number("SELECT count(*) AS n FROM one_time_tokens").await, 0);
}

async fn an_unknown_address_is_answered_as_a_known_one_and_gets_no_letter(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    let (known, unknown) = (forgot(&stranger, ADMIN).await, forgot(&stranger, "nobody@example.com").await);
    assert_eq!((known.status, &known.body), (unknown.status, &unknown.body));
    for email in [ADMIN, "nobody@example.com"] {
        let answer = stranger.post("/api/auth/resend-verification", &json!({"email": email})).await.expect(202);
        assert_eq!(answer.body, known.body);
    }
    let letters = ground.letters().await;
    assert_eq!(letters.iter().map(|letter| letter.subject.as_str()).collect::<Vec<_>>(), ["Choose a new password"]);
    stranger.post("/api/auth/forgot-password", &json!({"email": "bent"})).await.names("email");
}

async fn a_mailbox_gets_five_letters_an_hour_from_strangers(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    for _ in 0..8 {
        forgot(&stranger, ADMIN).await;
    }
    forgot(&stranger, "Admin@Example.com").await;
    assert_eq!(ground.letters_to(ADMIN).await.len(), 5);
}

async fn a_changed_password_ends_all_sessions_but_this_one(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (id, me) = ada(&service).await;
    let (stranger, other) = (service.stranger(), signed_in(&service.stranger(), ADA, PASSWORD).await);
    let change = async |client: &Client, current: &str, new: &str| {
        client.post("/api/auth/change-password", &json!({"current_password": current, "new_password": new})).await
    };
    assert_eq!(change(&me, OTHER, OTHER).await.expect(403).code(), "wrong_password");
    change(&me, PASSWORD, "password1").await.names("new_password");
    change(&stranger, PASSWORD, OTHER).await.expect(401);
    other.get("/api/users/me").await.expect(200);
    change(&me, PASSWORD, OTHER).await.expect(204);
    me.get("/api/users/me").await.expect(200);
    other.get("/api/users/me").await.expect(401);
    sign_in(&stranger, ADA, PASSWORD).await.expect(401);
    sign_in(&stranger, ADA, OTHER).await.expect(200);
    assert_eq!(ground.letters_to(ADA).await.iter().filter(|letter| letter.subject == "Your password was changed").count(), 1);
    let told = told(&service, &id).await;
    assert!(told.contains(&"password.changed".to_owned()), "{told:?}");
    assert_eq!(ground.number("SELECT count(*) AS n FROM sessions WHERE revoked_because = 'password_changed'").await, 1);
}

/// Asks for another address, and gives the tokens of both letters: the new address's, the present one's.
async fn asked(ground: &Ground, me: &Client, new: &str) -> (String, String) {
    me.post("/api/auth/change-email", &json!({"email": new, "password": PASSWORD})).await.expect(202);
    (ground.last_letter(new, "Confirm your new").await.token(), ground.last_letter(ADA, "Is your e-mail").await.token())
}

async fn an_address_changes_when_both_mailboxes_have_confirmed(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (id, me) = ada(&service).await;
    let stranger = service.stranger();
    let wrong = me.post("/api/auth/change-email", &json!({"email": "new@example.org", "password": OTHER})).await.expect(403);
    assert_eq!(wrong.code(), "wrong_password");
    me.post("/api/auth/change-email", &json!({"email": ADA, "password": PASSWORD})).await.names("email");
    for (number, present_first) in [true, false].into_iter().enumerate() {
        let (new, before) = (format!("new-{number}@example.org"), me.get("/api/users/me").await.data()["email"].as_str().unwrap().to_owned());
        me.post("/api/auth/change-email", &json!({"email": "given-up@example.org", "password": PASSWORD})).await.expect(202);
        let given_up = ground.last_letter("given-up@example.org", "Confirm your new").await.token();
        me.post("/api/auth/change-email", &json!({"email": new, "password": PASSWORD})).await.expect(202);
        let theirs = ground.last_letter(&new, "Confirm your new").await.token();
        let mine = ground.last_letter(&before, "Is your e-mail").await.token();
        no_link(follow(&stranger, "confirm-email", &given_up).await);
        no_link(follow(&stranger, "verify-email", &theirs).await);
        let (first, second) = if present_first { (&mine, &theirs) } else { (&theirs, &mine) };
        assert_eq!(follow(&stranger, "confirm-email", first).await.expect(200).data()["changed"], false);
        no_link(follow(&stranger, "confirm-email", first).await);
        assert_eq!(me.get("/api/users/me").await.expect(200).data()["email"], before);
        assert_eq!(follow(&stranger, "confirm-email", second).await.expect(200).data()["changed"], true);
        let account = me.get("/api/users/me").await.expect(200).data();
        assert_eq!((&account["email"], &account["verified"]), (&json!(new), &json!(true)));
        ground.last_letter(&before, "Your e-mail address was changed").await;
        sign_in(&stranger, &before, PASSWORD).await.expect(401);
        sign_in(&stranger, &new, PASSWORD).await.expect(200);
    }
    let told = told(&service, &id).await;
    assert_eq!(told.iter().filter(|action| *action == "email.changed").count(), 2, "{told:?}");
}

async fn either_mailbox_refuses_a_change_of_the_address(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (_, me) = ada(&service).await;
    let stranger = service.stranger();
    for present in [true, false] {
        let (theirs, mine) = asked(&ground, &me, "new@example.org").await;
        let (refuses, confirms) = if present { (&mine, &theirs) } else { (&theirs, &mine) };
        follow(&stranger, "confirm-email", confirms).await.expect(200);
        follow(&stranger, "refuse-email", refuses).await.expect(204);
        for token in [&theirs, &mine] {
            no_link(follow(&stranger, "confirm-email", token).await);
            no_link(follow(&stranger, "refuse-email", token).await);
        }
    }
    // A password that is set by whoever reads the mailbox ends what somebody else began.
    let (theirs, mine) = asked(&ground, &me, "mallory@example.org").await;
    forgot(&stranger, ADA).await;
    reset(&stranger, &ground.last_letter(ADA, "Choose").await.token(), OTHER).await.expect(204);
    for token in [&theirs, &mine] {
        no_link(follow(&stranger, "confirm-email", token).await);
    }
    sign_in(&stranger, ADA, OTHER).await.expect(200);
}

async fn an_address_that_is_taken_tells_so_to_nobody_but_its_owner(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (_, me) = ada(&service).await;
    let free = me.post("/api/auth/change-email", &json!({"email": "free@example.org", "password": PASSWORD})).await.expect(202);
    let taken = me.post("/api/auth/change-email", &json!({"email": "ADMIN@example.com", "password": PASSWORD})).await.expect(202);
    assert_eq!(free.body, taken.body);
    let (theirs, mine) =
        (ground.last_letter("ADMIN@example.com", "Confirm your new").await.token(), ground.last_letter(ADA, "Is your e-mail").await.token());
    assert_eq!(follow(&me, "confirm-email", &mine).await.expect(200).data()["changed"], false, "whoever asked learns nothing");
    assert_eq!(follow(&me, "confirm-email", &theirs).await.expect(409).code(), "email_taken");
    assert_eq!(me.get("/api/users/me").await.expect(200).data()["email"], ADA);
}
