//! Ten thousand wrong sign-ins a minute, from one address and then from many, beside people who sign in and read from homes of their own, and others who sign in
//! from where the service has never seen them.
//!
//! Addresses are told by `X-Forwarded-For`, as behind a balancer. The limit of an address is out of the way: it would refuse the flood long before, and what is
//! tried is what stands behind it.

mod newcomers;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{NOISE, latencies, memory, seconds};
use crate::Plan;
use crate::caller::{Caller, text};
use crate::client::request;
use crate::load::Load;
use crate::outcome::{Line, Outcome, Plot, time};
use crate::proxy::Proxy;
use crate::record::Record;
use crate::target::{PASSWORD, Program};
use crate::watch::{Watch, cpu};

const PER_MINUTE: f64 = 10_000.0;
/// Tries that wait for an answer at once: more than a room of sign-ins holds, and a bound for us.
const ATTACKERS: usize = 64;
/// People who sign in, each from a home of its own.
const PEOPLE: usize = 8;
/// Of all of them, a second: often enough for a median, and far from what the cores can hash.
const SIGN_INS: f64 = 4.0;
const READS: f64 = 80.0;
/// The beginning of everything warms up.
const WARM: Duration = Duration::from_secs(2);
const STRETCH: Duration = Duration::from_secs(30);
/// The free tries of an address and of the accounts are used up after it. They are few, and no part of what goes on for hours.
const LEAD: Duration = Duration::from_secs(2);
/// What an address may guess in an hour, at all accounts together.
const GUESSES: u64 = 114;
/// More than in the calm, of the whole machine, and of what honest people cause at the database.
const SHARE: f64 = 0.05;
/// From everywhere: a guess a second for each core, and what a minute of it would be at once.
const GUESSES_A_SECOND: f64 = 1.0;
const AT_ONCE: f64 = 60.0;
/// A sign-in costs a core some 20 ms, and half of the cores hash: what it may wait for others.
const LONGER: Duration = Duration::from_millis(10);
/// Who signs in from where he was never seen is told to come back while everybody guesses, once as a rule.
const NEWCOMER: Duration = Duration::from_secs(3);
const MEMORY_MIB: f64 = 96.0;

/// A stretch of time: when it was, what of the machine the service took, and how often it asked the database.
struct Stretch {
    word: &'static str,
    span: (Duration, Duration),
    cpu: Option<f64>,
    asked: Option<u64>,
}

impl Stretch {
    fn is_from_one(&self) -> bool {
        self.word == "from one address"
    }
}

/// What is watched from outside.
struct Outside {
    begun: Instant,
    pid: u32,
    proxy: Option<Proxy>,
    /// Seconds after the beginning, and the share of the machine since the point before.
    points: Vec<(f64, f64)>,
}

impl Outside {
    async fn stretch(&mut self, word: &'static str, length: Duration) -> Stretch {
        let from = self.begun.elapsed();
        let (cpu_before, asked_before) = (cpu(self.pid), self.proxy.as_ref().map(Proxy::asked));
        let mut last = (from, cpu_before);
        while self.begun.elapsed() < from + length {
            tokio::time::sleep(Duration::from_millis(500).min((from + length).saturating_sub(self.begun.elapsed()))).await;
            let now = (self.begun.elapsed(), cpu(self.pid));
            self.points.extend(share(last, now).map(|share| (now.0.as_secs_f64(), share * 100.0)));
            last = now;
        }
        let span = (from, self.begun.elapsed());
        let asked = self.proxy.as_ref().zip(asked_before).map(|(proxy, before)| proxy.asked() - before);
        Stretch { word, span, cpu: share((from, cpu_before), last), asked }
    }
}

/// The part of all cores that was taken between two looks.
fn share((from, before): (Duration, Option<Duration>), (to, after): (Duration, Option<Duration>)) -> Option<f64> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let length = to.saturating_sub(from).as_secs_f64().max(0.001) * cores as f64;
    Some(after?.saturating_sub(before?).as_secs_f64() / length)
}

pub(super) async fn run(plan: &Plan, program: &Program, database: Option<&str>) -> Result<Outcome, String> {
    let (proxy, own) = match database {
        Some(url) => {
            let (proxy, url) = Proxy::before(url, 5432).await?;
            (Some(proxy), vec![("DATABASE_URL", url)])
        }
        None => (None, Vec::new()),
    };
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let service = program.start(&program.settings("one", &own)).await?;
    let tokens = people(service.public).await?;
    newcomers::register(service.public).await?;
    let begun = Instant::now();
    let watch = Watch::new(service.pid(), begun);
    let (sign_ins, reads) = (sign_ins(service.public).go(begun), reads(service.public, &tokens).go(begun));
    let newcomers = newcomers::go(service.public, begun);
    tokio::time::sleep(WARM).await;
    let mut outside = Outside { begun, pid: service.pid(), proxy, points: Vec::new() };
    let length = plan.length(STRETCH);
    let calm = outside.stretch("in the calm", length).await;
    let mut attacks = Vec::new();
    for (word, everywhere) in [("from one address", false), ("from many addresses", true)] {
        let attack = attack(service.public, everywhere).go(begun);
        let lead = outside.stretch(word, LEAD).await.span.0;
        let stretch = outside.stretch(word, length).await;
        attacks.push(((lead, stretch.span.1), stretch, attack.stop().await?));
    }
    let honest = Honest { sign_ins: sign_ins.stop().await?, newcomers: newcomers.stop().await?, reads: reads.stop().await? };
    let mut outcome = Outcome::default();
    for (_, stretch, attack) in &attacks {
        guesses(&mut outcome, stretch, attack);
        served(&mut outcome, &honest, stretch);
        waits(&mut outcome, &honest, &calm, stretch);
        costs(&mut outcome, &calm, stretch);
    }
    for (what, record) in honest.all() {
        if let Some(failure) = &record.failure {
            outcome.note(format!("honest {what}: the first failure"), failure);
        }
    }
    let harm = (attacks[0].0.0, attacks[1].0.1);
    outcome.plots.push(latencies("latency of the honest, ms", &[("sign-ins:", &honest.sign_ins), ("reads:", &honest.reads)], harm));
    let line = Line { name: "of all cores".to_owned(), points: outside.points };
    outcome.plots.push(Plot {
        title: "what the service takes of the machine, %".to_owned(),
        lines: vec![line],
        logarithmic: false,
        harm: Vec::new(),
    });
    memory(&mut outcome, Some(&watch), harm, MEMORY_MIB);
    for plot in &mut outcome.plots {
        plot.harm = attacks.iter().map(|(span, _, _)| seconds(*span)).collect();
    }
    Ok(outcome)
}

fn email(number: usize) -> String {
    format!("person-{number}@example.com")
}

fn home(number: usize) -> String {
    format!("198.51.100.{}", number + 1)
}

/// Opens their accounts, and signs them in from home.
async fn people(address: SocketAddr) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    for number in 0..PEOPLE {
        let person = Caller::stranger(address).from(&home(number));
        person.register(&email(number)).await?;
        tokens.push(text(&person.sign_in(&email(number)).await?, "access_token"));
    }
    Ok(tokens)
}

fn sign_in(from: &str, email: &str, password: &str) -> Vec<u8> {
    let body = json!({"email": email, "password": password}).to_string();
    request("POST", "/api/auth/login", &[("x-forwarded-for", from)], body.as_bytes())
}

fn sign_ins(address: SocketAddr) -> Load {
    let requests = (0..PEOPLE).map(|number| sign_in(&home(number), &email(number), PASSWORD)).collect();
    Load::of(address, Vec::new(), PEOPLE).asking(requests).at_rate(SIGN_INS)
}

fn reads(address: SocketAddr, tokens: &[String]) -> Load {
    let asks = |(number, token): (usize, &String)| {
        request("GET", "/api/users/me", &[("authorization", &format!("Bearer {token}")), ("x-forwarded-for", &home(number))], b"")
    };
    Load::of(address, Vec::new(), PEOPLE).asking(tokens.iter().enumerate().map(asks).collect()).at_rate(READS)
}

/// Wrong passwords, half of them for accounts that exist.
fn attack(address: SocketAddr, everywhere: bool) -> Load {
    let guess = |number: usize| {
        let from = if everywhere { format!("198.18.{}.{}", number / 250 % 250, number % 250 + 1) } else { "203.0.113.66".to_owned() };
        let target = if number.is_multiple_of(2) { email(number / 2 % PEOPLE) } else { format!("nobody-{number}@example.com") };
        sign_in(&from, &target, &format!("a wrong guess number {number}"))
    };
    let mut load = Load::of(address, Vec::new(), ATTACKERS).asking((0..10_000).map(guess).collect()).at_rate(PER_MINUTE / 60.0);
    // A guess that was looked at is answered with 401; others are refused, and told when to come back.
    load.served = 401;
    load
}

/// What the honest saw.
struct Honest {
    /// From home.
    sign_ins: Record,
    /// From where nobody has seen them; one who is told to come back and does is refused meanwhile, and not lost.
    newcomers: Record,
    reads: Record,
}

impl Honest {
    fn all(&self) -> [(&'static str, &Record); 3] {
        [("sign-ins from home", &self.sign_ins), ("sign-ins from elsewhere", &self.newcomers), ("reads", &self.reads)]
    }
}

fn guesses(outcome: &mut Outcome, stretch: &Stretch, attack: &Record) {
    let (word, tries) = (stretch.word, attack.all().sum);
    let said = format!("{} wrong, {} refused, {} anything else", tries.served.count(), tries.refused, tries.failed);
    outcome.want(format!("{word}: answers to guesses"), said, "wrong, or refused for now", tries.failed == 0);
    let looked_at = tries.served.count();
    let (most, wanted) = if stretch.is_from_one() {
        (GUESSES, format!("at most {GUESSES}, in an hour"))
    } else {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let length = (LEAD + stretch.span.1 - stretch.span.0).as_secs_f64();
        let most = (cores * (AT_ONCE + GUESSES_A_SECOND * length)) as u64;
        (most, format!("at most {most}"))
    };
    outcome.want(format!("{word}: guesses at which a password was looked at"), looked_at, wanted, looked_at <= most);
}

/// Nobody honest is kept out.
fn served(outcome: &mut Outcome, honest: &Honest, stretch: &Stretch) {
    for (what, record) in honest.all() {
        let all = record.between(stretch.span.0, stretch.span.1).sum;
        // A newcomer who is not in after all is noted as failed.
        let lost = all.failed + if std::ptr::eq(record, &honest.newcomers) { 0 } else { all.refused };
        let value = format!("{lost} of {}", all.served.count() + lost);
        outcome.want(format!("{}: honest {what} that were not served", stretch.word), value, "none", lost == 0);
    }
}

fn waits(outcome: &mut Outcome, honest: &Honest, calm: &Stretch, stretch: &Stretch) {
    let word = stretch.word;
    let quantile = |record: &Record, stretch: &Stretch, share| record.between(stretch.span.0, stretch.span.1).sum.served.quantile(share);
    let mut want = |what: &str, before: Option<Duration>, meanwhile: Option<Duration>, most: Duration| {
        let shown = format!("{}, in the calm {}", time(meanwhile), time(before));
        outcome.want(
            format!("{word}: honest {what}"),
            shown,
            format!("at most {}", time(Some(most))),
            meanwhile.is_some_and(|meanwhile| meanwhile <= most),
        );
    };
    let median = |record, stretch| quantile(record, stretch, 0.5);
    let (before, meanwhile) = (median(&honest.sign_ins, calm), median(&honest.sign_ins, stretch));
    want("sign-ins from home, median", before, meanwhile, before.unwrap_or_default().mul_f64(1.1) + LONGER);
    let (before, meanwhile) = (median(&honest.newcomers, calm), median(&honest.newcomers, stretch));
    want("sign-ins from elsewhere, median until they are in", before, meanwhile, NEWCOMER);
    let p99 = |stretch| quantile(&honest.reads, stretch, 0.99);
    let (before, meanwhile) = (p99(calm), p99(stretch));
    want("reads, 99th percentile", before, meanwhile, before.map_or(NOISE, |before| (before * 2).max(NOISE)));
    let all = honest.newcomers.between(stretch.span.0, stretch.span.1).sum;
    let shown = format!("{} times, for {} who signed in", all.refused, all.served.count());
    outcome.note(format!("{word}: honest sign-ins from elsewhere told to come back"), shown);
}

/// What the service takes of the machine, and of the database.
fn costs(outcome: &mut Outcome, calm: &Stretch, stretch: &Stretch) {
    let word = stretch.word;
    if let (Some(before), Some(meanwhile)) = (calm.cpu, stretch.cpu) {
        let shown = format!("{:.1} %, in the calm {:.1} %", meanwhile * 100.0, before * 100.0);
        outcome.want(format!("{word}: what the service takes of the machine"), shown, "at most 5 points more", meanwhile - before <= SHARE);
    }
    if let (Some(before), Some(meanwhile)) = (calm.asked, stretch.asked) {
        let rate = |asked: u64, stretch: &Stretch| asked as f64 / (stretch.span.1 - stretch.span.0).as_secs_f64();
        let (before, meanwhile) = (rate(before, calm), rate(meanwhile, stretch));
        let shown = format!("{meanwhile:.0} a second, in the calm {before:.0}");
        outcome.want(format!("{word}: round trips to the database"), shown, "at most 5 % more", meanwhile <= before * (1.0 + SHARE));
    }
}
