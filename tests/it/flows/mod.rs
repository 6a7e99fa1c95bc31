//! Stories that need more than one endpoint: the life of a refresh token, its races, its forgeries, and the promises of the
//! service that this one replaces.

use authservice::entity::{audit_event, refresh_token};
use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Pair, TestApp, claims};

mod broken_promises;
mod forgeries;
mod hang_up;
mod model;
mod opaque;
mod outage;
mod races;
mod refresh;
mod sweep;
mod upkeep;

const ALICE: &str = "alice@example.com";

/// A claim that is a UUID.
fn uuid(token: &str, claim: &str) -> Uuid {
    claims(token)[claim].as_str().unwrap().parse().unwrap()
}

/// A time of an answer.
fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

/// The row of a refresh token's family. Two reads that are equal: nothing was done to the family.
async fn family(app: &TestApp, token: &str) -> refresh_token::Model {
    let query = refresh_token::Entity::find_by_id(uuid(token, "fam"));
    query.one(app.app.db.reader()).await.unwrap().unwrap()
}

/// Every family's row, to see that nothing was done to any.
async fn families(app: &TestApp) -> Vec<refresh_token::Model> {
    let query = refresh_token::Entity::find().order_by_asc(refresh_token::Column::FamilyId);
    query.all(app.app.db.reader()).await.unwrap()
}

/// The audit rows of one kind of event, oldest first.
async fn events(app: &TestApp, name: &str) -> Vec<audit_event::Model> {
    let query = audit_event::Entity::find().filter(audit_event::Column::Event.eq(name));
    query.all(app.app.db.reader()).await.unwrap()
}

/// Asserts that neither token of the pair works, and why the session ended.
async fn is_over(app: &TestApp, pair: &Pair, reason: &str) {
    app.refresh(&pair.refresh).await.refused(401, "refresh_reuse_detected");
    app.me(&pair.access).await.refused(401, "invalid_token");
    assert_eq!(family(app, &pair.refresh).await.revoked_reason.as_deref(), Some(reason));
}
