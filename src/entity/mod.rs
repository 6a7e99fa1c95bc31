//! One file per table: its shape and nothing else. Queries live in the `store.rs` of the domain that owns the table.
#![expect(missing_docs, reason = "columns are named in the migration and explained by the domain that owns them")]

pub mod audit_event;
pub mod auth_session;
pub mod rate_limit;
pub mod refresh_token;
pub mod signing_key;
pub mod user;
