//! The drill of a killed instance: SIGKILL in the middle of requests and jobs, behind a balancer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mainstay::jobs::Enqueued;
use mainstay::store::{Database, query};
use mainstay_app::mail::{Folder, Letter, To, Token, send};
use rustix::process::Signal;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::balancer::Balancer;
use super::fleet::{Fleet, INSTANCES, admin, product};
use crate::client::{Client, read_answer};
use crate::ground::{Ground, within};

/// Which one is killed.
const VICTIM: usize = 1;
const CLIENTS: usize = 9;
/// Requests before and after the kill.
const REQUESTS: usize = 300;
/// Jobs that are queued at a time until the victim has some in hand.
const JOBS: usize = 6;
/// Jobs that the victim must have in hand: as many as it does at once, but one.
const IN_HAND: u64 = 3;
/// A killed process is gone at once; a lease is a second, and the others look about once a second.
const SOON: Duration = Duration::from_secs(20);

pub(super) async fn a_killed_instance_fails_what_it_had_in_hand_and_its_jobs_are_done_once(ground: Arc<Ground>) {
    let mut fleet = Fleet::start(&ground, &[("JOBS_LEASE", "1s")]).await;
    let editor = admin(&fleet.client(0)).await;
    let path = product(&editor).await;
    let mails: Vec<_> = (0..INSTANCES).map(|number| ground.file(&format!("instance-{number}")).join("mail")).collect();
    let queued = keep_busy(&ground, &fleet, &mails[VICTIM]).await;

    let crowd = Crowd::start(&fleet.balancer, &path);
    crowd.reaches(REQUESTS).await;
    fleet.servers[VICTIM].signal(Signal::KILL);
    fleet.servers[VICTIM].wait(SOON);
    let gone = Instant::now();
    crowd.reaches(REQUESTS).await;
    judge(&crowd.stop().await, &fleet.balancer, gone);

    taken_over(&ground, &mails, &queued).await;
    // What is left goes on as if it had never been three.
    for number in (0..INSTANCES).filter(|number| *number != VICTIM) {
        fleet.client(number).with_token(editor.token()).get("/api/users/me").await.expect(200);
    }
}

/// Queues mails until the victim has some in hand that it cannot finish: where it would write them stands a pipe that nobody reads. All jobs.
async fn keep_busy(ground: &Ground, fleet: &Fleet, folder: &Path) -> BTreeSet<Uuid> {
    std::fs::create_dir_all(folder).unwrap();
    let (database, management, begun) = (ground.database().await, Client::new(fleet.servers[VICTIM].management), Instant::now());
    let mut queued = BTreeSet::new();
    while management.get("/health").await.expect(200).json()["jobs"]["running_here"].as_u64().unwrap() < IN_HAND {
        assert!(begun.elapsed() < SOON, "the victim takes no jobs of {}", queued.len());
        queued.extend(queue(&database, folder).await);
        let waiting = "SELECT count(*) AS n FROM jobs WHERE state = 'waiting'";
        within(SOON, "all are in somebody's hands", || async { ground.number(waiting).await == 0 }).await;
    }
    database.close(SOON).await;
    queued
}

/// Queues some mails, each of which stops whoever writes into this folder.
async fn queue(database: &Database, folder: &Path) -> Vec<Uuid> {
    let (mut transaction, mut queued) = (database.begin(None).await.unwrap(), Vec::new());
    for _ in 0..JOBS {
        let (to, key) = (To::address("taken-over@example.com"), Uuid::new_v4().to_string());
        let letter = Letter::ResetPassword { token: Token::new(key.clone()) };
        let Enqueued::New(id) = send(&mut transaction, &to, &letter, &key, Timestamp::now()).await.unwrap() else { panic!("{key} is new") };
        queued.push(id);
    }
    let pipes = queued.iter().map(|id| folder.join(format!(".{id}.part")));
    assert!(Command::new("mkfifo").args(pipes).status().unwrap().success());
    transaction.commit().await.unwrap();
    queued
}

/// Every job is done; the dead one's by exactly one of the others, at the second try.
async fn taken_over(ground: &Ground, mails: &[PathBuf], queued: &BTreeSet<Uuid>) {
    within(SOON, "all jobs are done", || async { ground.number("SELECT count(*) AS n FROM jobs WHERE state <> 'done'").await == 0 }).await;
    let database = ground.database().await;
    let rows = query("SELECT id, attempts FROM jobs").fetch_all(&mut database.acquire(None).await.unwrap()).await.unwrap();
    let attempts: BTreeMap<Uuid, i64> = rows.iter().map(|row| (row.get("id").unwrap(), row.get("attempts").unwrap())).collect();
    database.close(SOON).await;
    let mut written: BTreeMap<Uuid, usize> = BTreeMap::new();
    for folder in mails {
        for entry in Folder::new(folder).list().unwrap() {
            *written.entry(entry.id).or_default() += 1;
        }
    }
    let wrong: Vec<_> = queued.iter().filter(|id| written.get(id) != Some(&1)).map(|id| (id, written.get(id), attempts.get(id))).collect();
    assert!(wrong.is_empty(), "{} of {} mails are not written once (written, tries): {wrong:?}", wrong.len(), queued.len());
    let again = queued.iter().filter(|id| attempts.get(id) == Some(&2)).count();
    let more = attempts.values().filter(|attempts| **attempts > 2).count();
    assert!(again as u64 >= IN_HAND && more == 0, "{again} of {} jobs were taken over, {more} more than once", queued.len());
}

/// One request on a connection of its own: who fails, failed in flight.
struct Request {
    begun: Instant,
    /// As the balancer knows it.
    client: Option<SocketAddr>,
    outcome: std::io::Result<u16>,
}

struct Crowd {
    over: Arc<AtomicBool>,
    asked: Arc<std::sync::Mutex<Vec<Request>>>,
    clients: JoinSet<()>,
}

impl Crowd {
    fn start(balancer: &Balancer, path: &str) -> Self {
        let (over, asked, mut clients) = (Arc::<AtomicBool>::default(), Arc::<std::sync::Mutex<Vec<Request>>>::default(), JoinSet::new());
        for number in 0..CLIENTS {
            let (over, asked, address) = (over.clone(), asked.clone(), balancer.address);
            // Some answers come from memory, some of the database.
            let path = if number % 3 == 0 { path.to_owned() } else { format!("/api/products?limit={}", number + 1) };
            clients.spawn(async move {
                while !over.load(Ordering::Acquire) {
                    let begun = Instant::now();
                    let (client, outcome) = ask(address, &path).await;
                    asked.lock().unwrap().push(Request { begun, client, outcome });
                }
            });
        }
        Self { over, asked, clients }
    }

    async fn reaches(&self, more: usize) {
        let until = self.asked.lock().unwrap().len() + more;
        within(SOON, "the crowd is served", || async { self.asked.lock().unwrap().len() >= until }).await;
    }

    async fn stop(mut self) -> Vec<Request> {
        self.over.store(true, Ordering::Release);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn ask(address: SocketAddr, path: &str) -> (Option<SocketAddr>, std::io::Result<u16>) {
    let connected = async {
        let stream = TcpStream::connect(address).await?;
        Ok((stream.local_addr()?, stream))
    };
    let (client, stream) = match connected.await {
        Ok(connected) => connected,
        Err(error) => return (None, Err(error)),
    };
    let exchange = async {
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        Ok(read_answer(&mut stream, "GET").await?.status)
    };
    let late = || Err(std::io::Error::other("no answer in time"));
    (Some(client), tokio::time::timeout(SOON, exchange).await.unwrap_or_else(|_| late()))
}

fn judge(asked: &[Request], balancer: &Balancer, gone: Instant) {
    let instance = |request: &Request| request.client.and_then(|client| balancer.instance_of(client));
    let count = |number| asked.iter().filter(|request| instance(request) == Some(number)).count();
    let counts: Vec<_> = (0..INSTANCES).map(count).collect();
    assert!(counts.iter().all(|count| *count > 0), "each instance was asked: {counts:?}");
    let failed: Vec<_> = asked.iter().filter(|request| !matches!(request.outcome, Ok(200))).collect();
    let words = |request: &&&Request| {
        let after = request.begun.checked_duration_since(gone);
        format!("instance {:?}, begun {after:?} after the end: {:?}", instance(request), request.outcome)
    };
    // Until it is gone its socket takes connections that nobody will serve, so one client may meet it twice.
    let in_flight = |request: &&&Request| instance(request) == Some(VICTIM) && request.begun < gone && request.outcome.is_err();
    let others: Vec<_> = failed.iter().filter(|request| !in_flight(request)).map(|request| words(&request)).collect();
    assert!(others.is_empty(), "{} of {} ({counts:?}) failed and were not in flight there: {others:?}", others.len(), asked.len());
    let after = asked.iter().filter(|request| request.begun > gone).count();
    assert!(after > 0, "nobody asked after the end");
}
