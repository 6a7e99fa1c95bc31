//! What cannot be told does not happen: an event is written in the transaction of what it tells.

use authservice::accounts::Email;
use authservice::entity::{audit_event, auth_session, refresh_token, signing_key, user};
use authservice::keys::{Management, Purpose};
use reqwest::Method;
use sea_orm::{EntityTrait as _, QueryOrder as _};
use serde_json::json;

use crate::support::{Answer, Engine, PASSWORD, TestApp, claims, each_engine_with};

const ALICE: &str = "alice@example.com";

/// Every table that events speak of.
#[derive(Debug, PartialEq)]
struct Tables {
    users: Vec<user::Model>,
    sessions: Vec<auth_session::Model>,
    families: Vec<refresh_token::Model>,
    keys: Vec<signing_key::Model>,
    events: Vec<audit_event::Model>,
}

async fn tables(app: &TestApp) -> Tables {
    let db = app.app.db.writer();
    Tables {
        users: user::Entity::find().order_by_asc(user::Column::Id).all(db).await.unwrap(),
        sessions: auth_session::Entity::find().order_by_asc(auth_session::Column::Id).all(db).await.unwrap(),
        families: refresh_token::Entity::find().order_by_asc(refresh_token::Column::FamilyId).all(db).await.unwrap(),
        keys: signing_key::Entity::find().order_by_asc(signing_key::Column::Kid).all(db).await.unwrap(),
        events: audit_event::Entity::find().order_by_asc(audit_event::Column::Id).all(db).await.unwrap(),
    }
}

/// No event can be written any more.
async fn break_the_trail(app: &TestApp) {
    app.sql(match app.engine {
        Engine::Sqlite => {
            "CREATE TRIGGER broken BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'the trail is broken'); END"
        }
        Engine::Postgres => {
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''the trail is broken''; END'; \
             CREATE TRIGGER broken BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION broken()"
        }
    })
    .await;
}

async fn mend_the_trail(app: &TestApp) {
    app.sql(match app.engine {
        Engine::Sqlite => "DROP TRIGGER broken",
        Engine::Postgres => "DROP TRIGGER broken ON audit_events",
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_told_does_not_happen() {
    let settings = [("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA"), ("AUTHSERVICE__REFRESH__MAX_SESSIONS_PER_USER", "2")];
    each_engine_with(&settings, async |app| {
        let pair = app.alice().await;
        let stolen = app.sign_in(ALICE).await;
        let next = app.refresh(&stolen.refresh).await.pair();
        let newest = app.refresh(&next.refresh).await.pair();
        let session = claims(&pair.access)["sid"].as_str().unwrap().to_owned();
        let (accounts, email) = (app.app.accounts.management(), Email::parse(ALICE).unwrap());
        let keys = Management::new(app.app.db.clone(), &app.app.config).unwrap();
        let signer = app.app.keyring.signer(app.now()).unwrap().kid.clone();
        let before = tables(&app).await;
        break_the_trail(&app).await;

        let credentials = json!({"email": ALICE, "password": PASSWORD});
        let newcomer = json!({"email": "bob@example.com", "password": PASSWORD});
        let answers = [
            ("register", app.post("users/register", &newcomer).await),
            ("sign-in", app.post("auth/login", &credentials).await),
            ("logout", app.logout(&pair.refresh).await),
            ("end one", app.with_token(Method::DELETE, &format!("auth/sessions/{session}"), &newest.access).await),
            ("logout everywhere", app.with_token(Method::POST, "auth/logout-all", &pair.access).await),
            ("theft", app.refresh(&stolen.refresh).await),
        ];
        for (name, answer) in answers {
            assert_eq!(answer.status, 503, "{name}: {answer:?}");
        }
        accounts.set_active(&email, false, app.now()).await.unwrap_err();
        accounts.set_password(&email, "An0ther!Passphrase".into(), app.now()).await.unwrap_err();
        keys.rotate(Purpose::Signing, false, app.now()).await.unwrap_err();
        keys.revoke(&signer, app.now()).await.unwrap_err();

        assert_eq!(tables(&app).await, before);
        mend_the_trail(&app).await;
        app.refresh(&stolen.refresh).await.refused(401, "refresh_reuse_detected");
        app.me(&newest.access).await.refused(401, "invalid_token");
        assert_eq!(app.me(&pair.access).await.status, 200);
        assert_eq!(tables(&app).await.events.len(), before.events.len() + 1);
    })
    .await;
}

/// The one exception: nobody is logged out because a retry could not be noted.
#[tokio::test]
async fn a_retry_is_answered_also_when_it_cannot_be_told() {
    each_engine_with(&[], async |app| {
        let pair = app.alice().await;
        let next = app.refresh(&pair.refresh).await.pair();
        break_the_trail(&app).await;

        let elsewhere = app.request(Method::POST, "auth/refresh").bearer_auth(&pair.refresh).header("user-agent", "x");

        assert_eq!(Answer::of(elsewhere).await.pair().refresh, next.refresh);
    })
    .await;
}
