//! What callers write about products, parsed into [`Content`], which is right by construction. The API and the import read by the same rules.

use mainstay::error::{Error, Fields, Flaw, Result};
use mainstay::extract::Patch;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Product;
use super::currency::{Currency, is_currency};
use super::price::Price;
pub use super::schemas::{
    category_schema, optional_attributes_schema, optional_category_schema, optional_price_schema, optional_tags_schema, tags_schema,
};

/// The longest name of the real catalogue has 148 characters.
const NAME_CHARS_MAX: usize = 500;
/// The longest description of the real catalogue has 6,000.
const DESCRIPTION_CHARS_MAX: usize = 20_000;
const SKU_CHARS_MAX: usize = 100;
/// What a manufacturer, a kind, a tag, a level of a category may have.
pub const WORD_CHARS_MAX: usize = 200;
const LEVELS_MAX: usize = 10;
const TAGS_MAX: usize = 100;
/// What browsers still follow.
const URL_CHARS_MAX: usize = 2048;
/// A tenth of the body limit: attributes travel in every list.
pub const ATTRIBUTES_BYTES_MAX: usize = 100_000;
/// Stands between the levels of a category wherever a path is one text.
pub const LEVEL_SEPARATOR: &str = " > ";

/// A product as it is created or replaced.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Wireless headphones", "manufacturer": "Sony", "category": ["headphones"], "price": "79.90", "currency": "EUR", "tags": ["audio"], "attributes": {"wireless": true}}))]
pub struct WriteProduct {
    /// The seller's number, unique.
    #[serde(default)]
    #[schema(example = "hp-0001", min_length = 1, max_length = 100, pattern = r"^[^\u0000]*$")]
    pub sku: Option<String>,
    /// The name.
    #[schema(example = "Wireless headphones", min_length = 1, max_length = 500, pattern = r"^[^\u0000]*$")]
    pub name: String,
    /// The description.
    #[serde(default)]
    #[schema(example = "Closed, with 30 hours on a charge.", max_length = 20_000, pattern = r"^[^\u0000]*$")]
    pub description: Option<String>,
    /// Who makes it.
    #[serde(default)]
    #[schema(example = "Sony", min_length = 1, max_length = 200, pattern = r"^[^\u0000]*$")]
    pub manufacturer: Option<String>,
    /// The path of its category, outermost first.
    #[serde(default)]
    #[schema(schema_with = optional_category_schema)]
    pub category: Option<Vec<String>>,
    /// What kind of thing it is.
    #[serde(default, rename = "type")]
    #[schema(example = "Over-ear headphones", min_length = 1, max_length = 200, pattern = r"^[^\u0000]*$")]
    pub kind: Option<String>,
    /// The price: a decimal in a string, or a number.
    #[serde(default)]
    #[schema(schema_with = optional_price_schema)]
    pub price: Option<Price>,
    /// The currency of the price, ISO 4217.
    #[serde(default)]
    #[schema(value_type = Option<Currency>, example = "EUR")]
    pub currency: Option<String>,
    /// Where to read more: `http` or `https`.
    #[serde(default)]
    #[schema(
        example = "https://example.com/hp-0001",
        max_length = 2048,
        pattern = r#"^https?://[^/?#@<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$"#
    )]
    pub url: Option<String>,
    /// A picture: `http` or `https`.
    #[serde(default)]
    #[schema(
        example = "https://example.com/hp-0001.jpg",
        max_length = 2048,
        pattern = r#"^https?://[^/?#@<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$"#
    )]
    pub image: Option<String>,
    /// Words that it is found by.
    #[serde(default)]
    #[schema(schema_with = optional_tags_schema)]
    pub tags: Option<Vec<String>>,
    /// Whatever else is known: any object.
    #[serde(default)]
    #[schema(schema_with = optional_attributes_schema)]
    pub attributes: Option<Map<String, Value>>,
}

/// The content of a product, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    pub(super) sku: Option<String>,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) category: Vec<String>,
    pub(super) kind: Option<String>,
    pub(super) price: Option<Price>,
    pub(super) currency: Option<String>,
    pub(super) url: Option<String>,
    pub(super) image: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) attributes: Map<String, Value>,
}

impl WriteProduct {
    /// Checks everything, and tells everything that is wrong at once.
    ///
    /// # Errors
    /// [`mainstay::error::codes::VALIDATION_FAILED`].
    pub fn parse(self) -> Result<Content> {
        let mut fields = Fields::new();
        fields.take("name", text(&self.name, NAME_CHARS_MAX));
        let optional =
            [("sku", &self.sku, SKU_CHARS_MAX), ("manufacturer", &self.manufacturer, WORD_CHARS_MAX), ("type", &self.kind, WORD_CHARS_MAX)];
        for (name, value, most) in optional {
            value.as_deref().and_then(|value| fields.take(name, text(value, most)));
        }
        if self.description.as_deref().is_some_and(|description| description.chars().count() > DESCRIPTION_CHARS_MAX) {
            fields.note("description", too_long(DESCRIPTION_CHARS_MAX));
        }
        let (category, tags) = (self.category.unwrap_or_default(), self.tags.unwrap_or_default());
        list(&mut fields, "category", &category, LEVELS_MAX);
        list(&mut fields, "tags", &tags, TAGS_MAX);
        for (index, _) in category.iter().enumerate().filter(|(_, level)| level.contains(LEVEL_SEPARATOR.trim())) {
            fields.note(&format!("category[{index}]"), Flaw::new("invalid_character", "must not contain `>`, which separates levels"));
        }
        if self.currency.as_deref().is_some_and(|currency| !is_currency(currency)) {
            fields.note("currency", Flaw::new("unknown_currency", "must be a currency code of ISO 4217, such as EUR"));
        }
        for (name, value) in [("url", &self.url), ("image", &self.image)] {
            value.as_deref().and_then(|value| fields.take(name, web_address(value)));
        }
        let attributes = self.attributes.unwrap_or_default();
        // Written once more to be measured: the size on the wire depends on white space.
        if serde_json::to_vec(&attributes).map_or(0, |written| written.len()) > ATTRIBUTES_BYTES_MAX {
            fields.note("attributes", Flaw::new("too_long", format!("must have at most {ATTRIBUTES_BYTES_MAX} bytes")));
        }
        fields.finish()?;
        let Self { sku, name, description, manufacturer, kind, price, currency, url, image, .. } = self;
        Ok(Content { sku, name, description, manufacturer, category, kind, price, currency, url, image, tags, attributes })
    }
}

fn too_long(most: usize) -> Flaw {
    Flaw::new("too_long", format!("must have at most {most} characters"))
}

fn text(value: &str, most: usize) -> Result<(), Flaw> {
    match value.chars().count() {
        0 => Err(Flaw::new("required", "must not be empty")),
        chars if chars > most => Err(too_long(most)),
        _ => Ok(()),
    }
}

fn list(fields: &mut Fields, name: &str, items: &[String], most: usize) {
    if items.len() > most {
        return fields.note(name, Flaw::new("too_many", format!("must have at most {most} items")));
    }
    for (index, item) in items.iter().enumerate() {
        fields.take(&format!("{name}[{index}]"), text(item, WORD_CHARS_MAX));
    }
}

/// An absolute `http` or `https` address. Nothing else: what is stored here ends up in `href` and `src` of somebody's page. A space is taken, because the
/// real catalogue has some and every browser reads them as `%20`.
fn web_address(value: &str) -> Result<(), Flaw> {
    if value.chars().count() > URL_CHARS_MAX {
        return Err(too_long(URL_CHARS_MAX));
    }
    let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    let plausible = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#', '@']))
        && !value.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ') || "<>\"`\\".contains(c));
    if plausible { Ok(()) } else { Err(Flaw::new("invalid_format", "must be an http or https address")) }
}

/// A merge patch of a product: what is absent stays, what is null goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Wireless headphones, second edition", "price": "69.90", "tags": null, "attributes": {"wireless": true, "color": null}}))]
pub struct ChangeProduct {
    /// The seller's number, unique.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 100, pattern = r"^[^\u0000]*$")]
    sku: Patch<String>,
    /// The name; it cannot be null.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false, min_length = 1, max_length = 500, pattern = r"^[^\u0000]*$", example = "Wireless headphones, second edition")]
    name: Patch<String>,
    /// The description.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 20_000, pattern = r"^[^\u0000]*$")]
    description: Patch<String>,
    /// Who makes it.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, pattern = r"^[^\u0000]*$")]
    manufacturer: Patch<String>,
    /// The path of its category, outermost first.
    #[serde(default)]
    #[schema(schema_with = optional_category_schema)]
    category: Patch<Vec<String>>,
    /// What kind of thing it is.
    #[serde(default, rename = "type")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, pattern = r"^[^\u0000]*$")]
    kind: Patch<String>,
    /// The price: a decimal in a string, or a number.
    #[serde(default)]
    #[schema(schema_with = optional_price_schema)]
    price: Patch<Price>,
    /// The currency of the price, ISO 4217.
    #[serde(default)]
    #[schema(value_type = Option<Currency>)]
    currency: Patch<String>,
    /// Where to read more: `http` or `https`.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 2048, pattern = r#"^https?://[^/?#@<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$"#)]
    url: Patch<String>,
    /// A picture: `http` or `https`.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 2048, pattern = r#"^https?://[^/?#@<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^<>"`\\\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$"#)]
    image: Patch<String>,
    /// Words that it is found by.
    #[serde(default)]
    #[schema(schema_with = optional_tags_schema)]
    tags: Patch<Vec<String>>,
    /// Merged member by member: one that is null goes.
    #[serde(default)]
    #[schema(schema_with = optional_attributes_schema)]
    attributes: Patch<Map<String, Value>>,
}

impl ChangeProduct {
    /// The content after the patch, checked as a whole.
    ///
    /// # Errors
    /// [`mainstay::error::codes::VALIDATION_FAILED`].
    pub fn apply(self, product: Product) -> Result<Content> {
        let name = self
            .name
            .apply(Some(product.name))
            .ok_or_else(|| Error::new(&mainstay::error::codes::VALIDATION_FAILED).with_field("name", "required", "must not be null"))?;
        let attributes = match self.attributes {
            Patch::Keep => product.attributes,
            Patch::Remove => Map::new(),
            Patch::Set(patch) => {
                let mut target = Value::Object(product.attributes);
                merge(&mut target, Value::Object(patch));
                if let Value::Object(attributes) = target { attributes } else { Map::new() }
            }
        };
        let written = WriteProduct {
            sku: self.sku.apply(product.sku),
            name,
            description: self.description.apply(product.description),
            manufacturer: self.manufacturer.apply(product.manufacturer),
            category: self.category.apply(Some(product.category)),
            kind: self.kind.apply(product.kind),
            price: self.price.apply(product.price),
            currency: self.currency.apply(product.currency),
            url: self.url.apply(product.url),
            image: self.image.apply(product.image),
            tags: self.tags.apply(Some(product.tags)),
            attributes: Some(attributes),
        };
        written.parse()
    }
}

/// `MergePatch` of RFC 7396, 2. The depth of both is bounded by the JSON extractor.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(&name);
            } else {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn flaws(body: Value) -> Vec<(String, &'static str)> {
        let input: WriteProduct = serde_json::from_value(body).unwrap();
        let error = input.parse().expect_err("something is wrong with it");
        error.fields().iter().map(|field| (field.field.clone(), field.code)).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let found = flaws(
            json!({"name": "", "sku": "x".repeat(101), "currency": "EURO", "url": "javascript:alert(1)", "image": "https://", "category": ["a > b"], "tags": [""]}),
        );
        let expected = [
            ("name", "required"),
            ("sku", "too_long"),
            ("tags[0]", "required"),
            ("category[0]", "invalid_character"),
            ("currency", "unknown_currency"),
            ("url", "invalid_format"),
            ("image", "invalid_format"),
        ];
        assert_eq!(found, expected.map(|(field, code)| (field.to_owned(), code)));
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        // RFC 7396, appendix A.
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, result, "{target} with {patch}");
        }
    }
}
