//! Opening, following and reading the index.
//!
//! Promises: one holder of a directory at a time; `apply` is all or nothing, cursor included; after `apply` returned, a
//! search sees the changes; whatever cannot be opened is replaced by an empty index, never an error and never a panic.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tantivy::directory::RamDirectory;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::{IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Term};
use uuid::Uuid;

use crate::analyze::Analyzer;
use crate::directory::CachedDirectory;
use crate::document::{Change, id_text};
use crate::fields::{HIGH, LOW, Layout, STEMMED, UNSTEMMED};
use crate::search::{Hits, Query};
use crate::{Error, Fields, seed};

/// What the writer may hold before it writes a segment: 67,709 products come out as one segment with 32 MB and as eight
/// with 16. One thread, because the index lives beside a server whose cores are for requests.
const WRITER_HEAP_BYTES: usize = 32 * 1024 * 1024;

/// Segments of one level that are merged into one. With the levels below it bounds the segments of a million
/// documents: eight levels of at most five.
const MERGE_SEGMENTS: usize = 6;
/// Segments below this many documents are one level: a commit of one document must not rewrite thousands.
const MERGE_FLOOR_DOCS: u32 = 512;
/// Share of deleted documents from which a segment is rewritten.
const MERGE_DELETED_SHARE: f32 = 0.25;

/// How an index was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// As it was left: go on from this cursor.
    Existing {
        /// What the last complete [`Index::apply`] was given.
        cursor: String,
    },
    /// Empty: feed everything.
    Fresh {
        /// Why.
        reason: FreshReason,
    },
}

/// Why an index was started afresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreshReason {
    /// There was none.
    Missing,
    /// It was built from other fields, by another analysis, or in another format.
    OtherFields,
    /// A file was missing, torn or unreadable.
    Damaged {
        /// What was found, for the log.
        cause: String,
    },
    /// It lives in memory.
    InMemory,
}

/// An index; share it by reference or in an `Arc`. Searches run in parallel and beside an `apply`; applies queue.
pub struct Index {
    pub(crate) layout: Layout,
    index: tantivy::Index,
    reader: IndexReader,
    writer: Mutex<Writer>,
    opened: Opened,
    fingerprint: String,
    /// Held for as long as the index lives; the system lets go of it when the process dies, however it dies.
    _lock: Option<File>,
}

struct Writer {
    /// `None` after a failure from which the writer did not recover; the next `apply` makes another.
    inner: Option<IndexWriter>,
    cursor: String,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Index").field("opened", &self.opened).finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index in `dir`, or starts afresh there; [`Index::opened`] says which, and from where to go on.
    ///
    /// Touches only `dir/lock` and `dir/index`. Every file is read once and compared with its checksum.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process holds `dir`; [`Error::Io`] or [`Error::Storage`] when nothing can be written there.
    pub fn open(dir: impl AsRef<Path>, fields: &Fields) -> Result<Self, Error> {
        Self::open_beside(dir, fields, &[])
    }

    /// As [`Index::open`]; if there is no index in `dir`, it begins with what one of `others` holds, be it in use or not.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn open_beside(dir: impl AsRef<Path>, fields: &Fields, others: &[PathBuf]) -> Result<Self, Error> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir)?;
        let lock = hold(dir)?;
        let files = dir.join("index");
        if !files.join("meta.json").exists() {
            // Whole or not is found below, as for any other index.
            let _ = others.iter().find(|other| seed::copy(&other.join("index"), &files).is_ok());
        }
        let reason = match catch_unwind(AssertUnwindSafe(|| existing(&files, fields))) {
            Ok(Ok((index, cursor))) => {
                let tried = catch_unwind(AssertUnwindSafe(|| Self::over(index, fields, Opened::Existing { cursor }, Some(lock.try_clone()?))));
                match tried {
                    Ok(Ok(index)) => return Ok(index),
                    Ok(Err(cause)) => FreshReason::Damaged { cause: cause.to_string() },
                    Err(_) => FreshReason::Damaged { cause: "reading it panicked".to_owned() },
                }
            }
            Ok(Err(reason)) => reason,
            Err(_) => FreshReason::Damaged { cause: "opening it panicked".to_owned() },
        };
        if reason != FreshReason::Missing {
            tracing::warn!(dir = %dir.display(), ?reason, "the search index is built afresh");
        }
        match fs::remove_dir_all(&files) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause.into()),
            _ => fs::create_dir_all(&files)?,
        }
        let directory = CachedDirectory::open(&files)?;
        let index = tantivy::Index::create(directory, Layout::of(fields).schema, settings())?;
        Self::over(index, fields, Opened::Fresh { reason }, Some(lock))
    }

    /// An empty index in memory, for tests and for catalogues that are read from elsewhere at every start.
    ///
    /// # Errors
    /// [`Error::Storage`] when a thread cannot be started.
    pub fn in_memory(fields: &Fields) -> Result<Self, Error> {
        let index = tantivy::Index::create(RamDirectory::create(), Layout::of(fields).schema, settings())?;
        let opened = Opened::Fresh { reason: FreshReason::InMemory };
        Self::over(index, fields, opened, None)
    }

    fn over(index: tantivy::Index, fields: &Fields, opened: Opened, lock: Option<File>) -> Result<Self, Error> {
        index.tokenizers().register(STEMMED, Analyzer { stems: true });
        index.tokenizers().register(UNSTEMMED, Analyzer { stems: false });
        let writer = write_to(&index)?;
        let reader: IndexReader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        for segment in reader.searcher().segment_readers() {
            segment.fast_fields().u64(HIGH)?;
            segment.fast_fields().u64(LOW)?;
        }
        let cursor = match &opened {
            Opened::Existing { cursor } => cursor.clone(),
            Opened::Fresh { .. } => String::new(),
        };
        let made = Self {
            layout: Layout::of(fields),
            index,
            reader,
            writer: Mutex::new(Writer { inner: Some(writer), cursor }),
            fingerprint: fields.fingerprint(),
            opened,
            _lock: lock,
        };
        if matches!(made.opened, Opened::Fresh { .. }) {
            made.apply([], "")?;
        }
        Ok(made)
    }

    /// How it was opened.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The cursor of the last complete [`Index::apply`]; empty when there was none.
    #[must_use]
    pub fn cursor(&self) -> String {
        self.writer().cursor.clone()
    }

    /// How many documents a search can find.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// How many segments the index consists of: for metrics.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.reader.searcher().segment_readers().len()
    }

    /// Makes all changes and remembers the cursor, in one commit; when it returns, searches see them.
    ///
    /// Of several changes of one id the last counts. To apply the same changes twice is the same as once. Changes are
    /// taken one by one, so that an iterator of any length needs no more memory than the writer's heap of 32 MB.
    /// Blocks for as long as it takes (milliseconds for one document, seconds for 100,000): call it outside the async runtime's threads.
    ///
    /// # Errors
    /// [`Error::UnknownField`], [`Error::Storage`]; nothing of the batch is applied then, and the cursor stays.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>, cursor: &str) -> Result<(), Error> {
        let mut guard = self.writer();
        let mut inner = match guard.inner.take() {
            Some(inner) => inner,
            None => write_to(&self.index)?,
        };
        match self.commit(&mut inner, changes, cursor) {
            Ok(()) => {
                guard.inner = Some(inner);
                cursor.clone_into(&mut guard.cursor);
                drop(guard);
                self.reader.reload()?;
                Ok(())
            }
            Err(cause) => {
                // A writer that cannot roll back is dropped, and with it what it held.
                if inner.rollback().is_ok() {
                    guard.inner = Some(inner);
                }
                Err(cause)
            }
        }
    }

    fn commit(&self, writer: &mut IndexWriter, changes: impl IntoIterator<Item = Change>, cursor: &str) -> Result<(), Error> {
        for change in changes {
            match change {
                Change::Put(document) => {
                    let id = document.id();
                    let row = document.into_row(&self.layout)?;
                    writer.delete_term(self.id_term(id));
                    writer.add_document(row)?;
                }
                Change::Remove(id) => {
                    writer.delete_term(self.id_term(id));
                }
                Change::RemoveAll => {
                    writer.delete_all_documents()?;
                }
            }
        }
        let mut prepared = writer.prepare_commit()?;
        prepared.set_payload(&format!("{}\n{cursor}", self.fingerprint));
        prepared.commit()?;
        Ok(())
    }

    /// Searches. The only errors are those of the program (a field that was not declared) and of the machine.
    ///
    /// # Errors
    /// [`Error::UnknownField`], [`Error::Storage`].
    pub fn search(&self, query: &Query) -> Result<Hits, Error> {
        crate::search::run(self, &self.reader.searcher(), query)
    }

    /// Waits for the merges under way and lets go of the directory. Dropping the index abandons them instead, which
    /// costs nothing but the work done.
    ///
    /// # Errors
    /// [`Error::Storage`] when a merge failed.
    pub fn close(self) -> Result<(), Error> {
        let writer = self.writer().inner.take();
        if let Some(writer) = writer {
            writer.wait_merging_threads()?;
        }
        Ok(())
    }

    fn id_term(&self, id: Uuid) -> Term {
        Term::from_field_text(self.layout.id, &id_text(id))
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // What a panic left half done was never committed, and the next commit begins by looking at the writer.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stored texts stay as they are: LZ4 was measured to save 12 % of the index.
fn settings() -> IndexSettings {
    IndexSettings {
        // A thread for every commit of one document costs more than it saves.
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    }
}

fn write_to(index: &tantivy::Index) -> Result<IndexWriter, Error> {
    let options = IndexWriterOptions::builder().num_worker_threads(1).num_merge_threads(1).memory_budget_per_thread(WRITER_HEAP_BYTES).build();
    let writer: IndexWriter = index.writer_with_options(options)?;
    let mut policy = LogMergePolicy::default();
    policy.set_min_num_segments(MERGE_SEGMENTS);
    policy.set_min_layer_size(MERGE_FLOOR_DOCS);
    policy.set_level_log_size(1.5);
    policy.set_del_docs_ratio_before_merge(MERGE_DELETED_SHARE);
    writer.set_merge_policy(Box::new(policy));
    Ok(writer)
}

fn hold(dir: &Path) -> Result<File, Error> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { dir: dir.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(cause.into()),
    }
}

/// The index in `files` and its cursor, when every byte of it is as it was written.
fn existing(files: &Path, fields: &Fields) -> Result<(tantivy::Index, String), FreshReason> {
    if !files.join("meta.json").exists() {
        return Err(FreshReason::Missing);
    }
    let damaged = |cause: &dyn std::fmt::Display| FreshReason::Damaged { cause: cause.to_string() };
    let directory = CachedDirectory::open(files).map_err(|cause| damaged(&cause))?;
    let index = tantivy::Index::open(directory).map_err(|cause| damaged(&cause))?;
    let meta = index.load_metas().map_err(|cause| damaged(&cause))?;
    let payload = meta.payload.clone().unwrap_or_default();
    let (fingerprint, cursor) = payload.split_once('\n').unwrap_or((&payload, ""));
    if fingerprint != fields.fingerprint() || index.schema() != Layout::of(fields).schema {
        return Err(FreshReason::OtherFields);
    }
    let live = meta.list_segment_files();
    for path in &live {
        let optional = path.to_str().is_some_and(|name| name.ends_with(".temp") || name.ends_with(".del"));
        match (files.join(path).exists(), optional) {
            (true, _) => {}
            // Not every segment has deletions; when one has, the reader asks for the file.
            (false, true) => continue,
            (false, false) => return Err(damaged(&format!("{} is missing", path.display()))),
        }
        if !index.directory().validate_checksum(path).map_err(|cause| damaged(&cause))? {
            return Err(damaged(&format!("{} does not agree with its checksum", path.display())));
        }
    }
    sweep(files, &live).map_err(|cause| damaged(&cause))?;
    Ok((index, cursor.to_owned()))
}

/// Removes what a killed process left behind: no commit names it, and a later segment might want its name.
fn sweep(files: &Path, live: &HashSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(files)? {
        let entry = entry?;
        let name = entry.file_name();
        let own = name.to_str().is_some_and(|name| name.starts_with("meta.json") || name.starts_with('.'));
        if !own && !live.contains(Path::new(&name)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
