//! The bounds that a format implies, written out: a generator of clients or of tests need not know the format.

use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, Object, Type};
use utoipa::openapi::{KnownFormat, RefOr, Schema, SchemaFormat};

/// Version 4, the only one that our paths take and our answers show (RFC 9562, 5.4).
const UUID_V4: &str = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$";
/// RFC 3339 with nine decimals and an offset.
const TIMESTAMP_CHARS_MAX: usize = 35;
/// No header of ours is longer: what a target may have (8 KiB) and a few words around it.
const HEADER_CHARS_MAX: usize = 8400;

/// Bounds a schema and everything in it.
pub(super) fn schema(schema: &mut RefOr<Schema>) {
    let RefOr::T(found) = schema else { return };
    match found {
        Schema::Object(object) => {
            string(object);
            object.properties.values_mut().for_each(self::schema);
            if let Some(AdditionalProperties::RefOr(inner)) = object.additional_properties.as_deref_mut() {
                self::schema(inner);
            }
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                self::schema(items);
            }
        }
        Schema::OneOf(one) => one.items.iter_mut().for_each(self::schema),
        Schema::AllOf(all) => all.items.iter_mut().for_each(self::schema),
        Schema::AnyOf(any) => any.items.iter_mut().for_each(self::schema),
        _ => {}
    }
}

fn string(object: &mut Object) {
    match object.format {
        Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)) => {
            (object.min_length, object.max_length, object.pattern) = (Some(36), Some(36), Some(UUID_V4.to_owned()));
        }
        Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)) => object.max_length = Some(TIMESTAMP_CHARS_MAX),
        _ => {}
    }
}

/// Bounds the schema of a header that a handler declared as a mere string.
pub(super) fn header(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::Object(object)) = schema
        && object.schema_type == Type::String.into()
        && object.max_length.is_none()
    {
        object.max_length = Some(HEADER_CHARS_MAX);
        object.pattern.get_or_insert_with(|| "^[\\x20-\\x7e]+$".to_owned());
    }
}
