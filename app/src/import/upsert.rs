//! Many products at once: inserted, or updated where they are different.

use mainstay::error::Result;
use mainstay::store::{self, Dialect, Query, Session, query};

use crate::products::Product;
use crate::products::sql::{CONTENT, bind_content};

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) unchanged: u64,
}

/// Rows of one statement. sqlx asks SQLite for the name of each parameter at each execution, and SQLite looks names up one by one: the cost of a statement
/// grows with the square of its parameters (200 rows took 86 % of an import's time for that alone). PostgreSQL has no such cost, and fewer round trips count.
fn rows_per_statement(dialect: Dialect) -> usize {
    match dialect {
        Dialect::Sqlite => 20,
        Dialect::Postgres => 200,
    }
}

/// Writes products that have an SKU each, no SKU twice. In a transaction: a batch is one write to the disk.
pub(super) async fn batch(session: &mut Session, products: &[Product]) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for products in products.chunks(rows_per_statement(session.dialect())) {
        let written = statement(products).fetch_all(session).await?;
        outcome.unchanged += (products.len() - written.len()) as u64;
        for row in &written {
            if row.get::<i64>("version")? == 1 { outcome.created += 1 } else { outcome.updated += 1 }
        }
    }
    Ok(outcome)
}

fn statement(products: &[Product]) -> Query {
    let width = CONTENT.len() + 4;
    let rows: Vec<_> = (0..products.len()).map(|row| format!("({})", store::placeholders(row * width + 1, width))).collect();
    let changed: Vec<_> = CONTENT.iter().filter(|column| **column != "sku").collect();
    let set: Vec<_> = changed.iter().map(|column| format!("{column} = excluded.{column}")).collect();
    let differs: Vec<_> = changed.iter().map(|column| format!("products.{column} IS DISTINCT FROM excluded.{column}")).collect();
    let text = format!(
        "INSERT INTO products (id, version, created_at, updated_at, {}) VALUES {} \
         ON CONFLICT (sku) WHERE deleted_at IS NULL \
         DO UPDATE SET version = products.version + 1, updated_at = excluded.updated_at, {} WHERE {} RETURNING version",
        CONTENT.join(", "),
        rows.join(", "),
        set.join(", "),
        differs.join(" OR ")
    );
    products.iter().fold(query(text), |statement, product| {
        let head = statement.bind(product.id).bind(product.version).bind(product.created_at).bind(product.updated_at);
        bind_content(head, product)
    })
}
