//! From where somebody signs in: what the owner of an account reads in the list of sessions.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};

use axum::extract::FromRequestParts;
use http::header;
use http::request::Parts;
use mainstay::context;
use serde::{Deserialize, Serialize};

/// Browsers send 80 to 200; what is longer says nothing more to a person.
const USER_AGENT_CHARS_MAX: usize = 256;

/// An address and what the client calls itself. Neither proves anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The client's address, behind trusted proxies the one they vouch for.
    pub address: IpAddr,
    /// `User-Agent`, cut, without anything that does not show.
    pub user_agent: Option<String>,
}

impl Device {
    /// A client at this address that calls itself so.
    pub fn new(address: IpAddr, user_agent: &str) -> Self {
        let shown: String = user_agent.chars().filter(|c| !c.is_control()).take(USER_AGENT_CHARS_MAX).collect();
        let shown = shown.trim();
        Self { address: address.to_canonical(), user_agent: (!shown.is_empty()).then(|| shown.to_owned()) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Device {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Outside of the stack, where nobody knows the address, it is that of nobody.
        let address = context::current().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |context| context.client);
        let user_agent = parts.headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
        Ok(Self::new(address, &user_agent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_calls_itself_is_cut_and_shows() {
        let device = |user_agent: &str| Device::new("::ffff:192.0.2.1".parse().unwrap(), user_agent);
        assert_eq!(device("curl/8.0"), Device { address: "192.0.2.1".parse().unwrap(), user_agent: Some("curl/8.0".to_owned()) });
        assert_eq!(device("").user_agent, None);
        assert_eq!(device(" \u{0}\r\n\t ").user_agent, None);
        assert_eq!(device("a\u{1b}[31mb").user_agent.as_deref(), Some("a[31mb"));
        assert_eq!(device(&"é".repeat(1000)).user_agent.unwrap().chars().count(), 256);
    }
}
