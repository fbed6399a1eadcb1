//! Who asks while the process is killed: registrars and owners of sessions, and what each may expect afterwards.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mainstay::store::{Database, query};
use ring::digest;
use serde_json::{Value, json};
use uuid::Uuid;

use super::report::Fates;
use crate::client::{Answer, Client};
use crate::ground::PASSWORD;

/// Registrations whose time is taken before anybody is killed.
pub(super) const CALM: u32 = 5;

async fn register(client: &Client, email: &str) -> std::io::Result<Answer> {
    let body = json!({"email": email, "name": "Somebody", "password": PASSWORD}).to_string();
    client.attempt("POST", "/api/auth/register", &[("content-type", "application/json")], body.as_bytes()).await
}

/// The median time of a registration.
pub(super) async fn calm_registration(client: &Client) -> Duration {
    let mut times = Vec::new();
    for number in 0..CALM {
        let begun = Instant::now();
        register(client, &format!("calm-{number}@example.com")).await.unwrap().expect(201);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// Opens accounts one after the other until nobody answers.
pub(super) struct Registrar {
    client: Client,
    name: String,
}

/// What a registrar has heard.
pub(super) struct Registered {
    answered: Vec<(Uuid, String)>,
    lost: String,
}

impl Registrar {
    pub(super) fn new(client: Client, kill: u32, number: u32) -> Self {
        Self { client, name: format!("kill-{kill}-{number}") }
    }

    pub(super) async fn run(self) -> Registered {
        let mut answered = Vec::new();
        loop {
            let email = format!("{}-{}@example.com", self.name, answered.len());
            match register(&self.client, &email).await {
                Ok(answer) => answered.push((answer.expect(201).data()["id"].as_str().unwrap().parse().unwrap(), email)),
                Err(_) => return Registered { answered, lost: email },
            }
        }
    }
}

impl Registered {
    /// How many accounts there are of it after [`Self::check`].
    pub(super) fn accounts(&self) -> i64 {
        self.answered.len() as i64 + 1
    }

    /// Looks for every account that was promised, and registers the address whose answer was lost: it is free, or it is taken and was so before.
    pub(super) async fn check(&self, database: &Database, client: &Client, fates: &mut Fates, place: &str) {
        for (id, email) in &self.answered {
            let text = "SELECT count(*) AS n FROM users u JOIN profiles p ON p.user_id = u.id WHERE u.id = $1 AND u.email_folded = $2";
            let row = query(text).bind(*id).bind(email.as_str()).fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap();
            assert_eq!(row.get::<i64>("n").unwrap(), 1, "{place}: {email} was answered with 201 and is not there");
            fates.answered += 1;
        }
        let text = "SELECT count(*) AS n FROM users WHERE email_folded = $1";
        let row = query(text).bind(self.lost.as_str()).fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap();
        let done = row.get::<i64>("n").unwrap() == 1;
        let again = register(client, &self.lost).await.unwrap();
        assert_eq!(again.status, if done { 409 } else { 201 }, "{place}: {} again, which was done: {done}: {}", self.lost, again.text());
        fates.lose(done);
    }
}

/// A session, whose owner refreshes as fast as it is answered.
pub(super) struct Family {
    token: String,
    access_token: String,
    answered: u64,
    /// Is there an answer that was lost?
    asked: bool,
}

impl Family {
    /// Opens an account and its session.
    pub(super) async fn begin(client: &Client, number: u32) -> Self {
        let email = format!("owner-{number}@example.com");
        register(client, &email).await.unwrap().expect(201);
        let signed = client.post("/api/auth/login", &json!({"email": email, "password": PASSWORD})).await.expect(200).data();
        let mut family = Self { token: String::new(), access_token: String::new(), answered: 0, asked: false };
        family.take(&signed);
        family
    }

    fn take(&mut self, signed: &Value) {
        let text = |name: &str| signed[name].as_str().unwrap().to_owned();
        (self.token, self.access_token) = (text("refresh_token"), text("access_token"));
    }

    /// Refreshes until nobody answers; whatever is answered must be a success.
    pub(super) async fn refresh_until_the_end(&mut self, client: &Client) {
        self.asked = true;
        while let Ok(answer) = refresh(client, &self.token).await {
            self.take(&answer.expect(200).data());
            self.answered += 1;
        }
    }

    /// Repeats the refresh whose answer was lost, twice: it gives the successor that it had, or one now, and then the same again.
    pub(super) async fn check(&mut self, database: &Database, client: &Client, fates: &mut Fates, place: &str) {
        client.with_token(self.access_token.as_str()).get("/api/users/me").await.expect(200);
        let text = "SELECT t.used_at IS NOT NULL AS used, live.hash AS live FROM refresh_tokens t \
                    JOIN refresh_tokens live ON live.session_id = t.session_id AND live.used_at IS NULL WHERE t.hash = $1";
        let row = query(text).bind(hash(&self.token)).fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap();
        let (done, waits): (bool, String) = (row.get("used").unwrap(), row.get("live").unwrap());
        let first = refresh(client, &self.token).await.unwrap();
        assert_eq!(first.status, 200, "{place}: a refresh whose answer was lost, which was done: {done}: {}", first.text());
        let again = refresh(client, &self.token).await.unwrap().expect(200).data();
        let first = first.data();
        assert_eq!(first["refresh_token"], again["refresh_token"], "{place}: two successors");
        self.take(&again);
        assert!(!done || hash(&self.token) == waits, "{place}: another successor than the one that was made before the kill");
        client.with_token(self.access_token.as_str()).get("/api/users/me").await.expect(200);
        fates.answered += std::mem::take(&mut self.answered);
        if std::mem::take(&mut self.asked) {
            fates.lose(done);
        }
    }
}

async fn refresh(client: &Client, token: &str) -> std::io::Result<Answer> {
    let body = json!({"refresh_token": token}).to_string();
    client.attempt("POST", "/api/auth/refresh", &[("content-type", "application/json")], body.as_bytes()).await
}

/// By which a token is stored: nobody has to show one to the database.
fn hash(token: &str) -> String {
    let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix("mrt_").unwrap()).unwrap();
    digest::digest(&digest::SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
