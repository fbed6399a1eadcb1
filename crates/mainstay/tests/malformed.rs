//! Twenty thousand requests that are not HTTP, against the whole stack over real sockets: each is understood as RFC 9112 has it, or refused and its connection
//! closed, and nothing that is hidden behind or inside one is ever carried out.
//!
//! What they are made of is [`grammar`], what they mean says [`oracle`], which has a parser of its own.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

#[path = "malformed/framing.rs"]
mod framing;
#[path = "malformed/grammar.rs"]
mod grammar;
#[path = "malformed/oracle.rs"]
mod oracle;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use futures_util::{StreamExt, stream};
use http::{Method, Uri};
use mainstay::testing::{Chance, Client, StackSettings, TestServer, request, routes};

use oracle::{End, Understood};

/// Repeats a run exactly; another one tries others.
const SEED: u64 = 0x9112;
/// Of requests that must be refused; beside them there are some that are merely odd.
const MALFORMED: usize = 20_000;
/// Enough for both cores, and few enough for any machine.
const AT_ONCE: usize = 64;
/// A connection that is not over by then hangs. Of the server's limits the shortest that one could wait for is 10 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the handler carried out, and how often.
type Done = Arc<Mutex<HashMap<Vec<u8>, usize>>>;

fn start() -> (TestServer, Done) {
    let done = Done::default();
    let noted = Arc::clone(&done);
    let handler = move |method: Method, uri: Uri, body: Bytes| async move {
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let what = signature(method.as_str(), target.as_bytes(), &body);
        *noted.lock().unwrap().entry(what.clone()).or_insert(0) += 1;
        what
    };
    let router = Router::new().route("/r/{name}", get(handler.clone()).post(handler));
    (TestServer::start(routes(router, &["GET /r/{name}", "POST /r/{name}"], &[]), StackSettings::default()), done)
}

/// A request as who carried it out saw it.
fn signature(method: &str, target: &[u8], body: &[u8]) -> Vec<u8> {
    [method.as_bytes(), b" ", target, b"\n", body].concat()
}

/// Does a handler stand behind it?
fn is_routed(understood: &Understood) -> bool {
    let path = understood.target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let name = path.strip_prefix(b"/r/").unwrap_or_default();
    matches!(understood.method.as_str(), "GET" | "HEAD" | "POST") && !name.is_empty() && !name.contains(&b'/')
}

/// Sends `bytes` in pieces, reads what comes, and says what was carried out of it, or what is wrong.
async fn try_one(address: SocketAddr, bytes: &[u8], mut chance: Chance) -> Result<Vec<Vec<u8>>, String> {
    let mut client = Client::connect(address).await.map_err(|error| error.to_string())?;
    // Each piece has a parser read what is there of the head anew, so long ones are not cut that small.
    let longest = [bytes.len(), 1_000, 200, 64, 64, 7][chance.below(6)].max(bytes.len() / 100);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(1 + chance.below(longest)));
        if client.write(piece).await.is_err() {
            // It has refused already; its answer is there.
            break;
        }
        tokio::task::yield_now().await;
        rest = behind;
    }
    let reading = oracle::read(bytes);
    let (mut carried_out, mut over) = (Vec::new(), false);
    for understood in &reading.requests {
        let answer = client.read(understood.method == "HEAD").await;
        let served = answer.as_ref().is_ok_and(|answer| answer.status == 200);
        let what = signature(&understood.method, &understood.target, &understood.body);
        match answer {
            Ok(answer) if served && (answer.body == what || understood.method == "HEAD" && answer.body.is_empty()) => carried_out.push(what),
            Ok(answer) if served => return Err(format!("understood as {:?}", answer.text())),
            Ok(answer) if !(400..500).contains(&answer.status) && understood.method != "OPTIONS" => return Err(format!("{answer:?}")),
            _ if is_routed(understood) && !understood.may_be_refused => {
                return Err(format!("{answer:?} in place of {:?}", String::from_utf8_lossy(&what)));
            }
            // What no route is there for is answered; the connection goes on if there is nothing left of the request.
            Ok(answer) if !answer.lists("connection", "close") => {}
            _ => {
                over = true;
                break;
            }
        }
    }
    let refused = !over && reading.end == End::Refused;
    let may_be_refused = !over && reading.end == End::Waiting;
    if may_be_refused {
        client.finish().await.map_err(|error| error.to_string())?;
    }
    let rest = client.read_to_end().await.map_err(|error| format!("it is not closed: {error}"))?;
    let rest = String::from_utf8_lossy(&rest);
    let is_refusal = ["HTTP/1.1 4", "HTTP/1.1 501 ", "HTTP/1.0 4", "HTTP/1.0 501 "].iter().any(|start| rest.starts_with(start))
        && rest.matches("HTTP/1.").count() == 1;
    match (rest.is_empty(), is_refusal) {
        (true, _) => Ok(carried_out),
        (_, true) if refused || may_be_refused => Ok(carried_out),
        _ => Err(format!("behind its end: {rest:?}")),
    }
}

/// The sockets that this process has, of the clients and of the server.
fn sockets() -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter(|entry| entry.as_ref().is_ok_and(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))))
        .count()
}

/// As many streams as hold [`MALFORMED`] requests that must be refused.
fn streams() -> Vec<Vec<u8>> {
    let (mut chance, mut malformed, mut all) = (Chance::new(SEED), 0, Vec::new());
    while malformed < MALFORMED {
        let bytes = grammar::stream(all.len(), &mut chance);
        malformed += usize::from(oracle::read(&bytes).end == End::Refused);
        all.push(bytes);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_20_000_malformed_requests_none_is_served_hangs_or_is_understood_in_two_ways() {
    let (server, done) = start();
    let (address, idle) = (server.address(), sockets());
    let begun = Instant::now();
    let streams = streams();
    let count = streams.len();
    let results = stream::iter(streams.into_iter().enumerate()).map(|(number, bytes)| {
        let task = tokio::spawn(async move {
            let tried = tokio::time::timeout(PATIENCE, try_one(address, &bytes, Chance::new(SEED ^ number as u64))).await;
            tried
                .unwrap_or_else(|_| Err("it hangs".to_owned()))
                .map_err(|wrong| format!("{number}: {:?}: {wrong}", excerpt(&bytes)).chars().take(2_000).collect())
        });
        async move { task.await.unwrap() }
    });
    let results: Vec<Result<Vec<Vec<u8>>, String>> = results.buffer_unordered(AT_ONCE).collect().await;
    let wrong: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(
        wrong.is_empty(),
        "{} of {count} (seed {SEED:#x}), such as\n{}",
        wrong.len(),
        wrong.iter().take(40).map(|wrong| wrong.as_str()).collect::<Vec<_>>().join("\n")
    );
    let mut expected = HashMap::new();
    for what in results.iter().flatten().flatten() {
        *expected.entry(what.clone()).or_insert(0) += 1;
    }
    assert!(*done.lock().unwrap() == expected, "something was carried out that was not answered to whoever sent it");
    let after = server.exchange(request("POST", "/r/after", &[], "fine")).await;
    assert_eq!((after.status, after.text()), (200, "POST /r/after\nfine".to_owned()));
    for line in server.log() {
        let status = line["status"].as_u64().unwrap();
        assert!(status < 500 || status == 501, "{line}");
    }
    let waiting = Instant::now();
    while sockets() > idle {
        assert!(waiting.elapsed() < PATIENCE, "{} sockets are left over", sockets() - idle);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{count} connections, {} requests carried out, in {:?}", expected.values().sum::<usize>(), begun.elapsed());
}

/// Enough of a stream to see what it is.
fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 600;
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned()
}
