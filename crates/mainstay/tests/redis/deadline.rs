//! A request that has less time than Redis is given.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use mainstay::redis::{Redis, Script};
use mainstay::testing::{Fault, StackSettings, TestServer, request, routes};
use mainstay::writes::Writes;
use tokio::sync::mpsc;

use super::{address, behind_a_proxy, until};

/// `REQUEST_TIMEOUT` of this test.
const BUDGET: Duration = Duration::from_millis(300);
/// `REDIS_TIMEOUT`, which lasts much longer.
const WAIT: Duration = Duration::from_secs(20);
/// What a busy machine may take to wake somebody.
const BUSY: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_ends_with_the_time_of_its_request_and_nobody_blames_the_server() {
    let (proxy, url) = behind_a_proxy().await;
    let redis = Redis::open(address(&url), "test", WAIT).await;
    until("it is asked", BUSY, || redis.answers()).await;
    let (told, mut tells) = mpsc::unbounded_channel();
    let script = Arc::new(Script::new("return 1"));
    let (asked, pause) = (redis.clone(), Arc::new(std::sync::Mutex::new(Duration::ZERO)));
    let paused = pause.clone();
    // As a write: it goes on when the answer has been given up, so what it waits for is seen.
    let ask = move || {
        let (redis, script, told, pause) = (asked.clone(), script.clone(), told.clone(), *paused.lock().unwrap());
        async move {
            let work = async move {
                tokio::time::sleep(pause).await;
                let begun = Instant::now();
                let answered = redis.run::<i64, _>(&script, &["test:deadline"], &["nothing"]).await.is_ok();
                let _ = told.send((answered, begun.elapsed()));
                "asked"
            };
            Writes::default().finish(work).await
        }
    };
    let router = Router::new().route("/ask", post(ask));
    let server = TestServer::start(routes(router, &["POST /ask"], &[]), StackSettings { budget: BUDGET, ..StackSettings::default() });
    let exchange = async || server.exchange(request("POST", "/ask", &[], "")).await.status;
    assert_eq!(exchange().await, 200);
    assert!(tells.recv().await.unwrap().0, "it answers");

    proxy.set(Fault::Blackhole);
    // More than the late answers after which nobody would ask any more.
    for _ in 0..5 {
        // The write ends with the time of the request: which of the two is seen first is chance.
        let status = exchange().await;
        assert!([200, 504].contains(&status), "{status}");
        let (answered, took) = tells.recv().await.unwrap();
        assert!(!answered && took < BUDGET + BUSY, "{took:?}");
    }
    assert!(redis.answers() && redis.counts().late == 0, "{:?}", redis.counts());

    // A request whose time is over asks nothing.
    let before = redis.counts();
    *pause.lock().unwrap() = BUDGET * 2;
    assert_eq!(exchange().await, 504);
    let (answered, took) = tells.recv().await.unwrap();
    assert!(!answered && took < BUSY, "{took:?}");
    assert_eq!((redis.counts().asked, redis.counts().spared), (before.asked, before.spared + 1));

    proxy.set(Fault::Ok);
    *pause.lock().unwrap() = Duration::ZERO;
    assert_eq!(exchange().await, 200, "on the same connection");
    assert!(tells.recv().await.unwrap().0);
    assert_eq!(redis.counts().outages, 0);
}
