//! What the key ring remembers of keys that are gone: a key that was revoked, or that came from a file which may still lie there,
//! leaves its kid behind, so that it never comes back.

#![expect(elided_lifetimes_in_paths, reason = "the trait of sea-orm-migration elides them")]

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{boolean, timestamp_with_time_zone_null};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [boolean("is_imported").default(false).to_owned(), timestamp_with_time_zone_null("revoked_at")] {
            manager.alter_table(Table::alter().table("signing_keys").add_column(column).to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["revoked_at", "is_imported"] {
            manager.alter_table(Table::alter().table("signing_keys").drop_column(column).to_owned()).await?;
        }
        Ok(())
    }
}
