//! The drill of the flood: thousands of wrong sign-ins a minute from one address, and beside them people who sign in and read from other addresses.
//!
//! Calm and attack take turns of a few seconds, so that both meet the same machine. It is held when the medians of the honest are at most a tenth longer under
//! the attack. Addresses are told by `X-Forwarded-For`, as behind a balancer; the limit per address is out of the way, because it is not what is tried here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::client::{Answer, Client};
use crate::ground::{Ground, PASSWORD};
use crate::process::Server;

/// People who sign in, each from a home of its own.
const PEOPLE: usize = 8;
/// Between two sign-ins of anybody: often enough for a median, and far from what the cores can hash.
const SIGN_IN_PAUSE: Duration = Duration::from_millis(150);
const READ_PAUSE: Duration = Duration::from_millis(10);
/// Tries of the attacker that wait for an answer at once: more than a room of sign-ins holds on two cores, and a bound for this process.
const IN_FLIGHT_MAX: usize = 128;
const ATTACKER: &str = "203.0.113.66";
/// The first turn of each kind warms up caches and is not counted.
const WARM: usize = 1;
/// A median under attack may be this much of the calm one.
const HELD: f64 = 1.1;

/// How long and how hard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Both together.
    pub(crate) calm_and_attack: Duration,
    /// One turn.
    pub(crate) slice: Duration,
    /// Wrong sign-ins a minute.
    pub(crate) per_minute: u32,
}

/// What the honest saw in one of the two weathers.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    sign_ins: Vec<Duration>,
    reads: Vec<Duration>,
    /// Honest requests that did not get what they came for.
    pub(crate) refused: u64,
}

impl Weather {
    pub(crate) fn sign_ins(&self) -> usize {
        self.sign_ins.len()
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.len()
    }
}

/// The figures.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) calm: Weather,
    pub(crate) attack: Weather,
    attempts: BTreeMap<u16, u64>,
    /// Tries for which the attacker had no place: the service answered too slowly for the rate.
    late: u64,
}

impl Report {
    /// Wrong sign-ins that were answered.
    pub(crate) fn attempts(&self) -> u64 {
        self.attempts.values().sum()
    }

    /// Did the honest notice nothing?
    pub(crate) fn held(&self) -> bool {
        let within = |calm: &[Duration], attack: &[Duration]| at(attack, 0.5) <= at(calm, 0.5).mul_f64(HELD);
        let refused = self.calm.refused + self.attack.refused;
        refused == 0 && within(&self.calm.sign_ins, &self.attack.sign_ins) && within(&self.calm.reads, &self.attack.reads)
    }
}

fn at(times: &[Duration], place: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get((times.len() as f64 * place) as usize).copied().unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, calm: &[Duration], attack: &[Duration]| {
            let change = (ms(at(attack, 0.5)) / ms(at(calm, 0.5)).max(f64::EPSILON) - 1.0) * 100.0;
            write!(f, "  {name:<9} median {:.2} ms calm, {:.2} ms under attack ({change:+.0} %); ", ms(at(calm, 0.5)), ms(at(attack, 0.5)))?;
            writeln!(f, "p99 {:.2} ms, {:.2} ms; {} and {} of them", ms(at(calm, 0.99)), ms(at(attack, 0.99)), calm.len(), attack.len())
        };
        line(f, "sign-ins", &self.calm.sign_ins, &self.attack.sign_ins)?;
        line(f, "reads", &self.calm.reads, &self.attack.reads)?;
        writeln!(f, "  honest requests refused: {} calm, {} under attack", self.calm.refused, self.attack.refused)?;
        let answers: Vec<_> = self.attempts.iter().map(|(status, count)| format!("{count} with {status}")).collect();
        writeln!(f, "  wrong sign-ins: {} answered ({}), {} not sent for want of answers", self.attempts(), answers.join(", "), self.late)?;
        write!(f, "  {}", if self.held() { "held" } else { "fell" })
    }
}

/// Floods a service on this ground.
pub(crate) async fn run(ground: &Ground, plan: Plan) -> Report {
    let server = Server::start(&ground.pairs(&[("TRUSTED_PROXIES", "127.0.0.1"), ("RATE_LIMIT_MAX", "1000000000"), ("SESSIONS_MAX", "1000")]));
    let (client, report) = (server.client(), Arc::new(Mutex::new(Report::default())));
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        let body = json!({"email": email(number), "name": "Somebody", "password": PASSWORD});
        ask(&client, &home(number), "/api/auth/register", &body).await.expect(201);
        let signed = sign_in(&client, number).await.expect(200).data();
        people.push(client.with_token(signed["access_token"].as_str().unwrap()));
    }
    let turns = (plan.calm_and_attack.as_secs_f64() / plan.slice.as_secs_f64()).ceil() as usize;
    for turn in 0..turns + 2 * WARM {
        let (until, attacked) = (Instant::now() + plan.slice, turn % 2 == 1);
        let attack = async {
            if attacked {
                flood(&client, plan.per_minute, until, &report).await;
            }
        };
        let (times, reads, ()) = tokio::join!(sign_ins(&client, until), reads(&people, until), attack);
        let mut report = report.lock().unwrap();
        let weather = if attacked { &mut report.attack } else { &mut report.calm };
        weather.refused += times.1 + reads.1;
        if turn >= 2 * WARM {
            weather.sign_ins.extend(times.0);
            weather.reads.extend(reads.0);
        }
    }
    Arc::into_inner(report).unwrap().into_inner().unwrap()
}

fn email(number: usize) -> String {
    format!("person-{number}@example.com")
}

fn home(number: usize) -> String {
    format!("198.51.100.{}", number + 1)
}

async fn ask(client: &Client, from: &str, path: &str, body: &serde_json::Value) -> Answer {
    let headers = [("content-type", "application/json"), ("x-forwarded-for", from)];
    client.ask("POST", path, &headers, body.to_string().as_bytes()).await
}

async fn sign_in(client: &Client, number: usize) -> Answer {
    ask(client, &home(number), "/api/auth/login", &json!({"email": email(number), "password": PASSWORD})).await
}

/// Times of those that succeeded, and how many did not.
async fn sign_ins(client: &Client, until: Instant) -> (Vec<Duration>, u64) {
    let (mut times, mut refused) = (Vec::new(), 0);
    for number in (0..PEOPLE).cycle() {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        match sign_in(client, number).await.status {
            200 => times.push(begun.elapsed()),
            _ => refused += 1,
        }
        tokio::time::sleep(SIGN_IN_PAUSE).await;
    }
    (times, refused)
}

async fn reads(people: &[Client], until: Instant) -> (Vec<Duration>, u64) {
    let (mut times, mut refused) = (Vec::new(), 0);
    for (number, person) in people.iter().enumerate().cycle() {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        match person.ask("GET", "/api/users/me", &[("x-forwarded-for", &home(number))], b"").await.status {
            200 => times.push(begun.elapsed()),
            _ => refused += 1,
        }
        tokio::time::sleep(READ_PAUSE).await;
    }
    (times, refused)
}

/// Wrong passwords in an even beat, half of them for accounts that exist.
async fn flood(client: &Client, per_minute: u32, until: Instant, report: &Arc<Mutex<Report>>) {
    let mut beat = tokio::time::interval(Duration::from_secs(60) / per_minute);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (places, mut flying) = (Arc::new(Semaphore::new(IN_FLIGHT_MAX)), JoinSet::new());
    for number in 0_usize.. {
        beat.tick().await;
        if Instant::now() >= until {
            break;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            report.lock().unwrap().late += 1;
            continue;
        };
        let (client, report) = (client.clone(), report.clone());
        let target = if number.is_multiple_of(2) { email(number / 2 % PEOPLE) } else { format!("nobody-{number}@example.com") };
        flying.spawn(async move {
            let body = json!({"email": target, "password": format!("a wrong guess number {number}")});
            let answer = ask(&client, ATTACKER, "/api/auth/login", &body).await;
            *report.lock().unwrap().attempts.entry(answer.status).or_default() += 1;
            drop(place);
        });
        while flying.try_join_next().is_some() {}
    }
    // Those under way belong to this turn: the next one is calm.
    while flying.join_next().await.is_some() {}
}
