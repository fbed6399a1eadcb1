//! Rows on their way out, with one way to read a column on both databases.

use super::error::Error;
use super::value::POSTGRES_EPOCH_US;
use serde::de::DeserializeOwned;
use sqlx::decode::Decode;
use sqlx::postgres::{PgRow, PgValueRef};
use sqlx::sqlite::{Sqlite, SqliteRow, SqliteValueRef};
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};
use std::fmt;
use uuid::Uuid;

/// One row of a result.
pub struct Row(pub(super) Inner);

pub(super) enum Inner {
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

/// Names of columns only: a row may hold personal data.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use sqlx::Column as _;
        let names: Vec<&str> = match &self.0 {
            Inner::Postgres(row) => row.columns().iter().map(|column| column.name()).collect(),
            Inner::Sqlite(row) => row.columns().iter().map(|column| column.name()).collect(),
        };
        f.debug_tuple("Row").field(&names).finish()
    }
}

impl Row {
    /// Reads a column by its name in the result.
    ///
    /// `T` is `String`, `i64`, `i32`, `f64`, `bool`, `Uuid`, [`jiff::Timestamp`], [`serde_json::Value`], or an
    /// `Option` of these for a column that may be NULL.
    ///
    /// # Errors
    /// [`Error::Decode`] when there is no such column, when it is NULL and `T` is no `Option`, when a number does not
    /// fit, or when the column has another type. `sum(bigint)` is `numeric` on PostgreSQL: cast it to `bigint`.
    pub fn get<T: Column>(&self, column: &str) -> Result<T, Error> {
        self.read(column, T::from_postgres, T::from_sqlite)?.map_or_else(|| T::from_null(column), Ok)
    }

    /// Reads a column of JSON straight into a type of the caller's, for example `Vec<String>`.
    ///
    /// # Errors
    /// [`Error::Decode`], also when the document does not fit the type or is NULL.
    pub fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, Error> {
        self.read(column, postgres_json, sqlite_json)?.map_or_else(|| Err(null(column)), Ok)
    }

    fn read<T>(
        &self,
        column: &str,
        postgres: fn(PgValueRef<'_>) -> Result<T, Fault>,
        sqlite: fn(SqliteValueRef<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Error> {
        let result = match &self.0 {
            Inner::Postgres(row) => {
                let value = row.try_get_raw(column).map_err(|_| absent(column))?;
                if value.is_null() {
                    return Ok(None);
                }
                postgres(value)
            }
            Inner::Sqlite(row) => {
                let value = row.try_get_raw(column).map_err(|_| absent(column))?;
                if value.is_null() {
                    return Ok(None);
                }
                sqlite(value)
            }
        };
        result.map(Some).map_err(|fault| Error::Decode { column: column.to_owned(), message: fault.0 })
    }
}

fn absent(column: &str) -> Error {
    Error::Decode { column: column.to_owned(), message: "the result has no such column".to_owned() }
}

fn null(column: &str) -> Error {
    Error::Decode { column: column.to_owned(), message: "is NULL; read it as an Option".to_owned() }
}

/// Why a value could not be read.
pub struct Fault(String);

impl<E: fmt::Display> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault(error.to_string())
    }
}

/// Types a column can be read as. The list is closed: a type of the service is built from these in its own code.
pub trait Column: Sized + sealed::Sealed {
    #[doc(hidden)]
    fn from_postgres(value: PgValueRef<'_>) -> Result<Self, Fault>;
    #[doc(hidden)]
    fn from_sqlite(value: SqliteValueRef<'_>) -> Result<Self, Fault>;
    #[doc(hidden)]
    fn from_null(column: &str) -> Result<Self, Error> {
        Err(null(column))
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for String {}
    impl Sealed for i64 {}
    impl Sealed for i32 {}
    impl Sealed for f64 {}
    impl Sealed for bool {}
    impl Sealed for uuid::Uuid {}
    impl Sealed for jiff::Timestamp {}
    impl Sealed for serde_json::Value {}
    impl<T: super::Column> Sealed for Option<T> {}
}

impl<T: Column> Column for Option<T> {
    fn from_postgres(value: PgValueRef<'_>) -> Result<Self, Fault> {
        T::from_postgres(value).map(Some)
    }
    fn from_sqlite(value: SqliteValueRef<'_>) -> Result<Self, Fault> {
        T::from_sqlite(value).map(Some)
    }
    fn from_null(_: &str) -> Result<Self, Error> {
        Ok(None)
    }
}

/// The bytes of a PostgreSQL value if its type is one of `names`. Prepared statements always answer in binary.
fn bytes<'r>(value: &PgValueRef<'r>, names: &[&str]) -> Result<&'r [u8], Fault> {
    let info = value.type_info();
    let found = info.name();
    if names.iter().any(|name| name.eq_ignore_ascii_case(found)) {
        Ok(value.as_bytes()?)
    } else {
        Err(Fault(format!("has the type {found}, wanted {}", names.join(" or "))))
    }
}

/// The value of SQLite if it is stored in one of the classes `names`.
fn stored<'r, T: Decode<'r, Sqlite>>(value: SqliteValueRef<'r>, names: &[&str]) -> Result<T, Fault> {
    let found = value.type_info().name().to_owned();
    if names.contains(&found.as_str()) {
        T::decode(value).map_err(Fault::from)
    } else {
        Err(Fault(format!("is stored as {found}, wanted {}", names.join(" or "))))
    }
}

impl Column for String {
    fn from_postgres(value: PgValueRef<'_>) -> Result<Self, Fault> {
        let bytes = bytes(&value, &["TEXT", "VARCHAR", "CHAR", "NAME", "CITEXT", "UNKNOWN"])?;
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
    fn from_sqlite(value: SqliteValueRef<'_>) -> Result<Self, Fault> {
        stored(value, &["TEXT"])
    }
}

impl Column for i64 {
    fn from_postgres(value: PgValueRef<'_>) -> Result<Self, Fault> {
        let bytes = bytes(&value, &["INT8", "INT4", "INT2"])?;
        if let Ok(eight) = bytes.try_into() {
            return Ok(i64::from_be_bytes(eight));
        }
        if let Ok(four) = bytes.try_into() {
            return Ok(i32::from_be_bytes(four).into());
        }
        Ok(i16::from_be_bytes(bytes.try_into()?).into())
    }
    fn from_sqlite(value: SqliteValueRef<'_>) -> Result<Self, Fault> {
        stored(value, &["INTEGER"])
    }
}

impl Column for i32 {
    fn from_postgres(value: PgValueRef<'_>) -> Result<Self, Fault> {
        Ok(i64::from_postgres(value)?.try_into()?)
    }
    fn from_sqlite(value: SqliteValueRef<'_>) -> Result<Self, Fault> {
        Ok(i64::from_sqlite(value)?.try_into()?)
    }
}

impl Column for f64 {
    fn from_postgres(value: PgValueRef<'_>) -> Result<Self, Fault> {
        let bytes = bytes(&value, &["FLOAT8", "FLOAT4"])?;
        if let Ok(eight) = bytes.try_into() {
            return Ok(f64::from_be_bytes(eight));
        }
        Ok(f32::from_be_bytes(bytes.try_into()?).into())
    }
    fn from_sqlite(value: SqliteValueRef<'_>) -> Result<Self, Fault> {
        // SQLite computes 2.0 and may store it as the integer 2.
        stored(value, &["REAL", "INTEGER"])
    }
}

impl Column for bool {
    fn from_postgres(value: PgValueRef<'_>) -> Result<Self, Fault> {
        Ok(bytes(&value, &["BOOL"])? == [1])
    }
    fn from_sqlite(value: SqliteValueRef<'_>) -> Result<Self, Fault> {
        match i64::from_sqlite(value)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Fault(format!("holds {other}, wanted 0 or 1"))),
        }
    }
}

impl Column for Uuid {
    fn from_postgres(value: PgValueRef<'_>) -> Result<Self, Fault> {
        Ok(Uuid::from_slice(bytes(&value, &["UUID"])?)?)
    }
    fn from_sqlite(value: SqliteValueRef<'_>) -> Result<Self, Fault> {
        Ok(Uuid::try_parse(stored(value, &["TEXT"])?)?)
    }
}

impl Column for jiff::Timestamp {
    fn from_postgres(value: PgValueRef<'_>) -> Result<Self, Fault> {
        let since_2000_us = i64::from_be_bytes(bytes(&value, &["TIMESTAMPTZ"])?.try_into()?);
        // Saturating keeps `infinity` out of range instead of wrapping it into a date.
        Ok(jiff::Timestamp::from_microsecond(since_2000_us.saturating_add(POSTGRES_EPOCH_US))?)
    }
    fn from_sqlite(value: SqliteValueRef<'_>) -> Result<Self, Fault> {
        Ok(jiff::Timestamp::from_microsecond(i64::from_sqlite(value)?)?)
    }
}

impl Column for serde_json::Value {
    fn from_postgres(value: PgValueRef<'_>) -> Result<Self, Fault> {
        postgres_json(value)
    }
    fn from_sqlite(value: SqliteValueRef<'_>) -> Result<Self, Fault> {
        sqlite_json(value)
    }
}

fn postgres_json<T: DeserializeOwned>(value: PgValueRef<'_>) -> Result<T, Fault> {
    let all = bytes(&value, &["JSONB", "JSON"])?;
    // `jsonb` is sent as a version byte, 1, and text; `json` as text, which cannot begin with that byte.
    let text = all.strip_prefix(&[1]).unwrap_or(all);
    Ok(serde_json::from_slice(text)?)
}

fn sqlite_json<T: DeserializeOwned>(value: SqliteValueRef<'_>) -> Result<T, Fault> {
    Ok(serde_json::from_str(stored(value, &["TEXT"])?)?)
}
