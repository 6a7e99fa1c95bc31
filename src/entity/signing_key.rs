//! Table `signing_keys`: the key ring, private halves sealed.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "signing_keys")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub kid: String,
    pub purpose: String,
    pub algorithm: String,
    pub public_jwk: String,
    pub sealed_private: Vec<u8>,
    pub encryption_key_id: String,
    pub announced_at: ChronoDateTimeUtc,
    pub signing_at: ChronoDateTimeUtc,
    pub retained_at: Option<ChronoDateTimeUtc>,
    pub unpublished_at: Option<ChronoDateTimeUtc>,
    pub gone_at: Option<ChronoDateTimeUtc>,
    pub is_imported: bool,
    pub revoked_at: Option<ChronoDateTimeUtc>,
}

impl ActiveModelBehavior for ActiveModel {}
