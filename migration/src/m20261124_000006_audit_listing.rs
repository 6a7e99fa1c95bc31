//! Indexes by which audit events are listed, newest first: of a user, of a session, of one kind. The baseline's index of times serves
//! the list of all, and their deletion.

#![expect(elided_lifetimes_in_paths, reason = "the trait of sea-orm-migration elides them")]

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLE: &str = "audit_events";
const BY_USER: &str = "ix_audit_events_user_id";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_index(Index::drop().name(BY_USER).table(TABLE).to_owned()).await?;
        for column in ["user_id", "session_id", "event"] {
            let index = Index::create().name(name(column)).table(TABLE).col(column).col("at").to_owned();
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["user_id", "session_id", "event"] {
            manager.drop_index(Index::drop().name(name(column)).table(TABLE).to_owned()).await?;
        }
        manager.create_index(Index::create().name(BY_USER).table(TABLE).col("user_id").to_owned()).await
    }
}

fn name(column: &str) -> String {
    format!("ix_{TABLE}_{column}_at")
}
