//! The check of the public address, as a client sees it: its metadata, its keys, its certificate.

use chrono::TimeDelta;
use hyper::StatusCode;
use serde_json::Value;
use url::Url;

use super::{Checked, Patient, Verdict, fail, keys, ok, warn};
use crate::client::{self, Answer};

/// A certificate that ends sooner should have been renewed.
const SOON: TimeDelta = TimeDelta::days(14);

/// Discovery as a client does it (OpenID Connect Discovery 4.3, RFC 8414 3.3), and the keys of the database in its JWK Set.
pub(super) async fn issuer(patient: &Patient<'_>) -> Checked {
    let issuer = patient.config.server.issuer();
    let address = format!("{issuer}/.well-known/openid-configuration");
    let (document, answer) = json(&address).await?;
    if document["issuer"] != issuer.as_str() {
        return Ok(fail(
            format!("{address} names the issuer {}", document["issuer"]),
            format!("let the address lead to this service, or set server.issuer; it is {issuer} here"),
        ));
    }
    let jwks = document["jwks_uri"].as_str().unwrap_or_default().to_owned();
    let (set, _) = json(&jwks).await?;
    let theirs: Vec<&str> =
        set["keys"].as_array().into_iter().flatten().filter_map(|key| key["kid"].as_str()).collect();
    let until = match answer.certificate_end {
        None => String::new(),
        Some(end) if end - patient.now < SOON => {
            return Ok(warn(
                format!("the certificate of {issuer} ends at {end}"),
                "renew it, and find out why that did not happen by itself",
            ));
        }
        Some(end) => format!("; its certificate is good for {} days", (end - patient.now).num_days()),
    };
    let Ok(ours) = keys::published(patient) else {
        return Ok(ok(format!("{issuer} answers with {} key(s){until}", theirs.len())));
    };
    let missing: Vec<&str> = ours.iter().map(String::as_str).filter(|kid| !theirs.contains(kid)).collect();
    if missing.is_empty() && theirs.len() == ours.len() {
        return Ok(ok(format!("{issuer} answers with the {} key(s) of this database{until}", ours.len())));
    }
    Ok(fail(
        format!(
            "{jwks} holds {} key(s), and not the {} of this database{}",
            theirs.len(),
            ours.len(),
            if missing.is_empty() { String::new() } else { format!(": {} missing", missing.join(", ")) }
        ),
        "a cache, or a server with another database, answers there",
    ))
}

async fn json(address: &str) -> Result<(Value, Answer), Verdict> {
    let url = Url::parse(address).map_err(|error| fail(format!("{address}: {error}"), "correct server.issuer"))?;
    let answer = client::get(&url).await.map_err(|error| {
        let curl = format!("start the server; if it runs, see from here: curl -v {address}");
        let message = format!("{address}: {error}");
        // Verifiers fetch the keys there: who cannot is down. Only that nothing listens is no fault of a server that is not started.
        if message.contains("certificate") { fail(message, curl) } else { warn(message, curl) }
    })?;
    if answer.status != StatusCode::OK {
        let message = format!("{address} answered {}", answer.status.as_u16());
        return Err(fail(message, "let the proxy forward /.well-known/ to this server"));
    }
    match serde_json::from_slice(&answer.body) {
        Ok(document) => Ok((document, answer)),
        Err(_) => Err(fail(format!("{address} answered something that is not JSON"), "something else answers there")),
    }
}
