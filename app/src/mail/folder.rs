//! Mails in a folder, for a service without a mail server: one file each, written whole or not at all, and the same job always the same file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use uuid::Uuid;

/// Mails kept; the oldest go first. At 5 KB each this is 5 MB, and more than anybody looks through.
pub const KEPT_MAX: usize = 1000;

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

/// A mail in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The id of its job.
    pub id: Uuid,
    path: PathBuf,
}

impl Folder {
    /// The folder at `path`, which is made with the first mail.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Puts a mail there. A second time it replaces itself.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub fn put(&self, id: Uuid, written_at: Timestamp, bytes: &[u8]) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.0)?;
        // The time first, so that names sort by age.
        let name = format!("{}Z-{id}.eml", written_at.strftime("%Y%m%dT%H%M%S.%6f"));
        let unfinished = self.0.join(format!(".{id}.part"));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        // It may hold a link that is as good as a password.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, self.0.join(name))?;
        self.forget_old()
    }

    fn forget_old(&self) -> io::Result<()> {
        for entry in self.list()?.into_iter().skip(KEPT_MAX) {
            match std::fs::remove_file(entry.path) {
                // Another process was first.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The mails, latest first. A folder that does not exist has none.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> io::Result<Vec<Entry>> {
        let files = match std::fs::read_dir(&self.0) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut entries = Vec::new();
        for file in files {
            let path = file?.path();
            let id = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".eml")?.split_once("Z-")?.1.parse().ok());
            entries.extend(id.map(|id| Entry { id, path }));
        }
        entries.sort_unstable_by(|a, b| b.path.cmp(&a.path));
        Ok(entries)
    }
}

impl Entry {
    /// The message.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        std::fs::read(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_that_is_put_twice_is_there_once_and_only_its_owner_reads_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(&place.path().join("mail"));
        assert_eq!(folder.list().unwrap(), []);
        let id = Uuid::from_u128(1);
        for bytes in [b"first", b"again"] {
            folder.put(id, Timestamp::UNIX_EPOCH, bytes).unwrap();
        }
        let entries = folder.list().unwrap();
        assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id]);
        assert_eq!(entries[0].read().unwrap(), b"again");
        assert_eq!(std::fs::read_dir(place.path().join("mail")).unwrap().count(), 1, "nothing unfinished is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(entries[0].path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_oldest_go_first_and_what_is_no_mail_stays() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path());
        for number in 0..KEPT_MAX + 5 {
            let at = Timestamp::from_second(number as i64).unwrap();
            std::fs::write(place.path().join(format!("{}Z-{}.eml", at.strftime("%Y%m%dT%H%M%S.%6f"), Uuid::from_u128(number as u128))), b"").unwrap();
        }
        std::fs::write(place.path().join("notes.txt"), b"").unwrap();
        folder.put(Uuid::from_u128(9999), Timestamp::from_second(9999).unwrap(), b"last").unwrap();
        let entries = folder.list().unwrap();
        assert_eq!((entries.len(), entries[0].id), (KEPT_MAX, Uuid::from_u128(9999)));
        assert_eq!(entries[KEPT_MAX - 1].id, Uuid::from_u128(6));
        assert!(place.path().join("notes.txt").exists());
    }
}
