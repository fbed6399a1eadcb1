//! What several layers need of a request, worked out once at the door and handed on.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use uuid::Uuid;

use crate::client::{self, ClientKey, Networks};
use crate::error::Form;
use crate::routes::{Match, RouteTable};
use crate::serve::{HeadFault, Peer};
use crate::stack::rate_limit::window::Decision;

/// The header under which a request's id comes in and goes out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id: the caller's if it is well formed, else our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Id);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    /// 32 hexadecimal digits of our own.
    Fresh([u8; 32]),
    Given(HeaderValue),
}

impl RequestId {
    /// The id from `x-request-id` (1 to 128 letters, digits, `-`, `_`, `.`), else the trace id of `traceparent` (W3C Trace Context, 3.2), else `fresh`.
    fn from_fields(fields: &Fields<'_>, fresh: impl FnOnce() -> u128) -> Self {
        if let Some(given) = fields.request_id.filter(|id| well_formed(id.as_bytes())) {
            return Self(Id::Given(given.clone()));
        }
        if let Some(trace) = fields.traceparent.and_then(|value| trace_id(value.as_bytes())) {
            return Self(Id::Given(HeaderValue::from_bytes(trace).unwrap_or(HeaderValue::from_static("-"))));
        }
        let mut text = [0; 32];
        Uuid::from_u128(fresh()).simple().encode_lower(&mut text);
        Self(Id::Fresh(text))
    }

    /// The id as it is logged.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Id::Fresh(text) => std::str::from_utf8(text).unwrap_or("-"),
            Id::Given(value) => value.to_str().unwrap_or("-"),
        }
    }

    /// The bytes of either.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Id::Fresh(text) => text,
            Id::Given(value) => value.as_bytes(),
        }
    }

    /// The id as it is sent.
    pub fn header(&self) -> HeaderValue {
        match &self.0 {
            Id::Fresh(text) => HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static("-")),
            Id::Given(value) => value.clone(),
        }
    }
}

fn well_formed(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The trace id of `00-<32 hex>-<16 hex>-<2 hex>`, unless it is all zeros.
fn trace_id(value: &[u8]) -> Option<&[u8]> {
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = version.len() == 2 && trace.len() == 32 && parent.len() == 16 && flags.len() == 2;
    let valid = lengths && hex(version) && hex(trace) && hex(parent) && hex(flags) && version != b"ff" && trace.iter().any(|byte| *byte != b'0');
    valid.then_some(trace)
}

/// The fields of a head that layers look at, the first of each name. Found in one pass: looked up one by one, most of them in vain, they cost four times
/// as much.
#[derive(Default)]
struct Fields<'a> {
    request_id: Option<&'a HeaderValue>,
    traceparent: Option<&'a HeaderValue>,
    accept: Option<&'a HeaderValue>,
    accept_encoding: Option<&'a HeaderValue>,
    if_none_match: Option<&'a HeaderValue>,
    origin: Option<&'a HeaderValue>,
    credentials: bool,
    no_compression: bool,
}

impl<'a> Fields<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            let found = match name.as_str() {
                "accept" => &mut fields.accept,
                "accept-encoding" => &mut fields.accept_encoding,
                "if-none-match" => &mut fields.if_none_match,
                "origin" => &mut fields.origin,
                "x-request-id" => &mut fields.request_id,
                "traceparent" => &mut fields.traceparent,
                "authorization" => {
                    fields.credentials = true;
                    continue;
                }
                // Opts out of compression.
                "x-no-compression" => {
                    fields.no_compression = true;
                    continue;
                }
                _ => continue,
            };
            found.get_or_insert(value);
        }
        fields
    }
}

/// A request's facts. One allocation, shared by the layers and the extractors.
#[derive(Debug)]
pub struct Context {
    /// The id.
    pub id: RequestId,
    /// When the head was complete.
    pub started: Instant,
    /// The client's address: the peer's, or the one a trusted proxy vouches for.
    pub client: IpAddr,
    /// What the table of routes says of the target.
    pub route: Match,
    /// The form that errors take for this client.
    pub form: Form,
    /// Does the request say who asks, truly or not? Only who does can have written anything.
    pub credentials: bool,
    /// The origin of the page that asks, if one does.
    pub origin: Option<HeaderValue>,
    /// The codings that the client accepts and wants.
    pub(crate) accept_encoding: Option<HeaderValue>,
    /// The entity tags that the client has (RFC 9110, 13.1.2).
    pub(crate) if_none_match: Option<HeaderValue>,
    /// What the transport found wrong with the head.
    pub fault: Option<HeadFault>,
    /// The method.
    pub method: Method,
    target: Option<PathAndQuery>,
    /// Nanoseconds from the start; 0 for none.
    budget_ns: AtomicU64,
    account: OnceLock<Uuid>,
    /// What all instances decided about the account of the token, before it was needed.
    counted: OnceLock<(Uuid, Decision)>,
    redis_was_late: AtomicBool,
}

impl Context {
    /// The facts of a request that begins now.
    pub(crate) fn arriving<B>(peer: &Peer, request: &Request<B>, trusted: &Networks, table: &RouteTable) -> Self {
        let headers = request.headers();
        let fields = Fields::of(headers);
        Self {
            id: RequestId::from_fields(&fields, || Uuid::new_v4().as_u128()),
            started: Instant::now(),
            client: client::address(peer.addr.ip(), headers, trusted),
            route: table.find(request.method(), request.uri().path()),
            form: Form::accepted(fields.accept),
            credentials: fields.credentials,
            origin: fields.origin.cloned(),
            accept_encoding: fields.accept_encoding.filter(|_| !fields.no_compression).cloned(),
            if_none_match: fields.if_none_match.cloned(),
            fault: peer.fault,
            method: request.method().clone(),
            target: request.uri().path_and_query().cloned(),
            budget_ns: AtomicU64::new(0),
            account: OnceLock::new(),
            counted: OnceLock::new(),
            redis_was_late: AtomicBool::new(false),
        }
    }

    /// The path that was asked for.
    pub fn path(&self) -> &str {
        self.target.as_ref().map_or("", PathAndQuery::path)
    }

    /// When the answer must be on its way. Later waits, such as the one for a database connection, end there.
    pub fn deadline(&self) -> Option<Instant> {
        let budget_ns = self.budget_ns.load(Ordering::Relaxed);
        (budget_ns > 0).then(|| self.started + Duration::from_nanos(budget_ns))
    }

    /// Sets the time from the head to the answer; 584 years at most.
    pub(crate) fn set_budget(&self, budget: Duration) {
        self.budget_ns.store(u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// Who is asking, once that is known, for the log.
    pub fn account(&self) -> Option<Uuid> {
        self.account.get().copied()
    }

    /// How this account stands with its quota, if this request was counted for it already.
    pub(crate) fn counted(&self, account: Uuid) -> Option<Decision> {
        self.counted.get().filter(|(counted, _)| *counted == account).map(|(_, decision)| *decision)
    }

    /// Notes that this request was counted for an account.
    pub(crate) fn set_counted(&self, account: Uuid, decision: Decision) {
        let _ = self.counted.set((account, decision));
    }

    /// Has this request waited in vain for Redis already? Once is enough.
    pub(crate) fn redis_was_late(&self) -> bool {
        self.redis_was_late.load(Ordering::Relaxed)
    }

    /// Notes that it has.
    pub(crate) fn set_redis_was_late(&self) {
        self.redis_was_late.store(true, Ordering::Relaxed);
    }

    /// Notes who is asking.
    pub fn set_account(&self, account: Uuid) {
        let _ = self.account.set(account);
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Context>>> = const { RefCell::new(None) };
}

/// Runs `work` as part of the request: log lines written meanwhile carry its id.
pub fn during<T>(context: &Arc<Context>, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Arc<Context>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.with(|current| *current.borrow_mut() = self.0.take());
        }
    }
    let _restore = Restore(CURRENT.with(|current| current.borrow_mut().replace(context.clone())));
    work()
}

/// The request that this thread works on at the moment.
pub fn current() -> Option<Arc<Context>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// The client of that request: whose turn it is where turns are taken.
pub fn client() -> Option<ClientKey> {
    current().map(|context| context.client.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

    fn id(pairs: &[(&'static str, &'static str)]) -> String {
        let headers = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
        RequestId::from_fields(&Fields::of(&headers), || 0xabc).as_str().to_owned()
    }

    #[test]
    fn a_well_formed_id_is_kept_and_any_other_replaced() {
        let fresh = format!("{:032x}", 0xabc);
        assert_eq!(id(&[("x-request-id", "deploy-7.a_b")]), "deploy-7.a_b");
        for wrong in ["", "a b", "a\"b", "a;b", "<script>"] {
            let headers = [(REQUEST_ID, HeaderValue::from_str(wrong).unwrap())].into_iter().collect();
            assert_eq!(RequestId::from_fields(&Fields::of(&headers), || 0xabc).as_str(), fresh, "{wrong}");
        }
        let long = [(REQUEST_ID, HeaderValue::from_str(&"a".repeat(129)).unwrap())].into_iter().collect();
        assert_eq!(RequestId::from_fields(&Fields::of(&long), || 0xabc).as_str(), fresh);
    }

    #[test]
    fn a_trace_gives_its_id() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(id(&[("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]), trace);
        assert_eq!(id(&[("x-request-id", "mine"), ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]), "mine");
        for wrong in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-short-00f067aa0ba902b7-01",
            "-",
            "",
        ] {
            let headers = [(TRACEPARENT, HeaderValue::from_str(wrong).unwrap())].into_iter().collect();
            assert_eq!(RequestId::from_fields(&Fields::of(&headers), || 0xabc).as_str(), format!("{:032x}", 0xabc), "{wrong}");
        }
    }
}
