//! The table of the product route, and the pool through which bare axum reads it.
//!
//! sqlx as driver over `deadpool`, the parts of which Mainstay's own store is made, and nothing around them: no deadline,
//! no metrics, no retry. Mainstay reads through its store, as a service on it does.

use std::time::Duration;

use anyhow::Context as _;
use deadpool::managed::{Manager, Metrics, Pool, RecycleResult};
use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use uuid::Uuid;

/// Connections in the pool: the figure of the Express stack.
const POOL_MAX: usize = 20;
/// How long a request waits for a connection: the figure of the Express stack.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows of the table: enough that the index has more than one level, few enough that it stays in memory.
pub const ROWS: u64 = 10_000;

/// One product by its primary key; every peer asks with this text.
pub const PRODUCT_SQL: &str = "SELECT id, sku, name, manufacturer, description, price::text AS price, currency, version \
     FROM mainstay_bench.products WHERE id = $1";

/// A product as the table holds it.
#[derive(Serialize)]
#[allow(missing_docs, reason = "the fields are the columns")]
pub struct Product {
    pub id: Uuid,
    pub sku: String,
    pub name: String,
    pub manufacturer: String,
    pub description: String,
    pub price: String,
    pub currency: String,
    pub version: i32,
}

/// A pool of connections to PostgreSQL.
#[derive(Clone)]
pub struct Database {
    pool: Pool<Connections>,
}

impl Database {
    /// A pool for the address, which connects when it is first used.
    ///
    /// # Errors
    /// When the address is not one of PostgreSQL.
    pub fn open(url: &str) -> anyhow::Result<Self> {
        let options: PgConnectOptions = url.parse().context("DATABASE_URL is no PostgreSQL address")?;
        let options = options.options([("statement_timeout", "30s")]).disable_statement_logging();
        let pool = Pool::builder(Connections { options })
            .max_size(POOL_MAX)
            .wait_timeout(Some(ACQUIRE_TIMEOUT))
            .create_timeout(Some(ACQUIRE_TIMEOUT))
            .runtime(deadpool::Runtime::Tokio1)
            .build()?;
        Ok(Self { pool })
    }

    /// One product by its primary key.
    ///
    /// # Errors
    /// When no connection comes free in time or the query fails.
    pub async fn product(&self, id: Uuid) -> anyhow::Result<Option<Product>> {
        let mut connection = self.pool.get().await.map_err(|error| anyhow::anyhow!("no connection: {error}"))?;
        let row = sqlx::query(PRODUCT_SQL).bind(id).fetch_optional(&mut *connection).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Product {
            id: row.try_get(0)?,
            sku: row.try_get(1)?,
            name: row.try_get(2)?,
            manufacturer: row.try_get(3)?,
            description: row.try_get(4)?,
            price: row.try_get(5)?,
            currency: row.try_get(6)?,
            version: row.try_get(7)?,
        }))
    }
}

/// Makes connections for the pool; a returned one is taken back unasked, because a question would be a round trip a request.
#[derive(Debug)]
struct Connections {
    options: PgConnectOptions,
}

impl Manager for Connections {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        self.options.connect().await
    }

    async fn recycle(&self, _: &mut PgConnection, _: &Metrics) -> RecycleResult<sqlx::Error> {
        Ok(())
    }
}

/// The id of the row with this number, counted from 1: known to the benchmark without a query.
#[must_use]
pub fn row_id(number: u64) -> Uuid {
    Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0000 | u128::from(number))
}

/// Makes the schema `mainstay_bench` and fills its table; what an interrupted run left is replaced.
///
/// # Errors
/// When the database cannot be reached or refuses a statement.
pub async fn create_table(url: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await.context("the database of --postgres cannot be reached")?;
    for statement in [
        "DROP SCHEMA IF EXISTS mainstay_bench CASCADE",
        "CREATE SCHEMA mainstay_bench",
        "CREATE TABLE mainstay_bench.products (id uuid PRIMARY KEY, sku text NOT NULL UNIQUE, name text NOT NULL, \
         manufacturer text NOT NULL, description text NOT NULL, price numeric(12, 2) NOT NULL, currency text NOT NULL, version int NOT NULL)",
    ] {
        connection.execute(statement).await?;
    }
    sqlx::query(
        "INSERT INTO mainstay_bench.products \
         SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'SKU-' || n, 'Wireless headphones ' || n, \
         'Manufacturer ' || n % 7, 'Over-ear headphones with ' || n % 40 || ' hours of battery and a folding frame', \
         (n % 5000) + 0.65, 'EUR', 1 FROM generate_series(1, $1::bigint) AS n",
    )
    .bind(i64::try_from(ROWS)?)
    .execute(&mut connection)
    .await?;
    connection.execute("ANALYZE mainstay_bench.products").await?;
    connection.close().await?;
    Ok(())
}

/// Removes what [`create_table`] made.
///
/// # Errors
/// When the database cannot be reached or refuses the statement.
pub async fn drop_table(url: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute("DROP SCHEMA IF EXISTS mainstay_bench CASCADE").await?;
    connection.close().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_id_is_the_one_that_the_insert_writes() {
        assert_eq!(row_id(0x2710).to_string(), "00000000-0000-4000-8000-000000002710");
    }
}
