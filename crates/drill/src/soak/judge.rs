//! What is wanted of a soak.

use std::time::Duration;

use super::Soak;
use super::ledger::{Ledger, sku};
use super::people::World;
use super::places::Places;
use super::seen::{KINDS, Kind, Trouble, WINDOW};
use super::weather::Course;
use crate::outcome::{Line, Outcome, Plot, time};
use crate::watch::Look;

/// Memory may be more at the end of the second half than at its beginning by this share, and by these MiB: caches have their size, and an allocator its pages.
const MORE_SHARE: f64 = 0.05;
const MORE_MIB: f64 = 8.0;
/// Latencies below this are the machine's.
const NOISE: Duration = Duration::from_millis(25);
/// How many times longer requests may take in the last 15 %, which are calm, than in the first tenth, which is as well.
const LONGER: u32 = 2;
/// Fewer requests than this, in one of the two, say nothing about a 95th percentile: five are beyond it.
const TELLING: u64 = 100;
/// Products that are asked for at once.
const ASKED_AT_ONCE: usize = 1_000;

/// What clients saw: nothing that no fault explains, and at the end it is as quick as at the beginning.
pub(super) fn traffic(outcome: &mut Outcome, plan: &Soak, world: &World, course: &Course) {
    let seen = world.seen();
    let served: u64 = KINDS.iter().map(|(kind, _)| seen.between(*kind, Duration::ZERO, Duration::MAX).count()).sum();
    #[allow(clippy::cast_precision_loss)] // Counts are far below 2^53.
    let rate = served as f64 / plan.length.as_secs_f64();
    let wanted = plan.rate * 0.8;
    outcome.want("requests as they should be", format!("{served}, {rate:.0}/s"), format!("at least {wanted:.0}/s"), rate >= wanted);
    outcome.note("faults", faults(course));
    let unexplained: Vec<&Trouble> = seen.troubles.iter().filter(|trouble| !course.explains(trouble)).collect();
    outcome.note("refused or cut because of a fault", seen.troubles.len() - unexplained.len());
    let told = unexplained.first().map_or_else(String::new, |trouble| {
        format!("; the first at {:.1} s, of {:?} on instance {}: {}", trouble.at.as_secs_f64(), trouble.kind, trouble.instance, trouble.words)
    });
    let none = unexplained.is_empty() && seen.untold == 0;
    outcome.want("wrong without a fault that explains it", format!("{}{told}", unexplained.len() as u64 + seen.untold), "none", none);
    let errors = seen.troubles.iter().filter(|trouble| trouble.status.is_some_and(|status| matches!(status, 500..=502))).count();
    outcome.want("500 at any time", errors, "none", errors == 0);
    for (kind, name) in KINDS.iter().filter(|(kind, _)| *kind != Kind::Slow) {
        let (first, last) = (seen.between(*kind, Duration::ZERO, plan.length / 10), seen.between(*kind, plan.length.mul_f64(0.85), plan.length));
        let (before, after) = (first.quantile(0.95), last.quantile(0.95));
        let most = before.map_or(NOISE, |before| (before * LONGER).max(NOISE));
        let what = format!("{name}: 95th percentile at the end");
        if first.count() < TELLING || last.count() < TELLING {
            outcome.note(what, format!("{}, {} at the beginning, of few", time(after), time(before)));
            continue;
        }
        outcome.want(what, time(after), format!("at most {}", time(Some(most))), after.is_some_and(|after| after <= most));
    }
}

fn faults(course: &Course) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for done in &course.faults {
        let name = done.harm.to_string();
        match kinds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => kinds.push((name, 1)),
        }
    }
    let words: Vec<String> = kinds.iter().map(|(name, count)| format!("{count} x {name}")).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Memory: the lower quartile of the last third of the second half, against that of its first third. Each commit of the search index takes some MiB for a moment, which
/// an allocator gives back when it likes: what stays is seen at the bottom.
pub(super) fn memory(outcome: &mut Outcome, length: Duration, course: &Course) {
    let held: Vec<(f64, f64)> = course.held.first().into_iter().flatten().map(|(at, look)| (*at, look.mib)).collect();
    let (first, last) = thirds(&held, length.as_secs_f64());
    let most = first * (1.0 + MORE_SHARE) + MORE_MIB;
    outcome.want(
        "memory at the end of the second half",
        format!("{last:.1} MiB, {first:.1} at its beginning"),
        format!("at most {most:.1} MiB"),
        last > 0.0 && last <= most,
    );
}

/// The lower quartiles of the first and of the last third of the second half; 0 of none.
fn thirds(held: &[(f64, f64)], length: f64) -> (f64, f64) {
    let within = |from: f64, to: f64| {
        let mut values: Vec<f64> = held.iter().filter(|(at, _)| (from * length..to * length).contains(at)).map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 4).copied().unwrap_or(0.0)
    };
    (within(0.5, 4.0 / 6.0), within(5.0 / 6.0, 1.0))
}

/// What the first instance holds when nobody asks any more, against what it held before anybody did.
pub(super) fn rest(outcome: &mut Outcome, (before, after): (Look, Look), (descriptors, threads): (u64, u64)) {
    for (what, before, after, more) in
        [("descriptors", before.descriptors, after.descriptors, descriptors), ("threads", before.threads, after.threads, threads)]
    {
        let most = before + more;
        outcome.want(format!("{what} afterwards"), format!("{after}, {before} before"), format!("at most {most}"), after <= most);
    }
    outcome.note("memory afterwards", format!("{:.1} MiB, {:.1} before", after.mib, before.mib));
}

/// What was acknowledged is in the database, once.
pub(super) async fn ledger(outcome: &mut Outcome, ledger: &Ledger, places: &Places) -> Result<(), String> {
    let mut found = 0;
    for numbers in ledger.created.chunks(ASKED_AT_ONCE) {
        let named: Vec<String> = numbers.iter().map(|number| format!("'{}'", sku(*number))).collect();
        found += places.number(&format!("SELECT count(DISTINCT sku) FROM products WHERE sku IN ({})", named.join(","))).await?;
    }
    let all = places.number("SELECT count(*) FROM products WHERE sku LIKE 'soak-%'").await?;
    let (created, unknown) = (ledger.created.len() as i64, ledger.unknown.len() as i64);
    outcome.want("products of those acknowledged that are there", format!("{found} of {created}"), "all", found == created);
    outcome.want(
        "products that are there",
        format!("{all}, {unknown} without an answer"),
        format!("{created} to {}", created + unknown),
        (created..=created + unknown).contains(&all),
    );
    for counter in &ledger.counters {
        let id = counter.path.rsplit('/').next().unwrap_or_default();
        let version = version(places, id).await?;
        let wanted = format!("{} to {}", 1 + counter.changed, 1 + counter.changed + counter.unknown);
        outcome.want("version of a product that one writer changed", version, wanted, counter.allows(version));
    }
    Ok(())
}

/// The id comes from the service, and is put into a text: only what an id can be made of is.
async fn version(places: &Places, id: &str) -> Result<u64, String> {
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        return Err(format!("no id: {id}"));
    }
    let version = places.number(&format!("SELECT CAST(version AS bigint) FROM products WHERE CAST(id AS text) = '{id}'")).await?;
    u64::try_from(version).map_err(|_| "a version below zero".to_owned())
}

/// What happened, over time.
pub(super) fn plots(outcome: &mut Outcome, world: &World, course: &Course) {
    let harm: Vec<(f64, f64)> = course.faults.iter().map(|done| (done.from.as_secs_f64(), done.to.as_secs_f64())).collect();
    let plot = |title: &str, lines, logarithmic| Plot { title: title.to_owned(), lines, logarithmic, harm: harm.clone() };
    let held = |of: fn(&Look) -> f64| {
        let line = |(number, held): (usize, &Vec<(f64, Look)>)| Line {
            name: format!("instance {number}"),
            points: held.iter().map(|(at, look)| (*at, of(look))).collect(),
        };
        course.held.iter().enumerate().map(line).collect::<Vec<_>>()
    };
    let connections = ["to PostgreSQL", "to Redis"].into_iter().zip(&course.connections).filter(|(_, points)| !points.is_empty());
    let connections = connections.map(|(name, points)| Line { name: name.to_owned(), points: points.clone() }).collect();
    outcome.plots.push(plot("memory, MiB", held(|look| look.mib), false));
    #[allow(clippy::cast_precision_loss)] // Some hundred of each.
    let (descriptors, threads) = (held(|look| look.descriptors as f64), held(|look| look.threads as f64));
    outcome.plots.push(plot("descriptors", descriptors, false));
    outcome.plots.push(plot("threads", threads, false));
    outcome.plots.push(plot("connections of all instances", connections, false));
    outcome.plots.push(plot("95th percentile, ms", latencies(world, &[Kind::Read, Kind::Search, Kind::Member, Kind::Write]), true));
    outcome.plots.push(plot("requests, a second", rates(world), false));
}

fn latencies(world: &World, kinds: &[Kind]) -> Vec<Line> {
    let seen = world.seen();
    let line = |kind: &Kind| Line {
        name: KINDS[*kind as usize].1.to_owned(),
        points: (0_u32..)
            .zip(&seen.windows)
            .filter_map(|(number, window)| Some(((WINDOW * number).as_secs_f64(), window[*kind as usize].served.quantile(0.95)?.as_secs_f64() * 1e3)))
            .collect(),
    };
    kinds.iter().map(line).collect()
}

fn rates(world: &World) -> Vec<Line> {
    let seen = world.seen();
    #[allow(clippy::cast_precision_loss)] // Counts of two seconds.
    let line = |name: &str, of: fn(&super::seen::Window) -> u64| Line {
        name: name.to_owned(),
        points: (0_u32..)
            .zip(&seen.windows)
            .map(|(number, window)| ((WINDOW * number).as_secs_f64(), window.iter().map(of).sum::<u64>() as f64 / WINDOW.as_secs_f64()))
            .collect(),
    };
    vec![line("as they should be", |window| window.served.count()), line("refused or failed", |window| window.troubled)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_in_the_second_half_is_seen_and_a_peak_or_a_first_half_is_not() {
        let course = |of: fn(f64) -> f64| {
            let held = (0..600).map(|at| (f64::from(at), Look { mib: of(f64::from(at)), descriptors: 0, threads: 0 })).collect();
            Course { held: vec![held], ..Course::default() }
        };
        let holds = |of: fn(f64) -> f64| {
            let mut outcome = Outcome::default();
            memory(&mut outcome, Duration::from_secs(600), &course(of));
            outcome.held()
        };
        assert_eq!(holds(|_| 60.0), Some(true));
        assert_eq!(holds(|at| 60.0 + at / 10.0), Some(false), "a tenth of a MiB a second");
        assert_eq!(holds(|at| 60.0 + (at / 10.0).min(30.0)), Some(true), "caches that fill up");
        assert_eq!(holds(|at| if at == 550.0 { 500.0 } else { 60.0 }), Some(true), "a moment");
        let mut outcome = Outcome::default();
        memory(&mut outcome, Duration::from_secs(600), &Course::default());
        assert_eq!(outcome.held(), Some(false), "nothing was looked at");
    }
}
