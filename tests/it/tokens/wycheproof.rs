//! Project Wycheproof's tokens, each sent to every endpoint that takes one. `src/tokens/wycheproof.rs` judges their signatures.

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::Value;

use super::Forge;
use crate::support::{Answer, Engine};

const FILES: [(&str, usize); 3] = [
    (include_str!("../wycheproof/json_web_signature_test.json"), 401),
    (include_str!("../wycheproof/json_web_crypto_test.json"), 83),
    (include_str!("../wycheproof/json_web_key_test.json"), 26),
];

/// Each token, with the name of its vector. JSON serializations (RFC 7515 7.2) are sent as they are.
fn tokens() -> Vec<(String, String)> {
    let mut tokens = Vec::new();
    for (file, count) in FILES {
        let file: Value = serde_json::from_str(file).unwrap();
        let groups = file["testGroups"].as_array().unwrap().iter();
        let of_file: Vec<_> = groups
            .flat_map(|group| group["tests"].as_array().unwrap())
            .map(|vector| {
                let token = vector.get("jws").unwrap_or(&vector["jwe"]);
                let token = token.as_str().map_or_else(|| token.to_string(), str::to_owned);
                (format!("{} {}", vector["tcId"], vector["comment"]), token)
            })
            .collect();
        assert_eq!(of_file.len(), count);
        tokens.extend(of_file);
    }
    tokens
}

/// RFC 7515 5.2, RFC 8725 3.1: none is a token of ours, valid as it may be. None is trouble either, and none touches a session.
#[tokio::test]
async fn no_token_of_wycheproof_is_taken() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let mut faults = Vec::new();
        for (name, token) in tokens() {
            // What no header can hold never arrives.
            let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}")) else {
                faults.push(format!("{name}: cannot be sent"));
                continue;
            };
            // Only the blank behind `Bearer` is left of an empty one, and HTTP drops it.
            let code = if token.trim().is_empty() { "not_authenticated" } else { "invalid_token" };
            for (method, path) in
                [(Method::GET, "users/me"), (Method::POST, "auth/refresh"), (Method::POST, "auth/logout")]
            {
                let answer = Answer::of(forge.app.request(method, path).header(AUTHORIZATION, value.clone())).await;
                if (answer.status, answer.code().as_str()) != (401, code) {
                    faults.push(format!("{name} at {path}: {answer:?}"));
                }
            }
        }
        forge.finish(faults).await;
    }
}
