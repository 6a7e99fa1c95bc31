//! A database URL with several hosts.

/// The same URL once for each host that it names, as libpq has it (PostgreSQL's manual, 34.1.1.3); without `target_session_attrs`,
/// which the driver does not know: a server that takes writes is always meant.
pub(crate) fn each_host(url: &str) -> Vec<String> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !is_target(pair)).collect();
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    let Some((scheme, rest)) = address.split_once("://") else { return vec![url.to_owned()] };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let at = if authority.contains('@') { "@" } else { "" };
    hosts.split(',').map(|host| format!("{scheme}://{user}{at}{host}{path}{query}")).collect()
}

fn is_target(pair: &str) -> bool {
    pair.starts_with("target_session_attrs=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_several_hosts_is_one_url_for_each() {
        let rows: [(&str, &[&str]); 6] = [
            ("postgres://a:b@one:1/db", &["postgres://a:b@one:1/db"]),
            ("postgres://one/db?sslmode=require", &["postgres://one/db?sslmode=require"]),
            ("postgres://a:b@one:1,two:2/db", &["postgres://a:b@one:1/db", "postgres://a:b@two:2/db"]),
            (
                "postgres://one,[::1]:2/db?target_session_attrs=read-write&sslmode=require",
                &["postgres://one/db?sslmode=require", "postgres://[::1]:2/db?sslmode=require"],
            ),
            ("postgres://a:b%2Cc@one,two", &["postgres://a:b%2Cc@one", "postgres://a:b%2Cc@two"]),
            ("postgres://one/db?target_session_attrs=primary", &["postgres://one/db"]),
        ];
        for (url, expected) in rows {
            assert_eq!(each_host(url), expected, "{url}");
        }
    }
}
