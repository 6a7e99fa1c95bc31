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
        // A stranger's bytes must not make the rest of the line unreadable.
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|hop| str::from_utf8(hop).unwrap_or("unreadable").trim())
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
    use proptest::prelude::*;

    use super::*;

    fn header(name: &'static str, value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().expect("a name"), value.try_into().expect("a value"))])
    }

    proptest! {
        /// Whatever a stranger writes, they are who they are; behind a proxy, what stands left of their address changes nothing.
        #[test]
        fn nobody_chooses_their_address(
            written in prop_oneof![
                "[0-9a-f:., \\[\\]]{0,40}".prop_map(String::into_bytes),
                prop::collection::vec(prop_oneof![0x20..=0x7e_u8, 0x80..=0xff_u8], 0..40),
            ],
            client in any::<[u8; 4]>(),
        ) {
            let proxies = ["10.0.0.0/8".parse().expect("a network")];
            let client = IpAddr::from(client);
            prop_assume!(!is_trusted(&proxies, client));

            let direct = of(&header("x-forwarded-for", &written), client, &proxies);
            prop_assert_eq!(direct.ip_address, Some(client));

            let appended = [&written[..], format!(", {client}").as_bytes()].concat();
            let proxied = of(&header("x-forwarded-for", &appended), [10, 0, 0, 1].into(), &proxies);
            prop_assert_eq!(proxied.ip_address, Some(client));
        }

        /// What is stored of a user agent is short, is text, and has no NUL, which PostgreSQL does not store.
        #[test]
        fn a_user_agent_fits(written in prop::collection::vec(0x80..=0xff_u8, 0..600)) {
            let origin = of(&header("user-agent", &written), [192, 0, 2, 1].into(), &[]);
            prop_assert!(origin.user_agent.chars().count() <= USER_AGENT_LENGTH && !origin.user_agent.contains('\0'));
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let rows: [(&str, &str, &[&str], &str); 11] = [
            ("no header", "192.0.2.1", &[], "192.0.2.1"),
            ("untrusted peer", "192.0.2.1", &["1.2.3.4"], "192.0.2.1"),
            ("trusted peer", "10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("rightmost untrusted", "10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
            ("two header lines", "10.0.0.1", &["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
            ("only proxies", "10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("rubbish", "10.0.0.1", &["6.6.6.6, unknown"], "10.0.0.1"),
            ("rubbish to the left", "10.0.0.1", &["\u{e9}, 1.2.3.4"], "1.2.3.4"),
            ("with a port", "10.0.0.1", &["1.2.3.4:555"], "1.2.3.4"),
            ("mapped", "::ffff:10.0.0.1", &["::ffff:1.2.3.4"], "1.2.3.4"),
            ("version 6 in brackets", "10.0.0.1", &["[2001:db8::2]:80"], "2001:db8::2"),
        ];
        let proxies = ["10.0.0.0/8".parse().expect("a network")];
        for (name, peer, lines, expected) in rows {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.as_bytes().try_into().expect("a header"));
            }
            let origin = of(&headers, peer.parse().expect("an address"), &proxies);
            assert_eq!(origin.ip_address.map(|address| address.to_string()).as_deref(), Some(expected), "{name}");
        }
    }
}
