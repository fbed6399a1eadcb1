//! The query string as a type.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::describe;
use crate::error::{Error, FieldError, codes};

/// The parameters of the query. Unknown ones are refused if the type has `#[serde(deny_unknown_fields)]`, repeated ones always, and each is named.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Error> {
    let refused = |flaw: FieldError| {
        let name: String = flaw.field.chars().take(64).collect();
        let message = if name.is_empty() { "Invalid query".to_owned() } else { format!("Query parameter `{name}` {}", flaw.message) };
        Error::new(&codes::INVALID_QUERY).with_message(message).with_fields(vec![FieldError { field: name, ..flaw }])
    };
    let mut seen = std::collections::HashSet::new();
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        if let Some(name) = seen.replace(name) {
            return Err(refused(FieldError { field: name.into_owned(), code: "duplicate_field", message: "appears more than once".to_owned() }));
        }
    }
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|error| refused(describe(error.path(), &error.inner().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        limit: Option<u32>,
        q: Option<String>,
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        for (query, field, code) in [
            ("limit=ten", "limit", "invalid_type"),
            ("limit=-1", "limit", "invalid_type"),
            ("colour=red", "colour", "unknown_field"),
            ("q=a&q=b", "q", "duplicate_field"),
            ("limit=", "limit", "invalid_type"),
        ] {
            let error = parse::<Page>(query).unwrap_err();
            assert_eq!((error.fields()[0].field.as_str(), error.fields()[0].code, error.status().as_u16()), (field, code, 400), "{query}: {error}");
            assert!(error.message().contains(field), "{error}");
        }
        let page: Page = parse("limit=5&q=a+b%20c").unwrap();
        assert_eq!((page.limit, page.q.as_deref()), (Some(5), Some("a b c")));
    }

    proptest! {
        #[test]
        fn no_query_makes_it_panic(query in ".{0,80}") {
            drop(parse::<Page>(&query));
        }
    }
}
