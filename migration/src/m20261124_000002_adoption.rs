//! What a database that is taken over from the FastAPI service needs beside the baseline: the one old token that each family
//! still accepts, and when and with which key the takeover happened.

#![expect(elided_lifetimes_in_paths, reason = "the trait of sea-orm-migration elides them")]

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, binary_null, pk_auto, string_len, timestamp_with_time_zone};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = Table::alter().table("refresh_tokens").add_column(binary_null("legacy_hash")).to_owned();
        manager.alter_table(column).await?;
        let adoptions = Table::create()
            .table("adoptions")
            .col(pk_auto("id").big_integer())
            .col(timestamp_with_time_zone("adopted_at"))
            .col(string_len("kid", 64))
            .col(big_integer("users"))
            .col(big_integer("sessions"))
            .to_owned();
        manager.create_table(adoptions).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("adoptions").to_owned()).await?;
        manager.alter_table(Table::alter().table("refresh_tokens").drop_column("legacy_hash").to_owned()).await
    }
}
