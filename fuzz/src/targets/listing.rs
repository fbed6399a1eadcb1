//! The query of the list of products, from the text to what the database is asked: what is taken is within every bound, and says the same when written anew.

use axum::extract::FromRequestParts;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Uri};
use mainstay::extract::Query;
use mainstay_app::page::{self, Page};
use mainstay_app::products::listing::{FilterParams, ListParams, Listing};

use crate::input::text;

pub(crate) fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    filters(text);
    let Ok(request) = Request::get(format!("/api/products?{text}")).body(()) else { return };
    let (mut parts, ()) = request.into_parts();
    let uri = parts.uri.clone();
    links(&uri);
    let Ok(Query(params)) = <Query<ListParams> as FromRequestParts<()>>::from_request_parts(&mut parts, &()).now_or_never().unwrap() else { return };
    if let Err(error) = Listing::parse(params) {
        assert!(matches!(error.status().as_u16(), 400 | 404) && !error.message().is_empty(), "{error}");
    }
}

/// The link to the next page is one link that can be followed, whatever stands in the query.
fn links(uri: &Uri) {
    let response = page::answer(&Page::<(), ()>::new(Vec::new(), ()), uri, Some("next"));
    let Some(link) = response.headers().get(http::header::LINK).map(HeaderValue::as_bytes) else { return };
    let link = std::str::from_utf8(link).unwrap_or_default();
    // What is not ASCII comes through as it is; a client that follows it sends the same bytes.
    if link.is_ascii() && !link.is_empty() {
        let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap_or_else(|| panic!("{link:?}"));
        assert!(!target.contains(['<', '>']), "{link:?}");
        let query = target.parse::<Uri>().unwrap_or_else(|error| panic!("{target:?}: {error}")).query().unwrap_or_default().to_owned();
        let cursors: Vec<_> = query.split('&').filter(|pair| pair.starts_with("cursor=")).collect();
        assert_eq!(cursors, ["cursor=next"], "{link:?}");
    }
}

/// Lines of the input as the filters.
fn filters(text: &str) {
    let mut lines = text.split('\n').map(|line| Some(line.to_owned()));
    let mut next = || lines.next().flatten();
    let given = FilterParams { category: next(), manufacturer: next(), kind: next(), price_min: next(), price_max: next() };
    let Ok(read) = given.parse() else { return };
    assert!(read.category.iter().all(|level| !level.is_empty() && level.trim() == level && !level.contains('>')), "{:?}", read.category);
    for text in read.category.iter().chain(&read.manufacturer).chain(&read.kind) {
        assert!(!text.contains('\0') && text.chars().count() <= 600);
    }
    let again = FilterParams {
        category: Some(read.category.join(" > ")),
        manufacturer: read.manufacturer.clone(),
        kind: read.kind.clone(),
        price_min: read.price_min.map(|price| price.to_string()),
        price_max: read.price_max.map(|price| price.to_string()),
    };
    // With its spaces a path may be longer than it came.
    if again.category.as_ref().is_some_and(|category| category.chars().count() <= 600) {
        let again = again.parse().unwrap();
        assert_eq!((again.category, again.price_min, again.price_max), (read.category, read.price_min, read.price_max));
    }
}
