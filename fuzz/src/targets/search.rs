//! Search: every text is a search, the same each time, within every bound, and what it shows is escaped.

use std::sync::LazyLock;

use mainstay_search::{Change, Document, FACET_VALUES_MAX, Fields, Filter, Index, Query, SNIPPET_CHARS};
use uuid::Uuid;

use crate::input::{line, text};

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let fields = Fields::new().text("name", 5.0).text("description", 1.0).keyword("manufacturer").path("category").number("price");
    let index = Index::in_memory(&fields).unwrap();
    let rows = [
        ("Wireless headphones XM5", "Over-ear, closed, 30 hours on a charge.", "Sony", "headphones"),
        ("Grafikkarte RTX 3060Ti", "DDR4-3200 & <b>PCIe</b> 4.0", "MSI", "video-card"),
        ("Café crème", "Kaffee wie in Paris, 3.5 %", "L'Oréal", "coffee"),
        ("Spiderman figure", "spider-man, the assassin's friend", "Hasbro", "toys"),
        ("東京 ラーメン 🍜", "とんこつ, 한국어, ไทย", "日清", "food"),
        ("The office chair", "the the the", "IKEA", "office"),
    ];
    let document = |(id, (name, description, manufacturer, category)): (u128, (&str, &str, &str, &str))| {
        let document = Document::new(Uuid::from_u128(id)).text("name", name).text("description", description);
        Change::Put(document.keywords("manufacturer", [manufacturer]).keywords("category", ["goods", category]).number("price", 1000 * id as i64))
    };
    index.apply((1u128..).zip(rows).map(document), "1").unwrap();
    index
});

/// The first line may hold the level of a category and a price; the rest is what somebody typed.
pub(crate) fn run(data: &[u8]) {
    let Some(data) = text(data) else { return };
    let (filter, typed) = line(data.as_bytes());
    let (filter, typed) = (text(filter).unwrap_or_default(), text(typed).unwrap_or_default());
    for query in [Query::new(data), filtered(filter, typed)] {
        let found = INDEX.search(&query).unwrap();
        assert_eq!(INDEX.search(&query).unwrap(), found, "{query:?} finds something else the second time");
        assert!(found.hits.len() <= query.limit && found.hits.len() as u64 <= found.total && found.total <= INDEX.documents());
        assert!(found.hits.windows(2).all(|pair| pair[0].score >= pair[1].score) && found.hits.iter().all(|hit| hit.score.is_finite()));
        found.hits.iter().flat_map(|hit| &hit.highlights).for_each(|highlight| is_escaped(&highlight.html));
        assert!(found.facets.iter().all(|(_, values)| values.len() <= FACET_VALUES_MAX && values.iter().all(|(_, count)| *count <= found.total)));
    }
}

fn filtered(filter: &str, typed: &str) -> Query {
    let mut query = Query::new(typed);
    query.limit = 3;
    query.facets = vec!["manufacturer".to_owned(), "category".to_owned()];
    query.filters = match filter.parse::<i64>() {
        Ok(price) => vec![Filter::Between { field: "price".to_owned(), from: Some(price), to: None }],
        Err(_) if filter.is_empty() => Vec::new(),
        Err(_) => vec![Filter::Under { field: "category".to_owned(), path: filter.split('>').map(str::to_owned).collect() }],
    };
    query
}

/// Nothing but marks stands between angle brackets, each is closed, and it is no longer than it may be.
fn is_escaped(html: &str) {
    let bare = html.replace("<mark>", "\u{1}").replace("</mark>", "\u{2}");
    assert!(!bare.contains(['<', '>', '"']), "{html}");
    let marks: String = bare.chars().filter(|c| matches!(c, '\u{1}' | '\u{2}')).collect();
    assert_eq!(marks, "\u{1}\u{2}".repeat(marks.len() / 2), "{html}");
    let text = bare.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    assert!(text.chars().filter(|c| !matches!(c, '\u{1}' | '\u{2}' | '…')).count() <= SNIPPET_CHARS + 1, "{html}");
}
