//! Three instances: sign in on one, use on all, refresh on another, sign out on the third. Good everywhere, then nowhere.
//!
//! What is measured is the very next request: on every instance a reader waits with its connection made, and asks as soon as the end was answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use serde_json::json;

use crate::Plan;
use crate::caller::text;
use crate::client::{Answer, Connection, request};
use crate::fleet::{Fleet, INSTANCES};
use crate::outcome::{Line, Outcome, Plot, time};
use crate::sql::Database;
use crate::target::{PASSWORD, Program};

const ROUNDS: usize = 50;
/// Rounds of the other ways in which something ends: their accounts are new each time, and cost two hashes more.
const OTHER_ROUNDS: usize = 20;
const ME: &str = "/api/users/me";

/// What has been seen.
#[derive(Default)]
struct Seen {
    /// Requests with something that is good, and those of them that were refused.
    good: (usize, usize),
    /// Requests with something that has ended, and those of them that were not refused.
    ended: (usize, usize),
    first: Option<String>,
    /// When a refusal of what has ended was answered, in seconds, and how many milliseconds after it was asked for.
    refusals: Vec<(f64, f64)>,
}

/// A reader of each instance, with this token.
struct Readers {
    token: String,
    connections: Vec<Connection>,
}

impl Readers {
    /// Each asks once: it is good everywhere, whoever gave it.
    async fn everywhere(addresses: &[SocketAddr], token: String, seen: &mut Seen) -> Result<Self, String> {
        let connections = try_join_all(addresses.iter().map(|address| Connection::open(*address, None))).await.map_err(super::words)?;
        let mut readers = Self { token, connections };
        readers.good(seen).await;
        Ok(readers)
    }

    async fn ask(&mut self) -> Vec<(std::io::Result<Answer>, Duration)> {
        let request = request("GET", ME, &[("authorization", &format!("Bearer {}", self.token))], b"");
        let asking = self.connections.iter_mut().map(|connection| async {
            let begun = Instant::now();
            (connection.ask(&request).await, begun.elapsed())
        });
        join_all(asking).await
    }

    async fn good(&mut self, seen: &mut Seen) {
        for (answer, _) in self.ask().await {
            seen.good.0 += 1;
            let status = answer.map_or_else(|error| error.to_string(), |answer| answer.status.to_string());
            if status != "200" {
                seen.good.1 += 1;
                seen.first.get_or_insert(format!("{status} for what is good"));
            }
        }
    }

    /// It has ended: the next request is a 401, on every instance.
    async fn ended(&mut self, begun: Instant, seen: &mut Seen, how: &str) {
        for (number, (answer, took)) in self.ask().await.into_iter().enumerate() {
            seen.ended.0 += 1;
            let status = answer.map_or_else(|error| error.to_string(), |answer| answer.status.to_string());
            if status != "401" {
                seen.ended.1 += 1;
                seen.first.get_or_insert(format!("{status} of instance {number} after {how}"));
            }
            seen.refusals.push((begun.elapsed().as_secs_f64(), took.as_secs_f64() * 1e3));
        }
    }
}

pub(super) async fn run(plan: &Plan, program: Program, database: &Database) -> Result<Outcome, String> {
    let fleet = Fleet::start(program, database, plan.redis.as_deref(), &[]).await?;
    let (begun, mut seen) = (Instant::now(), Seen::default());
    let rounds = plan.number(ROUNDS);
    fleet.stranger(0).register("session@example.com").await?;
    for round in 0..rounds {
        signed_out(&fleet, round, begun, &mut seen).await?;
    }
    let (signed_out, others) = (std::mem::take(&mut seen.ended), plan.number(OTHER_ROUNDS));
    for round in 0..others {
        changed_and_disabled(&fleet, round, begun, &mut seen).await?;
    }
    let mut outcome = Outcome::default();
    outcome.note("instances", INSTANCES);
    let shown = |(asked, wrong): (usize, usize)| format!("{wrong} of {asked}");
    outcome.want("with what is good: requests that were refused", shown(seen.good), "none", seen.good.1 == 0);
    outcome.want(
        format!("after a sign-out, {rounds} times: requests that were not refused"),
        shown(signed_out),
        "none, from the very next on",
        signed_out.1 == 0,
    );
    outcome.want(
        format!("after a new password and a disabled account, {others} times: requests that were not refused"),
        shown(seen.ended),
        "none, from the very next on",
        seen.ended.1 == 0,
    );
    if let Some(first) = &seen.first {
        outcome.note("the first that was wrong", first);
    }
    let mut times: Vec<f64> = seen.refusals.iter().map(|(_, ms)| *ms).collect();
    times.sort_by(f64::total_cmp);
    outcome.note("such a refusal, median", time(times.get(times.len() / 2).map(|ms| Duration::from_secs_f64(ms / 1e3))));
    let line = Line { name: "refused".to_owned(), points: seen.refusals };
    outcome.plots.push(Plot { title: "refusals of what has ended: latency, ms".to_owned(), lines: vec![line], logarithmic: true, harm: Vec::new() });
    Ok(outcome)
}

/// Of one session there are two access tokens in the end, and both end with it. So does the refresh token.
async fn signed_out(fleet: &Fleet, round: usize, begun: Instant, seen: &mut Seen) -> Result<(), String> {
    let at = |step: usize| fleet.stranger(round + step);
    let addresses = fleet.addresses();
    let signed = at(0).sign_in("session@example.com").await?;
    let mut first = Readers::everywhere(&addresses, text(&signed, "access_token"), seen).await?;
    let refreshed = at(1).write("POST", "/api/auth/refresh", &json!({"refresh_token": signed["refresh_token"]})).await?;
    let mut second = Readers::everywhere(&addresses, text(&refreshed, "access_token"), seen).await?;
    at(2).with(&second.token).write("POST", "/api/auth/logout", &json!({})).await?;
    second.ended(begun, seen, "a sign-out").await;
    first.ended(begun, seen, "a sign-out").await;
    let again = at(0).ask("POST", "/api/auth/refresh", Some(&json!({"refresh_token": refreshed["refresh_token"]}))).await?;
    seen.ended.0 += 1;
    if again.status != 401 {
        seen.ended.1 += 1;
        seen.first.get_or_insert(format!("a refresh after a sign-out: {}", again.said()));
    }
    Ok(())
}

/// A new password ends the other sessions of an account and not the one that changed it; a disabled account has none.
async fn changed_and_disabled(fleet: &Fleet, round: usize, begun: Instant, seen: &mut Seen) -> Result<(), String> {
    let (one, other) = (fleet.stranger(round), fleet.stranger(round + 1));
    let (addresses, email) = (fleet.addresses(), format!("ends-{round}@example.com"));
    let id = one.register(&email).await?;
    let (lost, kept) = (one.sign_in(&email).await?, other.sign_in(&email).await?);
    let mut lost = Readers::everywhere(&addresses, text(&lost, "access_token"), seen).await?;
    let mut kept = Readers::everywhere(&addresses, text(&kept, "access_token"), seen).await?;
    let change = json!({"current_password": PASSWORD, "new_password": "another horse, another battery"});
    fleet.stranger(round + 2).with(&kept.token).write("POST", "/api/auth/change-password", &change).await?;
    lost.ended(begun, seen, "a new password").await;
    kept.good(seen).await;
    fleet.admins().await?[0].write("PATCH", &format!("/api/users/{id}"), &json!({"disabled": true})).await?;
    kept.ended(begun, seen, "the account was disabled").await;
    Ok(())
}
