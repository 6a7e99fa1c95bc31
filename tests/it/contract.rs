//! What is promised in writing: the OpenAPI document and its viewers, the settings and their documentation, and what is said of
//! security.
//!
//! `docs/openapi.json`, `docs/api-reference.md` and `docs/configuration.md` are generated; with `UPDATE=1` in the environment these
//! tests write them.

use std::path::Path;

mod openapi;
mod reference;
mod schemathesis;
mod security;
mod settings;
mod viewers;

/// Asserts that a generated file is current, or writes it.
fn assert_current(path: &str, content: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        std::fs::write(&file, content).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(&file).unwrap_or_default();
    let is_other = |(stored, new): (&str, &str)| stored != new;
    let first = stored.lines().zip(content.lines()).position(is_other);
    assert!(
        stored == content,
        "{path} is stale (differs at line {}): run UPDATE=1 ./scripts/test.sh --test it contract",
        first.map_or("its end".to_owned(), |line| (line + 1).to_string())
    );
}
