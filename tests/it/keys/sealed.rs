//! Private halves at rest: rows that cannot be opened, and one key-encryption key after the other.

use authservice::app::App;
use authservice::clock::Clock as _;
use authservice::entity::signing_key::Model;
use authservice::keys::{Purpose, Resealed, SealedBy};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::TimeDelta;

use super::{Place, damage, maker, operator};
use crate::support::{Engine, each_engine_with};

const ALGORITHM: (&str, &str) = ("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA");
const CURRENT: &str = "AUTHSERVICE__KEYS__ENCRYPTION_KEY";
const PREVIOUS: &str = "AUTHSERVICE__KEYS__PREVIOUS_ENCRYPTION_KEY";

fn encryption_key(word: &str) -> String {
    BASE64_STANDARD.encode(openssl::sha::sha256(word.as_bytes()))
}

/// Says that another key-encryption key sealed the row.
async fn estrange(place: &Place, kid: &str) {
    use sea_orm::ConnectionTrait as _;
    let sql = format!("UPDATE signing_keys SET encryption_key_id = 'foreign' WHERE kid = '{kid}'");
    place.db().await.writer().execute_unprepared(&sql).await.unwrap();
}

fn of(rows: &[Model], kid: &str) -> Model {
    rows.iter().find(|row| row.kid == kid).unwrap().clone()
}

async fn state(app: &App, kid: &str) -> (bool, SealedBy) {
    let listed = operator(app).list(app.clock.now()).await.unwrap();
    let one = listed.into_iter().find(|one| one.key.kid == kid).unwrap();
    (one.is_usable, one.sealed_by)
}

/// The only key of a purpose is damaged: a new one makes tokens at once, and the broken one gets its end.
#[tokio::test]
async fn a_damaged_newest_key_is_replaced() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        for purpose in Purpose::ALL {
            let place = Place::new(engine).await;
            let broken = maker(&place.open(&[ALGORITHM]).await.unwrap(), purpose);
            damage(&place.db().await, &broken).await;
            place.advance(1);

            let app = place.open(&[ALGORITHM]).await.unwrap();

            assert_ne!(maker(&app, purpose), broken);
            assert_eq!(state(&app, &broken).await, (false, SealedBy::Current));
            let row = of(&place.rows().await, &broken);
            assert_eq!(row.retained_at, Some(place.clock.now()));
            assert!(row.gone_at.is_some());
            let again = place.open(&[ALGORITHM]).await.unwrap();
            assert_eq!(maker(&again, purpose), maker(&app, purpose), "once");
        }
    }
}

/// An announced key that is damaged leaves the one that signs alone, and another is announced in its time.
#[tokio::test]
async fn a_damaged_announced_key_is_dismissed() {
    each_engine_with(&[ALGORITHM, ("AUTHSERVICE__KEYS__ROTATE_AFTER_SECONDS", "3600")], async |app| {
        app.alice().await;
        let first = maker(&app.app, Purpose::Signing);
        app.advance(TimeDelta::seconds(3600 - 660));
        app.app.keyring.upkeep(app.now()).await.unwrap();
        let announced = app.app.keyring.signer(app.now() + TimeDelta::seconds(660)).unwrap().kid.clone();
        damage(&app.app.db, &announced).await;
        app.advance(TimeDelta::seconds(60));

        // A running server notices too.
        app.app.keyring.upkeep(app.now()).await.unwrap();

        assert_eq!(maker(&app.app, Purpose::Signing), first);
        let next = app.app.keyring.signer(app.now() + TimeDelta::seconds(660)).unwrap().kid.clone();
        assert!(next != announced && next != first);
        app.advance(TimeDelta::seconds(659));
        assert_eq!(maker(&app.app, Purpose::Signing), first);
        app.advance(TimeDelta::seconds(1));
        let pair = app.sign_in("alice@example.com").await;
        assert_eq!(maker(&app.app, Purpose::Signing), next);
        let replica = app.another_replica().await;
        assert_eq!(replica.me(&pair.access).await.status, 200);
    })
    .await;
}

/// Whatever lies broken behind the newest keys stops nobody, and tells its kid.
#[tokio::test]
async fn rows_that_cannot_be_opened_do_not_stop_the_others() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let app = place.open(&[ALGORITHM]).await.unwrap();
        let mut old = Vec::new();
        for _ in 0..2 {
            old.push(maker(&app, Purpose::Signing));
            operator(&app).rotate(Purpose::Signing, true, place.clock.now()).await.unwrap();
            assert!(app.keyring.poll(place.clock.now()).await);
        }
        let newest = maker(&app, Purpose::Signing);
        damage(&place.db().await, &old[0]).await;
        estrange(&place, &old[1]).await;
        let rows = place.rows().await;

        let app = place.open(&[ALGORITHM]).await.unwrap();
        app.keyring.upkeep(place.clock.now()).await.unwrap();

        assert_eq!(maker(&app, Purpose::Signing), newest);
        assert_eq!(place.rows().await, rows, "nothing is changed");
        assert_eq!(state(&app, &old[0]).await, (false, SealedBy::Current));
        assert_eq!(state(&app, &old[1]).await, (false, SealedBy::Unknown));
        assert!(app.keyring.find(&old[0], place.clock.now()).await.unwrap().is_none());
    }
}

/// A newest key that others may be able to open is not ours to replace: the start is refused, changes nothing, and names the way out.
#[tokio::test]
async fn a_foreign_newest_key_stops_the_start_until_it_is_revoked() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        for purpose in Purpose::ALL {
            let place = Place::new(engine).await;
            let running = place.open(&[ALGORITHM]).await.unwrap();
            let foreign = maker(&running, purpose);
            estrange(&place, &foreign).await;
            let rows = place.rows().await;

            let refusal = place.refusal(&[ALGORITHM]).await;

            assert!(refusal.contains(&foreign) && refusal.contains("keys.previous_encryption_key"), "{refusal}");
            running.keyring.upkeep(place.clock.now()).await.unwrap();
            assert_eq!(place.rows().await, rows);
            assert_eq!(maker(&running, purpose), foreign, "a running server goes on with what it has opened");

            operator(&running).revoke(&foreign, place.clock.now()).await.unwrap();
            assert_ne!(maker(&place.open(&[ALGORITHM]).await.unwrap(), purpose), foreign);
        }
    }
}

/// Nothing opens: damaged or foreign, the start is refused and changes nothing. When the key-encryption key is lost, every key is revoked.
#[tokio::test]
async fn a_ring_of_which_nothing_opens_is_left_alone() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let app = place.open(&[ALGORITHM, (CURRENT, &encryption_key("lost"))]).await.unwrap();
        let rows = place.rows().await;

        let other = [ALGORITHM, (CURRENT, &encryption_key("other"))];
        let refusal = place.refusal(&other).await;
        assert!(refusal.contains("nothing was changed"), "{refusal}");
        assert_eq!(place.rows().await, rows);

        let operator = authservice::keys::Management::new(app.db.clone(), &place.config(&other)).unwrap();
        for purpose in Purpose::ALL {
            operator.rotate(purpose, true, place.clock.now()).await.unwrap_err();
        }
        operator.reseal(place.clock.now()).await.unwrap_err();
        assert_eq!(place.rows().await, rows);
        for row in &rows {
            operator.revoke(&row.kid, place.clock.now()).await.unwrap();
        }
        assert_eq!(place.rows().await.len(), 2, "no key was sealed that nobody might open");
        let app = place.open(&other).await.unwrap();
        assert!(rows.iter().all(|row| row.kid != maker(&app, Purpose::Signing)));

        for row in place.rows().await.iter().filter(|row| row.revoked_at.is_none()) {
            damage(&place.db().await, &row.kid).await;
        }
        let rows = place.rows().await;
        let refusal = place.refusal(&other).await;
        assert!(refusal.contains("damaged") && refusal.contains("nothing was changed"), "{refusal}");
        assert_eq!(place.rows().await, rows);
    }
}

/// The documented order: both everywhere with the old one in use, then the new one in use, then reseal, then drop the old one. No
/// replica of two neighbouring steps is without a key at any time.
#[tokio::test]
async fn one_key_encryption_key_succeeds_the_other() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let (old, new) = (encryption_key("old"), encryption_key("new"));
        let only_old = [ALGORITHM, (CURRENT, old.as_str())];
        let first_step = [ALGORITHM, (CURRENT, old.as_str()), (PREVIOUS, new.as_str())];
        let second_step = [ALGORITHM, (CURRENT, new.as_str()), (PREVIOUS, old.as_str())];
        let only_new = [ALGORITHM, (CURRENT, new.as_str())];
        let late = place.open(&only_old).await.unwrap();
        let signer = maker(&late, Purpose::Signing);
        let first = place.open(&first_step).await.unwrap();
        let second = place.open(&second_step).await.unwrap();
        let now = place.clock.now();

        // A key that the new one sealed.
        operator(&second).rotate(Purpose::Signing, true, now).await.unwrap();
        for app in [&first, &second, &late] {
            assert!(app.keyring.poll(now).await);
        }
        let next = maker(&second, Purpose::Signing);
        assert_eq!(maker(&first, Purpose::Signing), next, "a replica of the first step opens it");
        assert_eq!(state(&second, &signer).await, (true, SealedBy::Previous));
        assert_eq!(state(&second, &next).await, (true, SealedBy::Current));

        // A replica that was forgotten fights nobody.
        let rows = place.rows().await;
        late.keyring.upkeep(now).await.unwrap();
        assert_eq!(place.rows().await, rows);
        assert!(late.keyring.signer(now).is_err(), "it is not ready any more");

        assert_eq!(
            operator(&second).reseal(now).await.unwrap(),
            Resealed { resealed: 2, current: 1, unopened: vec![] }
        );
        assert_eq!(
            operator(&second).reseal(now).await.unwrap(),
            Resealed { resealed: 0, current: 3, unopened: vec![] }
        );
        let last = place.open(&only_new).await.unwrap();
        for app in [&first, &second, &last] {
            assert!(app.keyring.poll(now).await);
            assert_eq!(maker(app, Purpose::Signing), next);
            assert!(app.keyring.find(&signer, now).await.unwrap().is_some(), "retained");
        }
        assert_eq!(state(&last, &signer).await, (true, SealedBy::Current));
        place.refusal(&only_old).await.find("nothing was changed").unwrap();
        let events = "SELECT COUNT(*) FROM audit_events WHERE event = 'keys_resealed'";
        assert_eq!(count(&place, events).await, 1);
    }
}

async fn count(place: &Place, sql: &str) -> i64 {
    use sea_orm::{ConnectionTrait as _, Statement};
    let db = place.db().await;
    let statement = Statement::from_string(db.writer().get_database_backend(), sql);
    db.writer().query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// A mix-up of the two settings is a fault that names both and quotes neither.
#[tokio::test]
async fn the_same_key_twice_is_a_mistake() {
    let key = encryption_key("one");
    let environment = [(CURRENT, key.as_str()), (PREVIOUS, key.as_str())];
    let environment = environment.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    let faults = authservice::config::Config::load(None, &environment).unwrap_err().to_string();
    assert!(faults.contains("keys.previous_encryption_key") && faults.contains("keys.encryption_key"), "{faults}");
    assert!(!faults.contains(&key), "{faults}");

    // Also when one of them lies in its file.
    let place = Place::new(Engine::Sqlite).await;
    place.put("encryption.key", &key, 0o600);
    let refusal = place.refusal(&[(PREVIOUS, &key)]).await;
    assert!(refusal.contains("keys.previous_encryption_key") && !refusal.contains(&key), "{refusal}");
    assert!(place.rows().await.is_empty());
}
