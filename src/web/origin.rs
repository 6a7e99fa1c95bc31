//! Who asks: the client's address and user agent.

use std::net::IpAddr;

use ipnet::IpNet;
use poem::http::{HeaderMap, header};

use crate::audit::Origin;

/// Longest user agent that is kept, in characters.
const USER_AGENT_LENGTH: usize = 255;

/// True when the peer's word about other addresses counts.
pub(crate) fn is_trusted(proxies: &[IpNet], address: IpAddr) -> bool {
    proxies.iter().any(|net| net.contains(&address))
}

/// Describes the client behind a connection from `peer`.
pub(crate) fn of(headers: &HeaderMap, peer: IpAddr, proxies: &[IpNet]) -> Origin {
    Origin { ip_address: Some(client_address(headers, peer, proxies)), user_agent: user_agent(headers) }
}

/// The rightmost address of X-Forwarded-For that is not a trusted proxy; the peer when it is not one itself. An entry that is no
/// address ends the walk: what a stranger wrote is left of it.
fn client_address(headers: &HeaderMap, peer: IpAddr, proxies: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    let hops: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("unreadable").split(','))
        .map(str::trim)
        .collect();
    for hop in hops.iter().rev() {
        if !is_trusted(proxies, client) {
            return client;
        }
        let Some(address) = address(hop) else { return client };
        client = address;
    }
    client
}

/// An address, perhaps with a port, perhaps in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let parsed = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<std::net::SocketAddr>().map(|address| address.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse());
    parsed.ok().map(|address| address.to_canonical())
}

/// The seed reads the bytes as Latin-1 and cuts them at 255 characters; absent is empty.
fn user_agent(headers: &HeaderMap) -> String {
    let bytes = headers.get(header::USER_AGENT).map(poem::http::HeaderValue::as_bytes).unwrap_or_default();
    bytes
        .iter()
        .take(USER_AGENT_LENGTH)
        .map(|byte| char::from(*byte))
        .map(|c| if c == '\0' { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let rows: [(&str, &str, &[&str], &str); 10] = [
            ("no header", "192.0.2.1", &[], "192.0.2.1"),
            ("untrusted peer", "192.0.2.1", &["1.2.3.4"], "192.0.2.1"),
            ("trusted peer", "10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("rightmost untrusted", "10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
            ("two header lines", "10.0.0.1", &["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
            ("only proxies", "10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("rubbish", "10.0.0.1", &["6.6.6.6, unknown"], "10.0.0.1"),
            ("with a port", "10.0.0.1", &["1.2.3.4:555"], "1.2.3.4"),
            ("mapped", "::ffff:10.0.0.1", &["::ffff:1.2.3.4"], "1.2.3.4"),
            ("version 6 in brackets", "10.0.0.1", &["[2001:db8::2]:80"], "2001:db8::2"),
        ];
        let proxies = ["10.0.0.0/8".parse().expect("a network")];
        for (name, peer, lines, expected) in rows {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().expect("a header"));
            }
            let origin = of(&headers, peer.parse().expect("an address"), &proxies);
            assert_eq!(origin.ip_address.map(|address| address.to_string()).as_deref(), Some(expected), "{name}");
        }
    }
}
