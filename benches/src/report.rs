//! What was measured, as a table for a reader and as JSON for a program.

use std::process::ExitCode;

use serde::Serialize;

use crate::load::Sample;
use crate::machine::Machine;
use crate::options::Options;
use crate::peer::{Name, Rig};
use crate::route::Route;

/// Above this share of foreign work on the server's core, throughput says more about the neighbours than about the peer.
const FOREIGN_SHARE_MAX: f64 = 0.10;

/// The medians of one peer on one route.
#[derive(Serialize)]
struct Row {
    peer: &'static str,
    route: &'static str,
    requests_per_s: f64,
    cpu_us_per_request: f64,
    latency_p50_us: f64,
    latency_p99_us: f64,
    rss_peak_mib: f64,
    core_share: f64,
    /// Requests per second of CPU against bare axum in the same round: the median of the rounds.
    to_bare_axum: Option<f64>,
    /// The same against Express.
    to_express: Option<f64>,
    throughput_to_bare_axum: Option<f64>,
    throughput_to_express: Option<f64>,
}

/// All medians of a run, and the samples behind them.
#[derive(Serialize)]
pub(crate) struct Report {
    cores: usize,
    pinned: bool,
    rounds: u32,
    seconds: u32,
    connections: u32,
    foreign_share: Option<f64>,
    rows: Vec<Row>,
    samples: Vec<Sample>,
}

impl Report {
    pub(crate) fn of(samples: &[Sample], rig: &Rig, routes: &[Route], machine: &Machine, options: &Options) -> Self {
        let pairs = routes.iter().flat_map(|route| rig.peers.iter().map(move |peer| (route.name, peer.name)));
        let foreign: Vec<f64> = samples.iter().filter_map(|sample| sample.foreign_share).collect();
        Self {
            cores: machine.cores_allowed,
            pinned: machine.cores.is_some(),
            rounds: options.rounds,
            seconds: options.seconds,
            connections: options.connections,
            foreign_share: median(foreign),
            rows: pairs.filter_map(|(route, peer)| row(samples, route, peer)).collect(),
            samples: samples.to_vec(),
        }
    }

    /// The table, and below it what a reader must know to read it.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "\n{:<9} {:<10} {:>10} {:>10} {:>8} {:>8} {:>9} {:>5} {:>9} {:>10}\n",
            "route", "peer", "requests/s", "CPU us/req", "p50 ms", "p99 ms", "peak MiB", "core", "x axum", "x Express"
        );
        let mut route = "";
        for row in &self.rows {
            if route != row.route && !route.is_empty() {
                text.push('\n');
            }
            route = row.route;
            text.push_str(&format!(
                "{:<9} {:<10} {:>10.0} {:>10.1} {:>8.2} {:>8.2} {:>9.1} {:>4.0}% {:>9} {:>10}\n",
                row.route,
                row.peer,
                row.requests_per_s,
                row.cpu_us_per_request,
                row.latency_p50_us / 1e3,
                row.latency_p99_us / 1e3,
                row.rss_peak_mib,
                row.core_share * 100.0,
                ratio(row.to_bare_axum),
                ratio(row.to_express),
            ));
        }
        text.push_str(&self.notes());
        text
    }

    fn notes(&self) -> String {
        let place = if self.pinned { "server and load generator on a core each" } else { "not bound to cores" };
        let mut text = format!(
            "\nMedians of {} rounds of {} s, {} keep-alive connections, {} cores, {place}.\n\
             `x axum`, `x Express`: requests per second of CPU against that peer in the same round. Bare axum checks no token.\n",
            self.rounds, self.seconds, self.connections, self.cores
        );
        if let Some(share) = self.foreign_share.filter(|share| *share > FOREIGN_SHARE_MAX) {
            let percent = share * 100.0;
            text.push_str(&format!(
                "Other work took {percent:.0} % of the server's core: throughput and latency say little, and cold caches raise CPU time; measure again on a calm machine.\n"
            ));
        }
        text
    }

    /// # Errors
    /// None in practice: every field is a number or a name.
    pub(crate) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Failure when a floor was given and Mainstay's share of bare axum on the small answer is below it or was not measured.
    pub(crate) fn verdict(&self, floor: Option<f64>) -> ExitCode {
        let Some(floor) = floor else { return ExitCode::SUCCESS };
        let row = self.rows.iter().find(|row| row.route == "small" && row.peer == Name::Mainstay.title());
        match row.and_then(|row| row.to_bare_axum) {
            Some(share) if share >= floor => {
                println!("The floor holds: Mainstay serves {share:.2} of bare axum's requests per second of CPU, {floor:.2} is asked for.");
                ExitCode::SUCCESS
            }
            Some(share) => {
                println!("The floor is missed: Mainstay serves {share:.2} of bare axum's requests per second of CPU, {floor:.2} is asked for.");
                ExitCode::FAILURE
            }
            None => {
                println!("The floor was not measured: it needs both bare axum and Mainstay.");
                ExitCode::FAILURE
            }
        }
    }
}

fn row(samples: &[Sample], route: &'static str, peer: Name) -> Option<Row> {
    let own: Vec<&Sample> = samples.iter().filter(|sample| sample.route == route && sample.peer == peer).collect();
    let of = |value: fn(&Sample) -> f64| median(own.iter().map(|sample| value(sample)).collect());
    // Against the other peer's sample of the same round: what slowed both falls out.
    let against = |other: Name, value: fn(&Sample) -> f64| {
        let pair = |sample: &&Sample| {
            let other = samples.iter().find(|found| found.route == route && found.peer == other && found.round == sample.round)?;
            Some(value(sample) / value(other))
        };
        median(own.iter().filter_map(pair).collect())
    };
    let per_cpu = |sample: &Sample| 1.0 / sample.cpu_us_per_request;
    let per_s = |sample: &Sample| sample.requests_per_s;
    Some(Row {
        peer: peer.title(),
        route,
        requests_per_s: of(|sample| sample.requests_per_s)?,
        cpu_us_per_request: of(|sample| sample.cpu_us_per_request)?,
        latency_p50_us: of(|sample| sample.latency_p50_us as f64)?,
        latency_p99_us: of(|sample| sample.latency_p99_us as f64)?,
        rss_peak_mib: of(|sample| sample.rss_peak_kib as f64 / 1024.0)?,
        core_share: of(|sample| sample.core_share)?,
        to_bare_axum: against(Name::BareAxum, per_cpu),
        to_express: against(Name::Express, per_cpu),
        throughput_to_bare_axum: against(Name::BareAxum, per_s),
        throughput_to_express: against(Name::Express, per_s),
    })
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

/// The middle value, or the mean of the two middle ones.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    values.get(middle.checked_sub(1)?).map(|lower| f64::midpoint(*lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(peer: Name, round: u32, cpu_us_per_request: f64) -> Sample {
        Sample {
            peer,
            route: "small",
            round,
            requests: 1,
            requests_per_s: 1e6 / cpu_us_per_request,
            cpu_us_per_request,
            latency_p50_us: 1,
            latency_p99_us: 1,
            rss_peak_kib: 1,
            core_share: 1.0,
            foreign_share: None,
        }
    }

    #[test]
    fn the_median_of_nothing_is_nothing() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_compares_within_a_round() {
        // The second round ran on a machine half as fast; it must not show in the ratio.
        let samples =
            [sample(Name::BareAxum, 1, 8.0), sample(Name::Mainstay, 1, 10.0), sample(Name::BareAxum, 2, 16.0), sample(Name::Mainstay, 2, 20.0)];
        let row = row(&samples, "small", Name::Mainstay).expect("samples make a row");
        assert_eq!(row.to_bare_axum, Some(0.8));
        assert_eq!(row.to_express, None);
    }

    #[test]
    fn a_floor_that_was_not_measured_fails() {
        let report = Report { cores: 2, pinned: true, rounds: 1, seconds: 1, connections: 1, foreign_share: None, rows: vec![], samples: vec![] };
        assert_eq!(report.verdict(None), ExitCode::SUCCESS);
        assert_eq!(report.verdict(Some(0.7)), ExitCode::FAILURE);
    }
}
