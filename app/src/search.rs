//! Full-text search over the products: the route. The index follows the database in `search/follow.rs`.
//!
//! The index finds and ranks; what is shown is read from the database, so an answer never shows a product that was
//! removed or an old price (a stranger's may, as long as a read replica may be behind).

mod cursor;
mod follow;

use std::collections::BTreeMap;
use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use http::Uri;
use mainstay::error::{Error, Result};
use mainstay::extract::Query;
use mainstay_search::{Filter, PATH_SEPARATOR};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ArrayBuilder, Object, ObjectBuilder, Ref};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::codes;
use crate::page::{self, Page};
use crate::products::listing::{FilterParams, Filters};
use crate::products::{Product, sql};

pub use follow::{Search, Standing};

/// Nobody reads further than this; deeper pages cost the index more and more.
const OFFSET_MAX: usize = 10_000;

/// A search takes a core for longer than any other read.
pub const DEAR: &[&str] = &["GET /api/products/search"];

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(search))
}

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SearchParams {
    /// Any text; the last word may be the beginning of one. Without text, everything that the filters leave. The length of the target, 8 KiB, is its only bound.
    #[param(example = "wireless headphones")]
    q: Option<String>,
    /// Rows of a page, 1 to 100.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 5000, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    /// A category with everything below it, as a path: `eyeliner > liquid`.
    #[param(max_length = 600, pattern = r"^[^\u0000]*$", example = "headphones")]
    category: Option<String>,
    /// Who makes it.
    #[param(max_length = 200, pattern = r"^[^\u0000]*$")]
    manufacturer: Option<String>,
    /// What kind of thing it is.
    #[serde(rename = "type")]
    #[param(max_length = 200, pattern = r"^[^\u0000]*$")]
    kind: Option<String>,
    /// Least price.
    #[param(max_length = 17, pattern = r"^[0-9]{1,12}(\.[0-9]{1,4})?$")]
    price_min: Option<String>,
    /// Most price.
    #[param(max_length = 17, pattern = r"^[0-9]{1,12}(\.[0-9]{1,4})?$")]
    price_max: Option<String>,
}

/// A product that was found.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Found {
    /// The product.
    #[serde(flatten)]
    pub product: Product,
    /// How well it fits; comparable within one answer only.
    #[schema(example = 12.3)]
    pub score: f32,
    /// Where the words stand: escaped HTML with `<mark>`, by field.
    #[schema(schema_with = highlights_schema)]
    pub highlights: BTreeMap<String, String>,
}

fn highlights_schema() -> Object {
    // A snippet has 160 characters; escaping makes at most six of one, and every one could be marked.
    let html = ObjectBuilder::new().schema_type(Type::String).max_length(Some(4000)).pattern(Some(r"^[^\u0000]*$"));
    let object = ObjectBuilder::new().description(Some("Where the words stand: escaped HTML with `<mark>`, by field."));
    object.additional_properties(Some(html)).max_properties(Some(10)).examples([json!({"name": "Sony <mark>Wireless</mark>"})]).build()
}

fn facets_schema() -> Object {
    let counts = || ArrayBuilder::new().items(Ref::from_schema_name("FacetCount")).max_items(Some(100));
    let object = ObjectBuilder::new().description(Some("The most frequent values among the products found."));
    let object = ["category", "manufacturer", "type"].into_iter().fold(object, |object, name| object.property(name, counts()).required(name));
    object.examples([json!({"category": [{"value": "headphones", "count": 7}], "manufacturer": [{"value": "Sony", "count": 3}], "type": []})]).build()
}

/// A value and how many products have it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FacetCount {
    /// The value.
    #[schema(max_length = 2100, pattern = r"^[^\u0000]*$", example = "headphones")]
    pub value: String,
    /// How many of the products found have it.
    #[schema(example = 7, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub count: u64,
}

/// What is to say beside the products.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SearchMeta {
    /// The cursor of the next page, or null on the last one.
    #[schema(required, max_length = 5000, pattern = "^[A-Za-z0-9_-]+$", example = "MjA")]
    pub next_cursor: Option<String>,
    /// How many products were found.
    #[schema(example = 42, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub total: u64,
    /// What was searched instead, if a word was mistyped.
    #[schema(required, max_length = 8000, pattern = r"^[^\u0000]*$", example = "wireless headphones")]
    pub corrected: Option<String>,
    /// The most frequent values among the products found.
    #[schema(schema_with = facets_schema)]
    pub facets: BTreeMap<String, Vec<FacetCount>>,
}

/// Searches products.
///
/// Full text over all fields, best first; the last word may be a beginning, and a mistyped word is mended. No text is an error: everything is taken as
/// words.
#[utoipa::path(get, path = "/api/products/search", tag = "search", operation_id = "searchProducts", params(SearchParams), security(()),
    responses((status = 200, description = "The products found, best first", body = Page<Found, SearchMeta>, headers(("Link" = String, description = "The next page, if there is one: `<...>; rel=\"next\"`"))), (status = 404, description = "cursor_not_found")))]
async fn search(State(app): State<App>, uri: Uri, Query(params): Query<SearchParams>) -> Result<Response> {
    let limit = page::limit(params.limit)? as usize;
    let offset = params.cursor.as_deref().map(page::decode_cursor::<usize>).transpose()?.unwrap_or(0);
    if offset > OFFSET_MAX {
        return Err(Error::new(&codes::CURSOR_NOT_FOUND));
    }
    let SearchParams { q, category, manufacturer, kind, price_min, price_max, .. } = params;
    let filters = FilterParams { category, manufacturer, kind, price_min, price_max }.parse()?;
    let mut query = mainstay_search::Query::new(q.unwrap_or_default());
    query.filters = conditions(filters);
    query.limit = limit;
    query.offset = offset;
    query.facets = vec!["category".to_owned(), "manufacturer".to_owned(), "type".to_owned()];
    query.highlights = true;
    let hits = app.search.find(query).await?;
    let found = hits.hits.len();
    let ids: Vec<Uuid> = hits.hits.iter().map(|hit| hit.id).collect();
    let products = sql::find_all(&mut *app.read_tolerant().await?, &ids).await?;
    let mut by_id: HashMap<Uuid, Product> = products.into_iter().map(|product| (product.id, product)).collect();
    let data = hits.hits.into_iter().filter_map(|hit| {
        let product = by_id.remove(&hit.id)?;
        let highlights = hit.highlights.into_iter().map(|highlight| (highlight.field.to_string(), highlight.html)).collect();
        Some(Found { product, score: hit.score, highlights })
    });
    let data: Vec<_> = data.collect();
    let end = offset + found;
    let next_cursor = (found == limit && (end as u64) < hits.total && end <= OFFSET_MAX).then(|| page::encode_cursor(&end));
    let count = |(value, count)| FacetCount { value, count };
    let facets = hits.facets.into_iter().map(|(field, counts)| (field.to_string(), counts.into_iter().map(count).collect())).collect();
    let meta = SearchMeta { next_cursor: next_cursor.clone(), total: hits.total, corrected: hits.corrected, facets };
    Ok(page::answer(&Page::new(data, meta), &uri, next_cursor.as_deref()))
}

fn conditions(filters: Filters) -> Vec<Filter> {
    let mut conditions = Vec::new();
    if !filters.category.is_empty() {
        conditions.push(Filter::Under { field: "category".into(), path: filters.category });
    }
    for (field, value) in [("manufacturer", filters.manufacturer), ("type", filters.kind)] {
        if let Some(value) = value {
            conditions.push(Filter::AnyOf { field: field.into(), values: vec![value] });
        }
    }
    if filters.price_min.is_some() || filters.price_max.is_some() {
        let e4 = |price: Option<crate::products::price::Price>| price.map(|price| price.e4());
        conditions.push(Filter::Between { field: "price".into(), from: e4(filters.price_min), to: e4(filters.price_max) });
    }
    conditions
}

// The separator of paths is the same in the index's facets and in the filters of the API, so that one can be put into the other.
const _: () = {
    let (ours, theirs) = (crate::products::input::LEVEL_SEPARATOR.as_bytes(), PATH_SEPARATOR.as_bytes());
    assert!(ours.len() == theirs.len() && ours[0] == theirs[0] && ours[1] == theirs[1] && ours[2] == theirs[2]);
};
