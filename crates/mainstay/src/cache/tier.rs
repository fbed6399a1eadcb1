//! The second tier: answers that one instance made, in Redis, for the others.
//!
//! An instance that has an answer to make asks there first. It believes what it finds if that reaches as far as it was itself told ([`Position`]), so
//! nothing has to be taken out when something changes. Of instances that miss the same answer at once one makes it, and the others wait for it, but not for
//! long: a query is seldom worth more than the wait. Redis slow or gone costs what it costs everybody ([`Redis::run`]), and then each makes its own.
//!
//! Only instances of one build read each other's answers: another release may write them differently. What lies there is as public as the answers are;
//! who may write to this Redis may say what the API answers, and how often it may be asked.

use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::output::Output;
use super::position::Position;
use super::{Key, Of};
use crate::redis::{Away, Redis, Script};

static ASK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("tier/ask.lua")));
static PUT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("tier/put.lua")));
static LEAVE: LazyLock<Script> =
    LazyLock::new(|| Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"));

/// An answer larger than this is not shared: Redis serves everybody from one thread.
const BYTES_MAX: usize = 256 * 1024;
/// What an answer takes in Redis beside its name and its bytes, and the note of who makes it: its places in the tables of keys and of ends, some 200 bytes.
const BESIDE: usize = 200;
/// Answers on their way there at once; what comes beyond is not shared. A bound for a Redis that is slow, in bytes 16 MiB at most.
const TASKS_MAX: usize = 64;
/// Who makes an answer is waited for as long as this: most are made in a few ms, and then the waiting costs more than the making.
pub(super) const WAITS: [Duration; 4] = [Duration::from_millis(4), Duration::from_millis(8), Duration::from_millis(16), Duration::from_millis(32)];
/// And others begin to make it after this, if nothing was heard of the first: its process has died.
const MAKING_MS: u64 = 1_000;

/// The answers in Redis.
pub(super) struct Tier {
    redis: Redis,
    build: String,
    tasks: Arc<Semaphore>,
    budget: Budget,
}

/// What this instance may put there. Nothing is good for longer than a period, so Redis never holds more of it than two periods' worth, whatever strangers
/// ask for: memory that is full there would cost the limits their place.
struct Budget {
    bytes: u64,
    period: Duration,
    /// When the period began, and what it took.
    spent: Mutex<(Instant, u64)>,
}

impl Budget {
    fn new(bytes: u64, period: Duration, now: Instant) -> Self {
        Self { bytes, period, spent: Mutex::new((now, 0)) }
    }

    fn take(&self, bytes: usize, now: Instant) -> bool {
        // Whole after a panic as well: there is none in here.
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(spent.0) >= self.period {
            *spent = (now, 0);
        }
        let sum = spent.1.saturating_add(bytes as u64);
        let fits = sum <= self.bytes;
        if fits {
            spent.1 = sum;
        }
        fits
    }
}

/// What there is.
pub(super) enum Asked {
    /// The answer, or that there is none.
    There(Box<Shared>),
    /// It is for this instance to make it.
    Make(Turn),
    /// Another instance makes it.
    Coming,
}

/// The turn of making an answer. Whatever becomes of the making, the other instances learn when it is over.
pub(super) struct Turn {
    redis: Redis,
    tasks: Arc<Semaphore>,
    making: String,
    /// Nothing once it was told with the answer.
    who: Option<String>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (Some(who), Ok(place), Ok(runtime)) = (self.who.take(), self.tasks.clone().try_acquire_owned(), Handle::try_current()) else { return };
        let (redis, making) = (self.redis.clone(), std::mem::take(&mut self.making));
        runtime.spawn(async move {
            let _ = redis.run::<i64, _>(&LEAVE, &[&making], &[who]).await;
            drop(place);
        });
    }
}

/// An answer of another instance.
pub(super) struct Shared {
    pub(super) output: Option<Output>,
    /// How long it took to make.
    pub(super) took: Duration,
    /// How long it is still good for.
    pub(super) left: Duration,
}

/// What stands before the body.
#[derive(Serialize, Deserialize)]
struct Head {
    /// None: what was asked for is not there.
    media: Option<String>,
    fields: Vec<(String, String)>,
    took_us: u64,
}

impl Tier {
    /// Puts up to `bytes` there, good for `life` at most. Nothing if it cannot be told which build this is.
    pub(super) fn new(redis: Redis, bytes: u64, life: Duration) -> Option<Self> {
        let budget = Budget::new(bytes / 2, life, Instant::now());
        Some(Self { redis, build: build()?.to_owned(), tasks: Arc::new(Semaphore::new(TASKS_MAX)), budget })
    }

    /// An answer that reaches as far as `needed` and is good for longer than `least`. Nothing if Redis does not answer, or nonsense.
    pub(super) async fn ask(&self, key: &Key, needed: Position, least: Duration) -> Option<Asked> {
        let (answer, making) = self.names(key, needed.server);
        let who = Uuid::new_v4().simple().to_string();
        let arguments = [reach(needed), least.as_millis().to_string(), who.clone(), MAKING_MS.to_string()];
        let asked = self.redis.run::<(i64, Option<Vec<u8>>, i64), _>(&ASK, &[&answer, &making], &arguments).await;
        match asked {
            // What cannot be read is made without a turn, and put in its place.
            Ok((1, bytes, left_ms)) => {
                let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
                read(&bytes.unwrap_or_default(), left).map(|shared| Asked::There(Box::new(shared)))
            }
            Ok((2, ..)) => Some(Asked::Coming),
            Ok(_) => Some(Asked::Make(Turn { redis: self.redis.clone(), tasks: self.tasks.clone(), making, who: Some(who) })),
            Err(Away) => None,
        }
    }

    /// Puts an answer there, in the background, for as long as it is good, and ends the turn. One that is too large stays here.
    pub(super) fn put(&self, key: &Key, position: Position, output: Option<&Output>, took: Duration, left: Duration, turn: Option<Turn>) {
        let Some(text) = written(position, output, took).filter(|_| left > Duration::from_millis(1)) else { return };
        let (answer, making) = self.names(key, position.server);
        let Ok(place) = self.tasks.clone().try_acquire_owned() else { return };
        if !self.budget.take(BESIDE + 2 * making.len() + text.len(), Instant::now()) {
            return;
        }
        let who = turn.and_then(|mut turn| turn.who.take()).unwrap_or_default();
        let arguments = [reach(position).into_bytes(), text, left.as_millis().to_string().into_bytes(), who.into_bytes()];
        let redis = self.redis.clone();
        tokio::spawn(async move {
            // Lost is what nobody will miss.
            let _ = redis.run::<i64, _>(&PUT, &[&answer, &making], &arguments).await;
            drop(place);
        });
    }

    /// Of an answer, and of who makes it: on one node of a cluster.
    fn names(&self, key: &Key, server: u64) -> (String, String) {
        let mut text = key.route.as_bytes().to_vec();
        match &key.of {
            Of::Id(id) => text.extend([b"\0id\0".as_slice(), id.as_bytes()].concat()),
            Of::Query(query) => text.extend([b"\0query\0".as_slice(), query.as_bytes()].concat()),
        }
        let answer = format!("{}:cache:{}:{server:016x}:{{{}}}", self.redis.prefix(), self.build, short(&text));
        let making = format!("{answer}:making");
        (answer, making)
    }
}

/// So that the order of texts is the order of numbers.
fn reach(position: Position) -> String {
    format!("{:016x}", position.before)
}

/// 128 bits of the SHA-256: nobody finds two texts of one name in 2^64 tries.
fn short(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(&digest(&SHA256, bytes).as_ref()[..16])
}

/// Which build runs: its own bytes.
fn build() -> Option<&'static str> {
    static BUILD: OnceLock<Option<String>> = OnceLock::new();
    BUILD.get_or_init(|| Some(short(&std::fs::read(std::env::current_exe().ok()?).ok()?))).as_deref()
}

fn written(position: Position, output: Option<&Output>, took: Duration) -> Option<Vec<u8>> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let (media, fields, plain) = match output {
        Some(output) => {
            let fields = output.fields.iter().map(|(name, value)| Some((name.as_str().to_owned(), text(value)?))).collect::<Option<Vec<_>>>()?;
            (Some(text(&output.media)?), fields, output.plain.clone())
        }
        None => (None, Vec::new(), Bytes::new()),
    };
    if plain.len() > BYTES_MAX {
        return None;
    }
    let head = Head { media, fields, took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX) };
    let mut text = reach(position).into_bytes();
    serde_json::to_writer(&mut text, &head).ok()?;
    text.push(b'\n');
    text.extend_from_slice(&plain);
    Some(text)
}

fn read(bytes: &[u8], left: Duration) -> Option<Shared> {
    let rest = bytes.get(16..)?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let Head { media, fields, took_us } = serde_json::from_slice(&rest[..end]).ok()?;
    let output = match media {
        Some(media) => {
            let output = Output::new(HeaderValue::from_str(&media).ok()?, Bytes::copy_from_slice(&rest[end + 1..]));
            let field = |(name, value): &(String, String)| Some((HeaderName::from_str(name).ok()?, HeaderValue::from_str(value).ok()?));
            let fields = fields.iter().map(field).collect::<Option<Vec<_>>>()?;
            Some(fields.into_iter().fold(output, |output, (name, value)| output.with_field(name, value)))
        }
        None => None,
    };
    Some(Shared { output, took: Duration::from_micros(took_us), left })
}

/// An entry, read and written again, for the fuzz target.
#[cfg(feature = "fuzzing")]
pub fn rewritten(entry: &[u8]) -> Option<Vec<u8>> {
    let before = std::str::from_utf8(entry.get(..16)?).ok().and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    let shared = read(entry, Duration::ZERO)?;
    written(Position { server: 0, before }, shared.output.as_ref(), shared.took)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position { server: 1, before: 0x2a };

    #[test]
    fn what_is_written_is_read_again() {
        let body = Bytes::from_static(b"{\"a\":\n\"b\"}");
        let link = HeaderValue::from_static("</x>; rel=\"next\"");
        let output = Output::new(HeaderValue::from_static("application/json"), body.clone()).with_field(http::header::LINK, link.clone());
        let text = written(POSITION, Some(&output), Duration::from_millis(3)).unwrap();
        assert!(text.starts_with(b"000000000000002a{"));
        let shared = read(&text, Duration::from_secs(9)).unwrap();
        let again = shared.output.unwrap();
        assert_eq!((again.plain, again.media, again.fields), (body, output.media.clone(), vec![(http::header::LINK, link)]));
        assert_eq!((shared.took, shared.left), (Duration::from_millis(3), Duration::from_secs(9)));
        let nothing = written(POSITION, None, Duration::ZERO).unwrap();
        assert!(read(&nothing, Duration::ZERO).unwrap().output.is_none());
    }

    #[test]
    fn in_any_two_periods_no_more_is_put_there_than_there_is_room_for() {
        let now = Instant::now();
        let budget = Budget::new(1_000, Duration::from_secs(60), now);
        let mut put = Vec::new();
        for ms in (0..600_000_u64).step_by(100) {
            if budget.take(7, now + Duration::from_millis(ms)) {
                put.push(ms);
            }
        }
        for from in &put {
            let lie = put.iter().filter(|ms| (*from..from + 60_000).contains(ms)).count();
            assert!(lie * 7 <= 2_000, "{lie} from {from}");
        }
        assert!(put.len() * 7 > 9 * 900, "{}", put.len());
    }

    #[test]
    fn what_is_too_large_or_was_not_written_by_this_is_left_alone() {
        let large = Output::new(HeaderValue::from_static("text/plain"), vec![b' '; BYTES_MAX + 1].into());
        assert!(written(POSITION, Some(&large), Duration::ZERO).is_none());
        for text in [
            "",
            "000000000000002a",
            "000000000000002a\n",
            "000000000000002a{}\n",
            "000000000000002a{\"media\":\"\u{7}\",\"fields\":[],\"took_us\":0}\n",
        ] {
            assert!(read(text.as_bytes(), Duration::ZERO).is_none(), "{text:?}");
        }
    }
}
