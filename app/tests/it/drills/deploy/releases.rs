//! Releases on the disk: folders with a program each, and a link that says which one is in use, as many deployments have it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{binary, mainstay_at};

/// The folder of releases.
pub(super) struct Releases {
    folder: PathBuf,
    number: u32,
}

impl Releases {
    /// The first one is in use.
    pub(super) fn new(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let releases = Self { folder: folder.to_owned(), number: 0 };
        std::fs::write(releases.configuration(), "").unwrap();
        // A file of its own, so that what the system says of the running program is not what was started. Linked and not copied: a file that has just been
        // written cannot be started while a child of another test still holds it open.
        for name in ["even", "odd"] {
            let release = folder.join(name);
            std::fs::hard_link(binary(), &release).or_else(|_| std::fs::copy(binary(), &release).map(drop)).unwrap();
        }
        let script = Command::new("sh").arg("-c").arg("printf '#!/bin/sh\\nexit 3\\n' > \"$0\"").arg(folder.join("unfit")).status().unwrap();
        assert!(script.success());
        std::fs::set_permissions(folder.join("unfit"), std::fs::Permissions::from_mode(0o755)).unwrap();
        releases.use_release("even");
        releases
    }

    /// The file of settings, empty.
    pub(super) fn configuration(&self) -> PathBuf {
        self.folder.join("mainstay.toml")
    }

    /// The service, from the release in use.
    pub(super) fn command(&self, settings: &[(String, String)]) -> Command {
        mainstay_at(&self.folder.join("current"), settings)
    }

    /// The next release is in use.
    pub(super) fn next(&mut self) {
        self.number += 1;
        self.fit_again();
    }

    /// A release that cannot serve is in use: of another kind each time. Gives what must be told of it.
    pub(super) fn unfit(&mut self, number: u32) -> &'static str {
        match number % 3 {
            0 => {
                self.use_release("unfit");
                "exit status: 3"
            }
            1 => {
                std::fs::write(self.configuration(), "request_timeout = \"soon\"\n").unwrap();
                "exit status: 78"
            }
            _ => {
                self.use_release("nothing");
                "cannot be started"
            }
        }
    }

    /// The one before is in use again.
    pub(super) fn fit_again(&self) {
        std::fs::write(self.configuration(), "").unwrap();
        self.use_release(if self.number.is_multiple_of(2) { "even" } else { "odd" });
    }

    fn use_release(&self, name: &str) {
        let (next, current) = (self.folder.join("next"), self.folder.join("current"));
        symlink(self.folder.join(name), &next).unwrap();
        std::fs::rename(next, current).unwrap();
    }
}
