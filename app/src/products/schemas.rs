//! What the derived schemas cannot say: bounds of the items of a list, and a price that is a text or a number.

use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::{Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, SchemaFormat};

const TEXT: &str = r"^[^\u0000]*$";

fn list(description: &str, most: usize, pattern: &str, example: &str) -> ArrayBuilder {
    let item = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(200)).pattern(Some(pattern));
    ArrayBuilder::new().items(item).max_items(Some(most)).description(Some(description)).examples([serde_json::json!([example])])
}

fn category() -> ArrayBuilder {
    list("The path of its category, outermost first.", 10, "^[^\\u0000>]*$", "headphones")
}

fn tags() -> ArrayBuilder {
    list("Words that it is found by.", 100, TEXT, "audio")
}

fn or_null(array: ArrayBuilder) -> Array {
    array.schema_type(SchemaType::from_iter([Type::Array, Type::Null])).build()
}

/// The levels of a category.
pub fn category_schema() -> Array {
    category().build()
}

/// The levels of a category, or null.
pub fn optional_category_schema() -> Array {
    or_null(category())
}

/// Tags.
pub fn tags_schema() -> Array {
    tags().build()
}

/// Tags, or null.
pub fn optional_tags_schema() -> Array {
    or_null(tags())
}

/// A price as it is written: the text is the exact form; a number is taken by its shortest digits, and a whole one always fits.
pub fn optional_price_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Integer, Type::Null]))
        .description(Some("The price: a decimal in a string, which is exact, or a number."))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .max_length(Some(17))
        .pattern(Some(r"^[0-9]{1,12}(\.[0-9]{1,4})?$"))
        .minimum(Some(0))
        .maximum(Some(999_999_999_999_i64))
        .examples([serde_json::json!("79.90")])
        .build()
}
