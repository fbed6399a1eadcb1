//! Compression by zstd, brotli or gzip, as `Accept-Encoding` has it (RFC 9110, 12.5.3): bodies over 1,024 bytes, of types that shrink.
//!
//! `x-no-compression` opts out. Answers that hold a secret ([`Never`]) are not compressed: next to input that an attacker chooses, their length would
//! tell the secret (BREACH).

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{self, HeaderValue};
use http::{Method, Request};
use http_body_util::BodyExt;
use tower::Service;
use tower_http::compression::Compression;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use super::{Layer, Outgoing};
use crate::context::Context;

/// Up to this a body fits into a packet as it is: nothing is gained by making it smaller.
const PLAIN_BYTES_MAX: u64 = 1024;

/// A coding of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    /// In our order: among equals the one that costs us least for what it gains.
    pub(crate) const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// As fields name it (RFC 9110, 8.4.1; RFC 8878, RFC 7932).
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Marks an answer, in its extensions, that must not be compressed because it holds a secret.
#[derive(Debug, Clone, Copy)]
pub struct Never;

/// The layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compress;

/// A request whose client accepts a coding.
#[derive(Debug)]
pub struct Wish(Option<Arc<Context>>);

impl Layer for Compress {
    type Visit = Wish;

    fn request(&self, _: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Wish> {
        // It is weighed only when there is an answer worth it: most are too small.
        ControlFlow::Continue(Wish(context.accept_encoding.is_some().then(|| context.clone())))
    }

    fn answer(&self, Wish(context): Wish, answer: &mut Outgoing) {
        let response = answer.response_mut();
        let Some((context, accepted)) = context.as_ref().and_then(|context| Some((context, context.accept_encoding.as_ref()?))) else { return };
        // It came in a coding already: an output that is kept, a file that is stored so.
        if response.headers().contains_key(header::CONTENT_ENCODING) {
            return;
        }
        if context.method == Method::HEAD {
            if let Some(coding) = coding(accepted) {
                describe_get(response, coding);
            }
        } else if Worthwhile.should_compress(response)
            && let Some(coding) = coding(accepted)
        {
            compress(response, coding);
        }
    }
}

/// Hands the answer to the library's service, as one that is there already. It gets one coding, chosen here: it would answer 406 to `identity;q=0`, and a
/// 406 helps nobody.
fn compress(response: &mut Response, coding: Coding) {
    let mut answer = Some(std::mem::take(response));
    let inner = tower::service_fn(move |_: Request<Body>| std::future::ready(Ok::<_, Infallible>(answer.take().unwrap_or_default())));
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding.as_str()));
    // Ready at the first poll, because what is inside is.
    if let Some(Ok(compressed)) = Compression::new(inner).compress_when(Worthwhile).call(request).now_or_never() {
        *response = compressed.map(Body::new);
        name_coding(response, coding);
    }
}

/// Another coding is another representation, and its entity tag another one (RFC 9110, 8.8.3.3): `"x"` becomes `"x-gzip"`.
fn name_coding(response: &mut Response, coding: Coding) {
    let Some(plain) = response.headers().get(header::ETAG) else { return };
    let tag = plain.as_bytes().strip_suffix(b"\"").map(|open| [open, b"-", coding.as_str().as_bytes(), b"\""].concat());
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_bytes(&tag).ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
}

/// The coding in which the answer to this request would leave, if it is worth it: for who keeps answers in codings of their own.
pub(crate) fn wished(context: &Context) -> Option<Coding> {
    coding(context.accept_encoding.as_ref()?)
}

/// Would an answer of this type and length be compressed?
pub(crate) fn worthwhile(media: &HeaderValue, bytes: usize) -> bool {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(header::CONTENT_TYPE, media.clone());
    bytes as u64 > PLAIN_BYTES_MAX && shrinks(&response)
}

/// These bytes as they would leave in this coding, to the byte.
pub(crate) fn packed(bytes: &Bytes, media: &HeaderValue, coding: Coding) -> Option<Bytes> {
    let mut response = Response::new(Body::from(bytes.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, media.clone());
    compress(&mut response, coding);
    // Ready at the first poll: everything to be compressed is there.
    response.headers().get(header::CONTENT_ENCODING)?;
    Some(response.into_body().collect().now_or_never()?.ok()?.to_bytes())
}

/// The best coding that the client accepts.
fn coding(accepted: &HeaderValue) -> Option<Coding> {
    let accepted = accepted.to_str().ok()?;
    let quality = |name: &str| -> f32 {
        let mut any = 0.0;
        for item in accepted.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let (coding, weight) = (parts.next().unwrap_or_default(), parts.find_map(|part| part.strip_prefix("q=")));
            let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            if coding.eq_ignore_ascii_case(name) {
                return weight;
            }
            if coding == "*" {
                any = weight;
            }
        }
        any
    };
    let mut best = None;
    for coding in Coding::ALL {
        let weight = quality(coding.as_str());
        if weight > 0.0 && best.is_none_or(|(_, most)| weight > most) {
            best = Some((coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// Which answers are compressed.
#[derive(Debug, Clone, Copy)]
pub struct Worthwhile;

impl Predicate for Worthwhile {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        // `SizeAbove` means from this size on. Asked first: most answers are small.
        SizeAbove::new(PLAIN_BYTES_MAX + 1).should_compress(response) && shrinks(response)
    }
}

/// Is it of a type that shrinks, and no secret?
fn shrinks<B: http_body::Body>(response: &http::Response<B>) -> bool {
    let types = NotForContentType::IMAGES.and(NotForContentType::GRPC).and(NotForContentType::SSE);
    let media = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let svg = media.starts_with("image/svg");
    let packed = ["font/", "video/", "audio/", "application/zip", "application/gzip", "application/zstd", "application/octet-stream"];
    let shrinks = svg || (!media.is_empty() && !packed.iter().any(|prefix| media.starts_with(prefix)) && types.should_compress(response));
    shrinks && response.extensions().get::<Never>().is_none()
}

/// Gives the answer to HEAD the fields of GET: its coding, and no length, because that is known only after compressing (RFC 9110, 8.6 forbids any other).
fn describe_get(response: &mut Response, coding: Coding) {
    let headers = response.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let as_it_is = headers.contains_key(header::CONTENT_RANGE);
    if !as_it_is && length.is_none_or(|bytes| bytes > PLAIN_BYTES_MAX) && shrinks(response) {
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        name_coding(response, coding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &'static str) -> Option<&'static str> {
        coding(&HeaderValue::from_static(accept)).map(Coding::as_str)
    }

    #[test]
    fn the_clients_weights_decide_and_then_ours() {
        assert_eq!(chosen("gzip, deflate, br, zstd"), Some("zstd"));
        assert_eq!(chosen("gzip, br"), Some("br"));
        assert_eq!(chosen("gzip;q=1.0, br;q=0.5"), Some("gzip"));
        assert_eq!(chosen("*"), Some("zstd"));
        assert_eq!(chosen("zstd;q=0, *"), Some("br"));
        assert_eq!(chosen("GZIP"), Some("gzip"));
        assert_eq!(chosen("gzip;q=nonsense"), None);
        assert_eq!(chosen("identity;q=0"), None);
        assert_eq!(chosen(""), None);
    }
}
