//! Whose connection it is, where a proxy stands in between.
//!
//! It reads `X-Forwarded-For`, to which each proxy appends the address that it was connected from; so
//! only what trusted proxies appended is worth anything, and the walk is from the right. It never
//! believes anyone else: the header of a peer that is no trusted proxy is not looked at.

use std::net::{IpAddr, SocketAddr};

use hyper::header::HeaderMap;

use crate::config::Network;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Whether this is the address of a trusted proxy.
pub(crate) fn is_trusted(proxies: &[Network], address: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(address))
}

/// The address of the client behind `peer`: the rightmost that is no trusted proxy's. If all are, or
/// what the next one says is no address, it is the last one that is known.
pub(super) fn client_address(proxies: &[Network], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut known = peer;
    // A line that is no text is one item that is no address.
    let items = headers
        .get_all(FORWARDED_FOR)
        .into_iter()
        .flat_map(|line| line.to_str().unwrap_or("?").split(','));
    let mut items: Vec<&str> = items.collect();
    while is_trusted(proxies, known) {
        let Some(address) = items.pop().and_then(parse) else { break };
        known = address;
    }
    known
}

/// An address, with or without a port, as proxies write it.
fn parse(item: &str) -> Option<IpAddr> {
    let item = item.trim();
    let bare = item.strip_prefix('[').and_then(|item| item.strip_suffix(']')).unwrap_or(item);
    let with_port = || item.parse::<SocketAddr>().map(|address| address.ip());
    bare.parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        client_address(&proxies, peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_appended_counts() {
        // No proxy of ours: it may say what it likes.
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        // What the client itself sent stands to the left of what the proxy appended.
        assert_eq!(client("10.0.0.1", &["192.0.2.66, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["192.0.2.66", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.7,198.51.100.1"]), "198.51.100.1");
        // A chain of proxies.
        assert_eq!(client("10.0.0.1", &["192.0.2.66, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(client("fd00::1", &["2001:db8::5, 10.0.0.2"]), "2001:db8::5");
        assert_eq!(client("::ffff:10.0.0.1", &["2001:db8::5"]), "2001:db8::5");
        // With ports.
        assert_eq!(client("10.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::5]:4711"]), "2001:db8::5");
        assert_eq!(client("10.0.0.1", &["[2001:db8::5]"]), "2001:db8::5");
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        for nothing in
            ["", "unknown", ",", "198.51.100.1,", "198.51.100.1, _hidden", "\u{e9}", "1.2"]
        {
            assert_eq!(client("10.0.0.1", &[nothing]), "10.0.0.1", "{nothing}");
        }
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "all are trusted");
        assert_eq!(client("10.0.0.1", &["198.51.100.1, x, 10.0.0.2"]), "10.0.0.2");
    }
}
