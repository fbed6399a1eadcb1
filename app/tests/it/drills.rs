//! The drills of `app/examples`, in short: the same code, few rounds, and only what must hold on any machine at any load. Those of
//! several instances have no longer form.

use std::sync::Arc;
use std::time::Duration;

use crate::ground::Ground;

mod chance;
mod deploy;
mod flood;
mod instances;
mod kill;

on_both! {
    a_process_that_is_killed_anywhere_leaves_whole_accounts_sessions_and_mails
    a_flood_of_wrong_sign_ins_keeps_no_honest_one_out
    deployments_under_load_lose_no_request
}

async fn a_process_that_is_killed_anywhere_leaves_whole_accounts_sessions_and_mails(ground: Arc<Ground>) {
    let seed = chance::fresh_seed();
    eprintln!("seed {seed}");
    let report = kill::run(&ground, kill::Plan { kills: 15, seed }, |_| {}).await;
    eprintln!("{report}");
}

async fn deployments_under_load_lose_no_request(ground: Arc<Ground>) {
    let plan = deploy::Plan { deployments: 3, requests_between: 300, clients: 4, pausing: 4, connections: 2, streams: 4, reads_per_write: 1 };
    let report = deploy::run(&ground, plan, |_| {}).await;
    eprintln!("{report}");
    assert!(report.held(), "{report}");
}

/// How much slower the honest become is measured by the example, on a machine that does nothing else.
async fn a_flood_of_wrong_sign_ins_keeps_no_honest_one_out(ground: Arc<Ground>) {
    let report =
        flood::run(&ground, flood::Plan { calm_and_attack: Duration::from_secs(2), slice: Duration::from_millis(500), per_minute: 6_000 }).await;
    eprintln!("{report}");
    assert_eq!((report.calm.refused, report.attack.refused), (0, 0), "{report}");
    assert!(report.attack.sign_ins() > 0 && report.attack.reads() > 0 && report.attempts() > 0, "{report}");
}
