//! Can a wrong password be told from an unknown account by time? A thousand pairs of sign-ins against a running service:
//!
//!     cargo run -p mainstay --example timing -- 127.0.0.1:3000 1000
//!
//! Opens an account of its own and signs in to it, with a wrong password, in turns with accounts that do not exist. Ends with 1 when the times differ by 30 % or more, or when they
//! were too noisy to tell. Each pair is two verifications of 20 to 30 ms. The limits on requests and on tries of the service have to let them all through.
#![expect(clippy::print_stdout, reason = "what it measured is what it is for")]

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mainstay::testing::{Client, Pairs, Verdict, request};
use uuid::Uuid;

/// At this many the service is measured for minutes.
const PAIRS_MAX: usize = 10_000;
/// What the times may differ by.
const TOLERANCE: f64 = 0.3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = arguments.first().map_or("127.0.0.1:3000", String::as_str).parse().map_err(io::Error::other)?;
    let pairs: usize = arguments.get(1).map_or("1000", String::as_str).parse().map_err(io::Error::other)?;
    let mut client = Client::connect(address).await?;
    let known = format!("timing-{}@example.com", Uuid::new_v4());
    let account = format!(r#"{{"email":"{known}","name":"Timed","password":"{}"}}"#, Uuid::new_v4());
    send(&mut client, "/api/auth/register", &account, 201).await?;

    let mut measured = Pairs::default();
    for number in 0..pairs.min(PAIRS_MAX) {
        let unknown = format!("nobody-{}@example.com", Uuid::new_v4());
        let (of_known, of_unknown) = if number % 2 == 0 {
            let of_known = sign_in(&mut client, &known).await?;
            (of_known, sign_in(&mut client, &unknown).await?)
        } else {
            let of_unknown = sign_in(&mut client, &unknown).await?;
            (sign_in(&mut client, &known).await?, of_unknown)
        };
        measured.push(of_known, of_unknown);
    }
    let comparison = measured.compare();
    println!("known account over unknown one, {comparison}");
    Ok(if comparison.within(TOLERANCE) == Verdict::Same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How long it takes to be told that a password is wrong.
async fn sign_in(client: &mut Client, email: &str) -> io::Result<Duration> {
    let body = format!(r#"{{"email":"{email}","password":"not the password"}}"#);
    let begun = Instant::now();
    send(client, "/api/auth/login", &body, 401).await?;
    Ok(begun.elapsed())
}

async fn send(client: &mut Client, path: &str, body: &str, expected: u16) -> io::Result<()> {
    client.write(request("POST", path, &[("Content-Type", "application/json")], body)).await?;
    let answer = client.read(false).await?;
    if answer.status == expected { Ok(()) } else { Err(io::Error::other(format!("POST {path}: {} {}", answer.status, answer.text()))) }
}
