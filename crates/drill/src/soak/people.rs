//! The clients: who asks what, at a pace of his own, whatever the answers do.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ledger::{Counter, Ledger, sku};
use super::seen::{Kind, Seen};
use crate::caller::{Caller, text};
use crate::client::{Answer, Connection, request};
use crate::target::{ADMIN, PASSWORD};

/// Products that are there all the time.
const PRODUCTS: usize = 50;
/// Products of each writer at once: older ones are deleted, so that what is found stays as much.
const KEPT: usize = 50;
/// Clients of each kind, and their share of all requests.
const CROWD: [(Kind, usize, f64); 8] = [
    (Kind::Read, 8, 0.40),
    (Kind::List, 2, 0.10),
    (Kind::Search, 2, 0.10),
    (Kind::Member, 8, 0.20),
    (Kind::Write, 2, 0.06),
    (Kind::Malformed, 2, 0.05),
    (Kind::Churn, 4, 0.08),
    (Kind::Slow, 4, 0.01),
];
/// Addresses that those of each kind come from, but for those who send no field that says so.
const HOMES: usize = 500;
/// How long a slow client is silent in the middle of its head.
const SLOWNESS: Duration = Duration::from_secs(2);
const WORDS: [&str; 6] = ["kettle", "coper+teapot", "stur", "laptop+%5Bunclosed", "%22a+phrase%22", "nothing-of-the-kind"];
/// Requests that are wrong, each in its own way.
const MALFORMED: [&[u8]; 6] = [
    b"POST /api/products HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{\"name\": ",
    b"GET /api/products/not-an-id HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /api/nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"DELETE /api/products HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: elsewhere\r\n\r\n",
    b"POST /api/products HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 52428800\r\n\r\n",
];

/// What all clients share.
#[derive(Debug)]
pub(super) struct World {
    /// When the traffic begins.
    pub(super) begun: Instant,
    stop: AtomicBool,
    seen: Mutex<Seen>,
    ledger: Mutex<Ledger>,
    products: Vec<String>,
    next_sku: AtomicU64,
}

impl World {
    /// Makes what is to be read, and those who read it.
    pub(super) async fn of(addresses: &[SocketAddr], rate: f64) -> Result<(Self, Vec<Person>), String> {
        let stranger = Caller::stranger(addresses[0]);
        let admin = stranger.with(&text(&stranger.sign_in(ADMIN).await?, "access_token"));
        let mut products = Vec::new();
        for _ in 0..PRODUCTS {
            products.push(admin.product().await?);
        }
        let (mut people, mut ledger) = (Vec::new(), Ledger::default());
        for (kind, count, share) in CROWD {
            #[allow(clippy::cast_precision_loss)] // A few clients.
            let pace = Duration::from_secs_f64(count as f64 / (rate * share));
            for number in 0..count {
                let email = match kind {
                    Kind::Member => format!("member-{number}@example.com"),
                    _ => ADMIN.to_owned(),
                };
                match kind {
                    Kind::Member => _ = stranger.register(&email).await?,
                    Kind::Write => ledger.counters.push(Counter { path: admin.product().await?, changed: 0, unknown: 0 }),
                    _ => {}
                }
                let instance = number % addresses.len();
                people.push(Person::new(
                    kind,
                    number,
                    (instance, addresses[instance]),
                    pace.mul_f64((number + 1) as f64 / count as f64),
                    pace,
                    email,
                ));
            }
        }
        let world = Self {
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
            ledger: Mutex::new(ledger),
            products,
            next_sku: AtomicU64::new(0),
        };
        Ok((world, people))
    }

    /// It is over.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// What was seen.
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was acknowledged.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client.
#[derive(Debug)]
pub(super) struct Person {
    kind: Kind,
    number: usize,
    instance: usize,
    address: SocketAddr,
    first: Duration,
    pace: Duration,
    email: String,
    connection: Option<Connection>,
    /// The tokens of whoever is signed in: for access, and for the next refresh.
    tokens: Option<(String, String)>,
    /// The page after the last one.
    cursor: Option<String>,
    /// What a writer has made and not deleted yet.
    made: VecDeque<String>,
    turn: usize,
}

impl Person {
    fn new(kind: Kind, number: usize, (instance, address): (usize, SocketAddr), first: Duration, pace: Duration, email: String) -> Self {
        let (connection, tokens, cursor, made) = (None, None, None, VecDeque::new());
        Self { kind, number, instance, address, first, pace, email, connection, tokens, cursor, made, turn: 0 }
    }

    /// Asks at its pace until all is over. Who waits for an answer longer than that asks the next thing then, and is that much behind: how quick answers are counts from
    /// the asking, and that fewer were asked is judged by itself.
    pub(super) async fn live(mut self, world: Arc<World>) {
        let mut due = Instant::now() + self.first;
        loop {
            tokio::time::sleep_until(due.into()).await;
            if world.stop.load(Ordering::Acquire) {
                return;
            }
            match self.kind {
                Kind::Read => self.read(&world, due).await,
                Kind::List => self.list(&world, due).await,
                Kind::Search => self.search(&world, due).await,
                Kind::Member | Kind::SignIn => self.member(&world, due).await,
                Kind::Write => self.write(&world, due).await,
                Kind::Malformed => self.malformed(&world, due).await,
                Kind::Churn => self.churn(&world, due).await,
                Kind::Slow => self.slow(&world, due).await,
            }
            self.turn += 1;
            due = (due + self.pace).max(Instant::now());
        }
    }

    /// Asks on the connection that it keeps.
    async fn ask(&mut self, method: &str, target: &str, body: Option<&Value>) -> io::Result<Answer> {
        let home = (self.number * 61 + self.turn) % HOMES;
        let home = format!("10.{}.{}.{}", self.kind as usize, home / 256, home % 256);
        let bearer = self.tokens.as_ref().map(|(access, _)| format!("Bearer {access}"));
        let mut fields = vec![("x-forwarded-for", home.as_str())];
        fields.extend(bearer.as_ref().map(|bearer| ("authorization", bearer.as_str())));
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request(method, target, &fields, body.as_bytes());
        let answer = match &mut self.connection {
            Some(connection) => connection.ask(&request).await,
            none => none.insert(Connection::open(self.address, None).await?).ask(&request).await,
        };
        if !answer.as_ref().is_ok_and(|answer| !answer.closes()) {
            self.connection = None;
        }
        answer
    }

    fn note(&self, world: &World, kind: Kind, due: Instant, answer: &io::Result<Answer>, good: bool) {
        world.seen().note(world.begun, due, (kind, self.instance), answer, good);
    }

    async fn read(&mut self, world: &World, due: Instant) {
        let target = &world.products[(self.number * 7 + self.turn) % world.products.len()];
        let answer = self.ask("GET", target, None).await;
        self.note(world, Kind::Read, due, &answer, is(&answer, &[200]));
    }

    /// Page after page, and from the beginning again after some.
    async fn list(&mut self, world: &World, due: Instant) {
        let cursor = self.cursor.take().filter(|_| !self.turn.is_multiple_of(5));
        let target = cursor.map_or_else(|| "/api/products?limit=20".to_owned(), |cursor| format!("/api/products?limit=20&cursor={cursor}"));
        let answer = self.ask("GET", &target, None).await;
        self.cursor = answer.as_ref().ok().and_then(|answer| answer.json()["meta"]["next_cursor"].as_str().map(str::to_owned));
        self.note(world, Kind::List, due, &answer, is(&answer, &[200]));
    }

    async fn search(&mut self, world: &World, due: Instant) {
        let target = format!("/api/products/search?q={}", WORDS[(self.number + self.turn) % WORDS.len()]);
        let answer = self.ask("GET", &target, None).await;
        self.note(world, Kind::Search, due, &answer, is(&answer, &[200]));
    }

    /// Signs in, reads, refreshes, reads, signs out.
    async fn member(&mut self, world: &World, due: Instant) {
        let Some((_, refresh)) = self.tokens.clone() else { return self.sign_in(world, due).await };
        match self.turn % 20 {
            10 => {
                let answer = self.ask("POST", "/api/auth/refresh", Some(&json!({"refresh_token": refresh}))).await;
                self.note(world, Kind::SignIn, due, &answer, is(&answer, &[200]));
                // Without an answer nobody knows which token is the next one.
                self.tokens = tokens(&answer);
            }
            19 => {
                let answer = self.ask("POST", "/api/auth/logout", Some(&json!({}))).await;
                self.note(world, Kind::SignIn, due, &answer, is(&answer, &[200, 204]));
                self.tokens = None;
            }
            _ => {
                let answer = self.ask("GET", "/api/users/me", None).await;
                self.note(world, Kind::Member, due, &answer, is(&answer, &[200]));
            }
        }
    }

    async fn sign_in(&mut self, world: &World, due: Instant) {
        let answer = self.ask("POST", "/api/auth/login", Some(&json!({"email": self.email, "password": PASSWORD}))).await;
        self.note(world, Kind::SignIn, due, &answer, is(&answer, &[200]));
        self.tokens = tokens(&answer);
    }

    /// Creates, changes and deletes in turn.
    async fn write(&mut self, world: &World, due: Instant) {
        // Long before its access token has ended.
        if self.tokens.is_none() || self.turn.is_multiple_of(100) {
            self.tokens = None;
            return self.sign_in(world, due).await;
        }
        let answer = match self.turn % 3 {
            0 => self.create(world).await,
            1 => self.change(world).await,
            _ if self.made.len() > KEPT => {
                let path = self.made.pop_front().unwrap_or_default();
                let answer = self.ask("DELETE", &path, None).await;
                // One of which nobody knows whether it is gone is left.
                (is(&answer, &[204]), answer)
            }
            _ => self.change(world).await,
        };
        self.note(world, Kind::Write, due, &answer.1, answer.0);
    }

    async fn create(&mut self, world: &World) -> (bool, io::Result<Answer>) {
        let number = world.next_sku.fetch_add(1, Ordering::Relaxed);
        let body = json!({"sku": sku(number), "name": "Copper teapot", "description": "What a writer makes. ".repeat(20)});
        let answer = self.ask("POST", "/api/products", Some(&body)).await;
        let good = is(&answer, &[201]);
        if good {
            world.ledger().created.push(number);
            self.made.extend(answer.as_ref().ok().and_then(|answer| answer.field("location")).map(str::to_owned));
        } else if !is_refused(&answer) {
            world.ledger().unknown.push(number);
        }
        (good, answer)
    }

    async fn change(&mut self, world: &World) -> (bool, io::Result<Answer>) {
        let path = world.ledger().counters[self.number].path.clone();
        let answer = self.ask("PATCH", &path, Some(&json!({"name": format!("Sturdy kettle {}", self.turn)}))).await;
        let good = is(&answer, &[200]);
        let counter = &mut world.ledger().counters[self.number];
        if good {
            counter.changed += 1;
        } else if !is_refused(&answer) {
            counter.unknown += 1;
        }
        (good, answer)
    }

    async fn malformed(&mut self, world: &World, due: Instant) {
        let asking = async { Connection::open(self.address, None).await?.ask(MALFORMED[self.turn % MALFORMED.len()]).await };
        let answer = asking.await;
        let good = answer.as_ref().is_ok_and(|answer| matches!(answer.status, 400..=499) && answer.status != 429);
        self.note(world, Kind::Malformed, due, &answer, good);
    }

    async fn churn(&mut self, world: &World, due: Instant) {
        let target = &world.products[self.turn % world.products.len()];
        let answer = crate::client::ask(self.address, "GET", target, &[], b"").await;
        self.note(world, Kind::Churn, due, &answer, is(&answer, &[200]));
    }

    /// Is silent in the middle of its head; every second time it leaves then.
    async fn slow(&mut self, world: &World, due: Instant) {
        let head = request("GET", &world.products[0], &[], b"");
        let (beginning, rest) = head.split_at(head.len() / 2);
        let leaves = self.turn.is_multiple_of(2);
        let asking = async {
            let mut connection = Connection::open(self.address, None).await?;
            connection.send(beginning).await?;
            tokio::time::sleep(SLOWNESS).await;
            if leaves {
                return Ok(None);
            }
            connection.send(rest).await?;
            connection.answer(false).await.map(Some)
        };
        if let Some(answer) = asking.await.transpose() {
            self.note(world, Kind::Slow, due, &answer, is(&answer, &[200]));
        }
    }
}

fn is(answer: &io::Result<Answer>, statuses: &[u16]) -> bool {
    answer.as_ref().is_ok_and(|answer| statuses.contains(&answer.status))
}

/// Does the answer say that nothing was done? A 503 of a database that broke in the middle does not.
fn is_refused(answer: &io::Result<Answer>) -> bool {
    answer.as_ref().is_ok_and(|answer| matches!(answer.status, 400..=499))
}

fn tokens(answer: &io::Result<Answer>) -> Option<(String, String)> {
    let answer = answer.as_ref().ok().filter(|answer| answer.status == 200)?;
    let data = answer.json()["data"].take();
    Some((text(&data, "access_token"), text(&data, "refresh_token")))
}
