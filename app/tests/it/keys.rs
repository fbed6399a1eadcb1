//! Keys of access tokens from outside: the commands, the published keys, and a rotation under two running instances.

use std::sync::Arc;
use std::time::Duration;

use mainstay::auth::Role;
use serde_json::{Value, json};

use crate::ground::{ADMIN, Ground, PASSWORD, within};
use crate::process::{self, Server};

on_both! {
    those_who_move_from_the_secret_keep_their_tokens
    a_service_with_a_secret_publishes_no_key
}

/// Runs `mainstay keys ...` and gives what it printed.
fn keys(settings: &[(String, String)], arguments: &[&str]) -> String {
    let output = process::run(settings, &[&["keys"], arguments].concat(), b"");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn the_commands_need_a_folder_and_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys").display().to_string();
    let pairs = [("APP_ENV", "production"), ("JWT_KEYS_DIR", &path), ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")];
    let settings: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let first = keys(&settings, &["new"]);
    assert!(first.contains(" EdDSA signs from "), "{first}");
    let second = keys(&settings, &["new", "--algorithm", "es256", "--lead", "1h"]);
    assert!(second.contains(" ES256 "), "{second}");
    let listed = keys(&settings, &["list"]);
    let states: Vec<_> = listed.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(states, [format!("{} EdDSA signing", first_word(&first)), format!("{} ES256 next", first_word(&second))]);
    assert!(keys(&settings, &["retire", &first_word(&first), "--at-once"]).contains("what it signed is refused"));
    let listed = keys(&settings, &["list"]);
    assert!(listed.contains(" retired ") && listed.contains(" ES256  signing "), "{listed}");

    let refused = |arguments: &[&str], code: i32, words: &str| {
        let output = process::run(&settings, &[&["keys"], arguments].concat(), b"");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{arguments:?}: {output:?}");
    };
    refused(&["retire", &first_word(&second)], 69, "make one first (`mainstay keys new`)");
    refused(&["retire", "-nobody"], 69, "holds no key `-nobody`");
    refused(&["new", "--algorithm", "rs256"], 2, "must be `eddsa` or `es256`");
    refused(&["new", "--lead", "1s"], 2, "must be 30s to 31d");
    std::fs::write(folder.path().join("keys/bent.pem"), "bent").unwrap();
    refused(&["list"], 1, "bent.pem: there is no PEM block");
    let output = process::run(&[], &["keys", "list"], b"");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}

#[test]
fn a_start_without_a_key_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let settings = [("DATA_DIR".to_owned(), data), ("JWT_KEYS_DIR".to_owned(), folder.path().display().to_string())];
    let output = process::run(&settings, &["serve"], b"");
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("`mainstay keys new` makes one"), "{output:?}");
}

async fn published(server: &Server) -> Vec<Value> {
    let answer = server.client().get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    let keys = answer.json()["keys"].as_array().unwrap().clone();
    assert!(keys.iter().all(|key| key.get("d").is_none() && key["use"] == "sig"), "{keys:?}");
    keys
}

async fn token(server: &Server) -> String {
    let signed = server.client().post("/api/auth/login", &json!({"email": ADMIN, "password": PASSWORD})).await.expect(200).data();
    signed["access_token"].as_str().unwrap().to_owned()
}

async fn those_who_move_from_the_secret_keep_their_tokens(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let before = service.account(Role::User).await;
    let token = before.client.token().to_owned();
    service.end().await;
    let folder = ground.file("keys").display().to_string();
    keys(&ground.pairs(&[("JWT_KEYS_DIR", &folder)]), &["new", "--lead", "30s"]);
    let service = ground.start(&[("JWT_KEYS_DIR", &folder)]).await;
    service.stranger().with_token(&token).get("/api/users/me").await.expect(200);
    let published = service.stranger().get("/.well-known/jwks.json").await.expect(200).json();
    assert_eq!(published["keys"][0]["alg"], "EdDSA", "{published}");
    service.end().await;
    // Without the secret the old tokens are nobody's.
    let service = ground.start(&[("JWT_SECRET", ""), ("JWT_KEYS_DIR", &folder)]).await;
    let answer = service.stranger().with_token(&token).get("/api/users/me").await.expect(401);
    assert_eq!(answer.code(), "invalid_token");
    service.end().await;
}

async fn a_service_with_a_secret_publishes_no_key(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    assert_eq!(service.stranger().get("/.well-known/jwks.json").await.expect(200).json(), json!({"keys": []}));
    service.end().await;
}

/// Two processes on one database.
mod several {
    use super::*;
    on_postgres! { a_rotation_under_two_instances_costs_no_request }

    async fn a_rotation_under_two_instances_costs_no_request(ground: Arc<Ground>) {
        let folder = ground.file("keys").display().to_string();
        let settings = ground.pairs(&[("JWT_SECRET", ""), ("JWT_KEYS_DIR", &folder)]);
        let first = first_word(&keys(&settings, &["new"]));
        let one = Server::start(&settings);
        let other_data = ground.file("other").display().to_string();
        let other = Server::start(&[settings.clone(), vec![("DATA_DIR".to_owned(), other_data)]].concat());
        let mut tokens = vec![token(&one).await, token(&other).await];
        let second = first_word(&keys(&settings, &["new", "--algorithm", "es256"]));
        // The worst rotation: the follower has to sign before anybody has met it.
        keys(&settings, &["retire", &first]);
        // Both look by themselves.
        for server in [&one, &other] {
            within(Duration::from_secs(30), "the new key is published", || async { published(server).await.len() == 2 }).await;
        }
        // Until it is the new key that signs, and a little longer, every token is good at both.
        let signed_by = |token: &str, kid: &str| {
            use base64::Engine;
            let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
            serde_json::from_slice::<Value>(&header).unwrap()["kid"] == kid
        };
        within(Duration::from_secs(60), "the new key signs at both", || async {
            let fresh = [token(&one).await, token(&other).await];
            let done = fresh.iter().all(|token| signed_by(token, &second));
            for token in fresh.iter().chain(&tokens) {
                for server in [&one, &other] {
                    server.client().with_token(token).get("/api/users/me").await.expect(200);
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            done
        })
        .await;
        assert!(signed_by(&tokens.remove(0), &first));
    }
}
