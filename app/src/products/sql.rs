//! The SQL of products: plain functions on a session, so that they compose in a transaction.

use jiff::Timestamp;
use mainstay::error::{Error, Result};
use mainstay::store::{self, Query, Row, Session, query};
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use super::Product;
use super::input::LEVEL_SEPARATOR;
use super::price::Price;
use crate::codes;

/// What a [`Product`] is read from.
pub const COLUMNS: &str =
    "id, sku, name, description, manufacturer, category, type, price_e4, currency, url, image, tags, attributes, version, created_at, updated_at";

/// The columns that a writer fills, in the order of [`bind_content`].
pub const CONTENT: [&str; 14] = [
    "sku",
    "name",
    "name_folded",
    "description",
    "manufacturer",
    "category",
    "category_path",
    "type",
    "price_e4",
    "currency",
    "url",
    "image",
    "tags",
    "attributes",
];

/// What changed in the change log (`migrations/postgres/0002_products.sql`) since a snapshot, in the words of the cache, and the snapshot of now. The log has
/// one row for a product, so it is never long; of more than a thousand at once it is only said that there were some.
pub const CHANGES: &str = "SELECT pg_current_snapshot()::text, subject, newest FROM \
    (SELECT CASE WHEN count(*) > 1000 THEN 'products' ELSE 'products/' || string_agg(product_id::text, ',') END AS subject, max(xact) AS newest FROM \
        (SELECT product_id, xact FROM product_changes WHERE xact >= pg_snapshot_xmin($1::text::pg_snapshot)::text::bigint \
         AND NOT pg_visible_in_snapshot(xact::text::xid8, $1::text::pg_snapshot) LIMIT 1001) AS changed) AS said";

/// A row of [`COLUMNS`] as a product.
pub fn product(row: &Row) -> Result<Product> {
    Ok(Product {
        id: row.get("id")?,
        sku: row.get("sku")?,
        name: row.get("name")?,
        description: row.get("description")?,
        manufacturer: row.get("manufacturer")?,
        category: row.json("category")?,
        kind: row.get("type")?,
        price: row.get::<Option<i64>>("price_e4")?.map(Price::from_e4),
        currency: row.get("currency")?,
        url: row.get("url")?,
        image: row.get("image")?,
        tags: row.json("tags")?,
        attributes: row.json("attributes")?,
        version: row.get("version")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

/// Binds the values of [`CONTENT`].
pub fn bind_content(query: Query, product: &Product) -> Query {
    query
        .bind(product.sku.as_deref())
        .bind(product.name.as_str())
        .bind(folded(&product.name))
        .bind(product.description.as_deref())
        .bind(product.manufacturer.as_deref())
        .bind(serde_json::Value::from(product.category.clone()))
        .bind(category_path(&product.category))
        .bind(product.kind.as_deref())
        .bind(product.price.map(Price::e4))
        .bind(product.currency.as_deref())
        .bind(product.url.as_deref())
        .bind(product.image.as_deref())
        .bind(serde_json::Value::from(product.tags.clone()))
        .bind(serde_json::Value::Object(product.attributes.clone()))
}

/// A name for sorting: letters of any case and width together.
pub fn folded(name: &str) -> String {
    name.nfkc().collect::<String>().to_lowercase()
}

/// The path of a category as one text, with a separator at its end too, so that no category is a prefix of its neighbour.
pub fn category_path(levels: &[String]) -> String {
    levels.iter().flat_map(|level| [level.as_str(), LEVEL_SEPARATOR]).collect()
}

fn taken(error: store::Error) -> Error {
    if error.is_unique("products_sku_key") {
        Error::new(&codes::SKU_TAKEN).with_field("sku", "taken", "belongs to a product already")
    } else {
        error.into()
    }
}

/// A product by its id.
pub async fn find(session: &mut Session, id: Uuid) -> Result<Option<Product>> {
    let row = query(format!("SELECT {COLUMNS} FROM products WHERE id = $1 AND deleted_at IS NULL")).bind(id).fetch_optional(session).await?;
    row.as_ref().map(product).transpose()
}

/// A product by its id, kept from other writers until the transaction ends.
pub async fn lock(session: &mut Session, id: Uuid) -> Result<Option<Product>> {
    let suffix = session.dialect().sql(" FOR UPDATE", "");
    let text = format!("SELECT {COLUMNS} FROM products WHERE id = $1 AND deleted_at IS NULL{suffix}");
    query(text).bind(id).fetch_optional(session).await?.as_ref().map(product).transpose()
}

/// Those of the products that exist, in no order.
pub async fn find_all(session: &mut Session, ids: &[Uuid]) -> Result<Vec<Product>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let text = format!("SELECT {COLUMNS} FROM products WHERE id IN ({}) AND deleted_at IS NULL", store::placeholders(1, ids.len()));
    let rows = query(text).bind_all(ids.iter().map(store::Value::from)).once().fetch_all(session).await?;
    rows.iter().map(product).collect()
}

/// Inserts a product.
///
/// # Errors
/// [`codes::SKU_TAKEN`].
pub async fn insert(session: &mut Session, product: &Product) -> Result<()> {
    let text = format!(
        "INSERT INTO products (id, version, created_at, updated_at, {}) VALUES ($1, $2, $3, $4, {})",
        CONTENT.join(", "),
        store::placeholders(5, CONTENT.len())
    );
    let insert = query(text).bind(product.id).bind(product.version).bind(product.created_at).bind(product.updated_at);
    bind_content(insert, product).execute(session).await.map_err(taken)?;
    Ok(())
}

/// Writes the content of a product.
///
/// # Errors
/// [`codes::SKU_TAKEN`].
pub async fn update(session: &mut Session, product: &Product) -> Result<()> {
    let set: Vec<_> = CONTENT.iter().enumerate().map(|(index, column)| format!("{column} = ${}", index + 4)).collect();
    let text = format!("UPDATE products SET version = $2, updated_at = $3, {} WHERE id = $1", set.join(", "));
    let update = query(text).bind(product.id).bind(product.version).bind(product.updated_at);
    bind_content(update, product).execute(session).await.map_err(taken)?;
    Ok(())
}

/// Removes a product, if it is there.
pub async fn remove(session: &mut Session, id: Uuid, now: Timestamp) -> Result<bool> {
    let text = "UPDATE products SET deleted_at = $2, updated_at = $2, version = version + 1 WHERE id = $1 AND deleted_at IS NULL";
    Ok(query(text).bind(id).bind(now).execute(session).await? > 0)
}

/// Brings a product back, if it was removed.
///
/// # Errors
/// [`codes::SKU_TAKEN`], when another product has its number by now.
pub async fn restore(session: &mut Session, id: Uuid, now: Timestamp) -> Result<bool> {
    let text = "UPDATE products SET deleted_at = NULL, updated_at = $2, version = version + 1 WHERE id = $1 AND deleted_at IS NOT NULL";
    Ok(query(text).bind(id).bind(now).execute(session).await.map_err(taken)? > 0)
}

/// Has there ever been a product?
pub async fn any_ever(session: &mut Session) -> Result<bool> {
    Ok(query("SELECT 1 AS one FROM product_changes LIMIT 1").fetch_optional(session).await?.is_some())
}
