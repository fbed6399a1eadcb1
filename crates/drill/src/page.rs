//! The report as one page: verdicts, figures and plots of each service side by side. It needs nothing from anywhere else.

use std::fmt::Write as _;

use crate::outcome::{Outcome, Plot};
use crate::{Done, Name};

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 18.0;
const TOP: f64 = 8.0;
/// Enough points for the width; more would only make the file large.
const POINTS_MAX: usize = 400;

const STYLE: &str = "
:root{--ink:#1c2126;--soft:#5b6670;--line:#d9dee3;--ground:#fff;--card:#f6f8fa;--good:#12733a;--bad:#b3261e;--a:#1f6feb;--b:#c2571a;--c:#7a3fb0;--d:#5b6670;--harm:#f3d9d5}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaee;--soft:#98a4af;--line:#30363d;--ground:#0f1419;--card:#171d23;--good:#4ac26b;--bad:#ff7b72;--a:#58a6ff;--b:#f0883e;--c:#bc8cff;--d:#98a4af;--harm:#3a211f}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1040px;margin:0 auto;padding:32px 20px 64px}h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:44px 0 2px}
p{margin:2px 0 12px;color:var(--soft)}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:top;font-weight:400}
thead th{color:var(--soft);font-size:13px}.held{color:var(--good);font-weight:600}.fell{color:var(--bad);font-weight:600}.soft{color:var(--soft)}
.figures td{font-weight:400}.figures .fell{font-weight:600}a{color:var(--a);text-decoration:none}a:hover{text-decoration:underline}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px;margin-top:14px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
figcaption{font-size:13px;color:var(--soft);margin-bottom:4px}svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}
.key{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:12px;color:var(--soft)}.key i{display:inline-block;width:10px;height:3px;margin:0 5px 3px 0}
";

/// The page.
pub fn page(machine: &str, done: &[Done]) -> String {
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Drills</title><style>",
    );
    html.push_str(STYLE);
    html.push_str("</style></head><body><main><h1>Drills</h1>");
    // Writing to a text cannot fail, here and below.
    let _ = write!(html, "<p>{}</p>", escaped(machine));
    let services = services(done);
    summary(&mut html, done, &services);
    for name in names(done) {
        let _ =
            write!(html, "<h2 id=\"{0}\">{0}</h2><p>The harm: {1}. Held means: {2}.</p>", name.as_str(), escaped(name.harm()), escaped(name.held()));
        figures(&mut html, done, name, &services);
        html.push_str("<div class=\"plots\">");
        for done in done.iter().filter(|done| done.name == name) {
            for drawn in &done.outcome.plots {
                plot(&mut html, &done.service, drawn);
            }
        }
        html.push_str("</div>");
    }
    html.push_str("</main></body></html>\n");
    html
}

fn services(done: &[Done]) -> Vec<&str> {
    let mut services: Vec<&str> = Vec::new();
    for done in done {
        if !services.contains(&done.service.as_str()) {
            services.push(&done.service);
        }
    }
    services
}

fn names(done: &[Done]) -> Vec<Name> {
    Name::ALL.into_iter().chain([Name::Soak]).filter(|name| done.iter().any(|done| done.name == *name)).collect()
}

fn of<'a>(done: &'a [Done], name: Name, service: &str) -> Option<&'a Outcome> {
    done.iter().find(|done| done.name == name && done.service == service).map(|done| &done.outcome)
}

fn summary(html: &mut String, done: &[Done], services: &[&str]) {
    html.push_str("<table><thead><tr><th>drill</th><th>harm</th>");
    for service in services {
        let _ = write!(html, "<th>{}</th>", escaped(service));
    }
    html.push_str("</tr></thead><tbody>");
    for name in names(done) {
        let _ = write!(html, "<tr><td><a href=\"#{0}\">{0}</a></td><td class=\"soft\">{1}</td>", name.as_str(), escaped(name.harm()));
        for service in services {
            let verdict = of(done, name, service).map_or("", Outcome::verdict);
            let _ = write!(html, "<td class=\"{}\">{verdict}</td>", if verdict == "not done" { "soft" } else { verdict });
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
}

fn figures(html: &mut String, done: &[Done], name: Name, services: &[&str]) {
    html.push_str("<table class=\"figures\"><thead><tr><th>figure</th><th>wanted</th>");
    for service in services {
        let _ = write!(html, "<th>{}</th>", escaped(service));
    }
    html.push_str("</tr></thead><tbody>");
    let mut whats: Vec<&str> = Vec::new();
    for figure in services.iter().filter_map(|service| of(done, name, service)).flat_map(|outcome| &outcome.figures) {
        if !whats.contains(&figure.what.as_str()) {
            whats.push(&figure.what);
        }
    }
    for what in whats {
        let found = |service: &&str| of(done, name, service).and_then(|outcome| outcome.figures.iter().find(|figure| figure.what == what));
        let wanted = services.iter().find_map(found).and_then(|figure| figure.wanted.as_ref()).map_or("", |(wanted, _)| wanted);
        let _ = write!(html, "<tr><td>{}</td><td class=\"soft\">{}</td>", escaped(what), escaped(wanted));
        for service in services {
            let class = match found(service).and_then(|figure| figure.wanted.as_ref()) {
                Some((_, true)) => "held",
                Some((_, false)) => "fell",
                None => "",
            };
            let _ = write!(html, "<td class=\"{class}\">{}</td>", found(service).map_or(String::new(), |figure| escaped(&figure.value)));
        }
        html.push_str("</tr>");
    }
    for service in services {
        if let Some(why) = of(done, name, service).and_then(|outcome| outcome.skipped.as_ref()) {
            let _ = write!(html, "<tr><td>{}</td><td class=\"soft\" colspan=\"9\">not done: {}</td></tr>", escaped(service), escaped(why));
        }
    }
    html.push_str("</tbody></table>");
}

fn plot(html: &mut String, service: &str, plot: &Plot) {
    let all = || plot.lines.iter().flat_map(|line| &line.points);
    let end = all().map(|(at, _)| *at).fold(0.1, f64::max);
    let most = round(all().map(|(_, value)| *value).fold(0.0, f64::max).max(1e-6), plot.logarithmic);
    // A logarithmic axis begins at a thousandth of its end: three powers of ten are what a reader can tell apart.
    let least = most / 1_000.0;
    let x = |at: f64| LEFT + at / end * (WIDTH - LEFT);
    let y = |value: f64| {
        let share = if plot.logarithmic { (value.max(least) / least).ln() / (most / least).ln() } else { value / most };
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    };
    let _ = write!(
        html,
        "<figure><figcaption>{}: {}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">",
        escaped(service),
        escaped(&plot.title)
    );
    for (from, to) in &plot.harm {
        let (from, to) = (x(from.min(end)), x(to.min(end)));
        let _ = write!(
            html,
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"var(--harm)\"/>",
            to - from,
            HEIGHT - BOTTOM - TOP
        );
    }
    let ticks = if plot.logarithmic { vec![most, most / 10.0, most / 100.0, least] } else { vec![most, most / 2.0, 0.0] };
    for tick in ticks {
        let at = y(tick);
        let _ = write!(
            html,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"var(--line)\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(tick)
        );
    }
    for (part, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
        let _ = write!(html, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{:.0} s</text>", x(end * part), HEIGHT - 4.0, end * part);
    }
    for (line, colour) in plot.lines.iter().zip(["a", "b", "c", "d"].iter().cycle()) {
        let step = line.points.len().div_ceil(POINTS_MAX).max(1);
        let points: Vec<String> = line.points.iter().step_by(step).map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = write!(html, "<polyline points=\"{}\" fill=\"none\" stroke=\"var(--{colour})\" stroke-width=\"1.5\"/>", points.join(" "));
    }
    html.push_str("</svg><div class=\"key\">");
    for (line, colour) in plot.lines.iter().zip(["a", "b", "c", "d"].iter().cycle()) {
        let _ = write!(html, "<span><i style=\"background:var(--{colour})\"></i>{}</span>", escaped(&line.name));
    }
    html.push_str("</div></figure>");
}

/// The end of a scale: the next number that people count by.
fn round(most: f64, logarithmic: bool) -> f64 {
    // A little less than it is, so that what is one already stays.
    let power = 10_f64.powf((most * 0.999_999).log10().floor());
    let steps: &[f64] = if logarithmic { &[10.0] } else { &[2.0, 4.0, 6.0, 8.0, 10.0] };
    steps.iter().map(|step| step * power).find(|end| *end >= most * 0.999_999).unwrap_or(most)
}

/// A number of a scale.
fn short(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.0}k", value / 1_000.0),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value if value >= 0.1 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Line;

    #[test]
    fn a_scale_ends_with_a_round_number() {
        for (most, linear, logarithmic) in [(387.0, 400.0, 1_000.0), (1.1, 2.0, 10.0), (100.0, 100.0, 100.0), (0.003, 0.004, 0.01)] {
            assert!((round(most, false) - linear).abs() < linear / 1e6, "{most}: {}", round(most, false));
            assert!((round(most, true) - logarithmic).abs() < logarithmic / 1e6, "{most}: {}", round(most, true));
        }
    }

    #[test]
    fn the_page_has_every_verdict_and_nothing_of_a_service_becomes_markup() {
        let mut outcome = Outcome::default();
        outcome.want("p99 <b>", "3 & 4 ms", "at most 5 ms", true);
        outcome.plots.push(Plot {
            title: "latency, ms".to_owned(),
            lines: vec![Line { name: "p99".to_owned(), points: (0..10_000).map(|at| (f64::from(at) / 100.0, f64::from(at % 7))).collect() }],
            logarithmic: true,
            harm: vec![(10.0, 2_000.0)],
        });
        let done = [
            Done { name: Name::Surge, service: "<script>".to_owned(), outcome },
            Done { name: Name::Surge, service: "Express".to_owned(), outcome: Outcome::skipped("it is not there") },
        ];
        let html = page("2 cores", &done);
        assert!(html.contains("class=\"held\">held<") && html.contains("not done: it is not there"), "{html}");
        assert!(html.contains("p99 &lt;b&gt;") && html.contains("3 &amp; 4 ms") && !html.contains("<script>"));
        assert!(html.len() < 20_000, "{}", html.len());
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }
}
