//! The one parameter of a path.

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use uuid::Uuid;

use crate::error::{Error, codes};

/// A kind of id that stands in a path.
pub trait PathId: Sized {
    /// What a client is told of a malformed one: `Invalid user ID format`.
    const INVALID: &'static str;

    /// The id, if the text is one.
    fn parse(text: &str) -> Option<Self>;
}

/// The id in the path.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: PathId, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let invalid = || Error::new(&codes::INVALID_PATH).with_message(T::INVALID);
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|rejection| invalid().caused_by(rejection))?;
        let (name, text) = params.iter().next().ok_or_else(invalid)?;
        T::parse(text).map(Self).ok_or_else(|| invalid().with_field(name, "invalid_format", "must be a UUID, version 4"))
    }
}

/// A UUID of version 4 in its one canonical form with hyphens (RFC 9562, 4 and 5.4).
pub fn parse_uuid_v4(text: &str) -> Option<Uuid> {
    // The library also reads braces, URNs and bare hexadecimals: four spellings of one id are three too many.
    let id = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()?;
    (id.get_version_num() == 4 && id.get_variant() == uuid::Variant::RFC4122).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_form() {
        assert!(parse_uuid_v4("3f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e").is_some());
        for wrong in [
            "3f2c1b9e8a474c6d9e215b7f0a1c2d3e",
            "{3f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e}",
            "3f2c1b9e-8a47-1c6d-9e21-5b7f0a1c2d3e",
            "3f2c1b9e-8a47-4c6d-1e21-5b7f0a1c2d3e",
            "00000000-0000-0000-0000-000000000000",
            "1",
            "",
            "' OR ''='",
        ] {
            assert_eq!(parse_uuid_v4(wrong), None, "{wrong}");
        }
    }
}
