//! The list of products: filters, orders, and pages by key, so that the page after the millionth row costs what the first one costs.

use mainstay::error::{Error, Fields, Flaw, Result, codes};
use mainstay::store::{Session, Value, query};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Product;
use super::input::{LEVEL_SEPARATOR, WORD_CHARS_MAX};
use super::price::Price;
use super::sql::{COLUMNS, category_path, folded, product};
use crate::page;

/// The longest path of the real catalogue has 132 characters; with everything else in the query it stays within a target of 8 KiB.
const CATEGORY_CHARS_MAX: usize = 600;

/// Which products, in which order, from where on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Rows of a page, 1 to 100.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// `next_cursor` of the page before; with the same `sort`.
    #[param(min_length = 1, max_length = 5000, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    /// The order; `-` for descending. Products without a price come last.
    #[param(inline)]
    sort: Option<Sort>,
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

/// The orders of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs)]
pub enum Sort {
    #[serde(rename = "created_at")]
    Age,
    #[serde(rename = "-created_at")]
    AgeDescending,
    #[serde(rename = "name")]
    Name,
    #[serde(rename = "-name")]
    NameDescending,
    #[serde(rename = "price")]
    Price,
    #[serde(rename = "-price")]
    PriceDescending,
}

impl Sort {
    fn column(self) -> &'static str {
        match self {
            Self::Age | Self::AgeDescending => "created_at",
            Self::Name | Self::NameDescending => "name_folded",
            Self::Price | Self::PriceDescending => "price_e4",
        }
    }

    fn descending(self) -> bool {
        matches!(self, Self::AgeDescending | Self::NameDescending | Self::PriceDescending)
    }

    fn key(self, product: &Product) -> Key {
        match self {
            Self::Age | Self::AgeDescending => Key::Number(product.created_at.as_microsecond()),
            Self::Name | Self::NameDescending => Key::Text(folded(&product.name)),
            Self::Price | Self::PriceDescending => product.price.map_or(Key::Nothing, |price| Key::Number(price.e4())),
        }
    }
}

/// The filters, checked.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// The levels of the category.
    pub category: Vec<String>,
    /// Who makes it.
    pub manufacturer: Option<String>,
    /// What kind of thing it is.
    pub kind: Option<String>,
    /// Least price.
    pub price_min: Option<Price>,
    /// Most price.
    pub price_max: Option<Price>,
}

/// The filters of the list and of the search, as they stand in the query.
#[derive(Debug, Default)]
pub struct FilterParams {
    /// A path of levels.
    pub category: Option<String>,
    /// Who makes it.
    pub manufacturer: Option<String>,
    /// What kind of thing it is.
    pub kind: Option<String>,
    /// Least price.
    pub price_min: Option<String>,
    /// Most price.
    pub price_max: Option<String>,
}

impl FilterParams {
    /// # Errors
    /// [`codes::INVALID_QUERY`] with the parameters that are wrong.
    pub fn parse(self) -> Result<Filters> {
        let mut fields = Fields::new();
        let mut price = |name, given: &Option<String>| {
            let parsed = given
                .as_deref()
                .map(|text| Price::parse(text).ok_or_else(|| Flaw::new("invalid_format", "must be a decimal such as 12.65, not negative")));
            parsed.and_then(|parsed| fields.take(name, parsed))
        };
        let (price_min, price_max) = (price("price_min", &self.price_min), price("price_max", &self.price_max));
        for (name, text) in [("category", &self.category), ("manufacturer", &self.manufacturer), ("type", &self.kind)] {
            // U+0000 is in no product, and PostgreSQL does not even take it for a comparison.
            if text.as_deref().is_some_and(|text| text.contains('\0')) {
                fields.note(name, Flaw::new("invalid_character", "must not contain U+0000"));
            }
            let most = if name == "category" { CATEGORY_CHARS_MAX } else { WORD_CHARS_MAX };
            if text.as_deref().is_some_and(|text| text.chars().count() > most) {
                fields.note(name, Flaw::new("too_long", format!("must have at most {most} characters")));
            }
        }
        fields.finish().map_err(|error| {
            let named = error.fields().first().map(|field| format!("Query parameter `{}` {}", field.field, field.message)).unwrap_or_default();
            Error::new(&codes::INVALID_QUERY).with_message(named).with_fields(error.fields().to_vec())
        })?;
        let levels = self.category.as_deref().unwrap_or_default().split(LEVEL_SEPARATOR.trim()).map(|level| level.trim().to_owned());
        Ok(Filters {
            category: levels.filter(|level| !level.is_empty()).collect(),
            manufacturer: self.manufacturer,
            kind: self.kind,
            price_min,
            price_max,
        })
    }
}

/// The sort key of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Number(i64),
    Text(String),
    Nothing,
}

/// Where a page begins: behind this row.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Position {
    sort: Sort,
    key: Key,
    id: Uuid,
}

/// A list to fetch.
#[derive(Debug)]
pub struct Listing {
    limit: u32,
    sort: Sort,
    after: Option<Position>,
    filters: Filters,
}

impl Listing {
    /// # Errors
    /// [`codes::INVALID_QUERY`], [`crate::codes::CURSOR_NOT_FOUND`].
    pub fn parse(params: ListParams) -> Result<Self> {
        let (limit, sort) = (page::limit(params.limit)?, params.sort.unwrap_or(Sort::Age));
        let after = params.cursor.as_deref().map(page::decode_cursor::<Position>).transpose()?;
        let fits = |position: &Position| match position.key {
            Key::Number(number) => {
                position.sort.column() == "price_e4" || (position.sort.column() == "created_at" && jiff::Timestamp::from_microsecond(number).is_ok())
            }
            Key::Text(ref text) => position.sort.column() == "name_folded" && !text.contains('\0'),
            Key::Nothing => position.sort.column() == "price_e4",
        };
        if after.as_ref().is_some_and(|position| position.sort != sort || !fits(position)) {
            let error = Error::new(&crate::codes::CURSOR_NOT_FOUND).with_message("The cursor belongs to a list of another order");
            return Err(error.with_field("cursor", "unknown_cursor", "must be a `next_cursor` of this list"));
        }
        let ListParams { category, manufacturer, kind, price_min, price_max, .. } = params;
        let filters = FilterParams { category, manufacturer, kind, price_min, price_max }.parse()?;
        Ok(Self { limit, sort, after, filters })
    }

    /// The rows of the page and one more, which tells that there is a next one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fetch(&self, session: &mut Session) -> Result<Vec<Product>> {
        let wanted = self.limit as usize + 1;
        // Rows without a price come after all others in both directions: two ranges of one index instead of a sort of the table.
        let priced = self.sort.column() == "price_e4";
        let among_priceless = self.after.as_ref().is_some_and(|position| position.key == Key::Nothing);
        let mut products = if among_priceless { Vec::new() } else { self.range(session, priced.then_some(true), wanted).await? };
        if priced && products.len() < wanted {
            let rest = wanted - products.len();
            products.extend(self.range(session, Some(false), rest).await?);
        }
        Ok(products)
    }

    /// One range of the index: rows with a price, without one, or all.
    async fn range(&self, session: &mut Session, with_price: Option<bool>, limit: usize) -> Result<Vec<Product>> {
        let mut conditions = vec!["deleted_at IS NULL".to_owned()];
        let mut values: Vec<Value> = Vec::new();
        let mut hold = |condition: &str, bound: Vec<Value>| {
            let mut condition = condition.to_owned();
            for value in bound {
                values.push(value);
                condition = condition.replacen('?', &format!("${}", values.len()), 1);
            }
            conditions.push(condition);
        };
        match with_price {
            Some(true) => hold("price_e4 IS NOT NULL", vec![]),
            Some(false) => hold("price_e4 IS NULL", vec![]),
            None => {}
        }
        let (column, descending) = (self.sort.column(), self.sort.descending());
        let beyond = if descending { "<" } else { ">" };
        match self.after.as_ref().map(|position| (&position.key, position.id)) {
            Some((Key::Nothing, id)) => hold(&format!("id {beyond} ?"), vec![id.into()]),
            Some((key, id)) if with_price != Some(false) => {
                let key: Value = match key {
                    Key::Number(number) if column == "created_at" => {
                        jiff::Timestamp::from_microsecond(*number).unwrap_or(jiff::Timestamp::UNIX_EPOCH).into()
                    }
                    Key::Number(number) => (*number).into(),
                    Key::Text(text) => text.as_str().into(),
                    Key::Nothing => Option::<i64>::None.into(),
                };
                hold(&format!("({column}, id) {beyond} (?, ?)"), vec![key, id.into()]);
            }
            _ => {}
        }
        let filters = &self.filters;
        if !filters.category.is_empty() {
            let from = category_path(&filters.category);
            // Everything that begins with the path: up to the same text with its last character, a space, one higher.
            let to = format!("{}!", from.trim_end_matches(' '));
            hold("category_path >= ? AND category_path < ?", vec![from.into(), to.into()]);
        }
        if let Some(manufacturer) = &filters.manufacturer {
            hold("manufacturer = ?", vec![manufacturer.as_str().into()]);
        }
        if let Some(kind) = &filters.kind {
            hold("type = ?", vec![kind.as_str().into()]);
        }
        if let Some(least) = filters.price_min {
            hold("price_e4 >= ?", vec![least.e4().into()]);
        }
        if let Some(most) = filters.price_max {
            hold("price_e4 <= ?", vec![most.e4().into()]);
        }
        let direction = if descending { "DESC" } else { "ASC" };
        // Without a price the column is the same for all rows, and only the id orders them.
        let order =
            if with_price == Some(false) { format!("price_e4 {direction}, id {direction}") } else { format!("{column} {direction}, id {direction}") };
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let text = format!("SELECT {COLUMNS} FROM products WHERE {} ORDER BY {order} LIMIT ${}", conditions.join(" AND "), values.len());
        let rows = query(text).bind_all(values).fetch_all(session).await?;
        rows.iter().map(product).collect()
    }

    /// Cuts the row too many off, and gives the cursor of the next page if there was one.
    pub fn cut(&self, products: &mut Vec<Product>) -> Option<String> {
        let more = products.len() > self.limit as usize;
        products.truncate(self.limit as usize);
        let last = products.last().filter(|_| more)?;
        Some(page::encode_cursor(&Position { sort: self.sort, key: self.sort.key(last), id: last.id }))
    }
}
