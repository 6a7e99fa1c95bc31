//! A key that is revoked: nobody publishes, takes or uses it any more, and it never comes back.

use authservice::clock::Clock as _;
use authservice::keys::{Purpose, Revoked};
use chrono::TimeDelta;

use super::{Place, kid, known, maker, operator, published};
use crate::support::{Engine, TestApp, each_engine_with, jwt_header};

const ALGORITHM: (&str, &str) = ("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA");
const OPAQUE: (&str, &str) = ("AUTHSERVICE__REFRESH__FORMAT", "opaque");
/// How often a server polls; asserted to be less than a second.
const POLL: TimeDelta = TimeDelta::milliseconds(500);

/// What a server does by itself as time goes on.
async fn poll(app: &TestApp) {
    assert!(authservice::keys::POLL.as_millis() <= 500, "within a second whatever a poll takes");
    app.advance(POLL);
    assert!(app.app.keyring.poll(app.now()).await);
}

/// security.md R16, RFC 7517 4.5: the old kid is unpublished and refused within a second by replicas that nobody told.
#[tokio::test]
async fn a_revoked_key_is_refused_by_every_replica() {
    each_engine_with(&[ALGORITHM], async |app| {
        let replica = app.another_replica().await;
        let pair = app.alice().await;
        let old = maker(&app.app, Purpose::Signing);

        let revoked = operator(&app.app).revoke(&old, app.now()).await.unwrap();

        poll(&replica).await;
        let Revoked::Done { successor: Some(new), purpose: Purpose::Signing, has_maker: true } = revoked else {
            panic!("{revoked:?}")
        };
        assert_eq!(published(&replica).await, [new.clone()].into());
        replica.me(&pair.access).await.refused(401, "invalid_token");
        replica.refresh(&pair.refresh).await.refused(401, "invalid_token");
        replica.logout(&pair.refresh).await.refused(401, "invalid_token");
        // Signs at once, and the replica that has not polled asks for the kid that it does not know.
        let pair = replica.sign_in("alice@example.com").await;
        assert_eq!(jwt_header(&pair.access)["kid"], new.as_str());
        assert_eq!(app.me(&pair.access).await.status, 200);
        app.refresh(&pair.refresh).await.pair();

        assert_eq!(operator(&app.app).revoke(&old, app.now()).await.unwrap(), Revoked::Already);
        let unknown = operator(&app.app).revoke("nothing", app.now()).await.unwrap_err();
        assert!(unknown.to_string().contains("nothing"), "{unknown}");
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE event = 'key_revoked'").await, 1);
        let sealed = format!("SELECT COUNT(*) FROM signing_keys WHERE kid = '{old}' AND length(sealed_private) = 0");
        assert_eq!(app.count(&sealed).await, 1, "its private half is forgotten at once");
        app.app.keyring.upkeep(app.now()).await.unwrap();
        assert_eq!(app.count(&sealed).await, 1, "its kid is not");
    })
    .await;
}

/// A replica that has not polled for a second reads before it signs.
#[tokio::test]
async fn a_revoked_key_signs_nothing_on_a_replica_that_did_not_poll() {
    each_engine_with(&[ALGORITHM], async |app| {
        let replica = app.another_replica().await;
        app.alice().await;
        let old = maker(&app.app, Purpose::Signing);

        operator(&app.app).revoke(&old, app.now()).await.unwrap();
        app.advance(TimeDelta::seconds(1));

        let pair = replica.sign_in("alice@example.com").await;
        assert_ne!(jwt_header(&pair.access)["kid"], old);
        assert_ne!(jwt_header(&pair.refresh)["kid"], old);
        assert_eq!(replica.me(&pair.access).await.status, 200);
    })
    .await;
}

/// refresh.md: a retry whose generation was made with a key that was revoked meanwhile gets a token by the newest.
#[tokio::test]
async fn a_retry_after_a_revocation_gets_a_token_by_the_newest_key() {
    let rows = [
        (&[ALGORITHM][..], Purpose::Signing),
        (&[ALGORITHM, OPAQUE], Purpose::Refresh),
        (&[("AUTHSERVICE__KEYS__ALGORITHM", "ES256"), OPAQUE], Purpose::Refresh),
    ];
    for (settings, purpose) in rows {
        each_engine_with(settings, async |app| {
            let first = app.alice().await;
            operator(&app.app).rotate(purpose, true, app.now()).await.unwrap();
            poll(&app).await;
            let lost = app.refresh(&first.refresh).await.pair();

            operator(&app.app).revoke(&maker(&app.app, purpose), app.now()).await.unwrap();
            poll(&app).await;

            app.refresh(&lost.refresh).await.refused(401, "invalid_token");
            let again = app.refresh(&first.refresh).await.pair();
            assert_ne!(again.refresh, lost.refresh);
            assert_eq!(
                again.refresh.starts_with("rt1."),
                purpose == Purpose::Refresh,
                "the form is that of the setting"
            );
            assert_eq!(app.refresh(&first.refresh).await.pair().refresh, again.refresh);
            app.refresh(&again.refresh).await.pair();
        })
        .await;
    }
}

/// Each place in the life of a key that may be revoked, of both purposes.
#[tokio::test]
async fn whichever_key_is_revoked_one_makes_tokens() {
    for purpose in Purpose::ALL {
        each_engine_with(&[ALGORITHM, OPAQUE], async |app| {
            let (operator, first) = (operator(&app.app), maker(&app.app, purpose));
            app.alice().await;
            let announce = async || {
                operator.rotate(purpose, false, app.now()).await.unwrap();
                poll(&app).await;
                app.app.keyring.upkeep(app.now()).await.unwrap();
                let newest = operator.list(app.now()).await.unwrap();
                let newest =
                    newest.into_iter().find(|one| one.key.purpose == purpose.name() && one.key.retained_at.is_none());
                newest.unwrap().key.kid
            };
            let works = async |gone: &str| {
                poll(&app).await;
                assert!(app.app.keyring.find(gone, app.now()).await.unwrap().is_none());
                app.app.keyring.upkeep(app.now()).await.unwrap();
                let newest = "SELECT COUNT(*) FROM signing_keys WHERE retained_at IS NULL AND revoked_at IS NULL";
                assert_eq!(app.count(newest).await, 2, "one of each purpose");
                let pair = app.sign_in("alice@example.com").await;
                app.refresh(&pair.refresh).await.pair();
                assert_eq!(app.me(&pair.access).await.status, 200);
                maker(&app.app, purpose)
            };

            // The announced one: its predecessor goes on as if nothing had been announced.
            let announced = announce().await;
            operator.revoke(&announced, app.now()).await.unwrap();
            assert_eq!(works(&announced).await, first);
            app.advance(TimeDelta::days(2));
            assert_eq!(works(&announced).await, first);
            // The one that signs while another is announced: that one signs at once.
            let announced = announce().await;
            operator.revoke(&first, app.now()).await.unwrap();
            assert_eq!(works(&first).await, announced);
            // The only one.
            operator.revoke(&announced, app.now()).await.unwrap();
            let third = works(&announced).await;
            assert_ne!(third, announced);
            // A retained one: nothing else changes.
            operator.rotate(purpose, true, app.now()).await.unwrap();
            poll(&app).await;
            let fourth = maker(&app.app, purpose);
            operator.revoke(&third, app.now()).await.unwrap();
            assert_eq!(works(&third).await, fourth);
        })
        .await;
    }
}

/// A file that still lies in the directory does not bring a revoked key back.
#[tokio::test]
async fn a_revoked_key_is_not_imported_again() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        place.put("private.pem", known().private_key_to_pem_pkcs8().unwrap(), 0o600);
        let app = place.open(&[]).await.unwrap();
        assert_eq!(maker(&app, Purpose::Signing), kid(&known()));

        operator(&app).revoke(&kid(&known()), place.clock.now()).await.unwrap();

        for _ in 0..2 {
            let app = place.open(&[]).await.unwrap();
            assert_ne!(maker(&app, Purpose::Signing), kid(&known()));
            app.keyring.upkeep(place.clock.now()).await.unwrap();
            let set = app.keyring.jwk_set(place.clock.now()).await;
            assert!(!String::from_utf8_lossy(&set).contains(&kid(&known())));
            place.advance(400 * 24 * 3600);
        }
        let refused = operator(&app).import(&place.keys().join("private.pem"), place.clock.now()).await.unwrap_err();
        assert!(refused.to_string().contains("was revoked"), "{refused}");
    }
}

/// Two operators and a rotation at once: one key of each purpose is the newest, and tokens are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn revocations_and_rotations_at_once_leave_a_ring_that_works() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        for _ in 0..4 {
            let place = Place::new(engine).await;
            let app = place.open(&[ALGORITHM]).await.unwrap();
            let now = place.clock.now();
            let first = maker(&app, Purpose::Signing);
            operator(&app).rotate(Purpose::Signing, false, now).await.unwrap();
            let announced =
                place.rows().await.into_iter().find(|row| row.purpose == "signing" && row.kid != first).unwrap();
            let revoke = |kid: String| {
                let app = std::sync::Arc::clone(&app);
                tokio::spawn(async move { operator(&app).revoke(&kid, now).await.map(|_| ()) })
            };
            let upkeep = {
                let app = std::sync::Arc::clone(&app);
                tokio::spawn(async move { app.keyring.upkeep(now).await })
            };
            let tries = [revoke(first.clone()), revoke(announced.kid.clone()), revoke(first.clone()), upkeep];

            for one in tries {
                one.await.unwrap().unwrap();
            }

            app.keyring.upkeep(now).await.unwrap();
            let rows = place.rows().await;
            assert_eq!(rows.iter().filter(|row| row.revoked_at.is_some()).count(), 2);
            let newest: Vec<_> =
                rows.iter().filter(|row| row.retained_at.is_none() && row.purpose == "signing").collect();
            assert_eq!(newest.len(), 1);
            assert_eq!((&maker(&app, Purpose::Signing), newest[0].signing_at), (&newest[0].kid, now));
        }
    }
}
