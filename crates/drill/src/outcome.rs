//! What a drill found: figures, each against what it was to be, plots, and the verdict that follows from the figures.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it is.
    pub what: String,
    /// The figure, with its unit.
    pub value: String,
    /// What it was to be, if it decides something, and whether it is.
    pub wanted: Option<(String, bool)>,
}

/// A line of a plot: seconds after the beginning, and the value then.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// A plot over time.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What is plotted, with its unit.
    pub title: String,
    /// The lines.
    pub lines: Vec<Line>,
    /// Is its axis logarithmic?
    pub logarithmic: bool,
    /// The seconds in which the harm was done.
    pub harm: Vec<(f64, f64)>,
}

/// What a drill found of one service.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The figures.
    pub figures: Vec<Figure>,
    /// The plots.
    pub plots: Vec<Plot>,
    /// Why it could not be done to this service; there are no figures then.
    pub skipped: Option<String>,
}

impl Outcome {
    /// It cannot be done to this service.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self { skipped: Some(why.into()), ..Self::default() }
    }

    /// A figure that only informs.
    pub fn note(&mut self, what: impl Into<String>, value: impl fmt::Display) {
        self.figures.push(Figure { what: what.into(), value: value.to_string(), wanted: None });
    }

    /// A figure that decides: `holds` tells whether it is as `wanted`.
    pub fn want(&mut self, what: impl Into<String>, value: impl fmt::Display, wanted: impl Into<String>, holds: bool) {
        self.figures.push(Figure { what: what.into(), value: value.to_string(), wanted: Some((wanted.into(), holds)) });
    }

    /// Is every figure that decides as it was to be? Nothing if the drill was not done.
    pub fn held(&self) -> Option<bool> {
        let mut deciding = self.figures.iter().filter_map(|figure| figure.wanted.as_ref()).peekable();
        deciding.peek()?;
        Some(deciding.all(|(_, holds)| *holds))
    }

    /// The verdict in a word.
    pub fn verdict(&self) -> &'static str {
        match (&self.skipped, self.held()) {
            (Some(_), _) | (None, None) => "not done",
            (None, Some(true)) => "held",
            (None, Some(false)) => "fell",
        }
    }

    /// The figures as lines of text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let width = self.figures.iter().map(|figure| figure.what.chars().count()).max().unwrap_or(0);
        for Figure { what, value, wanted } in &self.figures {
            let mark = match wanted {
                None => " ",
                Some((_, true)) => "✓",
                Some((_, false)) => "✗",
            };
            // Writing to a text cannot fail.
            let _ = write!(text, "  {mark} {what:width$}  {value}");
            if let Some((wanted, _)) = wanted {
                let _ = write!(text, "  ({wanted})");
            }
            text.push('\n');
        }
        if let Some(why) = &self.skipped {
            let _ = writeln!(text, "    {why}");
        }
        text
    }
}

/// A time as people read it.
pub(crate) fn time(time: Option<Duration>) -> String {
    match time {
        None => "none".to_owned(),
        Some(time) if time < Duration::from_millis(1) => format!("{} us", time.as_micros()),
        Some(time) if time < Duration::from_secs(1) => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        Some(time) => format!("{:.2} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_figure_that_is_not_as_it_was_to_be_fells_the_drill_and_a_drill_without_any_was_not_done() {
        let mut outcome = Outcome::default();
        outcome.note("requests", 3);
        assert_eq!(outcome.verdict(), "not done");
        outcome.want("p99", "3 ms", "at most 4 ms", true);
        assert_eq!(outcome.verdict(), "held");
        outcome.want("failed", 1, "none", false);
        assert_eq!((outcome.verdict(), outcome.held()), ("fell", Some(false)));
        assert_eq!(outcome.text(), "    requests  3\n  ✓ p99       3 ms  (at most 4 ms)\n  ✗ failed    1  (none)\n");
        assert_eq!(Outcome::skipped("no database").verdict(), "not done");
    }
}
