//! People who sign in from where the service has never seen them, to accounts that nobody guesses at.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::sign_in;
use crate::caller::Caller;
use crate::client::Connection;
use crate::load::Going;
use crate::record::{End, Record};
use crate::target::PASSWORD;

const ACCOUNTS: usize = 8;
const PAUSE: Duration = Duration::from_secs(1);
/// Somebody who is not in by then gives up.
const PATIENCE: Duration = Duration::from_secs(10);

fn email(number: usize) -> String {
    format!("traveller-{}@example.com", number % ACCOUNTS)
}

/// Opens their accounts.
pub(super) async fn register(address: SocketAddr) -> Result<(), String> {
    for number in 0..ACCOUNTS {
        Caller::stranger(address).from("192.0.2.1").register(&email(number)).await?;
    }
    Ok(())
}

/// One a second signs in, each from an address of its own, and comes back as told until he is in.
pub(super) fn go(address: SocketAddr, begun: Instant) -> Going {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let task = async move {
        let (mut record, mut coming) = (Record::new(begun), JoinSet::new());
        for number in 0_u32.. {
            tokio::time::sleep_until((begun + PAUSE * number).into()).await;
            if stopped.load(Ordering::Acquire) {
                break;
            }
            coming.spawn(comes(address, number, begun));
        }
        while let Some(came) = coming.join_next().await {
            match came {
                Ok(seen) => record.merge(seen),
                Err(panic) => record.failure = Some(panic.to_string()),
            }
        }
        record
    };
    Going::new(stop, tokio::spawn(task))
}

async fn comes(address: SocketAddr, number: u32, begun: Instant) -> Record {
    let (mut record, due) = (Record::new(begun), Instant::now());
    let from = format!("2001:db8:{:x}:{:x}::1", number >> 16, number & 0xffff);
    let request = sign_in(&from, &email(number as usize), PASSWORD);
    loop {
        let answer = match Connection::open(address, None).await {
            Ok(mut connection) => connection.ask(&request).await,
            Err(error) => Err(error),
        };
        let told = answer.as_ref().ok().filter(|answer| answer.refuses()).and_then(|answer| answer.field("retry-after")?.parse().ok());
        match (&answer, told) {
            (Ok(answer), _) if answer.status == 200 => record.note(due, Instant::now(), End::Served),
            (_, Some(seconds)) if due.elapsed() + Duration::from_secs(seconds) <= PATIENCE => {
                record.note(due, Instant::now(), End::Refused);
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                continue;
            }
            (answer, _) => {
                record.note(due, Instant::now(), End::Failed);
                record.failure = Some(answer.as_ref().map_or_else(ToString::to_string, |answer| answer.said()));
            }
        }
        return record;
    }
}
