//! The instances of a drill, and the people and things that they serve.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::balancer::Balancer;
use crate::client::{Answer, Client};
use crate::ground::{ADMIN, Ground, PASSWORD, within};
use crate::process::Server;

/// One more than two: there is always a third that neither did something nor was asked first.
pub(super) const INSTANCES: usize = 3;
/// `DB_POOL_MAX`: more than the load of any drill holds, and three pools leave the test server room for other tests.
pub(super) const POOL: i64 = 4;
/// The product's figure: what was gone serves again within this time of its return.
pub(super) const RECOVERY: Duration = Duration::from_secs(1);
/// What a busy machine may add for one that meets it beside the fault; most must hold the figure.
pub(super) const BUSY: Duration = Duration::from_secs(1);
/// Debug builds that start together on a busy machine.
const START: Duration = Duration::from_secs(30);

/// Three processes, one of them before the others so that they do not make the schema together.
pub(super) struct Fleet {
    pub(super) servers: Vec<Server>,
    pub(super) balancer: Balancer,
}

/// The Redis of the tests.
pub(crate) fn redis_url() -> String {
    std::env::var("TEST_REDIS_URL").expect("TEST_REDIS_URL names a Redis; scripts/test starts one")
}

impl Fleet {
    /// Starts them over the ground's database, changed by `pairs`, and waits until each says that all is well.
    pub(super) async fn start(ground: &Ground, pairs: &[(&str, &str)]) -> Self {
        let settings = |number: usize| {
            let (folder, redis, pool) = (ground.file(&format!("instance-{number}")).display().to_string(), redis_url(), POOL.to_string());
            let own = [
                ("DATA_DIR", folder.as_str()),
                ("REDIS_URL", redis.as_str()),
                ("REDIS_PREFIX", ground.name()),
                ("INSTANCES", "3"),
                ("DB_POOL_MAX", pool.as_str()),
                ("DB_POOL_MIN", "2"),
                // A drill says itself which limit it is about.
                ("RATE_LIMIT_MAX", "1000000"),
                ("RATE_LIMIT_ACCOUNT_MAX", "1000000"),
                ("TRUSTED_PROXIES", "127.0.0.1"),
                // A load signs in to one account all the time, and must not end the session that it reads with.
                ("SESSIONS_MAX", "1000"),
            ];
            let kept = own.into_iter().filter(|(name, _)| pairs.iter().all(|(changed, _)| changed != name));
            ground.pairs(&kept.chain(pairs.iter().copied()).collect::<Vec<_>>())
        };
        let mut servers = vec![Server::start(&settings(0))];
        let others = (1..INSTANCES).map(|number| {
            let settings = settings(number);
            tokio::task::spawn_blocking(move || Server::start(&settings))
        });
        for other in others.collect::<Vec<_>>() {
            servers.push(other.await.unwrap());
        }
        let balancer = Balancer::start(servers.iter().map(|server| server.public).collect()).await;
        let fleet = Self { servers, balancer };
        fleet.all_say("ok", START).await;
        fleet
    }

    /// A client of an instance; after the last comes the first.
    pub(super) fn client(&self, number: usize) -> Client {
        self.servers[number % self.servers.len()].client()
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        self.servers.iter().map(Server::client).collect()
    }

    /// Waits until each instance says this of itself; how long did the last one take?
    pub(super) async fn all_say(&self, status: &str, deadline: Duration) -> Duration {
        let begun = Instant::now();
        for (number, client) in self.clients().iter().enumerate() {
            let what = format!("instance {number} says `{status}`");
            within(deadline, &what, || async { health(client).await == status }).await;
        }
        begun.elapsed()
    }

    /// Waits until no instance has a connection of its pool in use.
    pub(super) async fn no_connection_in_use(&self, deadline: Duration) {
        for (number, server) in self.servers.iter().enumerate() {
            let management = Client::new(server.management);
            // This question has one of them in its hands itself, and has let it go when it counts.
            let what = format!("instance {number} has no connection in use");
            within(deadline, &what, || async { management.get("/health").await.json()["database"]["in_use"] == 0 }).await;
        }
    }
}

/// `status` of an instance's health, or the code of its refusal.
pub(super) async fn health(client: &Client) -> String {
    let answer = client.get("/health").await;
    let member = if answer.status == 200 { "status" } else { "code" };
    answer.json()[member].as_str().unwrap_or_default().to_owned()
}

/// Signs in.
pub(super) async fn sign_in(client: &Client, email: &str, password: &str) -> Value {
    client.post("/api/auth/login", &json!({"email": email, "password": password})).await.expect(200).data()
}

/// The first administrator.
pub(super) async fn admin(client: &Client) -> Client {
    client.with_token(access(&sign_in(client, ADMIN, PASSWORD).await))
}

/// A new account; its id.
pub(super) async fn register(client: &Client, email: &str) -> String {
    let account = client.post("/api/auth/register", &json!({"email": email, "name": "Somebody", "password": PASSWORD})).await.expect(201).data();
    account["id"].as_str().unwrap().to_owned()
}

/// A new product; its path.
pub(super) async fn product(editor: &Client) -> String {
    editor.post("/api/products", &json!({"name": "Shared"})).await.expect(201).header("location").unwrap().to_owned()
}

pub(super) fn access(signed: &Value) -> &str {
    signed["access_token"].as_str().unwrap()
}

/// A refusal that a client can act on: 503, what it is, and when to come back. Anything else is told.
#[track_caller]
pub(super) fn assert_refused(answer: &Answer, place: &str) {
    assert_eq!(answer.status, 503, "{place}: {}", answer.text());
    let code = answer.code();
    assert!(["database_unavailable", "database_timeout"].contains(&code.as_str()), "{place}: {code}");
    let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{place}: {answer:?}");
}

/// Each instance, and what it needs to be asked for, was back after one of these times.
#[track_caller]
pub(super) fn assert_back(mut times: Vec<Duration>, place: &str) {
    times.sort_unstable();
    let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
    assert!(median < RECOVERY && last < RECOVERY + BUSY, "{place}: back after {times:?}");
}
