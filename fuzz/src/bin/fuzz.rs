//! One program for all targets, with libFuzzer's own `main`: `fuzz --target=NAME [libFuzzer's options] [corpus]`.
//!
//! libFuzzer passes over what begins with two dashes, and hands it on to the processes that it starts itself. `fuzz --list` names the targets and their
//! longest inputs.

#![no_main]

use std::io::Write;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(
    init: {
        if std::env::args().any(|argument| argument == "--list") {
            let lines = mainstay_fuzz::TARGETS.iter().map(|target| format!("{} {}\n", target.name, target.bytes_max));
            let written = std::io::stdout().write_all(lines.collect::<String>().as_bytes());
            std::process::exit(i32::from(written.is_err()));
        }
        let named = std::env::args().find_map(|argument| mainstay_fuzz::target(argument.strip_prefix("--target=")?));
        let target = named.unwrap_or_else(|| panic!("--target= names none of {:?}", mainstay_fuzz::TARGETS));
        TARGET.get_or_init(|| target);
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);
