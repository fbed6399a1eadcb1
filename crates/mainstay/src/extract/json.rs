//! The body as JSON.

use axum::body::Body;
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::objects::Objects;
use super::{describe, strict};
use crate::error::{Error, codes};
use crate::stack::body_limit::fault_of;

/// A JSON body of this type. Unknown and repeated members are refused; `#[serde(deny_unknown_fields)]` on the type is what makes the former so.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        check_media_type(request.headers())?;
        let bytes = read(request.into_body()).await?;
        if bytes.is_empty() {
            return Err(Error::new(&codes::MISSING_BODY));
        }
        from_value(strict::parse(&bytes)?).map(Self)
    }
}

/// For bodies that may be left out: an empty one is none, whatever type it is said to have.
impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Option<Self>, Error> {
        let (parts, body) = request.into_parts();
        // Who says what it is is refused before it is read; who says nothing may have nothing to say.
        if parts.headers.contains_key(header::CONTENT_TYPE) {
            check_media_type(&parts.headers)?;
        }
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        check_media_type(&parts.headers)?;
        from_value(strict::parse(&bytes)?).map(Self).map(Some)
    }
}

/// A parsed document as a type.
///
/// # Errors
/// [`codes::VALIDATION_FAILED`] with the field that does not fit.
pub fn from_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(Objects(value)).map_err(|error| {
        let flaw = describe(error.path(), &error.inner().to_string());
        Error::new(&codes::VALIDATION_FAILED).with_fields(vec![flaw])
    })
}

/// The body as it came, for handlers that verify a signature over its bytes.
#[derive(Debug, Clone)]
pub struct RawBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        read(request.into_body()).await.map(Self)
    }
}

/// `application/json` or `application/*+json`, in UTF-8 (RFC 8259, 8.1 knows no other charset).
fn check_media_type(headers: &HeaderMap) -> Result<(), Error> {
    let unsupported = |message: &'static str| Err(Error::new(&codes::UNSUPPORTED_MEDIA_TYPE).with_message(message));
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return unsupported("Content-Type must be application/json");
    };
    let value = value.to_str().unwrap_or_default();
    let mut parts = value.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let json = media.eq_ignore_ascii_case("application/json") || {
        let media = media.to_ascii_lowercase();
        media.starts_with("application/") && media.ends_with("+json")
    };
    if !json {
        return unsupported("Content-Type must be application/json");
    }
    let charset = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    match charset {
        Some((_, charset)) if !charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8") => {
            unsupported("JSON is encoded in UTF-8; no other charset is supported")
        }
        _ => Ok(()),
    }
}

/// Reads a body to its end; the stack has bounded its size and its pace. One buffer, not a list of what came: chunks of a byte each would cost forty times their size.
async fn read(mut body: Body) -> Result<Bytes, Error> {
    // What is announced is believed only as far as memory is cheap; the rest has to come first.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(64 * 1024);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match fault_of(&error) {
            Some(fault) => fault.into_error(),
            // The client left, or its chunks are malformed: what follows cannot be understood.
            None => Error::new(&codes::MALFORMED_REQUEST).with_message("Request body could not be read").caused_by(error).closing(),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.is_empty() {
            // Most bodies come whole with their first piece.
            if body.is_end_stream() {
                return Ok(data);
            }
            bytes.reserve(announced.max(data.len()));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request as HttpRequest;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        name: String,
        #[serde(default)]
        size: Option<u32>,
        #[serde(default)]
        parts: Vec<Part>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Part {
        weight: f64,
    }

    async fn extract(content_type: &str, body: &'static str) -> Result<Wanted, Error> {
        let request = HttpRequest::post("/").header(header::CONTENT_TYPE, content_type).body(Body::from(body)).unwrap();
        <Json<Wanted> as FromRequest<()>>::from_request(request, &()).await.map(|Json(wanted)| wanted)
    }

    #[tokio::test]
    async fn a_body_that_may_be_left_out_is_none_or_a_whole_one() {
        let extract = async |content_type: Option<&str>, body: &'static str| {
            let mut request = HttpRequest::post("/");
            if let Some(content_type) = content_type {
                request = request.header(header::CONTENT_TYPE, content_type);
            }
            let read = <Json<Wanted> as OptionalFromRequest<()>>::from_request(request.body(Body::from(body)).unwrap(), &()).await;
            read.map(|read| read.map(|Json(wanted)| wanted.name)).map_err(|error| error.code().name)
        };
        assert_eq!(extract(None, "").await, Ok(None));
        assert_eq!(extract(Some("application/json"), "").await, Ok(None));
        assert_eq!(extract(Some("application/json"), r#"{"name":"x"}"#).await, Ok(Some("x".to_owned())));
        assert_eq!(extract(None, r#"{"name":"x"}"#).await, Err("unsupported_media_type"));
        assert_eq!(extract(Some("text/plain"), "").await, Err("unsupported_media_type"));
        assert_eq!(extract(Some("application/json"), "{").await, Err("invalid_json"));
    }

    #[tokio::test]
    async fn a_mistake_is_named_with_its_place() {
        for (body, field, code) in [
            (r#"{"name":1}"#, "name", "invalid_type"),
            (r#"{}"#, "name", "missing_field"),
            (r#"{"name":"x","colour":1}"#, "colour", "unknown_field"),
            (r#"{"name":"x","size":-1}"#, "size", "invalid_type"),
            (r#"{"name":"x","parts":[{"weight":1},{"weight":"heavy"}]}"#, "parts[1].weight", "invalid_type"),
            (r#"{"name":"x","parts":[{}]}"#, "parts[0].weight", "missing_field"),
            (r#"{"name":"x","parts":[{"weight":1,"colour":2}]}"#, "parts[0].colour", "unknown_field"),
            (r#"[]"#, "", "invalid_type"),
            (r#"["x",1,[]]"#, "", "invalid_type"),
            (r#"{"name":"x","parts":[[1.5]]}"#, "parts[0]", "invalid_type"),
            (r#"null"#, "", "invalid_type"),
        ] {
            let error = extract("application/json", body).await.unwrap_err();
            assert_eq!((error.status().as_u16(), error.fields()[0].field.as_str(), error.fields()[0].code), (400, field, code), "{body}");
            assert!(!error.fields()[0].message.contains("struct"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_fits_is_read() {
        let read = extract("application/json", r#"{"name":"x","size":null,"parts":[{"weight":1},{"weight":2.5}]}"#).await.unwrap();
        assert_eq!(read, Wanted { name: "x".to_owned(), size: None, parts: vec![Part { weight: 1.0 }, Part { weight: 2.5 }] });
    }

    #[tokio::test]
    async fn only_json_in_utf8_is_read() {
        for supported in
            ["application/json", "Application/JSON; charset=UTF-8", "application/merge-patch+json", r#"application/json;charset="utf-8""#]
        {
            assert!(extract(supported, r#"{"name":"x"}"#).await.is_ok(), "{supported}");
        }
        for unsupported in [
            "text/plain",
            "application/xml",
            "application/json; charset=utf-7",
            "application/json;charset=utf-16",
            "",
            "application/jsonx",
            "multipart/form-data",
        ] {
            assert_eq!(extract(unsupported, r#"{"name":"x"}"#).await.unwrap_err().status(), 415, "{unsupported}");
        }
        assert_eq!(extract("application/json", "").await.unwrap_err().code(), &codes::MISSING_BODY);
    }
}
