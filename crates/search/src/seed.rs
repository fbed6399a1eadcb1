//! An index begun from another one, which may be in use.
//!
//! A file of an index is written once and replaced as a whole, never changed, so a second name for it is as good as a copy and costs nothing. The other index goes
//! on meanwhile: a file that it has thrown away since it was named is missing here, and whoever opens the result finds out.

use std::fs;
use std::io;
use std::path::Path;

/// A commit in between throws files away. One takes some milliseconds and this about one, so that beside a writer without a pause a few are in vain.
const TRIES: usize = 16;

/// Puts what the index in `from` consists of into `to`. Its list comes last, so what is not complete is not taken for an index.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        let list = fs::read(from.join("meta.json"))?;
        match fs::remove_dir_all(to) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => fs::create_dir_all(to)?,
        }
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let name = entry.file_name();
            let passing = name.to_str().is_none_or(|name| name.ends_with(".lock") || name.ends_with(".next") || name == "meta.json");
            if !passing {
                link(&entry.path(), &to.join(name))?;
            }
        }
        if fs::read(from.join("meta.json"))? == list {
            return fs::write(to.join("meta.json"), list);
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)) {
        // Thrown away since it was listed.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
