//! Values on their way into a statement.
//!
//! | value | PostgreSQL | SQLite |
//! |---|---|---|
//! | text | `text` | TEXT |
//! | integer | `bigint` | INTEGER |
//! | float | `double precision` | REAL |
//! | boolean | `boolean` | INTEGER 0 or 1 |
//! | UUID | `uuid` | TEXT, hyphenated, lower case |
//! | JSON | `jsonb` or `json` | TEXT |
//! | timestamp | `timestamptz` | INTEGER, microseconds since 1970, so that it sorts |

use super::error::{Cause, Error};
use sqlx::Arguments as _;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo, Postgres};
use sqlx::sqlite::SqliteArguments;
use sqlx::types::{Json, Type};
use std::borrow::Cow;
use uuid::Uuid;

/// 2000-01-01T00:00:00Z, where PostgreSQL counts from, in microseconds since 1970.
pub(super) const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A value bound to a placeholder.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text without U+0000, which PostgreSQL cannot store; the store refuses it on both databases.
    Text(String),
    /// A 64-bit integer.
    Int(i64),
    /// A float that is a number. SQLite keeps no sign of a zero.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A UUID.
    Uuid(Uuid),
    /// A JSON document, without U+0000 in any string.
    Json(serde_json::Value),
    /// An instant, cut to microseconds.
    Timestamp(jiff::Timestamp),
    /// No value; PostgreSQL wants to know of which type.
    Null(Kind),
}

/// The type of a [`Value`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is explained at the variant of Value with the same name")]
pub enum Kind {
    Text,
    Int,
    Float,
    Bool,
    Uuid,
    Json,
    Timestamp,
}

/// Rust types whose `Option` can be bound: they know which kind of NULL they are.
pub trait Bindable: Into<Value> {
    /// The kind of NULL.
    const KIND: Kind;
}

macro_rules! bindable {
    ($($type:ty => $variant:ident, $convert:expr;)*) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Value {
                let convert: fn($type) -> _ = $convert;
                Value::$variant(convert(value))
            }
        }
        impl Bindable for $type {
            const KIND: Kind = Kind::$variant;
        }
    )*};
}

bindable! {
    String => Text, |text| text;
    &str => Text, str::to_owned;
    &String => Text, String::clone;
    Cow<'_, str> => Text, |text| text.into_owned();
    i64 => Int, |number| number;
    i32 => Int, i64::from;
    u32 => Int, i64::from;
    f64 => Float, |number| number;
    bool => Bool, |truth| truth;
    Uuid => Uuid, |id| id;
    &Uuid => Uuid, |id| *id;
    serde_json::Value => Json, |document| document;
    &serde_json::Value => Json, serde_json::Value::clone;
    jiff::Timestamp => Timestamp, |instant| instant;
}

impl<T: Bindable> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null(T::KIND), Into::into)
    }
}

/// Refuses what one of the two databases could not store, so that both answer alike.
///
/// # Errors
/// [`Error::Data`] with the number of the placeholder.
pub(super) fn check(values: &[Value]) -> Result<(), Error> {
    for (index, value) in values.iter().enumerate() {
        let fault = match value {
            Value::Text(text) if text.contains('\0') => "text with the character U+0000",
            Value::Json(document) if json_has_nul(document) => "JSON with the character U+0000",
            Value::Float(number) if number.is_nan() => "a float that is not a number",
            _ => continue,
        };
        let message = format!("${} is {fault}, which cannot be stored", index + 1);
        return Err(Error::Data(Cause::new(message)));
    }
    Ok(())
}

/// Depth is bounded by the JSON parser's own limit of 128 levels.
fn json_has_nul(document: &serde_json::Value) -> bool {
    match document {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(json_has_nul),
        serde_json::Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || json_has_nul(value)),
        _ => false,
    }
}

/// `timestamptz` in binary: microseconds since 2000.
struct Instant(i64);

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        // The fixed type number of `timestamptz` (pg_type.dat).
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl Encode<'_, Postgres> for Instant {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Postgres>>::encode_by_ref(&self.0, buffer)
    }
}

pub(super) fn postgres_arguments(values: &[Value]) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    arguments.reserve(values.len(), values.len() * 16);
    for value in values {
        match value {
            Value::Text(text) => arguments.add(text.as_str()),
            Value::Int(number) => arguments.add(number),
            Value::Float(number) => arguments.add(number),
            Value::Bool(truth) => arguments.add(truth),
            Value::Uuid(id) => arguments.add(id),
            Value::Json(document) => arguments.add(Json(document)),
            Value::Timestamp(instant) => arguments.add(Instant(instant.as_microsecond() - POSTGRES_EPOCH_US)),
            Value::Null(Kind::Text) => arguments.add(None::<String>),
            Value::Null(Kind::Int) => arguments.add(None::<i64>),
            Value::Null(Kind::Float) => arguments.add(None::<f64>),
            Value::Null(Kind::Bool) => arguments.add(None::<bool>),
            Value::Null(Kind::Uuid) => arguments.add(None::<Uuid>),
            Value::Null(Kind::Json) => arguments.add(None::<Json<serde_json::Value>>),
            Value::Null(Kind::Timestamp) => arguments.add(None::<Instant>),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

pub(super) fn sqlite_arguments(values: &[Value]) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(values.len(), 0);
    for value in values {
        match value {
            Value::Text(text) => arguments.add(text.as_str()),
            Value::Int(number) => arguments.add(number),
            Value::Float(number) => arguments.add(number),
            Value::Bool(truth) => arguments.add(truth),
            Value::Uuid(id) => arguments.add(id.hyphenated().to_string()),
            Value::Json(document) => arguments.add(document.to_string()),
            Value::Timestamp(instant) => arguments.add(instant.as_microsecond()),
            Value::Null(_) => arguments.add(None::<i64>),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
