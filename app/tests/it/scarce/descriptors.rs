//! No descriptors left: clients come until there are none, and the service goes on.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{RECOVERY, admin, details, metric, proc};
use crate::client::Client;
use crate::ground::{Ground, within};
use crate::process::{self, Server};

/// Connections of a rush: several times what there is room for.
const RUSH: usize = 400;
/// What the process may take of one core while nothing can be accepted, in a debug build on a machine with other work. A loop without a pause takes all of it.
const CORE: f64 = 0.5;
/// Of it, how long is looked at.
const LOOK: Duration = Duration::from_secs(1);

on_both! {
    with_few_descriptors_clients_are_fewer_and_everything_else_has_its_own
    without_any_descriptor_nothing_spins_who_is_connected_is_served_and_all_is_back
}

#[test]
fn a_limit_that_leaves_no_room_for_clients_is_refused_at_the_start_with_the_sum() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = process::mainstay_at("prlimit".as_ref(), &[("DATA_DIR".to_owned(), folder.path().display().to_string())]);
    let output = command.args(["--nofile=100:100"]).arg(process::binary()).arg("serve").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(told.contains("limit on open files is 100") && told.contains("LimitNOFILE"), "{told}");
}

/// Descriptors that are open.
fn open(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().count()
}

/// Seconds of a core that the process has taken.
fn core(pid: Pid) -> f64 {
    let stat = proc(pid, "stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // `utime` and `stime` of proc(5), in hundredths.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Clients that connect and say nothing, or half of a head. Some are let go at once, some wait in the kernel's queue.
async fn rush(server: &Server) -> Vec<TcpStream> {
    let address = server.public;
    let connect = |number: usize| async move {
        let mut stream = TcpStream::connect(address).await.ok()?;
        if number.is_multiple_of(2) {
            // One that was let go takes nothing.
            let _ = stream.write_all(b"GET /health/live HTTP/1.1\r\nho").await;
        }
        Some(stream)
    };
    join_all((0..RUSH).map(connect)).await.into_iter().flatten().collect()
}

/// A client whose connection is kept: it fails if that is closed under it.
async fn kept(server: &Server) -> (Client, String) {
    let (admin, _) = admin(server).await;
    let path = admin.post("/api/products", &json!({"name": "Kept"})).await.expect(201).header("location").unwrap().to_owned();
    // The first request says what a client is; the second earns it the long idle time.
    admin.get(&path).await.expect(200);
    (admin, path)
}

async fn with_few_descriptors_clients_are_fewer_and_everything_else_has_its_own(ground: Arc<Ground>) {
    let mut command = process::mainstay_at("prlimit".as_ref(), &ground.pairs(&[]));
    command.arg("--nofile=100:240").arg(process::binary()).arg("serve");
    let mut server = Server::start_as(command);
    assert!(server.log().contains("too low for CONNECTIONS_MAX"), "{}", server.log());
    let pid = server.pid();
    assert!(
        proc(pid, "limits").lines().any(|line| line.starts_with("Max open files") && line.split_whitespace().nth(3) == Some("240")),
        "it was raised"
    );
    let (admin, path) = kept(&server).await;
    let rush = rush(&server).await;
    for _ in 0..20 {
        admin.get(&path).await.expect(200);
        admin.patch(&path, &json!({"name": "Kept on"})).await.expect(200);
        server.client().get("/api/products?limit=1").await.expect(200);
        // What needs a file: the index commits.
        admin.post("/api/products", &json!({"name": "Made in the rush"})).await.expect(201);
        assert_eq!(details(&server).await["status"], "ok");
        assert!(open(pid) <= 240 - 16, "{} descriptors", open(pid));
    }
    assert_eq!(metric(&server, "mainstay_connections_accept_errors_total").await, 0.0, "the cap is met before the limit");
    drop(rush);
    within(RECOVERY, "their places are given back", || async { metric(&server, "mainstay_connections_open").await < 5.0 }).await;
    assert_eq!(server.end(RECOVERY), 0, "{}", server.output());
}

async fn without_any_descriptor_nothing_spins_who_is_connected_is_served_and_all_is_back(ground: Arc<Ground>) {
    let mut server = Server::start(&ground.pairs(&[]));
    let (pid, (admin, path)) = (server.pid(), kept(&server).await);
    let before = open(pid);
    // It has room for all that it says it needs at its start; an operator, or a container, may take it away.
    let limit = before as u64 + 8;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
    let rush = rush(&server).await;
    let (begun, taken) = (Instant::now(), core(pid));
    let mut asked = 0;
    while begun.elapsed() < LOOK {
        admin.get(&path).await.expect(200);
        asked += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let share = (core(pid) - taken) / begun.elapsed().as_secs_f64();
    assert!(share < CORE, "{share:.2} of a core for {asked} requests");
    assert!(open(pid) as u64 <= limit);
    // Its own connection first, then a new one: those that say nothing give way.
    admin.patch(&path, &json!({"name": "Kept on"})).await.expect(200);
    server.client().get("/health/live").await.expect(200);
    let log = server.log();
    let told = log.lines().filter(|line| line.contains("accept failed")).count();
    assert!((1..=20).contains(&told), "told {told} times");
    assert!(!log.contains("panic"), "{log}");

    drop(rush);
    within(RECOVERY, "descriptors come back", || async { open(pid) <= before + 6 }).await;
    for _ in 0..3 {
        server.client().get(&path).await.expect(200);
    }
    // The index could not write its files either.
    within(RECOVERY, "all is well", || async { details(&server).await["status"] == "ok" }).await;
    admin.post("/api/products", &json!({"name": "Made afterwards"})).await.expect(201);
    assert_eq!(server.end(RECOVERY), 0, "{}", server.output());
}
