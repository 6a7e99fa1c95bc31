//! Which older releases may run on this schema: one row, so that a release can be rolled back without its migrations.

#![expect(elided_lifetimes_in_paths, reason = "the trait of sea-orm-migration elides them")]

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{integer, string};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let compatibility = Table::create()
            .table("schema_compatibility")
            .col(integer("id").primary_key())
            .col(string("oldest"))
            .to_owned();
        manager.create_table(compatibility).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("schema_compatibility").to_owned()).await
    }
}
