//! What the database is known by, so that a restored one is noticed: one row, which the first server writes.

#![expect(elided_lifetimes_in_paths, reason = "the trait of sea-orm-migration elides them")]

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, integer, text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let identity = Table::create()
            .table("database_identity")
            .col(integer("id").primary_key())
            .col(big_integer("epoch"))
            .col(text("identity"))
            .col(big_integer("stamp"))
            .to_owned();
        manager.create_table(identity).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("database_identity").to_owned()).await
    }
}
