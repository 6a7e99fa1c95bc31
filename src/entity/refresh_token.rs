//! Table `refresh_tokens`: one row per family, never one per token.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "refresh_tokens")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub family_id: Uuid,
    pub session_id: Uuid,
    pub user_id: i64,
    pub client_id: String,
    pub scope: String,
    pub generation: i64,
    pub family_secret: Vec<u8>,
    pub key_id: String,
    pub rotated_at: ChronoDateTimeUtc,
    pub idle_end: ChronoDateTimeUtc,
    pub absolute_end: ChronoDateTimeUtc,
    pub revoked_at: Option<ChronoDateTimeUtc>,
    pub revoked_reason: Option<String>,
    pub legacy_hash: Option<Vec<u8>>,
}

impl ActiveModelBehavior for ActiveModel {}
