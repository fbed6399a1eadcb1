//! Reads settings from their sources, remembers where each came from, and collects everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::values::{ByteSize, Setting};

/// What a value is checked by, and the bound in words.
type Allowed<T> = (String, Box<dyn Fn(&T) -> bool>);

/// One setting: its name, its meaning, its default and its bounds. The type of the value gives the unit.
pub struct Knob<T> {
    name: &'static str,
    doc: &'static str,
    default: Option<String>,
    default_says: Option<&'static str>,
    allowed: Option<Allowed<T>>,
}

impl<T: Setting> Knob<T> {
    /// A setting of this name (upper case, as in the environment) and meaning.
    pub fn new(name: &'static str, doc: &'static str) -> Self {
        Self { name, doc, default: None, default_says: None, allowed: None }
    }

    /// The default, written as a user would write it.
    #[must_use]
    pub fn default(mut self, text: &str) -> Self {
        self.default = Some(text.to_owned());
        self
    }

    /// What the reference says of the default where it depends on something.
    #[must_use]
    pub fn default_says(mut self, text: &'static str) -> Self {
        self.default_says = Some(text);
        self
    }

    fn allowed(mut self, words: String, holds: impl Fn(&T) -> bool + 'static) -> Self {
        self.allowed = Some((words, Box::new(holds)));
        self
    }
}

impl<T: Setting + TryInto<u64> + Copy> Knob<T> {
    /// The least and the most that is allowed.
    #[must_use]
    pub fn between(self, least: u64, most: u64) -> Self {
        self.allowed(format!("{least} to {most}"), move |value| (*value).try_into().is_ok_and(|value: u64| (least..=most).contains(&value)))
    }
}

impl Knob<Duration> {
    /// The shortest and the longest that is allowed.
    #[must_use]
    pub fn within(self, least: Duration, most: Duration) -> Self {
        self.allowed(format!("{} to {}", least.written(), most.written()), move |value| (least..=most).contains(value))
    }
}

impl Knob<ByteSize> {
    /// The smallest and the largest that is allowed, in bytes.
    #[must_use]
    pub fn sized(self, least: usize, most: usize) -> Self {
        self.allowed(format!("{} to {}", ByteSize(least).written(), ByteSize(most).written()), move |value| (least..=most).contains(&value.0))
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// From the file.
    File,
    /// From the environment.
    Environment,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
        })
    }
}

/// One line of `mainstay config` and of the reference.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As in the environment.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What kind of value it takes: `duration`, `size`.
    pub kind: &'static str,
    /// The default, in words for the reference.
    pub default: String,
    /// The bounds, in words.
    pub allowed: Option<String>,
    /// The value in force; a secret is only said to be set.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// Everything that is wrong with the settings.
#[derive(Debug)]
pub struct Problems(pub Vec<(String, String)>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} setting{plural} cannot be used:", self.0.len())?;
        self.0.iter().try_for_each(|(name, problem)| write!(f, "\n  {name} {problem}"))
    }
}

impl std::error::Error for Problems {}

/// The sources of settings, and what was found in them.
#[derive(Debug, Default)]
pub struct Reader {
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
    known: BTreeSet<String>,
    entries: Vec<Entry>,
    problems: Vec<(String, String)>,
}

impl Reader {
    /// The process's environment and, if it exists, the file `mainstay.toml` in the current folder (or the one that `MAINSTAY_CONFIG` names).
    pub fn from_process() -> Self {
        let environment: BTreeMap<_, _> =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
        let named = environment.get("MAINSTAY_CONFIG").cloned();
        let mut reader = Self { environment, ..Self::default() };
        let path = named.as_deref().unwrap_or("mainstay.toml");
        if named.is_some() || Path::new(path).exists() {
            match std::fs::read_to_string(path) {
                Ok(text) => reader.add_file(&text),
                Err(error) => reader.problem(path, format!("cannot be read: {error}")),
            }
        }
        reader
    }

    /// Given values, for tests and for the reference.
    pub fn from_pairs<'a>(environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self { environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), ..Self::default() }
    }

    /// Adds the text of a TOML file.
    pub fn add_file(&mut self, text: &str) {
        match text.parse::<toml::Table>() {
            Err(error) => self.problem("mainstay.toml", format!("is not TOML: {}", error.message())),
            Ok(table) => {
                for (name, value) in table {
                    match plain(&value) {
                        Some(value) => drop(self.file.insert(name, value)),
                        None => self.problem(&name, "must be a text, a number, a boolean or a list of them"),
                    }
                }
            }
        }
    }

    /// Reads one setting. A wrong value is noted and the default stands in, so that reading goes on and finds the rest.
    ///
    /// # Panics
    /// When the default of the knob does not parse: found by every test that reads the settings.
    pub fn read<T: Setting>(&mut self, knob: Knob<T>) -> T {
        self.known.insert(knob.name.to_lowercase());
        let found = self
            .environment
            .get(knob.name)
            .filter(|value| !value.is_empty() || T::EMPTY_IS_A_VALUE)
            .map(|value| (value.clone(), Origin::Environment))
            .or_else(|| self.file.get(&knob.name.to_lowercase()).map(|value| (value.clone(), Origin::File)));
        let fallback = || match (&knob.default, T::absent()) {
            (Some(text), _) => T::parse(text).unwrap_or_else(|error| panic!("the default of {} {error}", knob.name)),
            (None, Some(absent)) => absent,
            (None, None) => panic!("{} has neither a default nor a value for its absence", knob.name),
        };
        let (value, origin) = match found {
            None => (fallback(), Origin::Default),
            Some((text, origin)) => match T::parse(text.trim()) {
                Ok(value) if knob.allowed.as_ref().is_none_or(|(_, holds)| holds(&value)) => (value, origin),
                Ok(value) => {
                    let words = knob.allowed.as_ref().map(|(words, _)| words.as_str()).unwrap_or_default();
                    self.problem(knob.name, format!("is {}; allowed: {words}", value.written()));
                    (fallback(), Origin::Default)
                }
                Err(reason) => {
                    self.problem(knob.name, reason);
                    (fallback(), Origin::Default)
                }
            },
        };
        self.entries.push(Entry {
            name: knob.name,
            doc: knob.doc,
            kind: T::KIND,
            default: match (knob.default_says, knob.default) {
                (Some(words), _) => words.to_owned(),
                (None, Some(text)) if !text.is_empty() => format!("`{text}`"),
                _ => "none".to_owned(),
            },
            allowed: knob.allowed.map(|(words, _)| words),
            value: value.written(),
            origin,
        });
        value
    }

    /// Notes a problem of a setting, in words that follow its name.
    pub fn problem(&mut self, name: &str, words: impl Into<String>) {
        self.problems.push((name.to_owned(), words.into()));
    }

    /// Ends the reading: names in the file that nobody read are problems too.
    ///
    /// # Errors
    /// Every problem found.
    pub fn finish(mut self) -> Result<Vec<Entry>, Problems> {
        let unknown: Vec<_> = self.file.keys().filter(|name| !self.known.contains(*name)).cloned().collect();
        for name in unknown {
            self.problem(&name, "is no setting; `mainstay config` lists them all");
        }
        if self.problems.is_empty() { Ok(self.entries) } else { Err(Problems(self.problems)) }
    }
}

/// A TOML value as it would stand in the environment.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Array(items) => items.iter().map(plain).collect::<Option<Vec<_>>>().map(|items| items.join(",")),
        _ => None,
    }
}
