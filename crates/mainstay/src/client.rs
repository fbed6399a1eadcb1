//! Which address asks: the peer's, or the one that a trusted proxy vouches for; and which addresses count as one client.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// A chain of more proxies than this is no chain of ours; what stands further left is the client's own text anyway.
const HOPS_MAX: usize = 16;

/// A list of networks.
#[derive(Debug, Clone, Default)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// These networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Is the address in one of them?
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Is the list empty?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The client's address: going from the peer leftwards through `X-Forwarded-For`, the first one that is not a trusted proxy. What stands left of
/// it is hearsay. Text that is no address ends the walk at the proxy that passed it on.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut known = peer.to_canonical();
    if trusted.is_empty() || !trusted.contain(known) {
        return known;
    }
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    // Hop by hop: what a client wrote at the left may be no text, and takes nothing from what a proxy wrote behind it.
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops.take(HOPS_MAX) {
        let Some(address) = std::str::from_utf8(hop).ok().and_then(|hop| parse(hop.trim())) else { break };
        known = address;
        if !trusted.contain(known) {
            break;
        }
    }
    known
}

/// An address, perhaps with a port, as proxies write them: `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))?;
    Some(address.to_canonical())
}

/// What counts as one client: an IPv4 address, or an IPv6 /64, which is what one customer of a provider gets (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(u128);

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => Self(address.to_bits() & !u128::from(u64::MAX)),
        }
    }
}

impl std::fmt::Display for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address().fmt(f)
    }
}

impl ClientKey {
    /// As an address, for display.
    pub fn address(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(self.0)).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn from(peer: &str, forwarded: &[&str]) -> String {
        let trusted = Networks::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let headers: HeaderMap = forwarded.iter().map(|line| (X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap())).collect();
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_stranger_cannot_name_its_own_address() {
        assert_eq!(from("203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
    }

    #[test]
    fn what_is_no_text_hides_nobody_behind_the_proxy() {
        let trusted = Networks::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let line = |bytes: &[u8]| HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_bytes(bytes).unwrap())]);
        let proxy = "10.0.0.1".parse().unwrap();
        assert_eq!(address(proxy, &line(b"\xff, 203.0.113.9"), &trusted).to_string(), "203.0.113.9");
        assert_eq!(address(proxy, &line(b"203.0.113.9, \xff"), &trusted), proxy);
    }

    #[test]
    fn behind_a_proxy_the_right_most_untrusted_address_counts() {
        assert_eq!(from("10.0.0.1", &["1.2.3.4, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(from("10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.0.0.7"]), "203.0.113.9");
        assert_eq!(from("10.0.0.1", &["6.6.6.6", "203.0.113.9"]), "203.0.113.9");
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn ports_and_brackets_are_understood_and_garbage_stops_at_the_proxy() {
        assert_eq!(from("10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(from("fd00::1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(from("10.0.0.1", &["::ffff:203.0.113.9"]), "203.0.113.9");
        for garbage in ["", "garbage", "1.2.3.4:99999", "[::1", ","] {
            assert_eq!(from("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage}");
        }
    }

    #[test]
    fn one_ipv6_network_is_one_client_and_a_mapped_address_is_its_own() {
        let key = |text: &str| ClientKey::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:198.51.100.7"), key("198.51.100.7"));
        assert_ne!(key("198.51.100.7"), key("198.51.100.8"));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_fail(lines in prop::collection::vec("[ -~]{0,80}", 0..4)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            from("10.0.0.1", &lines);
        }
    }
}
