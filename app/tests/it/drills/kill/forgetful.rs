//! Somebody who forgets the password again and again, and chooses another one while the process is killed.

use std::time::Duration;

use mainstay::store::{Database, query};
use mainstay_app::mail::{Folder, read};
use serde_json::json;
use uuid::Uuid;

use super::report::Fates;
use crate::client::{Answer, Client};
use crate::ground::{Ground, PASSWORD, within};

/// The address; what is true of sessions in general is not true of this account's, whose sessions end with every reset.
pub(super) const ADDRESS: &str = "forgetful@example.com";
/// Two jobs and a file.
const PROMPT: Duration = Duration::from_secs(30);

/// An account whose password is reset.
pub(super) struct Forgetful {
    id: Uuid,
    /// The password that is right.
    password: String,
    /// Its session.
    access_token: String,
    /// The token of the link of the last letter, if it was not used.
    token: Option<String>,
    /// The password that was chosen, and whether that was answered.
    tried: Option<(String, bool)>,
    tries: u32,
    resets: i64,
}

async fn sign_in(client: &Client, password: &str) -> Answer {
    client.post("/api/auth/login", &json!({"email": ADDRESS, "password": password})).await
}

fn access_token(answer: Answer) -> String {
    answer.expect(200).data()["access_token"].as_str().unwrap().to_owned()
}

impl Forgetful {
    /// Opens the account.
    pub(super) async fn begin(client: &Client) -> Self {
        let body = json!({"email": ADDRESS, "name": "Somebody", "password": PASSWORD});
        let id = client.post("/api/auth/register", &body).await.expect(201).data()["id"].as_str().unwrap().parse().unwrap();
        let access_token = access_token(sign_in(client, PASSWORD).await);
        Self { id, password: PASSWORD.to_owned(), access_token, token: None, tried: None, tries: 0, resets: 0 }
    }

    /// Has a link, from a letter that comes now if the last one was used.
    pub(super) async fn have_a_link(&mut self, ground: &Ground, client: &Client) {
        if self.token.is_some() {
            return;
        }
        let folder = Folder::new(&ground.data_dir().join("mail"));
        let links = || folder.list().unwrap().into_iter().filter_map(|entry| link(&entry.read().unwrap()));
        let before: Vec<String> = links().collect();
        client.post("/api/auth/forgot-password", &json!({"email": ADDRESS})).await.expect(202);
        let found = std::sync::Mutex::new(None);
        within(PROMPT, "the letter comes", || {
            *found.lock().unwrap() = links().find(|link| !before.contains(link));
            std::future::ready(found.lock().unwrap().is_some())
        })
        .await;
        self.token = found.into_inner().unwrap();
    }

    /// Chooses another password; nobody may answer.
    pub(super) async fn reset(&mut self, client: &Client) {
        self.tries += 1;
        let chosen = format!("{PASSWORD} {}", self.tries);
        let answer = reset(client, self.token.as_deref().unwrap(), &chosen).await;
        let answered = answer.is_ok_and(|answer| answer.expect(204).status == 204);
        self.tried = Some((chosen, answered));
    }

    /// One of the two passwords is right, and everything else about the account agrees with it.
    pub(super) async fn check(&mut self, database: &Database, client: &Client, fates: &mut Fates, place: &str) {
        let Some((chosen, answered)) = self.tried.take() else { return };
        let (old, new) = (sign_in(client, &self.password).await, sign_in(client, &chosen).await);
        assert_eq!([old.status, new.status].iter().filter(|status| **status == 401).count(), 1, "{place}: {} and {}", old.text(), new.text());
        let done = new.status == 200;
        assert!(done || !answered, "{place}: the reset was answered with 204 and is not there");
        let session = client.with_token(self.access_token.as_str()).get("/api/users/me").await;
        assert_eq!(session.status, if done { 401 } else { 200 }, "{place}: the session from before, and the reset was done: {done}");
        self.access_token = access_token(if done { new } else { old });
        if done {
            self.resets += 1;
            self.password = chosen;
            let again = reset(client, &self.token.take().unwrap(), "another password that is long").await.unwrap();
            assert_eq!(again.status, 404, "{place}: a link that was used: {}", again.text());
        }
        let text = "SELECT count(*) AS n FROM audit WHERE subject = $1 AND action = 'password.reset'";
        let row = query(text).bind(self.id).fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap();
        assert_eq!(row.get::<i64>("n").unwrap(), self.resets, "{place}: resets in the audit trail");
        let letters = super::invariants::count(database, "SELECT count(*) AS n FROM jobs WHERE unique_key LIKE 'password_changed:%'").await;
        assert_eq!(letters, self.resets, "{place}: letters that tell of a reset");
        if answered {
            fates.answered += 1;
        } else {
            fates.lose(done);
        }
    }
}

async fn reset(client: &Client, token: &str, password: &str) -> std::io::Result<Answer> {
    let body = json!({"token": token, "password": password}).to_string();
    client.attempt("POST", "/api/auth/reset-password", &[("content-type", "application/json")], body.as_bytes()).await
}

/// The token of a letter to choose a new password.
fn link(mail: &[u8]) -> Option<String> {
    let mail = read::parse(mail)?;
    let (_, rest) = mail.text.split_once("/reset-password#token=")?;
    (mail.to.contains(ADDRESS)).then(|| rest.split_whitespace().next().unwrap_or_default().to_owned())
}
