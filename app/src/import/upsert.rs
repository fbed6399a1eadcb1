//! Many products in one statement: inserted, or updated where they are different.

use mainstay::error::Result;
use mainstay::store::{self, Session, query};

use crate::products::Product;
use crate::products::sql::{CONTENT, bind_content};

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) unchanged: u64,
}

/// Writes products that have an SKU each, no SKU twice.
pub(super) async fn batch(session: &mut Session, products: &[Product]) -> Result<Outcome> {
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
    let mut statement = query(text);
    for product in products {
        statement = statement.bind(product.id).bind(product.version).bind(product.created_at).bind(product.updated_at);
        statement = bind_content(statement, product);
    }
    let written = statement.fetch_all(session).await?;
    let mut outcome = Outcome { unchanged: (products.len() - written.len()) as u64, ..Outcome::default() };
    for row in &written {
        if row.get::<i64>("version")? == 1 { outcome.created += 1 } else { outcome.updated += 1 }
    }
    Ok(outcome)
}
