//! An answer as the bytes that leave, in every coding that somebody has asked for.

use std::sync::OnceLock;

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, Result, codes};
use crate::stack::compress::{self, Coding};

/// A body, and the fields that belong to it.
#[derive(Debug)]
pub struct Output {
    pub(super) media: HeaderValue,
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
    pub(super) plain: Bytes,
    /// Does it leave in a coding, if the client takes one?
    shrinks: bool,
    /// The entity tags, of the plain body and of its codings.
    tags: [HeaderValue; 4],
    /// By [`Coding`], each made when it is first asked for.
    packed: [OnceLock<Option<Bytes>>; 3],
}

/// The largest body that is packed here, in one go on the request's own thread: a millisecond or two. The compression layer packs larger ones piece by piece.
const PACKED_BYTES_MAX: usize = 256 * 1024;

/// It is the same for everybody, so anybody may keep it, and asks whether it still is before giving it on (RFC 9111, 5.2.2.4).
const SHARED: HeaderValue = HeaderValue::from_static("public, no-cache");

/// Of the SHA-256 of a body, in its entity tag: nobody finds two bodies of one tag in 2^64 tries.
const TAG_BYTES: usize = 16;

impl Output {
    /// This value as JSON.
    ///
    /// # Errors
    /// When it cannot be written as JSON: a map with keys that are no texts.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        let bytes = serde_json::to_vec(value).map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?;
        Ok(Self::new(HeaderValue::from_static("application/json"), bytes.into()))
    }

    /// These bytes, of this type. Its strong entity tag is made of the bytes, so it is the same on every instance, and a client that has it is told so
    /// (`If-None-Match`, RFC 9110, 13.1.2).
    pub fn new(media: HeaderValue, plain: Bytes) -> Self {
        let shrinks = compress::worthwhile(&media, plain.len());
        let tag = URL_SAFE_NO_PAD.encode(&digest(&SHA256, &plain).as_ref()[..TAG_BYTES]);
        // Letters, digits, `-` and `_` in quotes: always a value of a field.
        let field = |text: String| HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        let of = |coding: Coding| field(format!("\"{tag}-{}\"", coding.as_str()));
        let tags = [field(format!("\"{tag}\"")), of(Coding::Zstd), of(Coding::Brotli), of(Coding::Gzip)];
        Self { media, fields: Vec::new(), plain, shrinks, tags, packed: Default::default() }
    }

    /// With another field.
    #[must_use]
    pub fn with_field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    /// Bytes held, in all codings that are there.
    pub(super) fn bytes(&self) -> usize {
        let packed = self.packed.iter().filter_map(|packed| packed.get()?.as_ref().map(Bytes::len));
        let fields = self.fields.iter().map(|(name, value)| name.as_str().len() + value.len());
        let tags = self.tags.iter().map(HeaderValue::len);
        self.plain.len() + packed.chain(fields).chain(tags).sum::<usize>()
    }

    /// Makes sure that it is there in this coding, if it is worth it. Was it made now?
    pub(super) fn pack(&self, coding: Option<Coding>) -> bool {
        let Some(coding) = coding.filter(|_| self.shrinks && self.plain.len() <= PACKED_BYTES_MAX) else { return false };
        let mut made = false;
        // Who asks for the same coding meanwhile waits here: a millisecond or two at most, for which it would else have its own core busy with the same.
        self.packed[coding as usize].get_or_init(|| {
            made = true;
            compress::packed(&self.plain, &self.media, coding)
        });
        made
    }

    /// The answer to `request`, in this coding if it is [there](Self::pack).
    pub(crate) fn respond(&self, coding: Option<Coding>, request: Option<&Context>) -> Response {
        // Three codings, three places.
        let packed = coding.and_then(|coding| Some((coding, self.packed[coding as usize].get()?.clone()?)));
        let has = request.is_some_and(|request| matches!(request.method, Method::GET | Method::HEAD) && self.is_known_to(request));
        let mut response = match &packed {
            _ if has => Response::new(Body::empty()),
            Some((_, bytes)) => Response::new(Body::from(bytes.clone())),
            None => Response::new(Body::from(self.plain.clone())),
        };
        // What is not packed here may be on its way out, and then the layer that does it says so in the tag. There is nothing to pack in a 304.
        let tagged = if has { coding.filter(|_| self.shrinks) } else { packed.as_ref().map(|(coding, _)| *coding) };
        let tag = &self.tags[tagged.map_or(0, |coding| 1 + coding as usize)];
        let headers = response.headers_mut();
        headers.insert(header::ETAG, tag.clone());
        headers.insert(header::CACHE_CONTROL, SHARED);
        if self.shrinks {
            // Whatever coding this one has: who keeps it must know that another client would get another (RFC 9110, 12.5.5).
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if has {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(header::CONTENT_TYPE, self.media.clone());
        if let Some((coding, _)) = packed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        }
        headers.extend(self.fields.iter().cloned());
        response
    }

    /// Has the client this body already, in any coding? The comparison is the weak one, as RFC 9110, 13.1.2 has it.
    fn is_known_to(&self, request: &Context) -> bool {
        let Some(Ok(listed)) = request.if_none_match.as_ref().map(HeaderValue::to_str) else { return false };
        listed
            .split(',')
            .map(str::trim)
            .any(|listed| listed == "*" || self.tags.iter().any(|tag| listed.strip_prefix("W/").unwrap_or(listed).as_bytes() == tag.as_bytes()))
    }
}
