//! Whose budget a row is: a digest, so that a row names nobody.
//!
//! The address of an account is not stored, since most that are guessed at are nobody's: lists of leaked addresses would lie in the
//! database. A key would not make the digest better: whoever reads this table reads `users.email` beside it, and where such a key
//! lay. Half of SHA-256 is enough, as a collision would only join two budgets.

use std::net::IpAddr;

use uuid::Uuid;

/// The rows that one sign-in is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subjects {
    /// The account, for whoever comes from where it is not known.
    pub(super) account: Uuid,
    /// The account at this address.
    pub(super) known: Option<Uuid>,
    /// The address.
    pub(super) address: Option<Uuid>,
}

impl Subjects {
    pub(super) fn of(account: &str, address: Option<IpAddr>) -> Self {
        let network = address.map(network);
        Self {
            account: key(&["account", account]),
            known: network.as_deref().map(|network| key(&["account at", account, network])),
            address: network.as_deref().map(|network| key(&["failures from", network])),
        }
    }
}

/// The row of registrations from an address.
pub(super) fn registrations(address: Option<IpAddr>) -> Option<Uuid> {
    address.map(|address| key(&["registrations from", &network(address)]))
}

/// The row of everybody in an hour; where settings differ they share none, since its numbers would mean something else.
pub(super) fn everybody(per_second: i64, hour: i64) -> Uuid {
    key(&["everybody", &per_second.to_string(), &hour.to_string()])
}

/// What one client can choose addresses from: of IPv6 a /64 (RFC 4291 2.5.1).
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{:x}", address.to_bits() >> 64),
    }
}

fn key(parts: &[&str]) -> Uuid {
    let digest = openssl::sha::sha256(parts.join("\0").as_bytes());
    let (half, _) = digest.split_at(16);
    Uuid::from_slice(half).unwrap_or_default()
}
