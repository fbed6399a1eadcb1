//! `X-Forwarded-For`: the client's address never comes from somebody who is not trusted. Each line of the input is one field.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName};
use mainstay::client::{ClientKey, Networks, address};

use crate::input::fields;

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

pub(crate) fn run(data: &[u8]) {
    let trusted = Networks::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    let lines: HeaderMap = fields(&FORWARDED, data.split(|byte| *byte == b'\n'));
    let stranger = IpAddr::from(Ipv4Addr::new(203, 0, 113, 9));
    assert_eq!(address(stranger, &lines, &trusted), stranger, "a stranger chose its address");
    let proxy = IpAddr::from(Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(address(proxy, &lines, &Networks::default()), proxy, "nobody is trusted, and yet somebody was believed");
    let found = address(proxy, &lines, &trusted);
    vouched_for(found, proxy, &lines, &trusted);
    let key = ClientKey::from(found);
    assert_eq!(ClientKey::from(key.address()), key);
    assert_eq!(key.to_string().parse::<IpAddr>().unwrap().to_canonical(), key.address());
}

/// Walks from the right: everything before the address that was found must be a trusted proxy that can be read.
fn vouched_for(found: IpAddr, proxy: IpAddr, lines: &HeaderMap, trusted: &Networks) {
    let lines: Vec<_> = lines.get_all(FORWARDED).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect();
    let all = lines.join(",");
    let mut last = proxy;
    for hop in all.rsplit(',').take(16) {
        if last == found && !trusted.contain(found) {
            return;
        }
        assert!(trusted.contain(last), "{last} was believed: {all:?}");
        let hop = hop.trim();
        let bare = hop.trim_start_matches('[').split(']').next().unwrap_or_default();
        let without_port = hop.rsplit_once(':').map_or(hop, |(host, _)| host);
        let Some(address) = [bare, without_port].into_iter().find_map(|text| text.parse::<IpAddr>().ok()) else { break };
        if last == found && !all.is_ascii() {
            // A line that is no text is not read at all.
            return;
        }
        last = address.to_canonical();
        if last == found {
            return;
        }
    }
    assert_eq!(found, last, "{all:?}");
}
