//! Products: their routes, wire types and handlers. What a caller may write stands in `products/input.rs`, the SQL in `products/sql.rs`.

pub mod currency;
pub mod input;
pub mod listing;
pub mod price;
mod schemas;
pub mod sql;

use std::future::Future;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use jiff::Timestamp;
use mainstay::auth::{Admin, Editor};
use mainstay::cache::{Key, Kind, Output, Policy, Subject};
use mainstay::error::{Error, Result};
use mainstay::extract::{Json, Path, PathId, Query, parse_uuid_v4};
use mainstay::store;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::{App, Envelope};
use crate::codes;
use crate::page::{self, Page, PageMeta};

use self::input::{ChangeProduct, Content, WriteProduct};
use self::listing::{ListParams, Listing};
use self::price::Price;

/// What the cache knows products as; [`sql::CHANGES`] says the same.
pub const PRODUCTS: Kind = Kind::new("products");

/// A product, and a page of the list, are the same for everybody: nobody sees what was removed.
const SHOWN: Policy = Policy::of("showProduct");
const LISTED: Policy = Policy::of("listProducts");

/// The routes of both.
pub const KEPT: &[&str] = &["GET /api/products", "GET /api/products/{id}"];

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, replace, update, remove)).routes(routes!(restore))
}

/// A product. What it lacks is absent.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Product {
    /// The id.
    #[schema(example = "0b0e7f4e-6a0f-4a52-9d3e-0a4f6d7c8b9a")]
    pub id: Uuid,
    /// The seller's number, unique among products that are not removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "pc-headphones-138", min_length = 1, max_length = 100, pattern = r"^[^\u0000]*$")]
    pub sku: Option<String>,
    /// The name.
    #[schema(example = "Sony XM5", min_length = 1, max_length = 500, pattern = r"^[^\u0000]*$")]
    pub name: String,
    /// The description.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "Over-ear, closed, 30 hours on a charge.", max_length = 20_000, pattern = r"^[^\u0000]*$")]
    pub description: Option<String>,
    /// Who makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "Sony", min_length = 1, max_length = 200, pattern = r"^[^\u0000]*$")]
    pub manufacturer: Option<String>,
    /// The path of its category, outermost first.
    #[schema(schema_with = input::category_schema)]
    pub category: Vec<String>,
    /// What kind of thing it is.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "Over-ear headphones", min_length = 1, max_length = 200, pattern = r"^[^\u0000]*$")]
    pub kind: Option<String>,
    /// The price, exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, example = "398.00", max_length = 17, pattern = r"^[0-9]{1,12}\.[0-9]{2,4}$")]
    pub price: Option<Price>,
    /// The currency of the price, ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<currency::Currency>, nullable = false, example = "USD")]
    pub currency: Option<String>,
    /// Where to read more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        example = "https://example.com/xm5",
        max_length = 2048,
        pattern = r#"^https?://[^/?#@<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$"#
    )]
    pub url: Option<String>,
    /// A picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        example = "https://example.com/xm5.jpg",
        max_length = 2048,
        pattern = r#"^https?://[^/?#@<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$"#
    )]
    pub image: Option<String>,
    /// Words that it is found by.
    #[schema(schema_with = input::tags_schema)]
    pub tags: Vec<String>,
    /// Whatever else is known.
    #[schema(schema_with = schemas::attributes_schema)]
    pub attributes: Map<String, Value>,
    /// Counts the changes, from 1.
    #[schema(example = 1, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub version: i64,
    /// Since when.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    pub created_at: Timestamp,
    /// Last change.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    pub updated_at: Timestamp,
}

impl Product {
    /// A new product of this content.
    pub fn new(content: Content, now: Timestamp) -> Self {
        let product = Self {
            id: Uuid::new_v4(),
            sku: None,
            name: String::new(),
            description: None,
            manufacturer: None,
            category: Vec::new(),
            kind: None,
            price: None,
            currency: None,
            url: None,
            image: None,
            tags: Vec::new(),
            attributes: Map::new(),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        product.with(content)
    }

    /// The product with this content in place of its own.
    #[must_use]
    pub fn with(self, content: Content) -> Self {
        let Content { sku, name, description, manufacturer, category, kind, price, currency, url, image, tags, attributes } = content;
        Self { sku, name, description, manufacturer, category, kind, price, currency, url, image, tags, attributes, ..self }
    }
}

/// The id of a product, in a path.
#[derive(Debug, Clone, Copy)]
pub struct ProductId(pub Uuid);

impl PathId for ProductId {
    const INVALID: &'static str = "Invalid product ID format";
    fn parse(text: &str) -> Option<Self> {
        parse_uuid_v4(text).map(Self)
    }
}

fn not_found() -> Error {
    Error::new(&codes::PRODUCT_NOT_FOUND)
}

/// Lists products.
///
/// By page, filtered and sorted: `meta.next_cursor` and the `Link` header lead to the next page.
#[utoipa::path(get, path = "/api/products", tag = "products", operation_id = "listProducts", params(ListParams, ("If-None-Match" = Option<String>, Header, description = "Entity tags of what the client has", max_length = 8000, pattern = r"^[\x20-\x7e]*$", nullable = false, example = "\"oV5qX7LRT6f0yHN-GxGMwQ\"")), security(()),
    responses((status = 200, description = "A page of products", body = Page<Product, PageMeta>, headers(("Link" = String, description = "The next page, if there is one: `<...>; rel=\"next\"`"), ("ETag" = String, description = "Names these bytes; another coding has another one"))), (status = 304, description = "The client has this page already"), (status = 404, description = "cursor_not_found")))]
async fn list(State(app): State<App>, uri: Uri, Query(params): Query<ListParams>) -> Result<Response> {
    let listing = Listing::parse(params)?;
    let make = async || {
        let mut products = listing.fetch(&mut *app.read_to_keep().await?).await?;
        let next_cursor = listing.cut(&mut products);
        let next = next_cursor.clone();
        page::output(&Page::new(products, PageMeta { next_cursor }), &uri, next.as_deref()).map(Some)
    };
    let page = app.cache.answer(&LISTED, Key::query(&LISTED, uri.query()), Subject::All(PRODUCTS), make).await?;
    // There is always one, if only an empty one.
    Ok(page.unwrap_or_default())
}

/// Shows a product.
///
/// What the product lacks is absent.
#[utoipa::path(get, path = "/api/products/{id}", tag = "products", operation_id = "showProduct", params(("id" = Uuid, Path, description = "The product"), ("If-None-Match" = Option<String>, Header, description = "Entity tags of what the client has", max_length = 8000, pattern = r"^[\x20-\x7e]*$", nullable = false, example = "\"oV5qX7LRT6f0yHN-GxGMwQ\"")), security(()),
    responses((status = 200, description = "The product", body = Envelope<Product>, headers(("ETag" = String, description = "Names these bytes; another coding has another one"))), (status = 304, description = "The client has it already"), (status = 404, description = "product_not_found")))]
async fn show(State(app): State<App>, Path(ProductId(id)): Path<ProductId>) -> Result<Response> {
    let make = async || {
        let product = sql::find(&mut *app.read_to_keep().await?, id).await?;
        product.map(|product| Output::json(&*Envelope::of(product))).transpose()
    };
    app.cache.answer(&SHOWN, Key::id(&SHOWN, id), Subject::One(PRODUCTS, id), make).await?.ok_or_else(not_found)
}

/// Writes a product to the end, whoever still waits for it. When it is written, this instance answers nothing that it knew before, and the search finds it.
/// Without a connection to write on nothing was written, and what is known is known as before.
async fn write<C, T, W>(
    app: &App,
    id: Uuid,
    open: impl Future<Output = std::result::Result<C, store::Error>> + Send + 'static,
    work: impl FnOnce(C) -> W + Send + 'static,
) -> Result<T>
where
    C: Send + 'static,
    T: Send + 'static,
    W: Future<Output = Result<T>> + Send,
{
    let cache = app.cache.clone();
    let outcome = app.writes.finish(async move {
        let outcome = work(open.await?).await;
        // Even if it failed: nobody may know whether it was committed.
        cache.forget(Subject::One(PRODUCTS, id));
        outcome
    });
    let outcome = outcome.await?;
    app.search.include(id).await;
    Ok(outcome)
}

/// Creates a product.
///
/// For editors. The search finds it as soon as this answers.
#[utoipa::path(post, path = "/api/products", tag = "products", operation_id = "createProduct", request_body = WriteProduct, security(("bearer" = []), ("api_key" = ["products:write"])),
    responses((status = 201, description = "The product", body = Envelope<Product>, headers(("Location" = String, description = "The product's path"))), (status = 403, description = "forbidden"), (status = 409, description = "sku_taken")))]
async fn create(State(app): State<App>, _: Editor, Json(input): Json<WriteProduct>) -> Result<Response> {
    let product = Product::new(input.parse()?, app.clock().now());
    let (database, deadline) = (app.database.clone(), app.deadline());
    let open = async move { database.writer(deadline).await };
    let product = write(&app, product.id, open, async move |mut connection| {
        sql::insert(&mut connection, &product).await?;
        Ok(product)
    });
    let product = product.await?;
    let location = HeaderValue::try_from(format!("/api/products/{}", product.id)).ok();
    let mut response = (StatusCode::CREATED, Envelope::of(product)).into_response();
    location.map(|location| response.headers_mut().insert(header::LOCATION, location));
    Ok(response)
}

/// Changes a product in a transaction, with no other writer between reading and writing it.
async fn change(app: &App, id: Uuid, edit: impl FnOnce(Product) -> Result<Content> + Send + 'static) -> Result<axum::Json<Envelope<Product>>> {
    let (database, deadline, now) = (app.database.clone(), app.deadline(), app.clock().now());
    let begin = async move { database.begin(deadline).await };
    let product = write(app, id, begin, async move |mut transaction| {
        let current = sql::lock(&mut transaction, id).await?.ok_or_else(not_found)?;
        let content = edit(current.clone())?;
        let product = Product { version: current.version + 1, updated_at: now, ..current.with(content) };
        sql::update(&mut transaction, &product).await?;
        transaction.commit().await?;
        Ok(product)
    });
    Ok(Envelope::of(product.await?))
}

/// Replaces a product.
///
/// For editors. What is not given is gone.
#[utoipa::path(put, path = "/api/products/{id}", tag = "products", operation_id = "replaceProduct", params(("id" = Uuid, Path, description = "The product")), request_body = WriteProduct, security(("bearer" = []), ("api_key" = ["products:write"])),
    responses((status = 200, description = "The product", body = Envelope<Product>), (status = 403, description = "forbidden"), (status = 404, description = "product_not_found"), (status = 409, description = "sku_taken")))]
async fn replace(
    State(app): State<App>,
    _: Editor,
    Path(ProductId(id)): Path<ProductId>,
    Json(input): Json<WriteProduct>,
) -> Result<axum::Json<Envelope<Product>>> {
    let content = input.parse()?;
    change(&app, id, move |_| Ok(content)).await
}

/// Changes a product.
///
/// For editors. A JSON merge patch (RFC 7396): what is absent stays, what is null goes.
#[utoipa::path(patch, path = "/api/products/{id}", tag = "products", operation_id = "updateProduct", params(("id" = Uuid, Path, description = "The product")), security(("bearer" = []), ("api_key" = ["products:write"])),
    request_body(content((ChangeProduct = "application/merge-patch+json"), (ChangeProduct = "application/json"))),
    responses((status = 200, description = "The product", body = Envelope<Product>), (status = 403, description = "forbidden"), (status = 404, description = "product_not_found"), (status = 409, description = "sku_taken")))]
async fn update(
    State(app): State<App>,
    _: Editor,
    Path(ProductId(id)): Path<ProductId>,
    Json(input): Json<ChangeProduct>,
) -> Result<axum::Json<Envelope<Product>>> {
    change(&app, id, move |product| input.apply(product)).await
}

/// Removes a product.
///
/// For editors. An administrator can bring it back.
#[utoipa::path(delete, path = "/api/products/{id}", tag = "products", operation_id = "removeProduct", params(("id" = Uuid, Path, description = "The product")), security(("bearer" = []), ("api_key" = ["products:write"])),
    responses((status = 204, description = "The product is gone"), (status = 403, description = "forbidden"), (status = 404, description = "product_not_found")))]
async fn remove(State(app): State<App>, _: Editor, Path(ProductId(id)): Path<ProductId>) -> Result<StatusCode> {
    let (database, deadline, now) = (app.database.clone(), app.deadline(), app.clock().now());
    let open = async move { database.writer(deadline).await };
    let remove = async move |mut connection: store::Connection| if sql::remove(&mut connection, id, now).await? { Ok(()) } else { Err(not_found()) };
    write(&app, id, open, remove).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Brings a removed product back.
///
/// For administrators. One that was not removed stays as it is. Not when another product has taken its number meanwhile.
#[utoipa::path(post, path = "/api/products/{id}/restore", tag = "products", operation_id = "restoreProduct", params(("id" = Uuid, Path, description = "The product")), security(("bearer" = []), ("api_key" = ["admin"])),
    responses((status = 200, description = "The product", body = Envelope<Product>), (status = 403, description = "forbidden"), (status = 404, description = "product_not_found"), (status = 409, description = "sku_taken")))]
async fn restore(State(app): State<App>, _: Admin, Path(ProductId(id)): Path<ProductId>) -> Result<axum::Json<Envelope<Product>>> {
    let (database, deadline, now) = (app.database.clone(), app.deadline(), app.clock().now());
    let begin = async move { database.begin(deadline).await };
    let product = write(&app, id, begin, async move |mut transaction| {
        // One that is there already is answered as it is: who asks twice wants the same.
        sql::restore(&mut transaction, id, now).await?;
        let product = sql::find(&mut transaction, id).await?.ok_or_else(not_found)?;
        transaction.commit().await?;
        Ok(product)
    });
    Ok(Envelope::of(product.await?))
}
