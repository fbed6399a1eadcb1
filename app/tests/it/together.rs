//! Several instances behind one Redis: limits hold as if there were one, and hold in parts while Redis is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mainstay::auth::Role;
use mainstay::testing::{Fault, FaultProxy};
use serde_json::json;

use crate::client::Client;
use crate::ground::{Ground, PASSWORD, Service, within};
use crate::process::{self, Server};

mod only {
    use super::*;
    on_postgres! {
        of_many_requests_to_three_instances_exactly_the_quota_passes_whatever_address_they_claim
        a_signed_in_request_costs_one_round_trip_and_its_account_is_counted_everywhere
        a_session_that_has_ended_spends_nothing_of_its_account
        letters_to_one_mailbox_are_counted_everywhere
        a_body_that_is_refused_unread_is_counted_too
        without_redis_nothing_fails_and_limits_hold_in_parts
        what_is_wrong_with_redis_is_told_to_the_operator_without_the_password
    }
}

const RECOVERY: Duration = Duration::from_secs(10);

pub(crate) fn redis_url() -> String {
    std::env::var("TEST_REDIS_URL").expect("TEST_REDIS_URL names a Redis; scripts/test starts one")
}

/// Some instances over one database and the Redis at this address, in which this test has names of its own.
pub(crate) async fn instances(ground: &Ground, count: usize, url: &str, pairs: &[(&str, &str)]) -> Vec<Service> {
    let mut services = Vec::new();
    for number in 0..count {
        let folder = ground.file(&format!("instance-{number}")).display().to_string();
        // Tests are patient with a busy machine; the one that is about waits says so itself.
        let own = [("DATA_DIR", folder.as_str()), ("REDIS_URL", url), ("REDIS_PREFIX", ground.name()), ("REDIS_TIMEOUT", "5s")];
        let standard = own.into_iter().filter(|(name, _)| pairs.iter().all(|(changed, _)| changed != name));
        let all: Vec<_> = standard.chain(pairs.iter().copied()).collect();
        services.push(ground.start(&all).await);
    }
    services
}

async fn of_many_requests_to_three_instances_exactly_the_quota_passes_whatever_address_they_claim(ground: Arc<Ground>) {
    const REQUESTS: usize = 10_000;
    let services = instances(&ground, 3, &redis_url(), &[("RATE_LIMIT_MAX", "100")]).await;
    let mut asking = tokio::task::JoinSet::new();
    for client in 0..48 {
        let stranger = services[client % 3].stranger();
        asking.spawn(async move {
            let mut passed = 0;
            for number in (client..REQUESTS).step_by(48) {
                let claimed = format!("198.51.100.{}", number % 256);
                let answer = stranger.ask("GET", "/api/nowhere", &[("x-forwarded-for", &claimed)], b"").await;
                match answer.status {
                    404 => passed += 1,
                    429 => assert_eq!(answer.code(), "rate_limited"),
                    other => panic!("{other}: {}", answer.text()),
                }
            }
            passed
        });
    }
    assert_eq!(asking.join_all().await.into_iter().sum::<usize>(), 100);
    let refused = services[1].stranger().get("/api/nowhere").await.expect(429);
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((800..=900).contains(&after), "{after}: the first of them leaves the window of 15 minutes");
    assert!(refused.header("ratelimit").unwrap().starts_with("\"address\";r=0;t="), "{refused:?}");
    services[2].stranger().get("/health").await.expect(200);
}

async fn a_signed_in_request_costs_one_round_trip_and_its_account_is_counted_everywhere(ground: Arc<Ground>) {
    let services = instances(&ground, 2, &redis_url(), &[("RATE_LIMIT_ACCOUNT_MAX", "20")]).await;
    let account = services[0].account(Role::User).await;
    let clients = services.iter().map(|service| service.stranger().with_token(account.client.token())).collect::<Vec<_>>();
    let asked = || services.iter().map(|service| service.app.redis.as_ref().unwrap().counts().asked).sum::<u64>();
    let before = asked();
    for number in 0..20 {
        let answer = clients[number % 2].get("/api/users/me").await.expect(200);
        assert!(answer.header("ratelimit").unwrap().starts_with("\"address\";r="), "{answer:?}");
    }
    let questions = asked() - before;
    // The first on each instance asks once more when it knows whose session it is; a script that is new there is sent once more, and what the sign-in left to
    // be told may come meanwhile. Two questions for each would be 40.
    assert!((20..=30).contains(&questions), "{questions} questions for 20 requests");
    for client in &clients {
        let refused = client.get("/api/users/me").await.expect(429);
        assert!(refused.header("ratelimit").unwrap().starts_with("\"account\";r=0;t="), "{refused:?}");
    }
    // Strangers at the same address, and other accounts, are not refused for it.
    services[0].stranger().get("/api/products").await.expect(200);
    services[0].account(Role::User).await.client.get("/api/users/me").await.expect(200);
}

async fn a_session_that_has_ended_spends_nothing_of_its_account(ground: Arc<Ground>) {
    let services = instances(&ground, 2, &redis_url(), &[("RATE_LIMIT_ACCOUNT_MAX", "20")]).await;
    let account = services[0].account(Role::User).await;
    let other = services[0].signed_in(account.id).await;
    other.client.post("/api/auth/logout", &json!({"refresh_token": other.refresh_token})).await.expect(204);
    for service in &services {
        let thief = service.stranger().with_token(other.client.token());
        for _ in 0..25 {
            thief.get("/api/users/me").await.expect(401);
        }
    }
    account.client.get("/api/users/me").await.expect(200);
}

async fn letters_to_one_mailbox_are_counted_everywhere(ground: Arc<Ground>) {
    let services = instances(&ground, 2, &redis_url(), &[]).await;
    let email = "letters@example.com";
    let stranger = services[0].stranger();
    stranger.post("/api/auth/register", &json!({"email": email, "name": "Letters", "password": PASSWORD})).await.expect(201);
    for number in 0..12 {
        services[number % 2].stranger().post("/api/auth/forgot-password", &json!({"email": email})).await.expect(202);
    }
    let done = "SELECT count(*) AS n FROM jobs WHERE state IN ('waiting', 'running')";
    for service in &services {
        service.app.jobs.start();
    }
    within(RECOVERY, "the errands are done", || async { ground.number(done).await == 0 }).await;
    let letters = ground.number("SELECT count(*) AS n FROM jobs WHERE unique_key LIKE 'reset_password:%'").await;
    assert_eq!(letters, 5, "five an hour, from both together");
}

async fn a_body_that_is_refused_unread_is_counted_too(ground: Arc<Ground>) {
    let services = instances(&ground, 1, &redis_url(), &[("RATE_LIMIT_MAX", "10"), ("BODY_LIMIT", "10")]).await;
    let stranger = services[0].stranger();
    for _ in 0..5 {
        stranger.ask("POST", "/api/auth/login", &[("content-type", "application/json")], b"more than ten bytes").await.expect(413);
    }
    // They are counted behind the answer's back, so that fewer others pass than the quota has.
    let passed = AtomicU32::new(0);
    within(RECOVERY, "the quota is used up", || async {
        let status = stranger.get("/api/nowhere").await.status;
        passed.fetch_add(u32::from(status == 404), Ordering::Relaxed);
        status == 429
    })
    .await;
    assert!(passed.load(Ordering::Relaxed) < 10, "{passed:?}");
}

async fn without_redis_nothing_fails_and_limits_hold_in_parts(ground: Arc<Ground>) {
    let url = redis_url();
    let (credentials, address) = url.rsplit_once('@').unwrap();
    let proxy = FaultProxy::start(address.parse().unwrap()).await.unwrap();
    let url = format!("{credentials}@{}", proxy.address());
    let pairs = [("RATE_LIMIT_MAX", "100"), ("INSTANCES", "2"), ("REDIS_TIMEOUT", "100ms")];
    let services = instances(&ground, 2, &url, &pairs).await;
    let health = async |client: &Client| client.get("/health").await.expect(200).json()["status"].as_str().unwrap().to_owned();
    let strangers: Vec<_> = services.iter().map(Service::stranger).collect();
    for stranger in &strangers {
        within(RECOVERY, "it is whole", || async { health(stranger).await == "ok" }).await;
    }
    for fault in [Fault::Blackhole, Fault::Refuse] {
        proxy.set(fault);
        let mut longest = Duration::ZERO;
        for stranger in &strangers {
            for _ in 0..60 {
                let begun = Instant::now();
                let answer = stranger.get("/api/nowhere").await;
                longest = longest.max(begun.elapsed());
                assert!(matches!(answer.status, 404 | 429), "{fault:?}: {}", answer.text());
            }
            assert_eq!(health(stranger).await, "degraded", "{fault:?}");
            stranger.get("/api/nowhere").await.expect(429);
        }
        // 100 ms, and what a busy machine takes to wake somebody; the drill of `redis-loss` looks closer.
        assert!(longest < Duration::from_secs(1), "{fault:?}: {longest:?}");
        proxy.set(Fault::Ok);
        for stranger in &strangers {
            within(RECOVERY, "it is whole again", || async { health(stranger).await == "ok" }).await;
        }
    }
}

async fn what_is_wrong_with_redis_is_told_to_the_operator_without_the_password(ground: Arc<Ground>) {
    let (right, place) = (redis_url(), redis_url().rsplit_once('@').unwrap().1.to_owned());
    let wrong = format!("redis://:wr%C3%B6ng-word@{place}");
    for (url, status) in [(&right, "ok"), (&wrong, "degraded")] {
        let server = Server::start(&ground.pairs(&[("REDIS_URL", url), ("REDIS_PREFIX", ground.name()), ("REDIS_TIMEOUT", "5s")]));
        server.client().get("/api/products").await.expect(200);
        assert_eq!(server.client().get("/health").await.expect(200).json()["status"], status);
        let operator = Client::new(server.management);
        let redis = operator.get("/health").await.expect(200).json()["redis"].clone();
        let metrics = operator.get("/metrics").await.expect(200).text();
        let metric = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
        if status == "ok" {
            assert_eq!((&redis["answers"], &redis["error"], &redis["fallbacks"]), (&json!(true), &json!(null), &json!(0)));
            assert_eq!((metric("mainstay_redis_answers"), metric("mainstay_redis_fallbacks_total")), (Some(1.0), Some(0.0)), "{metrics}");
            assert!(metric("mainstay_redis_question_seconds_count") >= Some(1.0), "{metrics}");
            assert!(metrics.contains("mainstay_redis_question_seconds_bucket{le=\"0.0025\"}"), "{metrics}");
            continue;
        }
        let cause = "the user or the password in REDIS_URL is not the right one";
        assert!(redis["error"].as_str().unwrap().starts_with(cause) && redis["answers"] == false, "{redis}");
        assert!(redis["fallbacks"].as_u64() >= Some(1) && metric("mainstay_redis_answers") == Some(0.0), "{redis}");
        let said = server.output();
        assert!(said.contains(cause) && said.contains(&place), "{said}");
        assert!(!said.contains("ng-word") && !redis.to_string().contains("ng-word"), "{said}");
    }
}

#[test]
fn an_address_of_redis_that_would_believe_anybody_is_refused_at_the_start() {
    let missing = std::env::temp_dir().join("there-is-no-such-file.pem").display().to_string();
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("REDIS_URL", "rediss://:marked-secret@redis.internal:6380#insecure")], "REDIS_URL must have no `#`"),
        (&[("REDIS_URL", "rediss://redis.internal"), ("REDIS_CA_FILE", &missing)], "REDIS_CA_FILE cannot be read"),
        (&[("REDIS_URL", "redis://redis.internal"), ("REDIS_CA_FILE", &missing)], "REDIS_CA_FILE stands beside a REDIS_URL without TLS"),
        (&[("REDIS_URL", "rediss://redis.internal"), ("REDIS_CERT_FILE", &missing)], "REDIS_KEY_FILE is needed"),
    ];
    for (settings, words) in cases {
        let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let output = process::run(&settings, &["serve"], b"");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.contains(words) && !told.contains("marked"), "{told}");
    }
}
