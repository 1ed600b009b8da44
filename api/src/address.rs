//! From where a request comes, also through proxies.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, HeaderName, request::Parts},
};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address: the peer's; or, when the peer is a proxy that is trusted, the last address
/// in `X-Forwarded-For` that is not one. Whatever stands before that, anybody can have written.
pub(crate) fn of(parts: &Parts, trusted: &[IpNet]) -> Option<IpAddr> {
    let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(through(peer.ip(), &parts.headers, trusted))
}

fn through(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| {
        let address = address.to_canonical();
        trusted.iter().any(|network| network.contains(&address))
    };
    let mut client = peer.to_canonical();
    if !is_trusted(&client) {
        return client;
    }
    let mut said: Vec<&str> = Vec::new();
    for line in headers.get_all(FORWARDED_FOR) {
        said.extend(line.to_str().unwrap_or_default().split(','));
    }
    for text in said.into_iter().rev() {
        let Some(address) = read(text.trim()) else {
            break;
        };
        client = address;
        if !is_trusted(&client) {
            break;
        }
    }
    client.to_canonical()
}

/// An address, with or without a port.
fn read(text: &str) -> Option<IpAddr> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().expect("a header"));
        }
        let trusted: Vec<IpNet> = trusted
            .iter()
            .map(|n| n.parse().expect("a network"))
            .collect();
        through(peer.parse().expect("an address"), &headers, &trusted).to_string()
    }

    #[test]
    fn only_proxies_that_are_trusted_are_believed() {
        let proxies = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(
            client("192.0.2.1", &["198.51.100.1"], &proxies),
            "192.0.2.1"
        );
        assert_eq!(client("192.0.2.1", &["198.51.100.1"], &[]), "192.0.2.1");
        assert_eq!(
            client("10.0.0.1", &["198.51.100.1"], &proxies),
            "198.51.100.1"
        );
        assert_eq!(client("10.0.0.1", &[], &proxies), "10.0.0.1");
        assert_eq!(
            client(
                "10.0.0.1",
                &["203.0.113.9, 198.51.100.1, 10.0.0.2"],
                &proxies
            ),
            "198.51.100.1",
            "what stands before it is made up"
        );
        assert_eq!(
            client("fd00::1", &["203.0.113.9", "[2001:db8::1]:443"], &proxies),
            "2001:db8::1"
        );
        assert_eq!(
            client("10.0.0.1", &["198.51.100.1, nonsense"], &proxies),
            "10.0.0.1"
        );
        assert_eq!(
            client("::ffff:10.0.0.1", &["198.51.100.1"], &proxies),
            "198.51.100.1"
        );
    }
}
