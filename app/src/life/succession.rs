//! How a new process takes over from this one while it serves, and what keeps it from doing so.
//!
//! Until the new process says that it serves, nothing changes here: whatever becomes of it, this one goes on.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use mainstay::config::Birth;
use mainstay::error::Result;
use mainstay::handover::{MANAGEMENT, PUBLIC, Socket, Successor, Supervisor};
use mainstay::serve;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::serving::taken;
use super::signals::{Ask, Signals};
use crate::app::App;

/// A listening socket, held a second time so that it can be given to another process while it is served.
pub(super) struct Door {
    pub(super) address: SocketAddr,
    /// A supervisor holds it as well.
    pub(super) held: bool,
    socket: OwnedFd,
}

/// Both of them.
pub(super) struct Doors {
    pub(super) public: Door,
    pub(super) management: Door,
}

impl Door {
    /// The socket that was inherited, or a new one at `address`.
    pub(super) fn open(address: SocketAddr, inherited: Option<Socket>) -> Result<(TcpListener, Door)> {
        let held = inherited.as_ref().is_some_and(|socket| socket.held);
        let inherits = inherited.is_some();
        let listener = match inherited {
            Some(socket) => serve::adopt(socket.listener),
            None => serve::bind(address),
        };
        let listener = listener.map_err(taken(address))?;
        let bound = listener.local_addr().map_err(taken(address))?;
        if inherits && !held && bound != address && address.port() != 0 {
            tracing::warn!(%bound, configured = %address, "an address changes with a restart, not with a handover");
        }
        let socket = listener.as_fd().try_clone_to_owned().map_err(taken(address))?;
        Ok((listener, Door { address: bound, held, socket }))
    }
}

/// Why a process stops serving.
pub(super) enum Farewell {
    /// It was asked to, with the new process that had not taken over yet, and the end of one that did not serve in time.
    Asked(Option<Successor>, Option<JoinHandle<()>>),
    /// The new process serves.
    HandedOver(Successor),
}

/// Serves on until there is a reason not to.
pub(super) async fn until_farewell(app: &App, birth: &Birth, doors: &Doors, supervisor: &Supervisor, signals: &mut Signals) -> Farewell {
    let mut given_up: Option<JoinHandle<()>> = None;
    loop {
        match signals.next().await {
            Ask::End(signal) => {
                let drain_delay_ms = app.settings.stack.drain_delay.as_millis() as u64;
                tracing::info!(signal, drain_delay_ms, "ending: readiness fails, requests are still served");
                return Farewell::Asked(None, given_up);
            }
            Ask::HandOver(signal) => {
                supervisor.tell("RELOADING=1");
                if given_up.as_ref().is_none_or(JoinHandle::is_finished) {
                    match hand_over(app, birth, doors, supervisor, signals, signal).await {
                        Outcome::TakenOver(successor) => return Farewell::HandedOver(successor),
                        Outcome::Ending(successor) => return Farewell::Asked(Some(successor), given_up),
                        Outcome::Failed => app.auth.news().alone_again(),
                        Outcome::Late(successor) => {
                            // It may have begun to serve a moment ago: then it finishes what it has, and this process is not alone before.
                            let (news, grace) = (app.auth.news().clone(), app.settings.stack.shutdown_timeout);
                            given_up = Some(tokio::spawn(async move {
                                successor.give_up(grace).await;
                                news.alone_again();
                            }));
                        }
                    }
                } else {
                    tracing::warn!(signal, "ignored: the new process that did not serve in time has not ended yet");
                }
                supervisor.tell("READY=1");
            }
        }
    }
}

/// What became of a handover.
enum Outcome {
    TakenOver(Successor),
    /// This process was asked to end meanwhile.
    Ending(Successor),
    /// The new process did not start, or died.
    Failed,
    /// It did not serve in time.
    Late(Successor),
}

/// Tries to hand over.
async fn hand_over(app: &App, birth: &Birth, doors: &Doors, supervisor: &Supervisor, signals: &mut Signals, signal: &'static str) -> Outcome {
    let stack = &app.settings.stack;
    let begun = Instant::now();
    let sockets = [(PUBLIC, doors.public.held, doors.public.socket.as_fd()), (MANAGEMENT, doors.management.held, doors.management.socket.as_fd())];
    let program = birth.program.display();
    let mut successor = match Successor::start(birth, &sockets) {
        Ok(successor) => successor,
        Err(error) => {
            tracing::error!(signal, %program, %error, "nothing was handed over: the new process cannot be started; this one goes on");
            return Outcome::Failed;
        }
    };
    let pid = successor.pid();
    app.auth.news().accompanied();
    tracing::info!(signal, %program, pid, "handing over: a new process prepares itself, this one goes on until that one serves");
    let late = tokio::time::sleep(stack.handover_timeout);
    tokio::pin!(late);
    loop {
        tokio::select! {
            ready = successor.ready() => match ready {
                Ok(()) => {
                    let took_ms = begun.elapsed().as_millis() as u64;
                    tracing::info!(pid, took_ms, "handed over: the new process serves, this one finishes what it has begun");
                    supervisor.tell(&format!("MAINPID={pid}\nREADY=1"));
                    return Outcome::TakenOver(successor);
                }
                Err(died) => {
                    tracing::error!(pid, exit_code = died.0.code(), error = %died, "nothing was handed over; this process goes on");
                    return Outcome::Failed;
                }
            },
            () = &mut late => {
                let waited_ms = stack.handover_timeout.as_millis() as u64;
                tracing::error!(pid, waited_ms, "nothing was handed over: the new process did not serve in time and is ended; this one goes on");
                return Outcome::Late(successor);
            }
            ask = signals.next() => match ask {
                Ask::HandOver(again) => tracing::warn!(signal = again, pid, "ignored: a new process prepares itself already"),
                Ask::End(signal) => {
                    tracing::info!(signal, pid, "ending, and the new process with this one");
                    return Outcome::Ending(successor);
                }
            },
        }
    }
}
