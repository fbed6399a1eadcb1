//! A folder of keys as the commands write it and instances read it.

use super::*;
use ring::rand::SystemRandom;

const EXPIRY: Duration = Duration::from_secs(900);
const LEAD: Duration = Duration::from_secs(600);
const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

struct Place {
    folder: tempfile::TempDir,
    directory: Directory,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().join("keys"), true);
        Self { folder, directory }
    }

    fn create(&self, lead: Duration, second: i64) -> Created {
        self.directory.create(Algorithm::EdDsa, lead, EXPIRY, at(second), &SystemRandom::new()).unwrap()
    }

    fn retire(&self, kid: &str, at_once: bool, second: i64) -> Result<Timestamp> {
        self.directory.retire(kid, at_once, EXPIRY, at(second), &SystemRandom::new())
    }

    fn states(&self, second: i64) -> Vec<(String, State)> {
        self.directory.list(at(second), EXPIRY).unwrap().0.into_iter().map(|listed| (listed.kid, listed.state)).collect()
    }

    fn problems(&self) -> Vec<String> {
        let problems = self.directory.list(at(NOW), EXPIRY).unwrap().1;
        problems.into_iter().map(|problem| format!("{}: {}", problem.file, problem.reason)).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("keys").join(name)
    }

    fn text(&self, kid: &str) -> String {
        fs::read_to_string(self.file(&format!("{kid}.pem"))).unwrap()
    }

    fn names(&self) -> Vec<String> {
        fs::read_dir(self.folder.path().join("keys")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn a_key_is_for_its_owner_only_and_nothing_else_is_left() {
    let place = Place::new();
    let kid = place.create(Duration::ZERO, NOW).kid;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place.file("")), mode(&place.file(&format!("{kid}.pem")))), (0o700, 0o600));
    assert_eq!(place.names(), [format!("{kid}.pem")]);
    assert!(is_kid(&kid) && !kid.starts_with('-'));
}

#[test]
fn a_rotation_takes_private_halves_and_files_away_when_nobody_needs_them() {
    let place = Place::new();
    let first = place.create(Duration::ZERO, NOW).kid;
    let second = place.create(LEAD, NOW).kid;
    assert_eq!(place.states(NOW), [(first.clone(), State::Signing), (second.clone(), State::Next)]);
    // Its tokens live, but nobody signs with it.
    let later = NOW + 600 + 61;
    let third = place.create(LEAD, later);
    assert_eq!(place.states(later), [(first.clone(), State::Retiring), (second.clone(), State::Signing), (third.kid.clone(), State::Next)]);
    assert!(third.removed.is_empty() && place.text(&first).contains("PUBLIC KEY") && place.text(&second).contains("PRIVATE KEY"));
    let last = NOW + 600 + 900 + 60;
    let fourth = place.create(LEAD, last);
    assert_eq!((fourth.removed, place.names().len()), (vec![first], 3));
}

#[test]
fn a_key_is_retired_a_little_ahead_and_not_without_a_follower() {
    let place = Place::new();
    let first = place.create(Duration::ZERO, NOW).kid;
    let refused = place.retire(&first, false, NOW).unwrap_err();
    assert!(refused.message().contains("No other key would be left to sign"), "{refused}");
    assert_eq!(place.states(NOW), [(first.clone(), State::Signing)]);
    let second = place.create(LEAD, NOW).kid;
    assert_eq!(place.retire(&first, false, NOW).unwrap(), at(NOW + 30));
    assert!(place.text(&first).contains("PRIVATE KEY"), "it signs for another 30 s");
    assert_eq!(place.states(NOW + 29), [(first.clone(), State::Signing), (second.clone(), State::Next)]);
    assert_eq!(place.states(NOW + 30), [(first.clone(), State::Retiring), (second.clone(), State::Signing)]);
    // Again: the end that was set stays.
    assert_eq!(place.retire(&first, false, NOW + 80).unwrap(), at(NOW + 30));
    assert!(place.text(&first).contains("PRIVATE KEY"), "and is taken away by what comes after it");
    place.create(LEAD, NOW + 100);
    assert!(place.text(&first).contains("PUBLIC KEY"));
    assert_eq!(place.states(NOW + 30 + 900 + 59)[0], (first.clone(), State::Retiring));
    assert_eq!(place.states(NOW + 30 + 900 + 60)[0], (first, State::Retired));
    assert!(place.retire("nobody", false, NOW).unwrap_err().message().contains("no key `nobody`"));
}

#[test]
fn a_key_that_is_retired_at_once_verifies_nothing_and_is_gone_from_the_folder() {
    let place = Place::new();
    let first = place.create(Duration::ZERO, NOW).kid;
    let second = place.create(LEAD, NOW).kid;
    assert_eq!(place.retire(&first, true, NOW + 5).unwrap(), at(NOW + 5));
    assert_eq!(place.states(NOW + 5), [(first.clone(), State::Retired), (second, State::Signing)]);
    assert!(!place.text(&first).contains("PRIVATE"));
}

#[test]
fn the_next_key_can_be_taken_back_before_it_begins() {
    let place = Place::new();
    let first = place.create(Duration::ZERO, NOW).kid;
    let second = place.create(LEAD, NOW).kid;
    place.retire(&second, false, NOW + 5).unwrap();
    assert_eq!(place.states(NOW + 700), [(first, State::Signing), (second, State::Retiring)]);
}

#[test]
fn a_key_that_stepped_in_before_its_time_is_retired_a_little_ahead_as_well() {
    let place = Place::new();
    let first = place.create(Duration::ZERO, NOW).kid;
    let second = place.create(LEAD, NOW).kid;
    place.retire(&first, false, NOW).unwrap();
    let third = place.create(LEAD, NOW + 60).kid;
    assert_eq!(place.retire(&second, false, NOW + 60).unwrap(), at(NOW + 90));
    let expected = |second_is, third_is| [(first.clone(), State::Retiring), (second.clone(), second_is), (third.clone(), third_is)];
    assert_eq!(place.states(NOW + 89), expected(State::Signing, State::Next));
    assert_eq!(place.states(NOW + 90), expected(State::Retiring, State::Signing));
}

#[test]
fn what_is_no_key_is_told_and_takes_nothing_away() {
    let place = Place::new();
    let kid = place.create(Duration::ZERO, NOW).kid;
    fs::write(place.file("README.md"), "words").unwrap();
    fs::write(place.file(".hidden.pem"), "words").unwrap();
    assert_eq!(place.problems(), Vec::<String>::new());
    fs::write(place.file("cut.pem"), &place.text(&kid)[..60]).unwrap();
    fs::write(place.file("a b.pem"), "words").unwrap();
    fs::write(place.file("long.pem"), "x".repeat(5000)).unwrap();
    fs::write(place.file("bytes.pem"), [0xff; 9]).unwrap();
    fs::create_dir(place.file("folder.pem")).unwrap();
    fs::write(place.file("open.pem"), place.text(&kid)).unwrap();
    fs::set_permissions(place.file("open.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    let told = place.problems();
    for words in [
        "cut.pem: the PEM block is cut or bent",
        "a b.pem: the name may have",
        "long.pem: has more than 4096 bytes",
        "bytes.pem: cannot be read",
        "folder.pem: is no file",
        "open.pem: the private key may be read or written by others (mode 640)",
    ] {
        assert!(told.iter().any(|line| line.starts_with(words)), "{words} is not told: {told:?}");
    }
    assert_eq!((told.len(), place.states(NOW)), (6, vec![(kid, State::Signing)]));
    let lenient = Directory::new(place.file(""), false);
    assert_eq!(lenient.list(at(NOW), EXPIRY).unwrap().1.len(), 5, "development takes a key that others may read");
}

#[test]
fn a_folder_without_end_is_refused() {
    let place = Place::new();
    let text = {
        place.create(Duration::ZERO, NOW);
        place.text(&place.states(NOW)[0].0)
    };
    // What is bent counts as well: it is read each time.
    for number in 1..KEYS_MAX {
        fs::write(place.file(&format!("copy-{number}.pem")), &text).unwrap();
    }
    assert!(place.directory.create(Algorithm::EdDsa, LEAD, EXPIRY, at(NOW), &SystemRandom::new()).unwrap_err().message().contains("holds 32 keys"));
    fs::write(place.file("one-more.pem"), &text).unwrap();
    assert!(place.directory.list(at(NOW), EXPIRY).unwrap_err().message().contains("more than 32 keys"));
}

#[test]
fn a_key_that_a_listing_missed_is_asked_for_by_name() {
    let place = Place::new();
    let kid = place.create(Duration::ZERO, NOW).kid;
    let elsewhere = Directory::new(place.folder.path(), true);
    assert!(elsewhere.read([].into_iter()).unwrap().keys.is_empty());
    fs::copy(place.file(&format!("{kid}.pem")), place.folder.path().join("known.pem")).unwrap();
    fs::rename(place.folder.path().join("known.pem"), place.folder.path().join(format!(".{kid}"))).unwrap();
    let found = place.directory.read([kid.as_str(), "gone"].into_iter()).unwrap();
    assert_eq!((found.keys.len(), found.problems.len()), (1, 0), "one key, and no word of the one that is gone");
}
