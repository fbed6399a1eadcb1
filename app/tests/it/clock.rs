//! The clock jumps a day ahead and back under the running service. What counts time that has passed (limits, deadlines, caches) does not notice; what is
//! written down (tokens, sessions, mails) is judged by the clock of the moment, and nobody is locked out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::auth::Role;
use serde_json::json;

use crate::client::Answer;
use crate::ground::{ADMIN, Ground, PASSWORD, Service, Time, within};

const DAY: i64 = 86_400;
/// No request of these takes longer on a busy machine; one that waits for a clock would wait for a day.
const PROMPT: Duration = Duration::from_secs(10);

on_both! { a_clock_that_jumps_a_day_ahead_and_back_locks_nobody_out_and_stops_nothing }

/// Requests of this address that are left, and the seconds until the first of them is given back.
fn left(answer: &Answer) -> (u32, u64) {
    let field = answer.header("ratelimit").unwrap();
    let number = |name: &str| field.split(';').find_map(|part| part.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {field}"));
    (number("r=").parse().unwrap(), number("t=").parse().unwrap())
}

/// A whole tour of somebody at this time of day: signs in, reads, writes, refreshes, is written to.
async fn tour(ground: &Ground, service: &Service, word: &str) -> (String, String) {
    let begun = Instant::now();
    let stranger = service.stranger();
    let signed = stranger.post("/api/auth/login", &json!({"email": ADMIN, "password": PASSWORD})).await.expect(200).data();
    let token = |data: &serde_json::Value, name: &str| data[name].as_str().unwrap().to_owned();
    let client = stranger.with_token(token(&signed, "access_token"));
    let path = client.post("/api/products", &json!({"name": format!("Made {word}")})).await.expect(201).header("location").unwrap().to_owned();
    client.patch(&path, &json!({"name": format!("Changed {word}")})).await.expect(200);
    assert_eq!(stranger.get(&path).await.expect(200).data()["name"], format!("Changed {word}"));
    let refreshed = stranger.post("/api/auth/refresh", &json!({"refresh_token": token(&signed, "refresh_token")})).await.expect(200).data();
    stranger.with_token(token(&refreshed, "access_token")).get("/api/users/me").await.expect(200);
    let letters = ground.letters_to(ADMIN).await.len();
    stranger.post("/api/auth/forgot-password", &json!({"email": ADMIN})).await.expect(202);
    within(PROMPT, "a mail is written", || async { ground.letters_to(ADMIN).await.len() > letters }).await;
    assert!(begun.elapsed() < 3 * PROMPT, "{word}: {:?}", begun.elapsed());
    (token(&refreshed, "access_token"), token(&refreshed, "refresh_token"))
}

async fn a_clock_that_jumps_a_day_ahead_and_back_locks_nobody_out_and_stops_nothing(ground: Arc<Ground>) {
    let time = Time::new();
    let service = ground.start_at(time.clock(), &[("RATE_LIMIT_MAX", "1000")]).await;
    let stranger = service.stranger();
    let reader = service.account(Role::User).await;
    let (access, refresh) = tour(&ground, &service, "before").await;
    let (before, _) = left(&stranger.get("/api/nowhere").await.expect(404));

    time.pass(DAY);
    // The quota is of time that has passed, and none has.
    let (after, until) = left(&stranger.get("/api/nowhere").await.expect(404));
    assert!(after == before - 1 && until <= 900, "{before} were left, then {after}, for {until} s");
    stranger.with_token(access).get("/api/users/me").await.expect(401);
    let ahead = stranger.post("/api/auth/refresh", &json!({"refresh_token": refresh})).await.expect(200).data();
    let (access, refresh) = (ahead["access_token"].as_str().unwrap().to_owned(), ahead["refresh_token"].as_str().unwrap().to_owned());
    stranger.with_token(access.clone()).get("/api/users/me").await.expect(200);
    tour(&ground, &service, "ahead").await;

    time.pass(-DAY);
    // A token of tomorrow is none of today, but its session is: nobody has to sign in again.
    stranger.with_token(access).get("/api/users/me").await.expect(401);
    let back = stranger.post("/api/auth/refresh", &json!({"refresh_token": refresh})).await.expect(200).data();
    stranger.with_token(back["access_token"].as_str().unwrap()).get("/api/users/me").await.expect(200);
    reader.client.get("/api/users/me").await.expect(200);
    tour(&ground, &service, "back").await;
    let (last, until) = left(&stranger.get("/api/nowhere").await.expect(404));
    assert!(last < after && until <= 900, "{last} are left for {until} s");
    assert_eq!(ground.number("SELECT count(*) AS n FROM jobs WHERE state <> 'done'").await, 0);
    assert_eq!(stranger.get("/health").await.expect(200).json()["status"], "ok");
}
