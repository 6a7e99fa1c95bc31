//! One file per table: its shape and nothing else. Queries live in the `store.rs` of the domain that owns the table.
#![expect(missing_docs, reason = "columns are named in the migration and explained by the domain that owns them")]

pub mod audit_event;
pub mod auth_session;
pub mod rate_limit;
pub mod refresh_token;
pub mod signing_key;
pub mod user;

/// Every table that a backup holds, each after those that it refers to.
pub const TABLES: [&str; 8] = [
    "users",
    "auth_sessions",
    "refresh_tokens",
    "signing_keys",
    "rate_limits",
    "audit_events",
    "adoptions",
    "service_clock",
];
/// The other tables of this schema, which tell of the database itself: a restore makes them anew.
pub const MADE_ANEW: [&str; 3] = [MIGRATIONS, "schema_compatibility", "database_identity"];
/// The migrator's.
pub(crate) const MIGRATIONS: &str = "seaql_migrations";
