//! Twenty times what a service can do, over real sockets: what it does all the same, what those learn who are refused, and how soon it is over.
//!
//! All is judged by ratios within one run: whatever else the machine does, it does throughout.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::get;
use mainstay::auth::{Accounts, Auth, Keys, Role, RoleFuture, SignedIn, Tokens};
use mainstay::cache::{Cache, Key, Kind, Output, Policy, Subject};
use mainstay::clock::Clock;
use mainstay::error::Error;
use mainstay::news::News;
use mainstay::routes::Cost;
use mainstay::stack::rate_limit::Quota;
use mainstay::testing::{Client, StackSettings, TestServer, request, routes};
use secrecy::{ExposeSecret, SecretSlice};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

/// What the service has of whatever it is short of, and how long a request needs one of it.
const HANDS: usize = 4;
const WORK: Duration = Duration::from_millis(50);
/// Clients that keep all hands busy, with one more for each that waits.
const FULL: usize = 2 * HANDS;
/// Those of a surge come again after this time when they were refused: twenty times the 80 requests that four hands do in a second.
const SURGE: usize = 160;
const PAUSE: Duration = Duration::from_millis(100);
/// By then the limit has found its place.
const LEARNT: Duration = Duration::from_secs(2);

fn start() -> TestServer {
    let hands = Arc::new(Semaphore::new(HANDS));
    let work = async move || {
        let _hand = hands.acquire().await.unwrap();
        tokio::time::sleep(WORK).await;
        "done"
    };
    let router = Router::new().route("/work", get(work)).route("/health", get(async || "well"));
    TestServer::start(routes(router, &["GET /work", "GET /health"], &["/health"]), StackSettings { concurrency_min: 4, ..StackSettings::default() })
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    seconds: f64,
    served: Vec<Duration>,
    refused: Vec<Duration>,
    /// Of those who asked after the limit had been learnt.
    served_late: Vec<Duration>,
}

impl Seen {
    fn goodput(&self) -> f64 {
        self.served.len() as f64 / self.seconds
    }
}

fn quantile(times: &[Duration], part: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default()
}

/// So many clients ask for so long, one request after the other, each over one connection.
async fn ask(server: &TestServer, target: &'static str, clients: usize, span: Duration) -> Seen {
    let (over, mut all) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    let begun = Instant::now();
    for _ in 0..clients {
        let (mut client, over) = (server.connect().await, over.clone());
        all.spawn(async move {
            let (mut served, mut refused, mut served_late) = (Vec::new(), Vec::new(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                client.write(request("GET", target, &[], "")).await.unwrap();
                let answer = client.read(false).await.unwrap();
                match answer.status {
                    200 => {
                        served.push(asked.elapsed());
                        if asked - begun >= LEARNT {
                            served_late.push(asked.elapsed());
                        }
                        if target == "/health" {
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                    503 => {
                        let after: u64 = answer.header("retry-after").expect("every refusal says when").parse().unwrap();
                        assert!((1..=30).contains(&after), "{after}");
                        assert_eq!(answer.json()["code"], "overloaded");
                        refused.push(asked.elapsed());
                        tokio::time::sleep(PAUSE).await;
                    }
                    other => panic!("{other}"),
                }
            }
            (served, refused, served_late)
        });
    }
    tokio::time::sleep(span).await;
    over.store(true, Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    let mut seen = Seen { seconds, ..Seen::default() };
    while let Some(one) = all.join_next().await {
        let (served, refused, served_late) = one.unwrap();
        seen.served.extend(served);
        seen.refused.extend(refused);
        seen.served_late.extend(served_late);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_times_the_load_leaves_the_goodput_and_is_over_within_a_second() {
    let server = start();
    let calm = ask(&server, "/work", HANDS, Duration::from_secs(2)).await;
    assert!(calm.refused.is_empty(), "{} of {} refused in the calm", calm.refused.len(), calm.served.len());
    // What a surge costs in answers is asked of the cores meanwhile, by as many clients who are not refused.
    let full = Duration::from_secs(3);
    let (full, _) = tokio::join!(ask(&server, "/work", FULL, full), ask(&server, "/health", SURGE, full));
    let span = Duration::from_secs(5);
    let (surge, health) = tokio::join!(ask(&server, "/work", SURGE, span), ask(&server, "/health", 1, span));
    let goodput = surge.goodput() / full.goodput();
    assert!(goodput > 0.8, "goodput {goodput:.2} of its peak: {:.0} of {:.0} a second", surge.goodput(), full.goodput());
    assert!(surge.refused.len() > 5 * surge.served.len(), "{} refused, {} served: that was no surge", surge.refused.len(), surge.served.len());
    let (admitted, refused) = (quantile(&surge.served_late, 0.95), quantile(&surge.refused, 0.95));
    // Clients and service share the cores with each other and with whatever else there is. What that costs a request that waits for nothing is measured meanwhile.
    let (usual, noise) = (quantile(&full.served, 0.95), quantile(&health.served, 0.95));
    let most = 4 * usual + 4 * noise;
    assert!(admitted < most, "95 of 100 admitted took up to {admitted:?}, with full hands {usual:?}, health {noise:?}");
    assert!(refused < most, "95 of 100 refused took up to {refused:?}, with full hands {usual:?}, health {noise:?}");
    assert!(health.refused.is_empty() && !health.served.is_empty(), "health was asked {} times", health.served.len());

    // Its last requests have been answered: nothing of it is left.
    let after = ask(&server, "/work", HANDS, Duration::from_secs(1)).await;
    assert!(after.refused.is_empty(), "{} of {} refused in the second after", after.refused.len(), after.served.len());
    let goodput = after.goodput() / calm.goodput();
    assert!(goodput > 0.8, "goodput {goodput:.2} of that of the calm before");
}

/// Waits until it is so.
async fn until(what: &str, met: impl Fn() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// So many requests that never end.
async fn occupy(server: &TestServer, requests: usize) -> Vec<Client> {
    let mut busy = Vec::new();
    for number in 1..=requests {
        let mut client = server.connect().await;
        client.write(request("GET", "/never", &[], "")).await.unwrap();
        let working = format!("mainstay_http_requests_in_flight {number}");
        until("it is worked on", || server.metrics().contains(&working)).await;
        busy.push(client);
    }
    busy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_he_waits_for_a_place_leaves_it_to_others() {
    let never = async || std::future::pending::<()>().await;
    let router = Router::new().route("/never", get(never)).route("/fast", get(async || "done"));
    let settings = StackSettings { concurrency_max: 1, ..StackSettings::default() };
    let server = TestServer::start(routes(router, &["GET /never", "GET /fast"], &[]), settings);
    for round in 1..=5 {
        let busy = occupy(&server, 1).await;
        let mut waits = server.connect().await;
        waits.write(request("GET", "/fast", &[], "")).await.unwrap();
        until("it waits", || server.metrics().contains("mainstay_http_requests_in_flight 2")).await;
        drop((waits, busy));
        until("its end was counted", || server.count("/never", 499) == round).await;
        until("nothing is left", || server.metrics().contains("mainstay_http_requests_in_flight 0")).await;
        assert_eq!(server.exchange(request("GET", "/fast", &[], "")).await.status, 200, "{round}");
    }
}

#[tokio::test]
async fn an_answer_that_is_kept_needs_no_place_and_one_that_must_be_made_does() {
    const KEPT: Policy = Policy::of("kept");
    let cache = Cache::new(1 << 20, Duration::from_secs(60), Duration::ZERO);
    let kept = async move |uri: Uri| {
        let make = async || Ok(Some(Output::json(&"made")?));
        let answer = cache.answer(&KEPT, Key::query(&KEPT, uri.query()), Subject::All(Kind::new("things")), make).await?;
        Ok::<_, Error>(answer.unwrap())
    };
    let router = Router::new().route("/kept", get(kept)).route("/never", get(async || std::future::pending::<()>().await));
    let routes = routes(router, &["GET /kept", "GET /never"], &[]).costing(Cost::Kept, &["GET /kept"]);
    let server = TestServer::start(routes, StackSettings { concurrency_max: 1, ..StackSettings::default() });
    let ask = async |target| server.exchange(request("GET", target, &[], "")).await.status;
    assert_eq!(ask("/kept?a").await, 200);
    let busy = occupy(&server, 1).await;
    for _ in 0..3 {
        assert_eq!((ask("/kept?a").await, ask("/kept?b").await), (200, 503));
    }
    drop(busy);
    until("its end was counted", || server.count("/never", 499) == 1).await;
    assert_eq!(ask("/kept?b").await, 200);
}

const ACCOUNT: Uuid = Uuid::from_u128(7);

struct OneAccount;

impl Accounts for OneAccount {
    fn standing(&self, account: Uuid, _: Uuid, _: Option<Instant>) -> RoleFuture<'_> {
        Box::pin(async move { Ok((account == ACCOUNT).then_some(Role::User)) })
    }
}

#[tokio::test]
async fn who_is_signed_in_finds_the_place_that_strangers_do_not_and_no_made_up_token_does() {
    let tokens =
        |secret| Tokens::new(Keys::from_secret(&SecretSlice::from(vec![secret; 32])), "https://issuer.example", "api", Duration::from_secs(60));
    let bearer = |secret, account| {
        let token = tokens(secret).issue(account, Uuid::from_u128(8), Role::User, jiff::Timestamp::now());
        format!("Bearer {}", token.expose_secret())
    };
    let auth = Auth::new(tokens(7), Clock::system(), OneAccount, Quota::new("account", 1000, Duration::from_secs(60)), News::default());
    let router = Router::new()
        .route("/me", get(async |me: SignedIn| me.account.to_string()).with_state(auth.clone()))
        .route("/never", get(async || std::future::pending::<()>().await));
    // Strangers may fill eight of ten.
    let settings = StackSettings { concurrency_max: 10, auth: Some(auth), ..StackSettings::default() };
    let server = TestServer::start(routes(router, &["GET /me", "GET /never"], &[]), settings);
    let ask = async |fields: &[(&str, &str)]| server.exchange(request("GET", "/me", fields, "")).await.status;
    let (mine, forged, unknown) = (bearer(7, ACCOUNT), bearer(9, ACCOUNT), bearer(7, Uuid::from_u128(9)));
    // From here on the instance remembers that the session stands.
    assert_eq!(ask(&[("Authorization", &mine)]).await, 200);
    let _busy = occupy(&server, 8).await;
    for _ in 0..2 {
        assert_eq!(ask(&[("Authorization", &mine)]).await, 200);
        assert_eq!(ask(&[]).await, 503);
        assert_eq!(ask(&[("Authorization", &forged)]).await, 503, "signed by another");
        assert_eq!(ask(&[("Authorization", &unknown)]).await, 503, "signed by us, for an account that is not there");
        assert_eq!(ask(&[("Authorization", &mine), ("Authorization", &forged)]).await, 503, "two are none");
    }
}

#[test]
fn reads_are_cheap_and_writes_dear_unless_it_is_said_otherwise() {
    let listed = ["GET /things", "POST /things", "GET /search", "POST /sign-out"];
    let routes = routes(Router::new(), &listed, &[]).costing(Cost::Dear, &["GET /search"]).costing(Cost::Cheap, &["POST /sign-out"]);
    let cost = |method: Method, path| routes.table().find(&method, path).cost(&method);
    assert_eq!([cost(Method::GET, "/things"), cost(Method::HEAD, "/things"), cost(Method::POST, "/things")], [Cost::Cheap, Cost::Cheap, Cost::Dear]);
    assert_eq!([cost(Method::GET, "/search"), cost(Method::HEAD, "/search"), cost(Method::POST, "/sign-out")], [Cost::Dear, Cost::Dear, Cost::Cheap]);
    assert_eq!([cost(Method::GET, "/nowhere"), cost(Method::PUT, "/things")], [Cost::Memory; 2], "nobody works on these");
}

#[test]
#[should_panic(expected = "PUT /things: no such route")]
fn a_cost_of_a_route_that_is_not_there_is_a_mistake() {
    let _ = routes(Router::new(), &["GET /things"], &[]).costing(Cost::Dear, &["PUT /things"]);
}
