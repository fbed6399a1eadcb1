//! Releases on the disk: a file each, and a link that says which one is in use, as many deployments have it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The folder of releases.
pub(super) struct Releases {
    folder: PathBuf,
    number: u32,
}

impl Releases {
    /// The first one is in use.
    pub(super) fn new(binary: &Path, folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let releases = Self { folder, number: 0 };
        fs::write(releases.configuration(), "")?;
        // A file of its own each, so that what the system says of the running program is not what was started.
        for name in ["even", "odd"] {
            let release = releases.folder.join(name);
            fs::hard_link(binary, &release).or_else(|_| fs::copy(binary, &release).map(drop))?;
        }
        let unfit = releases.folder.join("unfit");
        fs::write(&unfit, "#!/bin/sh\nexit 3\n")?;
        fs::set_permissions(&unfit, fs::Permissions::from_mode(0o755))?;
        releases.use_release("even")?;
        Ok(releases)
    }

    /// The file of settings, empty.
    pub(super) fn configuration(&self) -> PathBuf {
        self.folder.join("mainstay.toml")
    }

    /// The link to the release in use.
    pub(super) fn current(&self) -> PathBuf {
        self.folder.join("current")
    }

    /// The next release is in use.
    pub(super) fn next(&mut self) -> io::Result<()> {
        self.number += 1;
        self.fit_again()
    }

    /// A release that cannot serve is in use: of another kind each time. Gives what must be told of it.
    pub(super) fn unfit(&self, number: u32) -> io::Result<&'static str> {
        match number % 3 {
            0 => self.use_release("unfit").map(|()| "exit status: 3"),
            1 => fs::write(self.configuration(), "request_timeout = \"soon\"\n").map(|()| "exit status: 78"),
            _ => self.use_release("nothing").map(|()| "cannot be started"),
        }
    }

    /// The one before is in use again.
    pub(super) fn fit_again(&self) -> io::Result<()> {
        fs::write(self.configuration(), "")?;
        self.use_release(if self.number.is_multiple_of(2) { "even" } else { "odd" })
    }

    fn use_release(&self, name: &str) -> io::Result<()> {
        let next = self.folder.join("next");
        symlink(self.folder.join(name), &next)?;
        fs::rename(next, self.current())
    }
}
