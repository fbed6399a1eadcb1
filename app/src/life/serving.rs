//! Serving, and its end.
//!
//! On SIGTERM or SIGINT readiness fails while requests are still served (`DRAIN_DELAY`), then connections are told to close, requests in flight, writes
//! in progress and running jobs finish, pools close, and the exit code says whether anything had to be cut. A second signal ends at once.
//!
//! On SIGUSR2 a new process begins to serve on the same sockets, and then this one ends in the same way, but for the balancer: readiness does not fail,
//! because the address is served on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mainstay::client::Networks;
use mainstay::config;
use mainstay::error::{Error, Result, codes};
use mainstay::handover::{Heir, Inherited, Predecessor, Successor, Supervisor, Word};
use mainstay::log::Sink;
use mainstay::metrics::Metrics;
use mainstay::news::News;
use mainstay::serve::{self, Drain, Limits, Report};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::End;
use super::descriptors::MANAGEMENT_MAX;
use super::signals::{Ask, Signals};
use super::succession::{Door, Doors, Farewell, until_farewell};
use crate::app::App;
use crate::management;
use crate::sweep;

/// Histograms grow until they are folded.
const UPKEEP: Duration = Duration::from_secs(5);
/// Room for what a process does after its grace: its log, its runtime.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// Where the process comes from.
#[derive(Debug)]
pub struct Origin {
    /// How it was started.
    pub birth: config::Birth,
    /// What it was given.
    pub inherited: Inherited,
    /// What it is asked.
    pub signals: Signals,
    /// Connections of clients that it has room for.
    pub connections_max: usize,
}

/// Where the service listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// For everybody.
    pub public: SocketAddr,
    /// For the operator.
    pub management: SocketAddr,
    /// Another process serves there, and makes room.
    pub taken_over: bool,
}

/// What runs while the service serves.
struct Serving {
    drain: Drain,
    management_drain: Drain,
    public: JoinHandle<Report>,
    upkeep: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    /// The process before accepts on the same sockets, or may again.
    shared: Arc<AtomicBool>,
}

/// Serves until a signal comes, and drains. `started` is called once, when connections are accepted.
///
/// # Errors
/// When an address cannot be bound.
pub async fn serve(app: App, log: Sink, metrics: Metrics, origin: Origin, started: impl FnOnce(Addresses)) -> Result<End> {
    let Origin { birth, inherited, mut signals, connections_max } = origin;
    let Inherited { public, management, predecessor } = inherited;
    let supervisor = Supervisor::of(&birth);
    let stack = &app.settings.stack;
    let (public, public_door) = Door::open(SocketAddr::new(stack.host, stack.port), public)?;
    let (management, management_door) = Door::open(stack.management_addr, management)?;
    let addresses = Addresses { public: public_door.address, management: management_door.address, taken_over: predecessor.is_some() };
    let doors = Doors { public: public_door, management: management_door };
    let (pass, passed_on) = mpsc::unbounded_channel();
    // Before the first connection is accepted: it may have waited in a queue that was there before the process, and ask for just that.
    app.health.ready();
    if predecessor.is_some() {
        app.auth.news().accompanied();
    }
    let serving = Serving::begin(&app, connections_max, public, management, passed_on, log, metrics);
    app.jobs.start();
    started(addresses);
    match predecessor {
        None => supervisor.tell("READY=1"),
        Some(predecessor) => {
            let (call_off, called_off) = oneshot::channel();
            signals.hear(called_off);
            serving.shared.store(true, Ordering::Relaxed);
            tokio::spawn(heed(predecessor, pass, call_off, serving.shared.clone(), app.auth.news().clone()));
        }
    }
    let farewell = until_farewell(&app, &birth, &doors, &supervisor, &mut signals).await;
    let handed_over = matches!(farewell, Farewell::HandedOver(_));
    let (upkeep, sweeping, management_drain) = (serving.upkeep.abort_handle(), serving.sweeping.abort_handle(), serving.management_drain.clone());
    let end = tokio::select! {
        end = serving.end(&app, doors, farewell, &supervisor) => end,
        name = insisted(&mut signals, handed_over) => {
            tracing::error!(signal = name, "second signal: ending at once");
            End::Cut
        }
    };
    upkeep.abort();
    sweeping.abort();
    management_drain.cut();
    Ok(end)
}

/// Tells the process before that this one serves, and takes what it leaves.
async fn heed(
    predecessor: Predecessor,
    pass: mpsc::UnboundedSender<std::net::TcpStream>,
    call_off: oneshot::Sender<()>,
    shared: Arc<AtomicBool>,
    news: News,
) {
    // If it is gone, the next word says so.
    let _ = predecessor.ready().await;
    let mut ours = false;
    loop {
        match predecessor.word().await {
            Word::Yours => {
                ours = true;
                shared.store(false, Ordering::Relaxed);
                tracing::info!("taken over: the process before accepts nothing more");
            }
            // Received by `serve` for as long as it accepts; afterwards nobody is asking on it either.
            Word::Connection(connection) => drop(pass.send(connection)),
            Word::End => {
                // Both end, and whoever is last closes the socket.
                shared.store(false, Ordering::Relaxed);
                // If nobody hears it, the process is ending.
                let _ = call_off.send(());
                return;
            }
            Word::Gone => {
                if ours {
                    tracing::info!("the process before has ended");
                } else {
                    tracing::warn!("the process before died while it handed over; this one goes on");
                }
                shared.store(false, Ordering::Relaxed);
                news.alone_again();
                return;
            }
        }
    }
}

/// Returns when somebody does not want to wait. A process that has handed over was not asked to end yet: who stops a whole group of processes, as a terminal and
/// systemd do, asks it for the first time.
async fn insisted(signals: &mut Signals, handed_over: bool) -> &'static str {
    let mut asked = !handed_over;
    loop {
        match signals.next().await {
            Ask::End(name) if asked => return name,
            Ask::End(name) => {
                asked = true;
                tracing::info!(signal = name, "this process has handed over and is ending already");
            }
            Ask::HandOver(name) => tracing::warn!(signal = name, "ignored: this process is ending"),
        }
    }
}

impl Serving {
    fn begin(
        app: &App,
        connections_max: usize,
        public: tokio::net::TcpListener,
        management: tokio::net::TcpListener,
        passed_on: mpsc::UnboundedReceiver<std::net::TcpStream>,
        log: Sink,
        metrics: Metrics,
    ) -> Self {
        let stack = &app.settings.stack;
        let (drain, management_drain) = (Drain::new(), Drain::new());
        let trusted = Networks::new(stack.trusted_proxies.clone());
        let limits = Limits {
            connections_max,
            // Half of the total is left to others, also where open files make that less than is set.
            connections_per_address_max: if connections_max < stack.connections_max {
                stack.connections_per_address_max.min((connections_max / 2).max(1))
            } else {
                stack.connections_per_address_max
            },
            header_timeout: stack.header_timeout,
            idle_timeout: stack.idle_timeout,
            // A connection earns its long idle time with its second request.
            idle_timeout_fresh: stack.idle_timeout.min(Duration::from_secs(30)),
            trusted: Arc::new(move |address| trusted.contain(address)),
            ..Limits::default()
        };
        tokio::spawn(serve::serve(
            management,
            serve::Plain(management::router(app.clone(), metrics.clone(), log.clone())),
            Limits { connections_max: MANAGEMENT_MAX, ..Limits::default() },
            management_drain.clone(),
        ));
        let public = tokio::spawn(serve::serve_with(public, passed_on, app.service(log, metrics.clone()), limits, drain.clone()));
        let upkeep = tokio::spawn(async move {
            let mut tick = tokio::time::interval(UPKEEP);
            loop {
                tick.tick().await;
                metrics.upkeep();
            }
        });
        let sweeping = tokio::spawn(sweep::keep_swept(app.clone()));
        Self { drain, management_drain, public, upkeep, sweeping, shared: Arc::default() }
    }

    async fn end(self, app: &App, doors: Doors, farewell: Farewell, supervisor: &Supervisor) -> End {
        let stack = &app.settings.stack;
        let grace = stack.shutdown_timeout;
        let (successor, given_up) = match farewell {
            Farewell::HandedOver(successor) => return self.hand_over(app, doors, successor).await,
            Farewell::Asked(successor, given_up) => (successor, given_up),
        };
        supervisor.tell("STOPPING=1");
        app.health.draining();
        let succession_ends = async {
            if let Some(successor) = successor {
                successor.end(stack.drain_delay + grace + LAST_STEPS).await;
            }
            if let Some(given_up) = given_up {
                let _ = given_up.await;
            }
        };
        let ending = async {
            tokio::time::sleep(stack.drain_delay).await;
            let held = doors.public.held || self.shared.load(Ordering::Relaxed);
            // The last that holds the socket closes it: else new connections would wait in a queue for nobody.
            drop(doors);
            if held {
                self.drain.leave(grace)
            } else {
                self.drain.begin(grace)
            }
            finish(app, self.public, Instant::now()).await
        };
        tokio::join!(ending, succession_ends).0
    }

    async fn hand_over(self, app: &App, doors: Doors, successor: Successor) -> End {
        let begun = Instant::now();
        drop(doors);
        // A scrape must not find the old figures where the new ones are expected.
        self.management_drain.leave(app.settings.stack.shutdown_timeout);
        let heir = successor.take_over().await;
        let (pass, passing) = mpsc::unbounded_channel();
        self.drain.hand_over(app.settings.stack.shutdown_timeout, pass);
        let (over, is_over) = oneshot::channel();
        let passing_on = tokio::spawn(pass_on(heir, passing, is_over));
        let end = finish(app, self.public, begun).await;
        let _ = over.send(());
        // A new process that does not read keeps this one no longer than anything else may.
        match tokio::time::timeout(LAST_STEPS, passing_on).await {
            Ok(Ok(count)) => tracing::debug!(count, "connections passed on"),
            Ok(Err(error)) => tracing::error!(%error, "passing connections on failed"),
            Err(_) => tracing::warn!("the new process does not take the connections that are left; they are closed"),
        }
        end
    }
}

/// Passes connections on to the new process until `is_over`; gives their number. One that cannot be passed on is closed, as in any other drain.
async fn pass_on(heir: Heir, mut passing: mpsc::UnboundedReceiver<std::net::TcpStream>, is_over: oneshot::Receiver<()>) -> usize {
    let mut is_over = Some(is_over);
    let mut count = 0;
    loop {
        let over = async {
            match &mut is_over {
                Some(is_over) => drop(is_over.await),
                None => std::future::pending().await,
            }
        };
        let connection = tokio::select! {
            connection = passing.recv() => connection,
            () = over => {
                is_over = None;
                // What was sent before is still received.
                passing.close();
                continue;
            }
        };
        let Some(connection) = connection else { return count };
        match heir.pass_on(connection).await {
            Ok(()) => count += 1,
            Err(error) => tracing::warn!(%error, "a connection could not be passed on to the new process"),
        }
    }
}

/// Waits for everything that has begun, until the grace that began at `begun` is over.
async fn finish(app: &App, serving: JoinHandle<Report>, begun: Instant) -> End {
    let stack = &app.settings.stack;
    let cut = match serving.await {
        Ok(report) => {
            tracing::info!(
                accepted = report.accepted,
                refused = report.refused,
                cut = report.cut,
                unfinished = report.unfinished,
                "connections drained"
            );
            report.cut
        }
        Err(error) => {
            tracing::error!(error = %error, "the accept loop failed");
            1
        }
    };
    let left = || stack.shutdown_timeout.saturating_sub(begun.elapsed()).max(Duration::from_millis(100));
    let written = tokio::time::timeout(left(), app.writes.drained()).await.is_ok();
    if !written {
        tracing::error!(writes = app.writes.in_progress(), "writes were cut");
    }
    // What requests have just enqueued was still being done meanwhile; the rest is another instance's, or the next start's.
    let done = app.jobs.stop(left()).await;
    let closed = app.database.close(left()).await;
    tracing::info!(took_ms = begun.elapsed().as_millis() as u64, "ended");
    if cut == 0 && written && done && closed { End::Clean } else { End::Cut }
}

/// Why there is no listening socket at `address`.
pub(super) fn taken(address: SocketAddr) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::new(&codes::INTERNAL).with_message(format!("Cannot listen on {address}: {error}")).caused_by(error)
}
