//! The process is killed at any moment of registering accounts, started again on the same database, and must have left nothing that is half there. Again and again.
//!
//! SIGKILL ends a process, not the machine: that a database survives the loss of power is the database's promise.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join;
use rustix::process::Signal;

use crate::Plan;
use crate::caller::{Caller, registration};
use crate::chance::Chance;
use crate::client::{Connection, request};
use crate::outcome::{Line, Outcome, Plot, time};
use crate::sql;
use crate::target::{Program, Service};

const KILLS: u32 = 1_000;
const KILLS_SHORT: u32 = 30;
/// Registrations whose time is taken before anybody is killed.
const CALM: usize = 5;
/// In calm registrations: two that share a thread which hashes have their first answers before this, and not much before.
const LATEST: f64 = 4.0;
/// A killed process is gone at once.
const GONE: Duration = Duration::from_secs(10);

/// Each counts what must not be there.
const NEVER: [(&str, &str); 5] = [
    ("accounts without a profile", "SELECT count(*) FROM users u LEFT JOIN profiles p ON p.user_id = u.id WHERE p.user_id IS NULL"),
    ("profiles without an account", "SELECT count(*) FROM profiles p LEFT JOIN users u ON u.id = p.user_id WHERE u.id IS NULL"),
    ("addresses with two accounts", "SELECT count(*) FROM (SELECT email_folded FROM users GROUP BY email_folded HAVING count(*) > 1) AS twice"),
    ("sessions without an account", "SELECT count(*) FROM sessions s LEFT JOIN users u ON u.id = s.user_id WHERE u.id IS NULL"),
    ("refresh tokens without a session", "SELECT count(*) FROM refresh_tokens t LEFT JOIN sessions s ON s.id = t.session_id WHERE s.id IS NULL"),
];

/// What has been seen so far.
#[derive(Default)]
struct Seen {
    answered: i64,
    lost_done: i64,
    lost_undone: i64,
    /// Of [`NEVER`], in its order, the most that was counted at once.
    never: [i64; NEVER.len()],
    /// Accounts that were answered with 201 and are not there.
    missing: i64,
    /// Accounts that nobody asked for, or that are gone.
    odd: i64,
    wrong: Option<String>,
    /// Seconds after the beginning, and the milliseconds of a start.
    starts: Vec<(f64, f64)>,
}

/// What somebody who opens accounts until nobody answers has heard.
struct Heard {
    answered: Vec<String>,
    /// The address whose answer was lost, or refused: what is wrong then.
    lost: String,
    wrong: Option<String>,
}

pub(super) async fn run(plan: &Plan, program: &Program, database: &str) -> Result<Outcome, String> {
    let kills = if plan.short { KILLS_SHORT } else { KILLS };
    // Whoever sees it fall wants to know when the kills came, and every run other moments.
    let mut chance = Chance(SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64));
    let begun = Instant::now();
    let mut seen = Seen::default();
    let mut service = start(program, database, begun, &mut seen).await?;
    let calm = calm(service.public).await?;
    let mut accounts = sql::number(database, "SELECT count(*) FROM users").await?;
    for kill in 0..kills {
        let delay = calm.mul_f64(LATEST * chance.fraction());
        let registrars = join(register_on(service.public, format!("{kill}-a")), register_on(service.public, format!("{kill}-b")));
        let killing = async {
            tokio::time::sleep(delay).await;
            service.signal(Signal::KILL);
        };
        let ((one, other), ()) = join(registrars, killing).await;
        if service.wait(GONE).await.is_none() {
            return Err("a killed process did not end".to_owned());
        }
        service = start(program, database, begun, &mut seen).await?;
        let place = format!("kill {kill}, after {}", time(Some(delay)));
        for heard in [one, other] {
            accounts += check(&heard, database, service.public, &place, &mut seen).await?;
        }
        whole(database, accounts, &place, &mut seen).await?;
    }
    Ok(judged(&seen, kills, calm, accounts))
}

async fn start(program: &Program, database: &str, begun: Instant, seen: &mut Seen) -> Result<Service, String> {
    let starting = Instant::now();
    // A small pool: it is opened anew each time.
    let own = [("DATABASE_URL", database), ("DB_POOL_MIN", "1")];
    let service = program.start(&program.settings("one", &own)).await?;
    seen.starts.push((begun.elapsed().as_secs_f64(), starting.elapsed().as_secs_f64() * 1e3));
    Ok(service)
}

/// The median time of a registration when nothing else happens.
async fn calm(address: SocketAddr) -> Result<Duration, String> {
    let mut times = Vec::new();
    for number in 0..CALM {
        let begun = Instant::now();
        Caller::stranger(address).register(&format!("calm-{number}@example.com")).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[CALM / 2])
}

/// Opens accounts one after the other until nobody answers.
async fn register_on(address: SocketAddr, name: String) -> Heard {
    let mut heard = Heard { answered: Vec::new(), lost: String::new(), wrong: None };
    let mut connection = Connection::open(address, None).await.ok();
    loop {
        heard.lost = format!("kill-{name}-{}@example.com", heard.answered.len());
        let Some(open) = &mut connection else { return heard };
        match open.ask(&request("POST", "/api/auth/register", &[], registration(&heard.lost).to_string().as_bytes())).await {
            Ok(answer) if answer.status == 201 => heard.answered.push(std::mem::take(&mut heard.lost)),
            Ok(answer) => {
                heard.wrong = Some(answer.said());
                return heard;
            }
            Err(_) => return heard,
        }
    }
}

/// Looks for every account that was promised, and registers the address whose answer was lost: it is free, or it is taken and was so before. The accounts there are.
async fn check(heard: &Heard, database: &str, address: SocketAddr, place: &str, seen: &mut Seen) -> Result<i64, String> {
    let promised = i64::try_from(heard.answered.len()).unwrap_or(i64::MAX);
    if promised > 0 {
        // Addresses of our own making, which need no escapes.
        let list = heard.answered.iter().map(|email| format!("'{email}'")).collect::<Vec<_>>().join(", ");
        let text = format!("SELECT count(*) FROM users u JOIN profiles p ON p.user_id = u.id WHERE u.email_folded IN ({list})");
        seen.missing += promised - sql::number(database, &text).await?;
    }
    seen.answered += promised;
    let done = sql::number(database, &format!("SELECT count(*) FROM users WHERE email_folded = '{}'", heard.lost)).await?;
    *(if done == 1 { &mut seen.lost_done } else { &mut seen.lost_undone }) += 1;
    let again = Caller::stranger(address).ask("POST", "/api/auth/register", Some(&registration(&heard.lost))).await?;
    if again.status != if done == 1 { 409 } else { 201 } {
        seen.wrong.get_or_insert(format!("{place}: {} again: {}", heard.lost, again.said()));
    }
    if let Some(wrong) = &heard.wrong {
        seen.wrong.get_or_insert(format!("{place}: {}: {wrong}", heard.lost));
    }
    Ok(promised + 1)
}

async fn whole(database: &str, accounts: i64, place: &str, seen: &mut Seen) -> Result<(), String> {
    for (most, (what, text)) in seen.never.iter_mut().zip(NEVER) {
        let count = sql::number(database, text).await?;
        *most = count.max(*most);
        if count > 0 {
            seen.wrong.get_or_insert(format!("{place}: {count} {what}"));
        }
    }
    let there = sql::number(database, "SELECT count(*) FROM users").await?;
    if there != accounts {
        seen.odd = seen.odd.max((there - accounts).abs());
        seen.wrong.get_or_insert(format!("{place}: {there} accounts, and {accounts} were opened"));
    }
    Ok(())
}

fn judged(seen: &Seen, kills: u32, calm: Duration, accounts: i64) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.note("kills", kills);
    outcome.note("a registration when nobody is killed", time(Some(calm)));
    let Seen { answered, lost_done, lost_undone, .. } = seen;
    outcome.note("registrations", format!("{answered} answered; the answer lost: {lost_done} done, {lost_undone} not"));
    // A drill whose kills meet nothing but open doors shows nothing.
    outcome.want(
        "kills that came in the middle of a registration",
        lost_done + lost_undone,
        "every one, twice",
        lost_done + lost_undone == i64::from(kills) * 2,
    );
    for (count, (what, _)) in seen.never.iter().zip(NEVER) {
        outcome.want(what, count, "none, after every kill", *count == 0);
    }
    outcome.want("accounts that were answered with 201 and are not there", seen.missing, "none", seen.missing == 0);
    outcome.want(format!("of {accounts} accounts: not asked for, or gone"), seen.odd, "none", seen.odd == 0);
    let said = seen.wrong.as_deref().unwrap_or("free, or taken and so before");
    outcome.want("addresses whose answer was lost, asked for again", said, "free, or taken and so before", seen.wrong.is_none());
    let mut starts: Vec<f64> = seen.starts.iter().map(|(_, ms)| *ms).collect();
    starts.sort_by(f64::total_cmp);
    outcome.note("serving again after, median", time(starts.get(starts.len() / 2).map(|ms| Duration::from_secs_f64(ms / 1e3))));
    let line = Line { name: "from the start of the process to its first answer".to_owned(), points: seen.starts.clone() };
    outcome.plots.push(Plot { title: "serving again after each kill, ms".to_owned(), lines: vec![line], logarithmic: false, harm: Vec::new() });
    outcome
}
