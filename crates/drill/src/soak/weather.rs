//! The faults of a soak, one after the other with a calm after each, and what the instances hold meanwhile.

use std::fmt;
use std::time::{Duration, Instant};

use super::people::World;
use super::places::Places;
use super::seen::Trouble;
use crate::proxy::Fault;
use crate::watch::{Look, look};

/// How often it is looked at what instances hold: several times between two commits of the search index, whose memory comes and goes.
const LOOK: Duration = Duration::from_millis(100);
/// From one fault to the next: a fortieth of an hour, so that each kind comes several times; in a soak of a minute five of them come once.
const PERIOD: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(90));
/// How long a fault lasts, at most and as a part of that.
const FAULT_MAX: Duration = Duration::from_secs(10);
const FAULT_PART: u32 = 4;
/// Until clients notice nothing any more: what was asked in the last moment of a fault has its two seconds for a connection, and what is cut the five of its time.
const RECOVERY: Duration = Duration::from_secs(6);
/// The instance that is started anew.
const RESTARTED: usize = 1;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    Database(Fault),
    Redis(Fault),
    Restart,
}

impl Harm {
    /// In this order, again and again.
    const ALL: [Self; 7] = [
        Self::Redis(Fault::Silent),
        Self::Database(Fault::Late(Duration::from_millis(20))),
        Self::Restart,
        Self::Redis(Fault::Refuse),
        Self::Database(Fault::Refuse),
        Self::Redis(Fault::Late(Duration::from_millis(300))),
        Self::Database(Fault::Silent),
    ];

    fn can_be(self, places: &Places) -> bool {
        match self {
            Self::Database(_) => places.postgres.is_some(),
            Self::Redis(_) => places.redis.is_some(),
            Self::Restart => places.instances() > RESTARTED,
        }
    }

    /// May clients see this of it? Only that a database that is gone is said to be, and that nobody listens where an instance is started anew.
    fn explains(self, trouble: &Trouble) -> bool {
        match self {
            Self::Database(Fault::Refuse | Fault::Silent) => trouble.status == Some(503) && trouble.refuses || trouble.status == Some(504),
            Self::Restart => trouble.instance == RESTARTED && (trouble.status.is_none() || trouble.status == Some(503) && trouble.refuses),
            Self::Database(_) | Self::Redis(_) => false,
        }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whose, fault) = match self {
            Self::Restart => return f.write_str("an instance started anew"),
            Self::Database(fault) => ("PostgreSQL", fault),
            Self::Redis(fault) => ("Redis", fault),
        };
        match fault {
            Fault::None => write!(f, "{whose} as always"),
            Fault::Late(late) => write!(f, "{whose} {} ms late on each way", late.as_millis()),
            Fault::Silent => write!(f, "{whose} silent"),
            Fault::Refuse => write!(f, "{whose} gone"),
        }
    }
}

/// A fault that was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) harm: Harm,
    pub(super) from: Duration,
    pub(super) to: Duration,
}

/// What instances held, by seconds after the beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    pub(super) faults: Vec<Done>,
    /// Of each instance.
    pub(super) held: Vec<Vec<(f64, Look)>>,
    /// Connections to the PostgreSQL, and to the Redis.
    pub(super) connections: [Vec<(f64, f64)>; 2],
}

impl Course {
    /// Does a fault explain this?
    pub(super) fn explains(&self, trouble: &Trouble) -> bool {
        self.faults.iter().any(|done| trouble.at >= done.from && trouble.at <= done.to + RECOVERY && done.harm.explains(trouble))
    }

    fn look(&mut self, places: &Places, begun: Instant) {
        let at = begun.elapsed().as_secs_f64();
        self.held.resize_with(places.instances(), Vec::new);
        for (number, held) in self.held.iter_mut().enumerate() {
            held.extend(look(places.pid(number)).map(|look| (at, look)));
        }
        for (connections, proxy) in self.connections.iter_mut().zip([&places.postgres, &places.redis]) {
            #[allow(clippy::cast_precision_loss)] // Some dozen connections.
            connections.extend(proxy.as_ref().map(|proxy| (at, proxy.open() as f64)));
        }
    }

    /// Looks until this moment.
    async fn watch(&mut self, places: &Places, begun: Instant, until: Duration) {
        while begun.elapsed() < until {
            self.look(places, begun);
            tokio::time::sleep(LOOK.min(until.saturating_sub(begun.elapsed()))).await;
        }
    }
}

/// Has the weather change until the time is over. The first tenth and the last fifth are calm.
///
/// # Errors
/// When an instance that was asked to end does not do so in order, or does not start again.
pub(super) async fn weather(length: Duration, places: &mut Places, world: &World) -> Result<Course, String> {
    let (begun, mut course) = (world.begun, Course::default());
    let kinds: Vec<Harm> = Harm::ALL.into_iter().filter(|harm| harm.can_be(places)).collect();
    let (period, lasting) = pace(length);
    course.watch(places, begun, length / 10).await;
    for harm in kinds.iter().copied().cycle() {
        let from = begun.elapsed();
        if from + period > length.mul_f64(0.8) {
            break;
        }
        match harm {
            Harm::Restart => places.restart(RESTARTED).await?,
            Harm::Database(fault) | Harm::Redis(fault) => {
                set(harm, places, fault);
                course.watch(places, begun, from + lasting).await;
                set(harm, places, Fault::None);
            }
        }
        course.faults.push(Done { harm, from, to: begun.elapsed() });
        course.watch(places, begun, from + period).await;
    }
    course.watch(places, begun, length).await;
    Ok(course)
}

fn pace(length: Duration) -> (Duration, Duration) {
    let period = (length / 40).clamp(PERIOD.0, PERIOD.1);
    (period, (period / FAULT_PART).min(FAULT_MAX))
}

fn set(harm: Harm, places: &Places, fault: Fault) {
    let proxy = match harm {
        Harm::Database(_) => &places.postgres,
        Harm::Redis(_) => &places.redis,
        Harm::Restart => &None,
    };
    if let Some(proxy) = proxy {
        proxy.set(fault);
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::Kind;
    use super::*;

    fn trouble(at: u64, instance: usize, status: Option<u16>) -> Trouble {
        Trouble { at: Duration::from_secs(at), kind: Kind::Read, instance, status, refuses: status == Some(503), words: String::new() }
    }

    #[test]
    fn a_fault_explains_what_it_must_do_to_clients_and_nothing_else() {
        let seconds = Duration::from_secs;
        let course = |harm| Course { faults: vec![Done { harm, from: seconds(10), to: seconds(20) }], ..Course::default() };
        let gone = course(Harm::Database(Fault::Refuse));
        assert!(gone.explains(&trouble(15, 0, Some(503))) && gone.explains(&trouble(26, 1, Some(504))));
        for (at, status) in [(9, Some(503)), (27, Some(503)), (15, Some(500)), (15, None), (15, Some(401))] {
            assert!(!gone.explains(&trouble(at, 0, status)), "{at}: {status:?}");
        }
        assert!(!Course { faults: vec![], ..gone }.explains(&trouble(15, 0, Some(503))));
        let restart = course(Harm::Restart);
        assert!(restart.explains(&trouble(15, 1, None)) && !restart.explains(&trouble(15, 0, None)) && !restart.explains(&trouble(15, 1, Some(500))));
        for harm in [Harm::Redis(Fault::Silent), Harm::Database(Fault::Late(seconds(1)))] {
            assert!(!course(harm).explains(&trouble(15, 0, Some(503))), "{harm}");
        }
    }

    #[test]
    fn an_hour_has_each_fault_several_times_and_a_minute_has_room_for_some() {
        let faults = |length: Duration| length.mul_f64(0.7).as_secs() / pace(length).0.as_secs();
        assert!(faults(Duration::from_secs(3_600)) >= 4 * Harm::ALL.len() as u64);
        assert!(faults(Duration::from_secs(600)) >= 3 * Harm::ALL.len() as u64);
        assert!(faults(Duration::from_secs(60)) >= 5);
    }
}
