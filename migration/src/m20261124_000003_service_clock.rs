//! When the service was last seen up, and its last outage: one row, so that an outage does not make honest clients thieves.

#![expect(elided_lifetimes_in_paths, reason = "the trait of sea-orm-migration elides them")]

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{integer, timestamp_with_time_zone, timestamp_with_time_zone_null};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let clock = Table::create()
            .table("service_clock")
            .col(integer("id").primary_key())
            .col(timestamp_with_time_zone("seen_at"))
            .col(timestamp_with_time_zone_null("down_from"))
            .col(timestamp_with_time_zone_null("recovered_at"))
            .to_owned();
        manager.create_table(clock).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("service_clock").to_owned()).await
    }
}
