//! `authservice healthcheck`: what a container's health check and a deployment's test ask, in an image that has no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use clap::Args;
use hyper::StatusCode;
use serde_json::Value;
use url::Url;

use super::{Error, say};
use crate::client::{self, Answer};
use crate::config::{Config, Server};

/// What every metadata path begins with (RFC 8615).
const WELL_KNOWN: &str = "/.well-known/";

/// Ask a server how it is: exit 0 when it is well, 1 when it is not
#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    /// Ask whether the process answers, not whether it is ready for requests
    #[arg(long, conflicts_with = "url")]
    live: bool,
    /// Ask for this discovery document instead: it must name the issuer, and its JWK Set must hold a key
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// The issuer that the document must name, when it is not the one of this configuration
    #[arg(long, value_name = "ISSUER", requires = "url")]
    issuer: Option<String>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

impl Healthcheck {
    pub(super) async fn run(self, config: &Config) -> Result<(), Error> {
        let seconds = self.timeout;
        let asked = tokio::time::timeout(Duration::from_secs(seconds), self.ask(&config.server)).await;
        say(&asked.unwrap_or_else(|_| Err(Error::Unhealthy(format!("no answer within {seconds} s"))))?);
        Ok(())
    }

    async fn ask(self, server: &Server) -> Result<String, Error> {
        match self.url {
            Some(url) => discovery(&url, &self.issuer.unwrap_or_else(|| server.issuer())).await,
            None if self.live => probe(&own(server, "live")?, "live").await,
            None => probe(&own(server, "ready")?, "ready").await,
        }
    }
}

/// The probe of the server that runs with this configuration.
fn own(server: &Server, probe: &str) -> Result<Url, Error> {
    let port = server.port;
    if port == 0 {
        return Err(Error::Configuration("server.port is 0: nobody but the server knows its port".to_owned()));
    }
    let host = match server.host.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => server.host.clone(),
    };
    Url::parse(&format!("http://{host}:{port}/health/{probe}"))
        .map_err(|fault| Error::Configuration(format!("server.host: {fault}")))
}

async fn probe(url: &Url, name: &str) -> Result<String, Error> {
    let Answer { status, body, .. } = get(url).await?;
    if status == StatusCode::OK {
        return Ok(name.to_owned());
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let failed: Vec<&str> = body["checks"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(check, is_fine)| (is_fine == false).then_some(check.as_str()))
        .collect();
    let failed = if failed.is_empty() { String::new() } else { format!(": {} failed", failed.join(", ")) };
    Err(Error::Unhealthy(format!("not {name}: {url} answered {}{failed}", status.as_u16())))
}

/// Checks a discovery document as a client does (RFC 8414 3.3, OpenID Connect Discovery 4.3), and that there is a key to verify with.
async fn discovery(url: &Url, issuer: &str) -> Result<String, Error> {
    let document = json(url).await?;
    if document["issuer"] != issuer {
        let theirs = document["issuer"].to_string();
        return Err(Error::Unhealthy(format!("{url} names the issuer {theirs}, not {issuer:?}")));
    }
    let named = document["jwks_uri"].as_str().unwrap_or_default();
    let jwks = beside(url, issuer, named)
        .ok_or_else(|| Error::Unhealthy(format!("{url} names the JWK Set {named:?}, which is no URL")))?;
    match json(&jwks).await?["keys"].as_array().map_or(0, Vec::len) {
        0 => Err(Error::Unhealthy(format!("{jwks} holds no key"))),
        keys => Ok(format!("issuer {issuer}, {keys} key(s)")),
    }
}

/// Where the JWK Set is on the server that was asked, which may not reach its own public address: what precedes the document's
/// well-known path stands for the issuer.
fn beside(url: &Url, issuer: &str, jwks_uri: &str) -> Option<Url> {
    let public = Url::parse(jwks_uri).ok()?;
    let path = jwks_uri.strip_prefix(issuer).filter(|path| path.starts_with('/'));
    if let (Some((base, _)), Some(path)) = (url.as_str().split_once(WELL_KNOWN), path) {
        return Url::parse(&format!("{base}{path}")).ok();
    }
    let mut own = url.clone();
    own.set_path(public.path());
    own.set_query(public.query());
    Some(own)
}

async fn json(url: &Url) -> Result<Value, Error> {
    let Answer { status, body, .. } = get(url).await?;
    if status != StatusCode::OK {
        return Err(Error::Unhealthy(format!("{url} answered {}", status.as_u16())));
    }
    serde_json::from_slice(&body).map_err(|_| Error::Unhealthy(format!("{url} answered something that is not JSON")))
}

async fn get(url: &Url) -> Result<Answer, Error> {
    client::get(url).await.map_err(|error| match error {
        client::Error::Scheme => Error::Input(format!("{url}: {error}")),
        client::Error::Failed(_) => Error::Unhealthy(format!("{url}: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jwk_set_is_asked_of_the_server_that_was_named() {
        let document = "/.well-known/openid-configuration";
        let rows = [
            ("at the root", "http://svc:9998", "https://a.example", "https://a.example/keys", "http://svc:9998/keys"),
            (
                "a proxy strips the path",
                "http://svc",
                "https://a.example/id",
                "https://a.example/id/keys",
                "http://svc/keys",
            ),
            (
                "a proxy is asked",
                "http://svc/id",
                "https://a.example/id",
                "https://a.example/id/keys",
                "http://svc/id/keys",
            ),
            ("elsewhere", "http://svc", "https://a.example", "https://keys.example/set?v=1", "http://svc/set?v=1"),
            ("a longer host", "http://svc", "https://a.example", "https://a.example.org/keys", "http://svc/keys"),
        ];
        for (name, base, issuer, jwks_uri, expected) in rows {
            let url = Url::parse(&format!("{base}{document}")).expect("a URL");
            assert_eq!(beside(&url, issuer, jwks_uri).map(String::from).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(beside(&Url::parse("http://svc/").expect("a URL"), "https://a.example", "keys"), None);
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_the_loopback_address() {
        let rows =
            [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::2", "[::2]"), ("10.1.2.3", "10.1.2.3"), ("a.b", "a.b")];
        let mut server = Config::load(None, &std::collections::BTreeMap::new()).expect("defaults").server;
        for (host, expected) in rows {
            host.clone_into(&mut server.host);
            assert_eq!(own(&server, "live").expect("a URL").as_str(), format!("http://{expected}:9998/health/live"));
        }
    }
}
