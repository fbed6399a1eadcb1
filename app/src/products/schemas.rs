//! What the derived schemas cannot say: bounds of the items of a list, and a price that is a text or a number.

use super::input::ATTRIBUTES_BYTES_MAX;
use serde_json::json;
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder, SchemaType, Type};
use utoipa::openapi::{Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat};

const TEXT: &str = r"^[^\u0000]*$";

fn list(description: &str, most: usize, pattern: &str, example: &str) -> ArrayBuilder {
    let item = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(200)).pattern(Some(pattern));
    ArrayBuilder::new().items(item).max_items(Some(most)).description(Some(description)).examples([json!([example])])
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

fn scalar() -> [ObjectBuilder; 2] {
    let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(ATTRIBUTES_BYTES_MAX)).pattern(Some(TEXT));
    [text, ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Boolean, Type::Number, Type::Null]))]
}

fn named(kind: SchemaType, values: AnyOfBuilder) -> ObjectBuilder {
    let name = ObjectBuilder::new().schema_type(Type::String).max_length(Some(ATTRIBUTES_BYTES_MAX)).pattern(Some(TEXT)).build();
    ObjectBuilder::new().schema_type(kind).property_names(Some(name)).additional_properties(Some(Schema::AnyOf(values.build())))
}

/// Attributes as they are written, or null: texts and names without U+0000, which PostgreSQL cannot store. Deeper values are taken too; a schema that
/// refers to itself would say so, and the generators of clients stumble over it.
pub fn optional_attributes_schema() -> Object {
    let values = || scalar().into_iter().fold(AnyOfBuilder::new(), AnyOfBuilder::item);
    let list = ArrayBuilder::new().items(values()).max_items(Some(ATTRIBUTES_BYTES_MAX));
    let object = named(SchemaType::from_iter([Type::Object, Type::Null]), values().item(list).item(named(Type::Object.into(), values())));
    object.description(Some("Whatever else is known: any object, of 100,000 bytes at most.")).examples([json!({"wireless": true})]).build()
}

/// Attributes as they are shown.
pub(super) fn attributes_schema() -> Object {
    let object = ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)));
    object.description(Some("Whatever else is known.")).examples([json!({"wireless": true, "color": "Silver"})]).build()
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
        .examples([json!("79.90")])
        .build()
}
