//! Every event is written when its time has come, and its row has what docs/audit.md promises.

use std::collections::BTreeSet;

use authservice::accounts::Email;
use authservice::entity::{audit_event, signing_key};
use authservice::keys::{Management, Purpose, Succeeded};
use authservice::random;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, sea_query::Expr};

use super::page::assert_documented;
use crate::support::{Answer, TestApp, each_engine_with};

const ALICE: &str = "alice@example.com";

/// Every row, oldest first.
async fn rows(app: &TestApp) -> Vec<audit_event::Model> {
    audit_event::Entity::find().order_by_asc(audit_event::Column::Id).all(app.app.db.writer()).await.unwrap()
}

/// Names, and who did it if it was no request, in order; the keys of the start are left out.
fn told(rows: &[audit_event::Model]) -> Vec<(String, String)> {
    let by = |details: Option<&str>| {
        let details: serde_json::Value = serde_json::from_str(details.unwrap_or("{}")).unwrap();
        details["by"].as_str().unwrap_or_default().to_owned()
    };
    rows.iter().map(|row| (row.event.clone(), by(row.details.as_deref()))).collect()
}

async fn assert_told(app: &TestApp, seen: &mut usize, expected: &[(&str, &str)]) {
    let rows = rows(app).await;
    rows[*seen..].iter().for_each(assert_documented);
    let told = told(&rows[*seen..]);
    let told: Vec<(&str, &str)> = told.iter().map(|(name, by)| (name.as_str(), by.as_str())).collect();
    assert_eq!(told, expected);
    *seen = rows.len();
}

#[tokio::test]
async fn what_users_do_is_told() {
    each_engine_with(&[("AUTHSERVICE__REFRESH__MAX_SESSIONS_PER_USER", "1")], async |app| {
        let mut seen = rows(&app).await.len();
        let first = app.alice().await;
        assert_told(&app, &mut seen, &[("user_registered", ""), ("signed_in", "")]).await;

        assert_eq!(app.logout(&first.refresh).await.status, 204);
        assert_eq!(app.logout(&first.refresh).await.status, 204);
        assert_told(&app, &mut seen, &[("logged_out", "")]).await;

        app.sign_in(ALICE).await;
        let pair = app.sign_in(ALICE).await;
        assert_told(&app, &mut seen, &[("signed_in", ""), ("session_cap_reached", ""), ("signed_in", "")]).await;

        let next = app.refresh(&pair.refresh).await.pair();
        app.refresh(&pair.refresh).await.pair();
        let elsewhere = app.request(Method::POST, "auth/refresh").bearer_auth(&pair.refresh).header("user-agent", "x");
        Answer::of(elsewhere).await.pair();
        assert_told(&app, &mut seen, &[("refresh_retry", "")]).await;

        app.refresh(&next.refresh).await.pair();
        app.refresh(&pair.refresh).await.refused(401, "refresh_reuse_detected");
        assert_told(&app, &mut seen, &[("refresh_reuse", "")]).await;

        let pair = app.sign_in(ALICE).await;
        let next = app.refresh(&pair.refresh).await.pair();
        app.sql("UPDATE refresh_tokens SET generation = 0").await;
        assert_eq!(app.refresh(&next.refresh).await.status, 401);
        assert_told(&app, &mut seen, &[("signed_in", ""), ("refresh_from_the_future", "")]).await;

        let pair = app.sign_in(ALICE).await;
        assert_eq!(app.with_token(Method::POST, "auth/logout-all", &pair.access).await.status, 204);
        assert_told(&app, &mut seen, &[("signed_in", ""), ("logged_out_everywhere", "")]).await;
    })
    .await;
}

#[tokio::test]
async fn what_operators_do_to_users_is_told_and_by_whom() {
    each_engine_with(&[], async |app| {
        app.register(ALICE).await;
        let mut seen = rows(&app).await.len();
        let (operator, alice) = (app.app.accounts.management(), Email::parse(ALICE).unwrap());

        operator.set_active(&alice, false, app.now()).await.unwrap();
        operator.set_active(&alice, false, app.now()).await.unwrap();
        operator.set_active(&alice, true, app.now()).await.unwrap();
        operator.set_password(&alice, "An0ther!Passphrase".into(), app.now()).await.unwrap();

        let by_operator = ["user_deactivated", "user_activated", "password_set"].map(|name| (name, "operator"));
        assert_told(&app, &mut seen, &by_operator).await;
        let ids: BTreeSet<_> = rows(&app).await.into_iter().map(|row| row.user_id).collect();
        assert!(ids.len() == 2 && ids.contains(&None), "keys, and alice: {ids:?}");
    })
    .await;
}

#[tokio::test]
async fn what_becomes_of_keys_is_told_and_by_whom() {
    let old = BASE64_STANDARD.encode(random::bytes::<32>().unwrap());
    let settings = [("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA"), ("AUTHSERVICE__KEYS__ENCRYPTION_KEY", old.as_str())];
    each_engine_with(&settings, async |app| {
        let mut seen = 0;
        assert_told(&app, &mut seen, &[("key_added", "server"), ("key_added", "server")]).await;
        let operator = Management::new(app.app.db.clone(), &app.app.config).unwrap();
        let first = app.app.keyring.signer(app.now()).unwrap().kid.clone();

        let announced = operator.rotate(Purpose::Signing, false, app.now()).await.unwrap();
        assert_told(&app, &mut seen, &[("key_added", "operator")]).await;

        let Succeeded::By { kid, .. } = announced else { panic!("{announced:?}") };
        damage(&app, &kid).await;
        app.app.keyring.upkeep(app.now()).await.unwrap();
        app.app.keyring.upkeep(app.now()).await.unwrap();
        assert_told(&app, &mut seen, &[("key_dismissed", "server"), ("key_forgotten", "server")]).await;

        operator.rotate(Purpose::Signing, false, app.now()).await.unwrap();
        operator.rotate(Purpose::Signing, false, app.now()).await.unwrap();
        operator.rotate(Purpose::Signing, true, app.now()).await.unwrap();
        assert_told(&app, &mut seen, &[("key_added", "operator"), ("key_brought_forward", "operator")]).await;

        operator.revoke(&first, app.now()).await.unwrap();
        operator.revoke(&first, app.now()).await.unwrap();
        app.app.keyring.upkeep(app.now()).await.unwrap();
        assert_told(&app, &mut seen, &[("key_revoked", "operator")]).await;

        let mut config = app.app.config.clone();
        let new = BASE64_STANDARD.encode(random::bytes::<32>().unwrap());
        config.keys.previous_encryption_key = std::mem::replace(&mut config.keys.encryption_key, new.into());
        let operator = Management::new(app.app.db.clone(), &config).unwrap();
        operator.reseal(app.now()).await.unwrap();
        operator.reseal(app.now()).await.unwrap();
        assert_told(&app, &mut seen, &[("keys_resealed", "operator")]).await;
    })
    .await;
}

/// Makes a sealed key one that nobody can open.
async fn damage(app: &TestApp, kid: &str) {
    let query = signing_key::Entity::update_many()
        .col_expr(signing_key::Column::SealedPrivate, Expr::value(vec![1_u8; 64]))
        .filter(signing_key::Column::Kid.eq(kid));
    assert_eq!(query.exec(app.app.db.writer()).await.unwrap().rows_affected, 1);
}
