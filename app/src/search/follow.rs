//! The index follows the database: it reads the change log from its own cursor on, and applies the products as they are now.
//!
//! What the log says is only *which* products changed; their state is read afterwards, so a change that is seen twice, or late, does no harm. The cursor
//! is kept in the index, in the same commit as the documents, so a crash at any point loses nothing. Changes become readable in an order that commits
//! cannot overtake (`migrations/*/0002_products.sql`).
//!
//! One task writes to the index. A request that changed a product hands it over and waits (for a bounded time) until the index has it, so that a caller finds its own write.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use mainstay::cache::{Cache, Subject};
use mainstay::error::{Error, Result, codes};
use mainstay::store::{self, Database, Dialect, MigrationState, Session, query};
use mainstay_search::{Change, Document, Fields, Hits, Index, Opened, flatten_json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

use crate::migrations::MIGRATIONS;
use crate::products::{PRODUCTS, Product, sql};
use crate::search::cursor::Cursor;

/// Products read and applied at once: about 2 MB of them.
const BATCH: i64 = 1000;
/// How often the log is read for changes made elsewhere: by another instance, by the import, by hand.
const POLL: Duration = Duration::from_millis(200);
/// After a failure the log is tried again in this time.
const RETRY: Duration = Duration::from_secs(1);
/// How long a writer waits to see its own write in the index. Longer only helps an index that is far behind, and then nobody should wait.
const OWN_WRITE: Duration = Duration::from_secs(1);
/// Writers that wait at once; each entry is 50 bytes. More than the stack lets in at once.
const WAITING_MAX: usize = 10_000;

/// The version of the migration that made the table of products and its change log.
const MIGRATION: i64 = 2;

/// Processes on one data folder: two while one takes over from the other, and room for those that were started by mistake.
const PLACES: u32 = 4;

/// A product that a request has changed, and where to say that the index has it.
type Handed = (Uuid, oneshot::Sender<()>);

/// The search of this instance. Clones share it.
#[derive(Clone)]
pub struct Search(Arc<Inner>);

struct Inner {
    index: Index,
    /// Which database the index follows.
    born: i64,
    /// As many searches at once as cores: more would only make each slower, and keep other work off the cores.
    cores: Semaphore,
    handed: mpsc::Sender<Handed>,
    /// Told of what the log says on SQLite, where nobody else tells of the writes of other processes.
    cache: Cache,
    lag: Lag,
}

#[derive(Debug, Default)]
struct Lag {
    behind: AtomicI64,
    caught_up: AtomicBool,
    /// Times that the end of the log was reached.
    passes: AtomicU64,
    failures: AtomicU64,
    /// Of these, since the log was last read and applied.
    in_a_row: AtomicU64,
}

/// Where the index stands, for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Products in the index.
    pub documents: u64,
    /// Changes in the log that the index has not seen, as last counted.
    pub behind: i64,
    /// Has it been level with the log since the start?
    pub caught_up: bool,
    /// Times that the log could not be read or applied.
    pub failures: u64,
}

fn fields() -> Fields {
    Fields::new()
        .text("name", 5.0)
        .text("manufacturer", 2.0)
        .text("category", 2.0)
        .text("tags", 2.0)
        .text("description", 1.0)
        .text("attributes", 1.0)
        .keyword("manufacturer")
        .keyword("type")
        .path("category")
        .number("price")
}

impl Search {
    /// Opens an index below `folder` and begins to follow the database. Each process has one of its own: the first that no other process holds.
    ///
    /// # Errors
    /// When the folder cannot be written, all places are taken, or the database does not answer.
    pub async fn open(folder: &Path, database: Database, cache: Cache) -> Result<Self> {
        let born = born(&database).await?;
        for place in 0..PLACES {
            // The first time that two processes meet, the second begins with what the first has read.
            let others: Vec<_> = (0..PLACES).filter(|other| *other != place).map(|other| folder.join(other.to_string())).collect();
            let folder = folder.join(place.to_string());
            let opened = tokio::task::spawn_blocking(move || of_this_database(Index::open_beside(folder, &fields(), &others)?, born)).await;
            match opened.map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))? {
                Ok(index) => return Ok(Self::follow(index, born, database, cache)),
                Err(mainstay_search::Error::Busy { .. }) => {}
                Err(error) => return Err(Error::new(&codes::INTERNAL).with_message("The search index cannot be opened").caused_by(error)),
            }
        }
        let message = format!("{PLACES} processes already hold the search indexes in {}; give this one a DATA_DIR of its own", folder.display());
        Err(Error::new(&codes::INTERNAL).with_message(message))
    }

    fn follow(index: Index, born: i64, database: Database, cache: Cache) -> Self {
        match index.opened() {
            Opened::Existing { cursor } => tracing::debug!(cursor, documents = index.documents(), "search index opened"),
            Opened::Fresh { reason } => tracing::info!(reason = ?reason, "search index is built anew from the database"),
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (handed, receive) = mpsc::channel(WAITING_MAX);
        let search = Self(Arc::new(Inner { index, born, cores: Semaphore::new(cores), handed, cache, lag: Lag::default() }));
        // The follower holds the index weakly: it ends when nobody searches any more.
        tokio::spawn(run(Arc::downgrade(&search.0), database, receive));
        search
    }

    /// Searches.
    ///
    /// # Errors
    /// When the index cannot be read. No text is an error.
    pub async fn find(&self, query: mainstay_search::Query) -> Result<Hits> {
        let internal = |error: Box<dyn std::error::Error + Send + Sync>| Error::new(&codes::INTERNAL).caused_by(error);
        let _core = self.0.cores.acquire().await.map_err(|error| internal(error.into()))?;
        let inner = self.0.clone();
        let found = tokio::task::spawn_blocking(move || inner.index.search(&query)).await.map_err(|error| internal(error.into()))?;
        found.map_err(|error| internal(error.into()))
    }

    /// Waits until the index has the product as the database has it now, so that the one who changed it finds it. The wait is bounded; the index follows in any case.
    pub async fn include(&self, product: Uuid) {
        let (done, included) = oneshot::channel();
        if self.0.handed.try_send((product, done)).is_ok() {
            let _ = tokio::time::timeout(OWN_WRITE, included).await;
        }
    }

    /// Where the index stands.
    pub fn standing(&self) -> Standing {
        let lag = &self.0.lag;
        Standing {
            documents: self.0.index.documents(),
            behind: lag.behind.load(Ordering::Relaxed),
            caught_up: lag.caught_up.load(Ordering::Relaxed),
            failures: lag.failures.load(Ordering::Relaxed),
        }
    }

    /// Does the index follow the database? One failure may be chance and is made good a second later.
    pub fn follows(&self) -> bool {
        self.0.lag.in_a_row.load(Ordering::Relaxed) < 2
    }

    /// Waits until the index has been level with the log once.
    pub async fn level(&self) {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !self.standing().caught_up {
            look.tick().await;
        }
    }

    /// Waits until the index has everything that is in the log now.
    pub async fn caught_up(&self) {
        // The pass in progress may have read the log before the latest change; the one after it has not.
        let enough = self.0.lag.passes.load(Ordering::Acquire) + 2;
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while self.0.lag.passes.load(Ordering::Acquire) < enough {
            look.tick().await;
        }
    }
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Search").field(&self.standing()).finish()
    }
}

/// Which database this is: the moment, in microseconds, at which the table of products was made in it. A dump keeps it.
async fn born(database: &Database) -> Result<i64> {
    let applied = store::migration_status(database, &MIGRATIONS).await.map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?;
    let made = applied.iter().find_map(|status| match status.state {
        MigrationState::Applied(at) if status.version == MIGRATION => Some(at.as_microsecond()),
        _ => None,
    });
    Ok(made.unwrap_or_default())
}

/// Empties an index that was filled from another database: its products would be found and could not be shown.
fn of_this_database(index: Index, born: i64) -> std::result::Result<Index, mainstay_search::Error> {
    if index.documents() > 0 && !Cursor::belongs(&index.cursor(), born) {
        tracing::warn!(documents = index.documents(), "the search index belongs to another database; it is built anew");
        index.apply([Change::RemoveAll], &Cursor::beginning(born).written())?;
    }
    Ok(index)
}

async fn run(search: std::sync::Weak<Inner>, database: Database, mut handed: mpsc::Receiver<Handed>) {
    let mut poll = Duration::ZERO;
    let mut waiting: Vec<Handed> = Vec::new();
    let mut adopted = false;
    loop {
        // Wakes for a change of this instance at once, for those of others at the next poll.
        match tokio::time::timeout(poll, handed.recv()).await {
            Ok(None) => return,
            Ok(Some(first)) => waiting.push(first),
            Err(_) => {}
        }
        while waiting.len() < BATCH as usize
            && let Ok(more) = handed.try_recv()
        {
            waiting.push(more);
        }
        let Some(search) = search.upgrade() else { return };
        if !adopted {
            match adopt(&search, &database).await {
                Ok(()) => adopted = true,
                Err(error) => tracing::warn!(error = %error, "the change log could not be read; it will be tried again"),
            }
        }
        poll = match catch_up(&search, &database, &waiting).await {
            Ok(more) => {
                search.lag.in_a_row.store(0, Ordering::Relaxed);
                for (_, done) in waiting.drain(..) {
                    // Whoever has stopped waiting needs no answer.
                    let _ = done.send(());
                }
                if more { Duration::ZERO } else { POLL }
            }
            Err(error) => {
                search.lag.failures.fetch_add(1, Ordering::Relaxed);
                search.lag.in_a_row.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = %error, "the search index could not follow the database; it will try again");
                // Nobody is kept waiting for what cannot be done now.
                waiting.clear();
                RETRY
            }
        };
    }
}

/// A database that was restored from a dump counts its transactions anew: changes of the old server then lie in the future, where no reader looks. They
/// become changes of now, and an index that has read further than this server has counted begins again.
async fn adopt(search: &Inner, database: &Database) -> Result<()> {
    if database.dialect() == Dialect::Sqlite {
        let text = "SELECT coalesce(max(seq), -1) AS seq FROM product_changes";
        let last: i64 = query(text).fetch_one(&mut *database.acquire(None).await?).await?.get("seq")?;
        if Cursor::read(&search.index.cursor(), search.born).seq > last {
            tracing::warn!("the database is older than the search index, which reads it anew");
            let beginning = Cursor::beginning(search.born).written();
            search.index.apply([Change::RemoveAll], &beginning).map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?;
        }
        return Ok(());
    }
    let mut session = database.writer(None).await?;
    // What a snapshot sees was written below its own end. Our number would not do: the planner asks for it before the snapshot is taken, and who writes in between has
    // a greater one.
    let text =
        "UPDATE product_changes SET xact = pg_current_xact_id()::text::bigint WHERE xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let moved = query(text).execute(&mut session).await?;
    let now: i64 = query("SELECT pg_current_xact_id()::text::bigint AS xact").fetch_one(&mut session).await?.get("xact")?;
    if moved > 0 || Cursor::read(&search.index.cursor(), search.born).xact > now {
        tracing::warn!(changes = moved, "the database comes from another server; the search index reads it anew");
        let beginning = Cursor::beginning(search.born).written();
        search.index.apply([Change::RemoveAll], &beginning).map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?;
    }
    Ok(())
}

/// Reads one batch of changes with the products that were handed over, and applies them together. Is there more?
async fn catch_up(search: &Arc<Inner>, database: &Database, handed: &[Handed]) -> Result<bool> {
    let mut session = database.acquire(None).await?;
    let mut cursor = Cursor::read(&search.index.cursor(), search.born);
    let (server, changes) = read(&mut session, database.server_expression(), &cursor).await?;
    let first_seen = cursor.server.is_none() && server.is_some();
    if cursor.is_of_another(server.as_deref()) {
        tracing::warn!("the database is another server now, or a standby that was promoted; the search index reads it anew");
        search.lag.caught_up.store(false, Ordering::Relaxed);
        let beginning = Cursor { server, ..Cursor::beginning(search.born) };
        search.index.apply([Change::RemoveAll], &beginning.written()).map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?;
        drop(session);
        return Box::pin(catch_up(search, database, handed)).await;
    }
    if first_seen {
        cursor.server = server;
    }
    let more = changes.len() as i64 == BATCH;
    if database.dialect() == Dialect::Sqlite {
        changes.iter().for_each(|change| search.cache.forget(Subject::One(PRODUCTS, change.product)));
    }
    if let Some(last) = changes.last() {
        (cursor.xact, cursor.seq) = (last.xact, last.seq);
    }
    let mut ids: Vec<Uuid> = changes.iter().map(|change| change.product).chain(handed.iter().map(|(id, _)| *id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let level = cursor.clone();
    // A server that is known for the first time is noted as well, so that the next one is told from it.
    if !ids.is_empty() || first_seen {
        // Read after the log: a state newer than the change is right as well, an older one is not possible.
        let products = sql::find_all(&mut session, &ids).await?;
        drop(session);
        let search = search.clone();
        let applied = tokio::task::spawn_blocking(move || {
            let gone = ids.iter().filter(|id| !products.iter().any(|product| product.id == **id)).map(|id| Change::Remove(*id)).collect::<Vec<_>>();
            let changes = products.iter().map(|product| Change::Put(document(product))).chain(gone);
            search.index.apply(changes, &cursor.written())
        });
        let internal = |error: Box<dyn std::error::Error + Send + Sync>| Error::new(&codes::INTERNAL).caused_by(error);
        applied.await.map_err(|error| internal(error.into()))?.map_err(|error| internal(error.into()))?;
    }
    // Counted even at the end of what can be read: changes may wait for an older transaction to end.
    let behind = behind(&mut *database.acquire(None).await?, &level).await?;
    search.lag.behind.store(behind, Ordering::Relaxed);
    if !more {
        search.lag.caught_up.store(true, Ordering::Relaxed);
        search.lag.passes.fetch_add(1, Ordering::Release);
    }
    Ok(more)
}

/// A change of a product, by its place in the log.
struct Changed {
    product: Uuid,
    xact: i64,
    seq: i64,
}

/// The server, and the next changes after the cursor. On PostgreSQL only those of transactions older than every one still running: a later reader misses
/// nothing. Both in one statement: a pooler may send the next one to another server.
async fn read(session: &mut Session, server: &str, after: &Cursor) -> Result<(Option<String>, Vec<Changed>)> {
    let text = match session.dialect() {
        Dialect::Postgres => format!(
            "SELECT {server} AS server, product_id, xact, seq FROM (SELECT 1) AS always LEFT JOIN (SELECT product_id, xact, seq FROM product_changes \
             WHERE (xact, seq) > ($1, $2) AND xact < pg_snapshot_xmin(pg_current_snapshot())::text::bigint ORDER BY xact, seq LIMIT $3) AS changes ON true"
        ),
        Dialect::Sqlite => {
            "SELECT NULL AS server, product_id, xact, seq FROM product_changes WHERE (xact, seq) > ($1, $2) ORDER BY xact, seq LIMIT $3".to_owned()
        }
    };
    let rows = query(text).bind(after.xact).bind(after.seq).bind(BATCH).fetch_all(session).await?;
    let server = rows.first().map(|row| row.get("server")).transpose()?.flatten();
    let mut changes = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(product) = row.get("product_id")? {
            changes.push(Changed { product, xact: row.get("xact")?, seq: row.get("seq")? });
        }
    }
    // Nobody promises that a join keeps the order.
    changes.sort_unstable_by_key(|change| (change.xact, change.seq));
    Ok((server, changes))
}

async fn behind(session: &mut Session, after: &Cursor) -> Result<i64> {
    // Up to a bound: how far it is matters to nobody beyond it, and counting millions five times a second would matter.
    let text =
        "SELECT CAST(count(*) AS bigint) AS behind FROM (SELECT 1 AS one FROM product_changes WHERE (xact, seq) > ($1, $2) LIMIT 100000) AS rest";
    Ok(query(text).bind(after.xact).bind(after.seq).fetch_one(session).await?.get("behind")?)
}

fn document(product: &Product) -> Document {
    // A line break between items keeps phrases from crossing them.
    let lines = |items: &[String]| items.join(",\n");
    let mut document = Document::new(product.id)
        .text("name", product.name.as_str())
        .text("category", lines(&product.category))
        .text("tags", lines(&product.tags))
        .text("attributes", flatten_json(&serde_json::Value::Object(product.attributes.clone())))
        .keywords("category", product.category.clone())
        .keywords("manufacturer", product.manufacturer.clone())
        .keywords("type", product.kind.clone());
    if let Some(manufacturer) = &product.manufacturer {
        document = document.text("manufacturer", manufacturer.as_str());
    }
    if let Some(description) = &product.description {
        document = document.text("description", description.as_str());
    }
    if let Some(price) = product.price {
        document = document.number("price", price.e4());
    }
    document
}
