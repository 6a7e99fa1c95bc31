//! Bodies of sign-in and registration: refused as documented, and no password is echoed.
#![no_main]

use std::net::IpAddr;

use authservice::accounts::{Email, EmailError};
use authservice_fuzz::server;
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;

const ROUTES: [&str; 2] = ["/auth_api/v1/auth/login", "/auth_api/v1/users/register"];
const TYPES: [Option<&str>; 5] = [
    None,
    Some("application/json"),
    Some("application/problem+json;a=b"),
    Some("text/plain"),
    Some("application/x-www-form-urlencoded"),
];

/// A form without faults is hashed for a while, which finds nothing here.
fn is_flawless(body: &Value) -> bool {
    let is_password = |text: &str| (8..=128).contains(&text.chars().count());
    let is_email = |text: &str| !matches!(Email::parse(text), Err(EmailError::Syntax(_)));
    body["email"].as_str().is_some_and(is_email) && body["password"].as_str().is_some_and(is_password)
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((choice, body)) = data.split_first() else { return Corpus::Reject };
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    if is_flawless(&parsed) {
        return Corpus::Reject;
    }
    let route = ROUTES[usize::from(*choice) % ROUTES.len()];
    let content_type = TYPES[usize::from(*choice) / ROUTES.len() % TYPES.len()];
    let headers: Vec<(&str, &[u8])> = content_type.iter().map(|name| ("content-type", name.as_bytes())).collect();
    let Some(answer) = server().ask("POST", route, &headers, IpAddr::from([192, 0, 2, 1]), body) else {
        return Corpus::Reject;
    };
    answer.check();
    assert!([400, 413, 422].contains(&answer.status), "{} {}", answer.status, answer.body);
    if let Some(password) = parsed["password"].as_str().filter(|text| text.len() >= 12) {
        let is_shown = ["email", "full_name"].iter().any(|name| parsed[*name].to_string().contains(password));
        let is_ours = |text: &str| {
            "Input should be a valid dictionary or object to extract fields from value is not a valid".contains(text)
        };
        assert!(is_shown || is_ours(password) || !answer.body.contains(password), "{}", answer.body);
    }
    Corpus::Keep
});
