//! `X-Forwarded-For`: the client's address never comes from somebody who is not trusted. Each line of the input is one field.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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

/// Walks from the right: everything before the address that was found is a trusted proxy that can be read, and nothing trusted was passed over.
fn vouched_for(found: IpAddr, proxy: IpAddr, lines: &HeaderMap, trusted: &Networks) {
    // What is no text cannot be read as an address; beyond its own hop that means nothing.
    let lines: Vec<_> = lines.get_all(FORWARDED).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    let all = lines.join(",");
    let mut vouched = vec![proxy];
    for hop in all.rsplit(',').map(str::trim).take(16) {
        let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
        let Some(address) = bare.parse().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip())) else { break };
        vouched.push(address.to_canonical());
        if !trusted.contain(address) {
            break;
        }
    }
    assert_eq!(Some(&found), vouched.last(), "{all:?}");
    assert!(vouched.iter().rev().skip(1).all(|address| trusted.contain(*address)), "somebody who is not trusted was believed: {all:?}");
}
