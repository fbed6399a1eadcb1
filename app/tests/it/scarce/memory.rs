//! What hostile requests may make of memory, and a process that may have no more of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{RECOVERY, admin, details, proc};
use crate::ground::{Ground, within};
use crate::process::Server;

/// Hostile clients at once: more than a small machine works on, and each kind several times.
const CLIENTS: usize = 96;
/// What they may make the process grow by at its highest, in MiB: half as much again as their bodies may hold. Each is allowed a body of 1 MiB, which is 96 already.
const GROWTH_MIB: u64 = 150;
/// The address space that the process gets beyond what it has when it serves. Were 96 bodies of 50 MB taken in, 4.8 GB would be wanted.
const SPACE_MIB: u64 = 1024;
/// What a client sends at most.
const SENT_MAX: usize = 50_000_000;

on_both! { a_storm_of_hostile_bodies_stays_within_its_bound_also_where_there_is_no_more }

/// Bodies that want memory: long ones with and without their length, nested ones, ones of many members, of one long text, and heads without an end.
fn storm(number: usize, token: &str) -> (String, Vec<u8>) {
    let head = |fields: &str| {
        format!(
            "POST /api/products HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nauthorization: Bearer {token}\r\n{fields}\r\n\r\n"
        )
    };
    let sized = |body: Vec<u8>| (head(&format!("content-length: {}", body.len())), body);
    const ALMOST: usize = 1_000_000;
    match number % 6 {
        0 => (head(&format!("content-length: {SENT_MAX}")), vec![b'x'; 1 << 16]),
        1 => (head("transfer-encoding: chunked"), [b"10000\r\n".as_slice(), &vec![b'x'; 1 << 16], b"\r\n"].concat()),
        2 => sized([b"[".repeat(ALMOST / 2), b"]".repeat(ALMOST / 2)].concat()),
        3 => {
            sized([b"{".to_vec(), (0..ALMOST / 10).flat_map(|key| format!("\"{key:05}\":1,").into_bytes()).collect(), b"\"z\":1}".to_vec()].concat())
        }
        4 => sized(format!("{{\"name\":\"{}\"}}", "\\u00e9".repeat(ALMOST / 6 - 10)).into_bytes()),
        _ => ("GET / HTTP/1.1\r\nhost: localhost\r\n".to_owned(), b"x-filler: ".iter().copied().chain(vec![b'y'; 1 << 16]).collect()),
    }
}

/// Sends it, and goes on sending the same for as long as anybody takes it, up to a bound; the status, if there is an answer.
async fn send(server: &Server, (head, piece): (String, Vec<u8>), endless: bool) -> Option<u16> {
    let mut stream = TcpStream::connect(server.public).await.ok()?;
    let (mut reads, mut writes) = stream.split();
    let sending = async {
        writes.write_all(head.as_bytes()).await?;
        let mut sent = 0;
        while sent < SENT_MAX {
            writes.write_all(&piece).await?;
            sent += piece.len();
            if !endless {
                break;
            }
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    let mut answer = vec![0; 64];
    let read = tokio::select! {
        read = reads.read(&mut answer) => read.ok()?,
        // Nobody takes more: the answer is there, or the connection is gone.
        _ = sending => 0,
    };
    let read = if read == 0 { reads.read(&mut answer).await.ok()? } else { read };
    std::str::from_utf8(&answer[..read]).ok()?.split(' ').nth(1)?.parse().ok()
}

fn mib(server: &Server, name: &str) -> u64 {
    let status = proc(server.pid(), "status");
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

async fn a_storm_of_hostile_bodies_stays_within_its_bound_also_where_there_is_no_more(ground: Arc<Ground>) {
    let mut server = Server::start(&ground.pairs(&[]));
    let (admin, _) = admin(&server).await;
    let path = admin.post("/api/products", &json!({"name": "Calm"})).await.expect(201).header("location").unwrap().to_owned();
    let (before, space) = (mib(&server, "VmHWM"), mib(&server, "VmSize"));
    let limit = rustix::process::Rlimit { current: Some((space + SPACE_MIB) << 20), maximum: Some((space + SPACE_MIB) << 20) };
    rustix::process::prlimit(Some(server.pid()), rustix::process::Resource::As, limit).unwrap();

    for _ in 0..2 {
        let sending = (0..CLIENTS).map(|number| send(&server, storm(number, admin.token()), matches!(number % 6, 0 | 1 | 5)));
        // How quickly others are served meanwhile is the drill's (`payload`), on a build that is fast; here they are.
        let (statuses, ()) = tokio::join!(join_all(sending), async {
            for _ in 0..10 {
                server.client().get("/health/live").await.expect(200);
                admin.get(&path).await.expect(200);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        for (number, status) in statuses.iter().enumerate() {
            let expected: &[u16] = match number % 6 {
                0 | 1 => &[413],
                5 => &[431],
                _ => &[400, 413],
            };
            assert!(status.is_none_or(|status| expected.contains(&status)), "{number}: {status:?}");
        }
        assert!(statuses.iter().flatten().count() > CLIENTS / 2, "most hear why: {statuses:?}");
    }
    let grown = mib(&server, "VmHWM") - before;
    eprintln!("{grown} MiB more than the {before} before, at the highest");
    assert!(grown < GROWTH_MIB, "{grown} MiB more than before");
    within(RECOVERY, "all is well", || async { details(&server).await["status"] == "ok" }).await;
    admin.patch(&path, &json!({"name": "Calm again"})).await.expect(200);
    assert_eq!(server.end(RECOVERY), 0, "{}", server.output());
    assert!(!server.log().contains("panic"), "{}", server.log());
}
