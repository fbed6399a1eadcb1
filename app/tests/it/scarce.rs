//! What the machine gives runs out under the real process: room on the disk, descriptors, memory. Each test takes it away, looks at what clients and the
//! operator see meanwhile, gives it back, and wants all to be as before, in the same process.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::ground::{ADMIN, PASSWORD};
use crate::process::Server;

mod descriptors;
mod disk;
mod memory;

/// How soon all is as before.
const RECOVERY: Duration = Duration::from_secs(5);

/// Signs the first administrator in; what was answered.
async fn sign_in(client: &Client) -> Answer {
    client.post("/api/auth/login", &json!({"email": ADMIN, "password": PASSWORD})).await
}

/// The first administrator, signed in, and his refresh token.
async fn admin(server: &Server) -> (Client, String) {
    let signed = sign_in(&server.client()).await.expect(200).data();
    (server.client().with_token(text(&signed, "access_token")), text(&signed, "refresh_token"))
}

#[track_caller]
fn text(data: &Value, name: &str) -> String {
    data[name].as_str().unwrap_or_else(|| panic!("no {name}: {data}")).to_owned()
}

/// What the operator sees.
async fn details(server: &Server) -> Value {
    Client::new(server.management).get("/health").await.json()
}

/// The word of the public health.
async fn health(server: &Server) -> String {
    let answer = server.client().get("/health").await;
    answer.json()["status"].as_str().unwrap_or_default().to_owned()
}

/// A figure of the metrics, all its labels together; nothing counted is 0.
async fn metric(server: &Server, name: &str) -> f64 {
    let text = Client::new(server.management).get("/metrics").await.expect(200).text();
    let of_it = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    text.lines().filter(|line| of_it(line)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A file of proc(5) about a process.
fn proc(pid: Pid, name: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{name}", pid.as_raw_nonzero())).unwrap()
}
