//! What the derived schemas cannot say: bounds of the items of a list, and a price that is a text or a number.

use utoipa::openapi::schema::{AnyOfBuilder, SchemaType, Type};
use utoipa::openapi::{Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use super::input::ATTRIBUTES_BYTES_MAX;

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

/// Any JSON value without U+0000 in a text or a name: PostgreSQL cannot store that.
#[derive(Debug, Clone, Copy)]
pub struct AnyValue;

impl PartialSchema for AnyValue {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(ATTRIBUTES_BYTES_MAX)).pattern(Some(TEXT));
        let other = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Boolean, Type::Number, Type::Null]));
        let items = ArrayBuilder::new().items(Ref::from_schema_name("AnyValue")).max_items(Some(ATTRIBUTES_BYTES_MAX));
        let any = AnyOfBuilder::new().item(text).item(other).item(items).item(members(Type::Object.into()));
        any.description(Some("Any JSON value, without U+0000.")).into()
    }
}

impl ToSchema for AnyValue {}

fn members(kind: SchemaType) -> ObjectBuilder {
    let name = ObjectBuilder::new().schema_type(Type::String).max_length(Some(ATTRIBUTES_BYTES_MAX)).pattern(Some(TEXT)).build();
    let object = ObjectBuilder::new().schema_type(kind).property_names(Some(name));
    object.additional_properties(Some(Ref::from_schema_name("AnyValue")))
}

/// Attributes, or null.
pub fn optional_attributes_schema() -> Object {
    let object = members(SchemaType::from_iter([Type::Object, Type::Null]));
    object
        .description(Some("Whatever else is known: any object, of 100,000 bytes at most."))
        .examples([serde_json::json!({"wireless": true})])
        .build()
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
