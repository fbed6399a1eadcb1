//! Connections that hold what they were given and give nothing: heads and bodies a byte at a time, and answers that nobody reads.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{AFTER, CALM, bystanders, memory, noticed, watch};
use crate::Plan;
use crate::outcome::{Line, Outcome, Plot};
use crate::target::Running;
use crate::watch::Watch;

const CONNECTIONS: usize = 5_000;
/// Beyond this nobody holds a connection by being slow.
const SHED: Duration = Duration::from_secs(35);
/// A busy machine, and what a client notices late.
const LATE: Duration = Duration::from_secs(5);
const BYTE_EVERY: Duration = Duration::from_secs(3);
/// Room for two answers.
const READER_BYTES: u32 = 4096;
/// Descriptors that the drill has beside those of the slow connections: files, bystanders, its runtime.
const SPARE: usize = 100;
/// Descriptors that may have come to the service by something else: files of the index, connections to its database.
const FEW: f64 = 16.0;
/// Each connection may cost the service this, with what the kernel does not count as its own.
const KIB_EACH: f64 = 40.0;
/// Beside that.
const MEMORY_MIB: f64 = 64.0;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Silent,
    Head,
    Body,
    Reader,
}

const KINDS: [Kind; 4] = [Kind::Silent, Kind::Head, Kind::Body, Kind::Reader];

/// Connects from this address. Who does not read has no room for answers either: what a kernel takes in for him was answered, and that would be a surge.
async fn open(address: SocketAddr, from: IpAddr, kind: Kind) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if kind == Kind::Reader {
        socket.set_recv_buffer_size(READER_BYTES)?;
    }
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Begins to be slow, and says when the connection ended: `None` if it stood at `until`.
async fn hold(running: &Running, number: usize, until: Instant) -> std::io::Result<(Kind, Option<Duration>)> {
    let kind = KINDS[number % KINDS.len()];
    // Each from an address of its own net: a cap for each address is not what is tried here.
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, u8::try_from(1 + number / 250 % 200).unwrap_or(1), u8::try_from(1 + number % 250).unwrap_or(1)));
    let mut stream = open(running.address, from, kind).await?;
    let begun = Instant::now();
    let head = format!(
        "{} HTTP/1.1\r\nhost: localhost\r\n",
        match kind {
            Kind::Body => format!("POST {}", running.posts),
            _ => format!("GET {}", running.reads),
        }
    );
    let fields: String = running.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let beginning = match kind {
        Kind::Silent => String::new(),
        Kind::Head => head + "x-slow: ",
        Kind::Body => head + &fields + "content-type: application/json\r\ncontent-length: 100000\r\n\r\n{",
        // More answers than the kernels hold between us, and none is read.
        Kind::Reader => (head + "\r\n").repeat(400),
    };
    stream.write_all(beginning.as_bytes()).await?;
    loop {
        if Instant::now() >= until {
            return Ok((kind, None));
        }
        match kind {
            Kind::Silent => {
                if timeout(BYTE_EVERY, ended(&mut stream)).await.is_ok() {
                    return Ok((kind, Some(begun.elapsed())));
                }
            }
            Kind::Head | Kind::Body => {
                if timeout(BYTE_EVERY, ended(&mut stream)).await.is_ok() || stream.write_all(b"a").await.is_err() {
                    return Ok((kind, Some(begun.elapsed())));
                }
            }
            Kind::Reader => {
                tokio::time::sleep(BYTE_EVERY).await;
                // Asking the socket takes nothing out of it: it says whether the other side is still there.
                if stream.take_error()?.is_some() || stream.write_all(b"\r\n").await.is_err() {
                    return Ok((kind, Some(begun.elapsed())));
                }
            }
        }
    }
}

/// Waits for the end of the connection; an answer before it is read.
async fn ended(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// What became of the slow connections.
#[derive(Default)]
struct Tally {
    opened: usize,
    refused: usize,
    /// Those that nobody ended.
    held: Vec<Kind>,
    /// When the others ended, in seconds after the beginning.
    ends: Vec<f64>,
}

impl Tally {
    fn note(&mut self, begun: Instant, at: Instant, outcome: &std::io::Result<(Kind, Option<Duration>)>) {
        match outcome {
            Ok((kind, ended)) => {
                self.opened += 1;
                match ended {
                    Some(lasted) => self.ends.push((at - begun + *lasted).as_secs_f64()),
                    None => self.held.push(*kind),
                }
            }
            Err(_) => self.refused += 1,
        }
    }

    fn report(&mut self, outcome: &mut Outcome, wanted: usize, harm: (Duration, Duration)) {
        outcome.want("slow connections", format!("{} of {wanted}", self.opened), "most of them could be opened", self.opened * 10 >= wanted * 9);
        if self.refused > 0 {
            outcome.note("refused or reset at once", self.refused);
        }
        let of_kind = |kind: &Kind| self.held.iter().filter(|held| *held == kind).count();
        let still: Vec<String> =
            KINDS.iter().map(|kind| (kind, of_kind(kind))).filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{count} {kind:?}")).collect();
        let still = if still.is_empty() { "none".to_owned() } else { still.join(", ").to_lowercase() };
        outcome.want(format!("still there after {} s", (SHED + LATE).as_secs()), still, "none", self.held.is_empty());
        self.ends.sort_by(f64::total_cmp);
        let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let ends = self.ends.iter().enumerate().map(|(number, at)| (*at, count(self.opened - number - 1)));
        let points = [(harm.0.as_secs_f64(), count(self.opened))].into_iter().chain(ends).collect();
        let line = Line { name: "slow connections".to_owned(), points };
        outcome.plots.push(Plot { title: "connections that are held".to_owned(), lines: vec![line], logarithmic: false, harm: Vec::new() });
    }
}

/// That the service itself had the connections, and lets go of them: seen in its descriptors, whatever clients believe.
fn at_the_service(outcome: &mut Outcome, descriptors: Option<&Watch>, wanted: usize, harm: (Duration, Duration)) {
    let Some(descriptors) = descriptors else { return };
    let (most, before) = descriptors.most(harm.0);
    let wanted = f64::from(u32::try_from(wanted).unwrap_or(u32::MAX));
    let had = most - before;
    outcome.want("sockets that the service had for them at once", format!("{had:.0}"), "most of them", had >= wanted * 0.9);
    let left = descriptors.seen().last().map_or(f64::NAN, |(_, count)| count - before);
    outcome.want("sockets that it has left", format!("{left:.0}"), "none", left <= FEW);
    let line = Line { name: "files and sockets".to_owned(), points: descriptors.seen() };
    outcome.plots.push(Plot {
        title: "descriptors of the service".to_owned(),
        lines: vec![line],
        logarithmic: false,
        harm: vec![super::seconds(harm)],
    });
}

/// Both ends of a connection have a descriptor, each in its own process; the service asks for its own by itself.
fn make_room(wanted: usize) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let (has, needs) = (getrlimit(Resource::Nofile).current, (wanted + SPARE) as u64);
    if has.is_some_and(|has| has < needs) {
        return Err(format!("it needs {needs} descriptors, and may have {}: raise the hard limit (ulimit -Hn)", has.unwrap_or_default()));
    }
    Ok(())
}

pub(super) async fn run(plan: &Plan, running: &Running) -> Result<Outcome, String> {
    let wanted = plan.number(CONNECTIONS);
    if let Err(why) = make_room(wanted) {
        return Ok(Outcome::skipped(why));
    }
    let begun = Instant::now();
    let harm = (CALM, CALM + SHED + LATE);
    let watch = watch(running, begun);
    let descriptors = running.pid.map(|pid| Watch::descriptors(pid, begun));
    let bystanding = tokio::spawn({
        let (load, until) = (bystanders(running), begun + harm.1 + AFTER);
        async move { load.run(begun, until).await }
    });
    tokio::time::sleep_until((begun + harm.0).into()).await;
    let until = begun + harm.1;
    let slow = (0..wanted).map(|number| {
        let running = running.clone();
        tokio::spawn(async move {
            // Not all in one moment: a queue of connections that overflows tries the kernel.
            tokio::time::sleep(Duration::from_millis(number as u64 / 4)).await;
            (Instant::now(), hold(&running, number, until).await)
        })
    });
    let mut tally = Tally::default();
    for connection in join_all(slow.collect::<Vec<_>>()).await {
        let (at, outcome) = connection.map_err(|error| error.to_string())?;
        tally.note(begun, at, &outcome);
    }
    let record = bystanding.await.map_err(|error| error.to_string())?;
    let mut outcome = Outcome::default();
    tally.report(&mut outcome, wanted, harm);
    at_the_service(&mut outcome, descriptors.as_ref(), wanted, harm);
    noticed(&mut outcome, &record, harm, 2);
    memory(&mut outcome, watch.as_ref(), harm, MEMORY_MIB + wanted as f64 * KIB_EACH / 1024.0);
    Ok(outcome)
}
