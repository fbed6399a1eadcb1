//! An answer as the bytes that leave, in every coding that somebody has asked for.

use std::sync::OnceLock;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use serde::Serialize;

use crate::error::{Error, Result, codes};
use crate::stack::compress::{self, Coding};

/// A body, and the fields that belong to it.
#[derive(Debug)]
pub struct Output {
    media: HeaderValue,
    fields: Vec<(HeaderName, HeaderValue)>,
    pub(super) plain: Bytes,
    packable: bool,
    /// By [`Coding`], each made when it is first asked for.
    packed: [OnceLock<Option<Bytes>>; 3],
}

/// The largest body that is packed here, in one go on the request's own thread: a millisecond or two. The compression layer packs larger ones piece by piece.
const PACKED_BYTES_MAX: usize = 256 * 1024;

impl Output {
    /// This value as JSON.
    ///
    /// # Errors
    /// When it cannot be written as JSON: a map with keys that are no texts.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        let bytes = serde_json::to_vec(value).map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?;
        Ok(Self::new(HeaderValue::from_static("application/json"), bytes.into()))
    }

    /// These bytes, of this type.
    pub fn new(media: HeaderValue, plain: Bytes) -> Self {
        let packable = plain.len() <= PACKED_BYTES_MAX && compress::worthwhile(&media, plain.len());
        Self { media, fields: Vec::new(), plain, packable, packed: Default::default() }
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
        self.plain.len() + packed.chain(fields).sum::<usize>()
    }

    /// Makes sure that it is there in this coding, if it is worth it. Was it made now?
    pub(super) fn pack(&self, coding: Option<Coding>) -> bool {
        let Some(coding) = coding.filter(|_| self.packable) else { return false };
        let mut made = false;
        // Who asks for the same coding meanwhile waits here: a millisecond or two at most, for which it would else have its own core busy with the same.
        self.packed[coding as usize].get_or_init(|| {
            made = true;
            compress::packed(&self.plain, &self.media, coding)
        });
        made
    }

    /// The answer, in this coding if it is [there](Self::pack).
    pub(super) fn respond(&self, coding: Option<Coding>) -> Response {
        // Three codings, three places.
        let packed = coding.and_then(|coding| Some((coding, self.packed[coding as usize].get()?.clone()?)));
        let mut response = Response::new(Body::from(packed.as_ref().map_or_else(|| self.plain.clone(), |(_, bytes)| bytes.clone())));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.media.clone());
        if self.packable {
            // Whatever coding this one has: who keeps it must know that another client would get another (RFC 9110, 12.5.5).
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if let Some((coding, _)) = packed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        }
        headers.extend(self.fields.iter().cloned());
        response
    }
}
