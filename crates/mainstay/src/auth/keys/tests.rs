//! Instances that share a folder of keys: what each notices, what it keeps, and that no rotation costs a verification.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::*;
use crate::auth::{Role, Tokens};

const EXPIRY: Duration = Duration::from_secs(900);
const LEAD: Duration = Duration::from_secs(30);
const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

struct Place {
    folder: tempfile::TempDir,
    directory: Directory,
}

impl Place {
    /// A folder with one key that signs.
    fn new() -> (Self, String) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), true);
        let place = Self { folder, directory };
        let kid = place.create(Duration::ZERO, NOW);
        (place, kid)
    }

    fn create(&self, lead: Duration, second: i64) -> String {
        self.directory.create(Algorithm::EdDsa, lead, EXPIRY, at(second), &SystemRandom::new()).unwrap().kid
    }

    fn retire(&self, kid: &str, at_once: bool, second: i64) -> Result<Timestamp> {
        self.directory.retire(kid, at_once, EXPIRY, at(second), &SystemRandom::new())
    }

    fn instance(&self) -> Tokens {
        Tokens::new(Keys::open(self.directory.clone(), None).unwrap(), "mainstay", "mainstay", EXPIRY)
    }

    fn file(&self, kid: &str) -> PathBuf {
        self.folder.path().join(format!("{kid}.pem"))
    }
}

fn issued(tokens: &Tokens, second: i64) -> SecretString {
    tokens.issue(Uuid::new_v4(), Uuid::new_v4(), Role::User, at(second))
}

fn published(tokens: &Tokens, second: i64) -> usize {
    tokens.published_keys(at(second)).keys.len()
}

/// A token whose header is one of ours with a name that nobody has.
fn made_up(number: usize) -> String {
    format!("{}.e30.{}", header::of_key(Algorithm::EdDsa, &format!("made-up-{number}")), "A".repeat(86))
}

#[tokio::test]
async fn a_token_of_a_key_that_is_not_known_yet_leads_to_one_look() {
    let (place, first) = Place::new();
    let (one, other) = (place.instance(), place.instance());
    place.create(LEAD, NOW);
    place.retire(&first, true, NOW).unwrap();
    one.keys().look().await;
    let token = issued(&one, NOW);
    assert_eq!(other.verify(token.expose_secret(), at(NOW)), Err(UNKNOWN_KEY));
    assert!(other.verify_with_look(token.expose_secret(), at(NOW)).await.is_ok());
    assert!(other.verify(token.expose_secret(), at(NOW)).is_ok());
}

#[tokio::test]
async fn a_flood_of_made_up_keys_reads_the_folder_five_times_a_second_at_most() {
    let (place, _) = Place::new();
    let tokens = place.instance();
    let before = tokens.keys().reads();
    for step in 0..1000 {
        let now = Timestamp::from_millisecond(NOW * 1000 + step).unwrap();
        assert_eq!(tokens.verify_with_look(&made_up(step as usize), now).await, Err(UNKNOWN_KEY));
    }
    assert_eq!(tokens.keys().reads() - before, 5);
    // A clock that was set back does not end the looking.
    assert_eq!(tokens.verify_with_look(&made_up(1), at(NOW - 3600)).await, Err(UNKNOWN_KEY));
    assert_eq!(tokens.keys().reads() - before, 6);
}

#[tokio::test]
async fn those_who_come_together_share_a_look() {
    let (place, first) = Place::new();
    let (one, other) = (place.instance(), place.instance());
    place.create(LEAD, NOW);
    place.retire(&first, true, NOW).unwrap();
    one.keys().look().await;
    let token = issued(&one, NOW);
    let before = other.keys().reads();
    let verified = futures_util::future::join_all((0..64).map(|_| other.verify_with_look(token.expose_secret(), at(NOW)))).await;
    assert!(verified.iter().all(Result::is_ok));
    assert_eq!(other.keys().reads() - before, 1);
}

#[tokio::test]
async fn a_broken_file_takes_no_good_key_away_and_a_removed_one_does() {
    let (place, first) = Place::new();
    let tokens = place.instance();
    let second = place.create(LEAD, NOW);
    tokens.keys().look().await;
    let token = issued(&tokens, NOW);
    let whole = fs::read(place.file(&first)).unwrap();
    fs::write(place.file(&first), "cut").unwrap();
    tokens.keys().look().await;
    assert!(tokens.verify(token.expose_secret(), at(NOW)).is_ok() && published(&tokens, NOW) == 2);
    fs::write(place.file(&first), whole).unwrap();
    tokens.keys().look().await;
    assert!(tokens.verify(token.expose_secret(), at(NOW)).is_ok());
    fs::remove_file(place.file(&first)).unwrap();
    tokens.keys().look().await;
    assert_eq!((tokens.verify(token.expose_secret(), at(NOW)), published(&tokens, NOW)), (Err(UNKNOWN_KEY), 1));
    // The last one that can sign stays, whatever happens to the folder.
    fs::remove_file(place.file(&second)).unwrap();
    tokens.keys().look().await;
    assert!(tokens.verify(issued(&tokens, NOW).expose_secret(), at(NOW)).is_ok());
    fs::remove_dir_all(place.folder.path()).unwrap();
    tokens.keys().look().await;
    assert!(tokens.verify(issued(&tokens, NOW).expose_secret(), at(NOW)).is_ok());
}

#[tokio::test]
async fn tokens_of_a_key_that_was_retired_at_once_are_refused_also_if_they_were_seen_before() {
    let (place, first) = Place::new();
    let tokens = place.instance();
    let token = issued(&tokens, NOW);
    assert!(tokens.verify(token.expose_secret(), at(NOW)).is_ok());
    place.create(LEAD, NOW);
    place.retire(&first, true, NOW + 1).unwrap();
    tokens.keys().look().await;
    assert_eq!(tokens.verify(token.expose_secret(), at(NOW + 1)), Err(Refused("retired key")));
    assert_eq!(published(&tokens, NOW + 1), 1);
}

#[tokio::test]
async fn an_instance_that_watches_notices_a_new_key_by_itself() {
    let (place, _) = Place::new();
    let tokens = place.instance();
    tokens.keys().watch_every(Duration::from_millis(5));
    place.create(LEAD, NOW);
    let noticed = async {
        while published(&tokens, NOW) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), noticed).await.expect("it is noticed");
}

#[test]
fn a_folder_in_which_nothing_can_sign_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Keys::open(Directory::new(folder.path(), true), None).map(drop).unwrap_err().to_string();
    assert!(open().contains("mainstay keys new"), "{}", open());
    fs::write(folder.path().join("bent.pem"), "bent").unwrap();
    assert!(open().contains("bent.pem: there is no PEM block"), "{}", open());
    let gone = Keys::open(Directory::new(folder.path().join("gone"), true), None).map(drop).unwrap_err().to_string();
    assert!(gone.contains("mainstay keys new") && gone.contains("No such file"), "{gone}");
}

/// What may happen to two instances and their folder.
#[derive(Debug, Clone)]
enum Step {
    /// Time goes by.
    Wait(i64),
    /// `keys new`
    Create(u64),
    /// `keys retire`, of one of the keys that there are.
    Retire(usize),
    /// An instance signs.
    Issue(usize),
    /// Somebody sends tokens with made-up keys to both, so that neither may look for another one.
    Flood,
    /// An instance is started anew.
    Restart(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..40i64).prop_map(Step::Wait),
        1 => (100..1200i64).prop_map(Step::Wait),
        2 => (30..900u64).prop_map(Step::Create),
        2 => any::<usize>().prop_map(Step::Retire),
        4 => (0..2usize).prop_map(Step::Issue),
        1 => Just(Step::Flood),
        1 => (0..2usize).prop_map(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// An instance whose clock is wrong by some seconds, and that looks at the folder every ten.
struct Instance {
    tokens: Tokens,
    skew: i64,
    looked: i64,
}

impl Instance {
    async fn until(&mut self, second: i64) {
        // Between two commands the folder is the same, so the first look that is due stands for all.
        if second - self.looked >= LOOK_INTERVAL.as_secs() as i64 {
            self.tokens.keys().look().await;
            self.looked = second;
        }
    }
}

/// Plays the steps and fails at the first token that was issued, has not expired and is refused.
async fn play(steps: Vec<Step>, skews: [i64; 2]) {
    let (place, _) = Place::new();
    let mut now = NOW;
    let mut instances = skews.map(|skew| Instance { tokens: place.instance(), skew, looked: NOW });
    let mut alive: Vec<(SecretString, i64)> = Vec::new();
    for step in steps {
        match step {
            Step::Wait(seconds) => now += seconds,
            Step::Create(lead) => drop(place.directory.create(Algorithm::EdDsa, Duration::from_secs(lead), EXPIRY, at(now), &SystemRandom::new())),
            Step::Retire(any) => {
                let keys = place.directory.list(at(now), EXPIRY).unwrap().0;
                // It may be refused, when no other is left.
                let _ = place.retire(&keys[any % keys.len()].kid, false, now);
            }
            Step::Issue(which) => {
                let Instance { tokens, skew, .. } = &instances[which];
                alive.push((issued(tokens, now + skew), now + skew + EXPIRY.as_secs() as i64));
            }
            Step::Flood => {
                for Instance { tokens, skew, .. } in &instances {
                    assert!(tokens.verify_with_look(&made_up(0), at(now + skew)).await.is_err());
                }
            }
            Step::Restart(which) => {
                instances[which].tokens = place.instance();
                instances[which].looked = now;
            }
        }
        for instance in &mut instances {
            instance.until(now).await;
        }
        alive.retain(|(_, expires)| *expires > now + 2);
        for (token, _) in &alive {
            for Instance { tokens, skew, .. } in &instances {
                let verified = tokens.verify_with_look(token.expose_secret(), at(now + skew)).await;
                assert!(verified.is_ok(), "{verified:?} at {}", now - NOW);
            }
        }
    }
}

#[tokio::test]
async fn keys_begin_in_the_order_in_which_they_were_made() {
    // The first is ended while the second waits; a third that began before the second would step in with nobody but its maker knowing it.
    let steps = [Step::Create(357), Step::Retire(0), Step::Wait(100), Step::Flood, Step::Create(30), Step::Restart(1), Step::Issue(1)];
    for retired in 0..2 {
        let mut steps = steps.to_vec();
        steps[1] = Step::Retire(retired);
        play(steps, [0, 0]).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_rotation_costs_a_verification(steps in steps(), skews in [-2i64..=2, -2i64..=2]) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(play(steps, skews));
    }
}
