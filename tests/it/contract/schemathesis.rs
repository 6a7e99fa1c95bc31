//! Schemathesis sends requests that it makes from the OpenAPI document, good ones and bad ones, and holds every answer against the
//! document: no 5xx, no status, media type, header or shape that is not in it.
//!
//! The run has a fixed seed. A longer one: `SCHEMATHESIS_EXAMPLES=500 ./scripts/test.sh --test it schemathesis`, with another seed
//! in `SCHEMATHESIS_SEED`.

use std::process::Command;

use crate::support::{API, TestApp, each_engine};

/// Texts of a body have rules that a schema does not tell (what an address is, what a common password is), so 422 may answer what
/// fits the schema.
const NOT_CHECKED: &str = "positive_data_acceptance";

/// This test is never left out in silence.
fn program() -> String {
    std::env::var("SCHEMATHESIS").expect("SCHEMATHESIS is not set: run the tests with scripts/test.sh")
}

async fn run(app: &TestApp, tokens: &str) {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let mut command = Command::new(program());
    command
        .args(["run", &format!("{}/openapi.json", app.base)])
        .args(["--checks", "all", "--exclude-checks", NOT_CHECKED])
        .args(["--max-examples", &setting("SCHEMATHESIS_EXAMPLES", "15")])
        .args(["--seed", &setting("SCHEMATHESIS_SEED", "1"), "--workers", "1"])
        .args(["--continue-on-failure", "--no-color", "--warnings", "off"])
        .env("SCHEMATHESIS_HOOKS", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/contract/schemathesis/hooks.py"))
        .env("SCHEMATHESIS_API", format!("{}{API}", app.base))
        .env("SCHEMATHESIS_TOKENS", tokens)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // The server is on this machine, whatever proxy the environment names.
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        // It writes what it remembers into the current folder.
        .current_dir(app.directory());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("Schemathesis does not start: {error}"));
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tokens} tokens:\n{report}");
    // It did what it was started for.
    assert!(report.contains("9 selected / 9 total"), "{report}");
    eprintln!("{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_outside_the_document() {
    each_engine(async |app| {
        for tokens in ["valid", "none"] {
            run(&app, tokens).await;
        }
    })
    .await;
}
