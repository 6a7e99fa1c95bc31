//! The first schema: users, their sessions, one row per refresh family, the key ring, the audit trail.
//!
//! One schema on both engines. Times are `timestamptz` on PostgreSQL and RFC 3339 text on SQLite, cut to microseconds by the
//! server. Columns that every rotation writes (`generation`, `rotated_at`, `idle_end`) carry no index, so that PostgreSQL
//! updates them in place.

#![expect(elided_lifetimes_in_paths, reason = "the trait of sea-orm-migration elides them")]

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, binary, boolean, pk_auto, string_len, string_len_null, text, text_null,
    timestamp_with_time_zone, timestamp_with_time_zone_null, uuid, uuid_null,
};
use sea_orm_migration::sea_orm::DatabaseBackend;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [users(), auth_sessions(), refresh_tokens(), signing_keys(), audit_events()] {
            manager.create_table(table).await?;
        }
        for index in [
            index("users", "email_canonical").unique().to_owned(),
            index("users", "subject").unique().to_owned(),
            index("auth_sessions", "user_id"),
            index("refresh_tokens", "session_id"),
            index("refresh_tokens", "user_id"),
            index("audit_events", "at"),
            index("audit_events", "user_id"),
            // One signer: of each purpose, exactly one key has no planned end of signing.
            Index::create()
                .name("one_signing_key")
                .table("signing_keys")
                .col("purpose")
                .unique()
                .cond_where(Expr::col("retained_at").is_null())
                .to_owned(),
        ] {
            manager.create_index(index).await?;
        }
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            // Room on each page for the next version of a row that every rotation rewrites.
            manager.get_connection().execute_unprepared("ALTER TABLE refresh_tokens SET (fillfactor = 80)").await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["audit_events", "signing_keys", "refresh_tokens", "auth_sessions", "users"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

fn users() -> TableCreateStatement {
    Table::create()
        .table("users")
        .col(pk_auto("id").big_integer())
        .col(uuid("subject"))
        .col(string_len("email", 320))
        .col(string_len("email_canonical", 320))
        .col(string_len("hashed_password", 255))
        .col(big_integer("password_version").default(0))
        .col(string_len_null("full_name", 255))
        .col(boolean("is_superuser").default(false))
        .col(boolean("is_active").default(true))
        .col(timestamp_with_time_zone("created_at"))
        .col(timestamp_with_time_zone("updated_at"))
        .to_owned()
}

fn auth_sessions() -> TableCreateStatement {
    Table::create()
        .table("auth_sessions")
        .col(uuid("id").primary_key())
        .col(big_integer("user_id"))
        .col(string_len("user_agent", 255))
        .col(string_len_null("ip_address", 45))
        .col(timestamp_with_time_zone("created_at"))
        .col(timestamp_with_time_zone_null("revoked_at"))
        .col(string_len_null("revoked_reason", 32))
        .foreign_key(&mut cascade("auth_sessions", "user_id", "users"))
        .to_owned()
}

fn refresh_tokens() -> TableCreateStatement {
    Table::create()
        .table("refresh_tokens")
        .col(uuid("family_id").primary_key())
        .col(uuid("session_id"))
        .col(big_integer("user_id"))
        .col(string_len("client_id", 255))
        .col(string_len("scope", 1024))
        .col(big_integer("generation"))
        .col(binary("family_secret"))
        .col(string_len("key_id", 64))
        .col(timestamp_with_time_zone("rotated_at"))
        .col(timestamp_with_time_zone("idle_end"))
        .col(timestamp_with_time_zone("absolute_end"))
        .col(timestamp_with_time_zone_null("revoked_at"))
        .col(string_len_null("revoked_reason", 32))
        .foreign_key(&mut cascade("refresh_tokens", "session_id", "auth_sessions"))
        .foreign_key(&mut cascade("refresh_tokens", "user_id", "users"))
        .to_owned()
}

fn signing_keys() -> TableCreateStatement {
    Table::create()
        .table("signing_keys")
        .col(string_len("kid", 64).primary_key())
        .col(string_len("purpose", 16))
        .col(string_len("algorithm", 16))
        .col(text("public_jwk"))
        .col(binary("sealed_private"))
        .col(string_len("encryption_key_id", 64))
        .col(timestamp_with_time_zone("announced_at"))
        .col(timestamp_with_time_zone("signing_at"))
        .col(timestamp_with_time_zone_null("retained_at"))
        .col(timestamp_with_time_zone_null("unpublished_at"))
        .col(timestamp_with_time_zone_null("gone_at"))
        .to_owned()
}

/// No foreign key: what happened outlives whom it happened to.
fn audit_events() -> TableCreateStatement {
    Table::create()
        .table("audit_events")
        .col(pk_auto("id").big_integer())
        .col(timestamp_with_time_zone("at"))
        .col(string_len("event", 64))
        .col(big_integer_null("user_id"))
        .col(uuid_null("session_id"))
        .col(string_len_null("ip_address", 45))
        .col(string_len_null("user_agent", 255))
        .col(text_null("details"))
        .to_owned()
}

fn index(table: &'static str, column: &'static str) -> IndexCreateStatement {
    Index::create().name(format!("ix_{table}_{column}")).table(table).col(column).to_owned()
}

fn cascade(from: &'static str, column: &'static str, to: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .name(format!("fk_{from}_{column}"))
        .from(from, column)
        .to(to, "id")
        .on_delete(ForeignKeyAction::Cascade)
        .to_owned()
}
