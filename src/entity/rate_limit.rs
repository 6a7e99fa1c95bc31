//! Table `rate_limits`: one budget, or the address that an account is known at with its budget there.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "rate_limits")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: Uuid,
    pub user_id: Option<i64>,
    pub touched_at: ChronoDateTimeUtc,
    pub failures: i32,
    pub closed_until: ChronoDateTimeUtc,
    pub in_flight: i32,
    pub spent_until: ChronoDateTimeUtc,
    pub is_reported: bool,
    pub known_until: Option<ChronoDateTimeUtc>,
    pub expires_at: ChronoDateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
