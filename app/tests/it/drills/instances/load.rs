//! A steady load on a service: a few clients that read and sign in all the time, with a pause so that it is the service that is measured and not the machine.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::client::{Answer, Client};
use crate::ground::{PASSWORD, within};

/// Between two reads of a client.
const READ_PAUSE: Duration = Duration::from_millis(10);
/// Between two sign-ins: a hash takes a core for 20 ms.
const SIGN_IN_PAUSE: Duration = Duration::from_millis(150);
/// Past it the load does not go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client asked and what came of it.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "what falls is shown whole")]
pub(super) struct Asked {
    pub(super) what: What,
    pub(super) begun: Instant,
    pub(super) took: Duration,
    pub(super) status: u16,
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Read,
    SignIn,
}

/// Runs until it is stopped.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Asked>>>,
    clients: JoinSet<()>,
}

impl Load {
    /// On each of these instances one client reads this path as this token's owner, and one signs in to this account.
    pub(super) fn start(instances: &[SocketAddr], path: &str, token: &str, email: &str) -> Self {
        let (over, asked, mut clients) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Asked>>>::default(), JoinSet::new());
        for (number, instance) in instances.iter().enumerate() {
            for what in [What::Read, What::SignIn] {
                let (over, asked, stranger) = (over.clone(), asked.clone(), Client::new(*instance));
                let (reader, path, email) = (stranger.with_token(token), path.to_owned(), email.to_owned());
                clients.spawn(async move {
                    for turn in 0.. {
                        if over.load(Ordering::Acquire) {
                            return;
                        }
                        let (begun, home) = (Instant::now(), home(number * 2 + usize::from(what == What::SignIn), turn));
                        let (answer, pause) = match what {
                            What::Read => (reader.ask("GET", &path, &[("x-forwarded-for", &home)], b"").await, READ_PAUSE),
                            What::SignIn => (sign_in(&stranger, &home, &email).await, SIGN_IN_PAUSE),
                        };
                        let text = if answer.status == 200 { String::new() } else { answer.text() };
                        asked.lock().unwrap().push(Asked { what, begun, took: begun.elapsed(), status: answer.status, text });
                        tokio::time::sleep(pause).await;
                    }
                });
            }
        }
        Self { over, asked, clients }
    }

    /// Waits until so many were asked of each kind, and a tenth of it.
    pub(super) async fn reaches(&self, reads: usize) {
        let count = |what| self.asked.lock().unwrap().iter().filter(|asked| asked.what == what).count();
        within(PATIENCE, "the load goes on", || async { count(What::Read) >= reads && count(What::SignIn) >= reads / 10 }).await;
    }

    /// What was asked since the last call.
    pub(super) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Ends it; what was asked since the last call.
    pub(super) async fn stop(mut self) -> Vec<Asked> {
        self.over.store(true, Ordering::Release);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        self.take()
    }
}

/// Each request comes from a home of its own, so that the limit of an address is asked about and meets nobody.
fn home(client: usize, turn: usize) -> String {
    format!("10.{client}.{}.{}", turn / 256 % 256, turn % 256)
}

async fn sign_in(client: &Client, home: &str, email: &str) -> Answer {
    let headers = [("content-type", "application/json"), ("x-forwarded-for", home)];
    client.ask("POST", "/api/auth/login", &headers, json!({"email": email, "password": PASSWORD}).to_string().as_bytes()).await
}
