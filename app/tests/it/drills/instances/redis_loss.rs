//! The drill of `redis-loss`: Redis silent, refused, slow, and back, under a steady load.

use std::sync::Arc;
use std::time::Duration;

use mainstay::testing::{Fault, FaultProxy};

use super::fleet::{BUSY, Fleet, INSTANCES, access, redis_url, register, sign_in};
use super::load::{Asked, Load, What, longest};
use crate::client::Client;
use crate::ground::{Ground, PASSWORD};

const LIMIT: usize = 150;
/// What one instance admits by itself.
const PART: usize = LIMIT / INSTANCES;
/// Reads for which each weather is watched, and a tenth of it of sign-ins.
const WEATHER: usize = 150;
/// What a request may take longer because of Redis: `REDIS_TIMEOUT` is 100 ms, the rest is for a busy machine.
const LONGER: Duration = Duration::from_millis(250);
/// The product's figure.
const RECOVERY: Duration = Duration::from_secs(2);
/// Until somebody has found out.
const NOTICED: Duration = Duration::from_secs(2);

pub(super) async fn without_redis_nobody_sees_an_error_or_waits_long_and_limits_hold_in_parts(ground: Arc<Ground>) {
    let url = redis_url();
    let (credentials, address) = url.rsplit_once('@').unwrap();
    let proxy = FaultProxy::start(address.parse().unwrap()).await.unwrap();
    let url = format!("{credentials}@{}", proxy.address());
    let limit = LIMIT.to_string();
    let pairs = [("REDIS_URL", url.as_str()), ("RATE_LIMIT_MAX", &limit), ("REDIS_TIMEOUT", "100ms")];
    let fleet = Fleet::start(&ground, &pairs).await;
    register(&fleet.client(0), "steady@example.com").await;
    let signed = sign_in(&fleet.client(0), "steady@example.com", PASSWORD).await;
    let addresses: Vec<_> = fleet.servers.iter().map(|server| server.public).collect();
    let load = Load::start(&addresses, "/api/users/me", access(&signed), "steady@example.com");
    let mut rest = Vec::new();
    for (number, fault) in [Fault::Blackhole, Fault::Refuse, Fault::Latency(Duration::from_millis(300))].into_iter().enumerate() {
        // The moments after it came back belong to neither weather, but errors count in all.
        rest.extend(load.take());
        // The calm is measured anew each time, with the same beside it: what else the machine does changes by the minute.
        load.reaches(WEATHER).await;
        counted_as_one(&fleet, &format!("192.0.2.{}", number + 100)).await;
        let calm = load.take();
        proxy.set(fault);
        let noticed = fleet.all_say("degraded", NOTICED).await;
        load.reaches(WEATHER).await;
        // A home that nobody has seen before.
        let fresh = admitted(fleet.clients(), &format!("192.0.2.{}", number + 10)).await;
        let foul = load.take();
        proxy.set(Fault::Ok);
        let back = fleet.all_say("ok", RECOVERY).await;
        let figures = format!("{fault:?}: noticed after {noticed:?}, back after {back:?}, {fresh} of {LIMIT} admitted; {}", times(&calm, &foul));
        assert!((PART..=LIMIT).contains(&fresh), "{figures}");
        let errors: Vec<_> = calm.iter().chain(&foul).filter(|asked| asked.status != 200).collect();
        assert!(errors.is_empty(), "{figures}: {errors:?}");
        // The 99th of a hundred reads; a sign-in waits for a core as well, and there are too few of them.
        assert!(longest(&foul, What::Read).1 < longest(&calm, What::Read).1 + LONGER, "{figures}");
        assert!(longest(&foul, What::Read).0 < longest(&calm, What::Read).0 + LONGER + BUSY, "{figures}");
        assert!(longest(&foul, What::SignIn).0 < longest(&calm, What::SignIn).0 + LONGER + BUSY, "{figures}");
    }
    rest.extend(load.stop().await);
    let errors: Vec<_> = rest.iter().filter(|asked| asked.status != 200).collect();
    assert!(errors.is_empty(), "{errors:?}");
    counted_as_one(&fleet, "192.0.2.99").await;
}

/// One instance admits what all may, which is far more than its part. Where a busy machine makes answers late it counts by itself for a moment, so it may be some
/// more or less; that it is exact otherwise is tried where Redis has more time (`together.rs`).
async fn counted_as_one(fleet: &Fleet, home: &str) {
    let passed = admitted(vec![fleet.client(0)], home).await;
    assert!((PART * 2..=LIMIT + PART).contains(&passed), "{passed} of {LIMIT}: with Redis all instances count as one");
}

/// How many requests of one home pass, of twice as many as may, spread over these instances?
async fn admitted(instances: Vec<Client>, home: &str) -> usize {
    let each = LIMIT * 2 / instances.len();
    let asking = instances.into_iter().map(|client| async move {
        let mut passed = 0;
        for _ in 0..each {
            let answer = client.ask("GET", "/api/nowhere", &[("x-forwarded-for", home)], b"").await;
            match answer.status {
                404 => passed += 1,
                429 => {}
                other => panic!("{other}: {}", answer.text()),
            }
        }
        passed
    });
    futures_util::future::join_all(asking).await.into_iter().sum()
}

fn times(calm: &[Asked], foul: &[Asked]) -> String {
    let line = |what| format!("{what:?} longest and p99 {:?} calm, {:?} foul", longest(calm, what), longest(foul, what));
    format!("{} requests; {}; {}", foul.len(), line(What::Read), line(What::SignIn))
}
