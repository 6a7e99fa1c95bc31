//! Budgets of sign-in and registration, shared by all replicas, and the addresses that an account is known at.

#![expect(elided_lifetimes_in_paths, reason = "the trait of sea-orm-migration elides them")]

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer_null, boolean, integer, timestamp_with_time_zone, timestamp_with_time_zone_null, uuid,
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut owner = ForeignKey::create()
            .name("fk_rate_limits_user_id")
            .from("rate_limits", "user_id")
            .to("users", "id")
            .on_delete(ForeignKeyAction::Cascade)
            .to_owned();
        let rate_limits = Table::create()
            .table("rate_limits")
            .col(uuid("key").primary_key())
            .col(big_integer_null("user_id"))
            .col(timestamp_with_time_zone("touched_at"))
            .col(integer("failures"))
            .col(timestamp_with_time_zone("closed_until"))
            .col(integer("in_flight"))
            .col(timestamp_with_time_zone("spent_until"))
            .col(boolean("is_reported"))
            .col(timestamp_with_time_zone_null("known_until"))
            .col(timestamp_with_time_zone("expires_at"))
            .foreign_key(&mut owner)
            .to_owned();
        manager.create_table(rate_limits).await?;
        for column in ["user_id", "expires_at"] {
            let index =
                Index::create().name(format!("ix_rate_limits_{column}")).table("rate_limits").col(column).to_owned();
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("rate_limits").to_owned()).await
    }
}
