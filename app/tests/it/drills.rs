//! Harm done on purpose, in short, and only what must hold on any machine at any load.
//!
//! What is done from outside is `mainstay drill` (docs/drills.md); of its drills those with several instances or processes, whose figures have room for a busy machine, are done here as well. What is
//! done from within (mails in the hands of a killed process, tokens whose answer was lost) is done here alone.

use std::sync::Arc;

use mainstay::store::Dialect;

use crate::ground::{Ground, server_url};
use crate::process;

mod instances;
mod kill;

on_both! {
    a_process_that_is_killed_anywhere_leaves_whole_accounts_sessions_and_mails
}

async fn a_process_that_is_killed_anywhere_leaves_whole_accounts_sessions_and_mails(ground: Arc<Ground>) {
    let seed = kill::fresh_seed();
    eprintln!("seed {seed}");
    let report = kill::run(&ground, kill::Plan { kills: 15, seed }, |_| {}).await;
    eprintln!("{report}");
}

/// Does a drill in short; one that falls says its figures.
fn drill(name: &str) {
    if !Ground::is_tried(Dialect::Postgres) {
        return;
    }
    drill_with(&[("DRILL_POSTGRES_URL", server_url()), ("DRILL_REDIS_URL", instances::redis_url())], name);
}

fn drill_with(settings: &[(&str, String)], name: &str) {
    let settings: Vec<_> = settings.iter().map(|(name, url)| ((*name).to_owned(), url.clone())).collect();
    let output = process::run(&settings, &["drill", "--short", name], b"");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(": held"), "{said}");
}

#[test]
fn a_drill_that_lacks_its_database_is_not_taken_for_one_that_held() {
    let output = process::run(&[], &["drill", "--short", "pool"], b"");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(69) && said.contains("not done") && said.contains("--postgres"), "{said}");
    let output = process::run(&[], &["drill", "--short", "--undecided", "pool", "pool"], b"");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_ends_on_one_instance_is_refused_by_the_others_from_the_next_request_on() {
    drill("sessions");
}

#[test]
fn without_redis_nobody_sees_an_error_or_waits_long_and_limits_hold_in_parts() {
    drill("redis-loss");
}

#[test]
fn deployments_under_load_lose_no_request_on_postgres() {
    drill("deploy");
}

#[test]
fn deployments_under_load_lose_no_request_on_sqlite() {
    drill_with(&[], "deploy");
}

#[test]
fn reads_from_memory_go_on_without_a_database_the_rest_is_503_in_time_and_it_is_back_within_a_second() {
    drill("pool");
}
