//! Every input that was worth keeping, tried again in every test run, without the engine and without C++.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mainstay_fuzz::{TARGETS, Target};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(corpus().join(target.name)).unwrap_or_else(|error| panic!("{} has no corpus: {error}", target.name));
    files.map(|file| file.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn what_was_found_once_holds_for_every_input_that_was_kept() {
    for target in TARGETS {
        for (path, input) in inputs(target) {
            // The name of the file stands before the words of the assertion, should it fail.
            eprintln!("{}", path.display());
            (target.run)(&input);
        }
    }
}

#[test]
fn corpora_are_small_and_each_belongs_to_a_target() {
    let mut bytes = 0;
    for target in TARGETS {
        let inputs = inputs(target);
        assert!((1..50).contains(&inputs.len()), "{} has {} inputs", target.name, inputs.len());
        bytes += inputs.iter().map(|(_, input)| input.len()).sum::<usize>();
    }
    assert!(bytes < 300_000, "the corpora have {bytes} bytes");
    let folders: BTreeSet<_> = fs::read_dir(corpus()).unwrap().map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, TARGETS.iter().map(|target| target.name.to_owned()).collect());
}
