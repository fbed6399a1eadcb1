//! Twenty times what a service can do, over real sockets: what it does all the same, what those learn who are refused, and how soon it is over.
//!
//! All is judged by ratios within one run: whatever else the machine does, it does throughout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use mainstay::testing::{StackSettings, TestServer, request, routes};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What the service has of whatever it is short of, and how long a request needs one of it.
const HANDS: usize = 4;
const WORK: Duration = Duration::from_millis(20);
/// Clients that keep all hands busy, with one more for each that waits.
const FULL: usize = 2 * HANDS;
/// Those of a surge come again after this time when they were refused: twenty times the 200 requests that four hands do in a second.
const SURGE: usize = 160;
const PAUSE: Duration = Duration::from_millis(40);

fn start() -> TestServer {
    let hands = Arc::new(Semaphore::new(HANDS));
    let work = async move || {
        let _hand = hands.acquire().await.unwrap();
        tokio::time::sleep(WORK).await;
        "done"
    };
    let router = Router::new().route("/work", get(work)).route("/health", get(async || "well"));
    TestServer::start(routes(router, &["GET /work", "GET /health"], &["/health"]), StackSettings::default())
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    seconds: f64,
    served: Vec<Duration>,
    refused: Vec<Duration>,
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
            let (mut served, mut refused) = (Vec::new(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                client.write(request("GET", target, &[], "")).await.unwrap();
                let answer = client.read(false).await.unwrap();
                match answer.status {
                    200 => served.push(asked.elapsed()),
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
            (served, refused)
        });
    }
    tokio::time::sleep(span).await;
    over.store(true, Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    let mut seen = Seen { seconds, ..Seen::default() };
    while let Some(one) = all.join_next().await {
        let (served, refused) = one.unwrap();
        seen.served.extend(served);
        seen.refused.extend(refused);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_times_the_load_leaves_the_goodput_and_is_over_within_a_second() {
    let server = start();
    let calm = ask(&server, "/work", HANDS, Duration::from_secs(2)).await;
    assert!(calm.refused.is_empty(), "{} of {} refused in the calm", calm.refused.len(), calm.served.len());
    let full = ask(&server, "/work", FULL, Duration::from_secs(2)).await;

    let span = Duration::from_secs(4);
    let (surge, health) = tokio::join!(ask(&server, "/work", SURGE, span), ask(&server, "/health", 1, span));
    let goodput = surge.goodput() / full.goodput();
    assert!(goodput > 0.8, "goodput {goodput:.2} of its peak: {:.0} of {:.0} a second", surge.goodput(), full.goodput());
    assert!(surge.refused.len() > 5 * surge.served.len(), "{} refused, {} served: that was no surge", surge.refused.len(), surge.served.len());
    let (admitted, refused) = (quantile(&surge.served, 0.95), quantile(&surge.refused, 0.95));
    let usual = quantile(&full.served, 0.95);
    assert!(admitted < 8 * usual, "95 of 100 admitted took up to {admitted:?}, with full hands {usual:?}");
    assert!(refused < 8 * usual, "95 of 100 refused took up to {refused:?}, with full hands {usual:?}");
    assert!(health.refused.is_empty() && !health.served.is_empty(), "health was asked {} times", health.served.len());

    // Its last requests have been answered: nothing of it is left.
    let after = ask(&server, "/work", HANDS, Duration::from_secs(1)).await;
    assert!(after.refused.is_empty(), "{} of {} refused in the second after", after.refused.len(), after.served.len());
    let goodput = after.goodput() / calm.goodput();
    assert!(goodput > 0.8, "goodput {goodput:.2} of that of the calm before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_he_waits_for_a_place_leaves_it_to_others() {
    let never = async || std::future::pending::<()>().await;
    let router = Router::new().route("/never", get(never)).route("/fast", get(async || "done"));
    let settings = StackSettings { concurrency_max: 1, ..StackSettings::default() };
    let server = TestServer::start(routes(router, &["GET /never", "GET /fast"], &[]), settings);
    let until = async |what: &str, met: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !met() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    for round in 1..=5 {
        let (mut busy, mut waits) = (server.connect().await, server.connect().await);
        busy.write(request("GET", "/never", &[], "")).await.unwrap();
        until("it is worked on", &|| server.metrics().contains("mainstay_http_requests_in_flight 1")).await;
        waits.write(request("GET", "/fast", &[], "")).await.unwrap();
        drop(waits);
        drop(busy);
        until("its end was counted", &|| server.count("/never", 499) == round).await;
        until("nothing is left", &|| server.metrics().contains("mainstay_http_requests_in_flight 0")).await;
        assert_eq!(server.exchange(request("GET", "/fast", &[], "")).await.status, 200, "{round}");
    }
}
