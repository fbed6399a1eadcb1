//! Bodies that are too large, too deep, or become too large.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{AFTER, CALM, bystanders, memory, noticed, watch};
use crate::Plan;
use crate::client::Connection;
use crate::outcome::Outcome;
use crate::target::Running;

/// As in the incident.
const LARGE: usize = 50 * 1024 * 1024;
/// What a service may read of a body that has no length, before it must have said no.
const READ_MAX: usize = 4 * 1024 * 1024;
/// What lies between a client and the service, in both kernels, beside that.
const IN_BETWEEN: usize = 8 * 1024 * 1024;
/// Clients that send again at once.
const CLIENTS: usize = 24;
const HARM: Duration = Duration::from_secs(60);
/// What a connection may hold of a body, 1 MB, for each of 96 of them at once, and half as much again.
const MEMORY_MIB: f64 = 150.0;
const PATIENCE: Duration = Duration::from_secs(30);

/// A body that no service should take.
struct Bomb {
    name: &'static str,
    fields: Vec<(&'static str, String)>,
    body: Body,
}

enum Body {
    /// So many bytes of a JSON string.
    Long(usize),
    /// The same, in chunks.
    Chunked(usize),
    Whole(Vec<u8>),
}

fn bombs() -> Vec<Bomb> {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    // Into a vector: it cannot fail.
    let _ = gzip.write_all(format!("{{\"name\":\"{}\"}}", " ".repeat(LARGE)).as_bytes());
    let gzip = gzip.finish().unwrap_or_default();
    let plain = |name, body| Bomb { name, fields: Vec::new(), body };
    vec![
        plain("50 MB with its length", Body::Long(LARGE)),
        plain("50 MB in chunks", Body::Chunked(LARGE)),
        plain("100,000 levels", Body::Whole(deep.into_bytes())),
        Bomb { name: "50 MB as gzip", fields: vec![("content-encoding", "gzip".to_owned())], body: Body::Whole(gzip) },
    ]
}

/// What became of a bomb: the status, and the bytes that could be sent before it.
async fn drop_on(running: &Running, bomb: &Bomb) -> std::io::Result<(u16, usize)> {
    let mut head = format!("POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n", running.posts);
    for (name, value) in
        running.fields.iter().map(|(name, value)| (name.as_str(), value)).chain(bomb.fields.iter().map(|(name, value)| (*name, value)))
    {
        head += &format!("{name}: {value}\r\n");
    }
    let (length, chunked) = match &bomb.body {
        Body::Long(length) => (*length, false),
        Body::Chunked(length) => (*length, true),
        Body::Whole(bytes) => (bytes.len(), false),
    };
    head += &if chunked { "transfer-encoding: chunked\r\n\r\n".to_owned() } else { format!("content-length: {length}\r\n\r\n") };
    let mut stream = Connection::open(running.address, None).await?.into_stream();
    stream.write_all(head.as_bytes()).await?;
    let (mut reads, mut writes) = stream.split();
    // Counted as they go: the answer comes in the middle of it.
    let sent = AtomicUsize::new(0);
    let sending = async {
        let piece = vec![b' '; 64 * 1024];
        while sent.load(Ordering::Relaxed) < length {
            let from = sent.load(Ordering::Relaxed);
            let to = (from + piece.len()).min(length);
            let next = match &bomb.body {
                Body::Whole(bytes) => &bytes[from..to],
                Body::Long(_) | Body::Chunked(_) => &piece[..to - from],
            };
            let wrote = if chunked {
                let chunk = [format!("{:x}\r\n", next.len()).as_bytes(), next, b"\r\n"].concat();
                writes.write_all(&chunk).await
            } else {
                writes.write_all(next).await
            };
            if wrote.is_err() {
                break;
            }
            sent.store(to, Ordering::Relaxed);
        }
        if sent.load(Ordering::Relaxed) >= length && chunked {
            let _ = writes.write_all(b"0\r\n\r\n").await;
        }
    };
    let answering = async {
        let mut head = Vec::new();
        while head.len() < 12 {
            if reads.read_buf(&mut head).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        String::from_utf8_lossy(&head[9..12]).parse().map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))
    };
    tokio::pin!(sending, answering);
    // An answer ends the sending, as a client that reads would do it.
    let mut sends = true;
    loop {
        tokio::select! {
            status = &mut answering => return Ok((status?, sent.load(Ordering::Relaxed))),
            () = &mut sending, if sends => sends = false,
        }
    }
}

pub(super) async fn run(plan: &Plan, running: &Running) -> Result<Outcome, String> {
    let begun = Instant::now();
    let harm = (CALM, CALM + plan.length(HARM));
    let watch = watch(running, begun);
    let bystanding = tokio::spawn({
        let (load, until) = (bystanders(running), begun + harm.1 + AFTER);
        async move { load.run(begun, until).await }
    });
    tokio::time::sleep_until((begun + harm.0).into()).await;
    let bombs = Arc::new(bombs());
    let attackers = (0..CLIENTS).map(|client| {
        let (running, bombs, until) = (running.clone(), bombs.clone(), begun + harm.1);
        tokio::spawn(async move {
            let mut seen: BTreeMap<(&'static str, String), (u64, usize)> = BTreeMap::new();
            for turn in client.. {
                if Instant::now() >= until {
                    break;
                }
                let bomb = &bombs[turn % bombs.len()];
                let (what, sent) = match timeout(PATIENCE, drop_on(&running, bomb)).await {
                    Ok(Ok((status, sent))) => (status.to_string(), sent),
                    Ok(Err(error)) => (format!("no answer ({})", error.kind()), 0),
                    Err(_) => ("no answer in 30 s".to_owned(), 0),
                };
                let (count, most) = seen.entry((bomb.name, what)).or_default();
                *count += 1;
                *most = sent.max(*most);
            }
            seen
        })
    });
    let mut seen: BTreeMap<(&'static str, String), (u64, usize)> = BTreeMap::new();
    for attacker in join_all(attackers).await {
        for (key, (count, most)) in attacker.map_err(|error| error.to_string())? {
            let sum = seen.entry(key).or_default();
            *sum = (sum.0 + count, sum.1.max(most));
        }
    }
    let record = bystanding.await.map_err(|error| error.to_string())?;
    let mut outcome = Outcome::default();
    for bomb in bombs.iter() {
        let of = || seen.iter().filter(|((name, _), _)| *name == bomb.name);
        let said: Vec<String> = of().map(|((_, what), (count, _))| format!("{count} x {what}")).collect();
        let holds = of().count() > 0 && of().all(|((_, what), _)| matches!(what.as_str(), "413" | "415" | "400"));
        outcome.want(format!("{}: answers", bomb.name), said.join(", "), "413, 415 or 400", holds);
        if let Body::Chunked(_) = bomb.body {
            let most = of().map(|(_, (_, most))| *most).max().unwrap_or(0);
            let most_wanted = READ_MAX + IN_BETWEEN;
            let wanted = format!("at most {} MB, with what the kernels hold", most_wanted >> 20);
            outcome.want(
                format!("{}: sent before the answer", bomb.name),
                format!("{:.1} MB", most as f64 / 1_048_576.0),
                wanted,
                most <= most_wanted,
            );
        }
    }
    noticed(&mut outcome, &record, harm, 4);
    memory(&mut outcome, watch.as_ref(), harm, MEMORY_MIB);
    Ok(outcome)
}
