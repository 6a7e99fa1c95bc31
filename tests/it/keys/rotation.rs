//! What time does to keys: announced, signing, retained, gone, with one new key however many replicas there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use authservice::clock::Clock as _;
use authservice::config::Config;
use authservice::keys::{Purpose, Succeeded};
use chrono::{DateTime, TimeDelta, Utc};

use super::{Place, kid, known, maker, operator, published};
use crate::support::{Engine, Pair, TestApp, claims, each_engine, each_engine_with, jwt_header};

const ALGORITHM: (&str, &str) = ("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA");
const OPAQUE: (&str, &str) = ("AUTHSERVICE__REFRESH__FORMAT", "opaque");
const ROTATE_AFTER: &str = "AUTHSERVICE__KEYS__ROTATE_AFTER_SECONDS";
const ANNOUNCE: &str = "AUTHSERVICE__KEYS__ANNOUNCE_SECONDS";
const MAX_AGE: &str = "AUTHSERVICE__KEYS__JWKS_MAX_AGE_SECONDS";
const ACCESS: &str = "AUTHSERVICE__TOKENS__ACCESS_TTL_SECONDS";

const MOMENT: TimeDelta = TimeDelta::microseconds(1);
/// Twice the max-age and a minute.
const ANNOUNCED: TimeDelta = TimeDelta::seconds(660);
/// The last access token and two minutes.
const PUBLISHED: TimeDelta = TimeDelta::seconds(900 + 120);
/// The last refresh token and two minutes.
const KEPT: TimeDelta = TimeDelta::seconds(180 * 24 * 3600 + 120);

/// Names and texts of variables.
type Settings = [(&'static str, &'static str)];

/// A server and what is seen of its keys.
struct Watched(TestApp);

impl Watched {
    /// Moves the clock to just before `at` and then to it, lets the server do what is due, and asserts the JWK Set and the signer.
    async fn at(&self, at: DateTime<Utc>, before: (&[&String], &String), after: (&[&String], &String)) {
        for (at, (set, signer)) in [(at - MOMENT, before), (at, after)] {
            self.0.advance(at - self.0.now());
            self.0.app.keyring.upkeep(self.0.now()).await.unwrap();
            let expected: BTreeSet<String> = set.iter().map(|kid| (*kid).clone()).collect();
            assert_eq!(
                (published(&self.0).await, maker(&self.0.app, Purpose::Signing)),
                (expected, signer.clone()),
                "{at}"
            );
        }
    }
}

/// RFC 7517 4.5, security.md T26: each change at its very moment, planned by nobody but time. No restart.
#[tokio::test]
async fn a_key_lives_by_the_clock() {
    each_engine_with(&[ALGORITHM, (ROTATE_AFTER, "86400")], async |app| {
        let (start, app) = (app.now(), Watched(app));
        let first_mac = maker(&app.0.app, Purpose::Refresh);
        let a = maker(&app.0.app, Purpose::Signing);
        let signs = start + TimeDelta::days(1);

        app.0.advance(signs - ANNOUNCED - MOMENT - start);
        app.0.app.keyring.upkeep(app.0.now()).await.unwrap();
        assert_eq!(published(&app.0).await, BTreeSet::from([a.clone()]));
        app.0.advance(MOMENT);
        app.0.app.keyring.upkeep(app.0.now()).await.unwrap();
        let b = published(&app.0).await.into_iter().find(|kid| *kid != a).unwrap();
        assert_eq!(maker(&app.0.app, Purpose::Signing), a);

        app.at(signs, (&[&a, &b], &a), (&[&a, &b], &b)).await;
        assert_ne!(maker(&app.0.app, Purpose::Refresh), first_mac, "the keys of opaque tokens rotate too");
        app.at(signs + PUBLISHED, (&[&a, &b], &b), (&[&b], &b)).await;

        // Gone half a year later; others came and went meanwhile.
        for (at, is_known) in [(signs + KEPT - MOMENT, true), (signs + KEPT, false)] {
            app.0.advance(at - app.0.now());
            for kid in [&a, &first_mac] {
                assert_eq!(app.0.app.keyring.find(kid, at).await.unwrap().is_some(), is_known);
            }
        }
        let count = format!("SELECT COUNT(*) FROM signing_keys WHERE kid IN ('{a}', '{first_mac}')");
        assert_eq!(app.0.count(&count).await, 2);
        app.0.app.keyring.upkeep(app.0.now()).await.unwrap();
        assert_eq!(app.0.count(&count).await, 0, "the private halves are deleted");
        let events = "SELECT COUNT(*) FROM audit_events WHERE event = 'key_forgotten'";
        assert_eq!(app.0.count(events).await, 2);
    })
    .await;
}

/// However many replicas find that a successor is due, one is made; the others have it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_rotate_at_once_make_one_key() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let mut replicas = Vec::new();
        for _ in 0..6 {
            replicas.push(place.open(&[ALGORITHM, (ROTATE_AFTER, "3600")]).await.unwrap());
        }
        for round in 1..=3 {
            place.advance(3600);
            let now = place.clock.now();
            let tries =
                replicas.iter().map(Arc::clone).map(|app| tokio::spawn(async move { app.keyring.upkeep(now).await }));
            for one in tries.collect::<Vec<_>>() {
                one.await.unwrap().unwrap();
            }

            let rows = place.rows().await;
            for purpose in ["signing", "refresh"] {
                let of: Vec<_> = rows.iter().filter(|row| row.purpose == purpose).collect();
                assert_eq!(of.len(), 1 + round, "{purpose}");
                assert_eq!(of.iter().filter(|row| row.retained_at.is_none()).count(), 1, "{purpose}");
            }
            let announced = now + ANNOUNCED;
            let newest: BTreeSet<String> =
                replicas.iter().map(|app| app.keyring.signer(announced).unwrap().kid.clone()).collect();
            assert_eq!(newest.len(), 1);
        }
    }
}

/// security.md R15: verifiers that fetch the set only when its max-age is over never meet a kid that they do not have.
#[tokio::test]
async fn verifiers_that_cache_the_set_never_meet_an_unknown_kid() {
    let settings = [ALGORITHM, (ROTATE_AFTER, "20"), (ANNOUNCE, "10"), (MAX_AGE, "5"), (ACCESS, "10")];
    each_engine_with(&settings, async |app| {
        let other = app.another_replica().await;
        let (mut pair, mut alive) = (app.alice().await, Vec::<(i64, Pair)>::new());
        let mut verifiers = [(-99, BTreeSet::new()), (-97, BTreeSet::new()), (-98, BTreeSet::new())];
        let mut signers = BTreeSet::new();
        for second in 0..75 {
            let replicas = if second % 2 == 0 { [&app, &other] } else { [&other, &app] };
            for replica in replicas {
                assert!(replica.app.keyring.poll(app.now()).await);
            }
            // As often as the job does, by whichever replica.
            assert_eq!(app.app.keyring.upkeep_interval().as_secs(), 2);
            if second % 2 == 0 {
                replicas[usize::from(second % 4 == 0)].app.keyring.upkeep(app.now()).await.unwrap();
            }
            pair = replicas[0].refresh(&pair.refresh).await.pair();
            signers.insert(jwt_header(&pair.access)["kid"].as_str().unwrap().to_owned());
            alive.push((second, pair.clone()));
            alive.retain(|(issued, _)| second - issued < 10);
            for (fetched, set) in &mut verifiers {
                if second - *fetched >= 5 {
                    (*fetched, *set) = (second, published(replicas[1]).await);
                }
                for (issued, pair) in &alive {
                    let kid = jwt_header(&pair.access)["kid"].as_str().unwrap().to_owned();
                    assert!(
                        set.contains(&kid),
                        "second {second}: {kid} of second {issued} is not in the set of {fetched}"
                    );
                }
            }
            for (_, pair) in &alive {
                assert_eq!(replicas[1].me(&pair.access).await.status, 200, "second {second}");
            }
            app.advance(TimeDelta::seconds(1));
        }
        assert_eq!(signers.len(), 4, "three rotations");
    })
    .await;
}

/// Both forms of refresh token outlive rotations: the row judges, and the key that made the token is kept.
#[tokio::test]
async fn tokens_outlive_the_rotation_of_their_key() {
    for settings in [&[ALGORITHM, (ROTATE_AFTER, "3600")][..], &[ALGORITHM, (ROTATE_AFTER, "3600"), OPAQUE]] {
        each_engine_with(settings, async |app| {
            let oldest = app.alice().await;
            let waiting = app.sign_in("alice@example.com").await;
            let rotate = async || {
                app.app.keyring.upkeep(app.now()).await.unwrap();
                app.app.keyring.upkeep(app.now()).await.unwrap();
            };
            app.advance(TimeDelta::seconds(3600) - ANNOUNCED);
            rotate().await;
            app.advance(ANNOUNCED - MOMENT);
            let last = app.sign_in("alice@example.com").await;
            let next = app.refresh(&waiting.refresh).await.pair();

            app.advance(MOMENT);

            // The retry is byte-equal although another key signs by now; the access token beside it is that key's.
            let again = app.refresh(&waiting.refresh).await.pair();
            assert_eq!(again.refresh, next.refresh);
            assert_ne!(jwt_header(&again.access)["kid"], jwt_header(&next.access)["kid"]);
            app.advance(TimeDelta::seconds(899));
            assert_eq!(app.me(&last.access).await.status, 200, "until its own end");
            app.advance(TimeDelta::seconds(1));
            app.me(&last.access).await.refused(401, "token_expired");
            app.advance(TimeDelta::seconds(3600 - 900) - ANNOUNCED);
            rotate().await;
            app.advance(ANNOUNCED);
            let second = app.refresh(&oldest.refresh).await.pair();
            assert_eq!(claims(&second.access)["sid"], claims(&oldest.access)["sid"]);
            if second.refresh.starts_with("rt1.") {
                assert_ne!(second.refresh[4..18], oldest.refresh[4..18], "another key made it");
            }
            // RFC 9700 4.14.2: reuse is still noticed.
            app.advance(TimeDelta::seconds(31));
            let third = app.refresh(&second.refresh).await.pair();
            app.refresh(&oldest.refresh).await.refused(401, "refresh_reuse_detected");
            app.refresh(&third.refresh).await.refused(401, "refresh_reuse_detected");
        })
        .await;
    }
}

/// A rotation that is cut off at its last statement has changed nothing, and the next one does it.
#[tokio::test]
async fn a_rotation_that_is_cut_off_leaves_nothing() {
    each_engine_with(&[ALGORITHM], async |app| {
        let ring = "SELECT COUNT(*) FROM signing_keys WHERE retained_at IS NULL";
        let all = "SELECT COUNT(*) FROM signing_keys";
        app.advance(TimeDelta::days(90));
        app.sql("ALTER TABLE audit_events RENAME TO away").await;

        app.app.keyring.upkeep(app.now()).await.unwrap_err();
        operator(&app.app).revoke(&maker(&app.app, Purpose::Signing), app.now()).await.unwrap_err();

        assert_eq!((app.count(all).await, app.count(ring).await), (2, 2));
        app.sql("ALTER TABLE away RENAME TO audit_events").await;
        app.app.keyring.upkeep(app.now()).await.unwrap();
        assert_eq!((app.count(all).await, app.count(ring).await), (4, 2));
        app.alice().await;
    })
    .await;
}

/// 0 is never; an overdue rotation is announced like any other; an imported key is succeeded too, and its file does not bring it back.
#[tokio::test]
async fn an_imported_key_is_rotated_unless_nothing_is() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        place.put("private.pem", known().private_key_to_pem_pkcs8().unwrap(), 0o600);
        place.open(&[(ROTATE_AFTER, "0")]).await.unwrap();
        place.advance(400 * 24 * 3600);
        let app = place.open(&[(ROTATE_AFTER, "0")]).await.unwrap();
        app.keyring.upkeep(place.clock.now()).await.unwrap();
        assert_eq!(place.rows().await.len(), 2);

        let app = place.open(&[]).await.unwrap();
        app.keyring.upkeep(place.clock.now()).await.unwrap();
        assert_eq!((place.rows().await.len(), maker(&app, Purpose::Signing)), (4, kid(&known())));
        place.advance(660);
        let successor = maker(&place.open(&[]).await.unwrap(), Purpose::Signing);
        assert_ne!(successor, kid(&known()));

        place.advance(200 * 24 * 3600);
        let app = place.open(&[(ROTATE_AFTER, "0")]).await.unwrap();
        app.keyring.upkeep(place.clock.now()).await.unwrap();
        let row = place.rows().await.into_iter().find(|row| row.kid == kid(&known())).unwrap();
        assert!(row.sealed_private.is_empty(), "its private half is forgotten");
        assert_eq!(maker(&place.open(&[]).await.unwrap(), Purpose::Signing), successor);
        let file = place.keys().join("private.pem");
        let refused = operator(&app).import(&file, place.clock.now()).await.unwrap_err();
        assert!(refused.to_string().contains("never imported again"), "{refused}");
    }
}

/// Tokens that live longer by a new setting keep the key that signed them published and known for longer.
#[tokio::test]
async fn plans_follow_longer_lives_of_tokens() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let app = place.open(&[ALGORITHM]).await.unwrap();
        let first = maker(&app, Purpose::Signing);
        let now = place.clock.now();
        let planned = operator(&app).rotate(Purpose::Signing, false, now).await.unwrap();
        let Succeeded::By { signing_at, .. } = planned else { panic!("{planned:?}") };
        let plan = async || {
            let row = place.rows().await.into_iter().find(|row| row.kid == first).unwrap();
            (row.retained_at.unwrap(), row.unpublished_at.unwrap(), row.gone_at.unwrap())
        };
        assert_eq!(plan().await, (signing_at, signing_at + PUBLISHED, signing_at + KEPT));

        let longer = [ALGORITHM, (ACCESS, "3600"), ("AUTHSERVICE__REFRESH__ABSOLUTE_TTL_SECONDS", "31536000")];
        let app = place.open(&longer).await.unwrap();
        app.keyring.upkeep(now).await.unwrap();
        let expected = (signing_at, signing_at + TimeDelta::seconds(3720), signing_at + TimeDelta::seconds(31_536_120));
        assert_eq!(plan().await, expected);
        let app = place.open(&[ALGORITHM]).await.unwrap();
        app.keyring.upkeep(now).await.unwrap();
        assert_eq!(plan().await, expected, "nothing is shortened");
    }
}

/// What an operator announces or lets sign at once, once.
#[tokio::test]
async fn an_operator_rotates_beside_the_clock() {
    each_engine_with(&[ALGORITHM, OPAQUE], async |app| {
        app.alice().await;
        for purpose in Purpose::ALL {
            let (operator, now) = (operator(&app.app), app.now());
            let first = maker(&app.app, purpose);

            let planned = operator.rotate(purpose, false, now).await.unwrap();
            let Succeeded::By { kid, signing_at } = planned else { panic!("{planned:?}") };
            assert_eq!(signing_at, now + ANNOUNCED);
            let again = operator.rotate(purpose, false, now).await.unwrap();
            assert_eq!(again, Succeeded::Already { kid: kid.clone(), signing_at });
            assert!(app.app.keyring.poll(now).await);
            assert_eq!(maker(&app.app, purpose), first);

            let at_once = operator.rotate(purpose, true, now).await.unwrap();
            assert_eq!(at_once, Succeeded::By { kid: kid.clone(), signing_at: now }, "the announced one");
            assert!(app.app.keyring.poll(now).await);
            assert_eq!(maker(&app.app, purpose), kid);
            let other = operator.rotate(purpose, true, now).await.unwrap();
            assert!(app.app.keyring.poll(now).await);
            assert_eq!(other, Succeeded::By { kid: maker(&app.app, purpose), signing_at: now });
            assert_ne!(maker(&app.app, purpose), kid);
        }
        assert_eq!(published(&app).await.len(), 3, "what was signed before is verified still");
        let pair = app.sign_in("alice@example.com").await;
        app.refresh(&pair.refresh).await.pair();
    })
    .await;
}

/// A replica that cannot read the ring goes on by the clock, and signs nothing that might be revoked.
#[tokio::test]
async fn without_its_database_a_replica_keeps_its_plans_and_signs_nothing() {
    each_engine(async |app| {
        let first = maker(&app.app, Purpose::Signing);
        operator(&app.app).rotate(Purpose::Signing, false, app.now()).await.unwrap();
        assert!(app.app.keyring.poll(app.now()).await);
        app.app.keyring.confirm(app.now()).await.unwrap();

        app.app.db.clone().close().await;

        app.advance(ANNOUNCED - MOMENT);
        assert_eq!(maker(&app.app, Purpose::Signing), first);
        app.advance(MOMENT);
        assert_ne!(maker(&app.app, Purpose::Signing), first);
        assert_eq!(published(&app).await.len(), 2);
        app.advance(PUBLISHED);
        assert_eq!(published(&app).await.len(), 1);
        assert!(!app.app.keyring.poll(app.now()).await);
        app.app.keyring.confirm(app.now()).await.unwrap_err();
        app.advance(KEPT - PUBLISHED - MOMENT);
        assert!(app.app.keyring.find(&first, app.now()).await.unwrap().is_some());
        app.advance(MOMENT);
        app.app.keyring.find(&first, app.now()).await.map(|_| ()).unwrap_err();
    })
    .await;
}

/// Settings with which a verifier would miss a key, each named with the one that it does not go with.
#[test]
fn settings_that_would_break_verifiers_are_refused() {
    let rows: [(&Settings, &str, &str); 7] = [
        (&[(ANNOUNCE, "599")], "keys.announce_seconds", "keys.jwks_max_age_seconds"),
        (&[(MAX_AGE, "86400"), (ANNOUNCE, "660")], "keys.announce_seconds", "keys.jwks_max_age_seconds"),
        (&[(ROTATE_AFTER, "660")], "keys.rotate_after_seconds", "keys.announce_seconds"),
        (&[(ROTATE_AFTER, "1000"), (ANNOUNCE, "1000")], "keys.rotate_after_seconds", "keys.announce_seconds"),
        (&[("AUTHSERVICE__KEYS__RETAIN_SECONDS", "929")], "keys.retain_seconds", "tokens.access_ttl_seconds"),
        (
            &[(ACCESS, "3600"), ("AUTHSERVICE__KEYS__RETAIN_SECONDS", "930")],
            "keys.retain_seconds",
            "tokens.leeway_seconds",
        ),
        (&[(ROTATE_AFTER, "-1")], "keys.rotate_after_seconds", "must be between"),
    ];
    let load = |settings: &Settings| {
        let environment = settings.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Config::load(None, &environment).map(|_| ())
    };
    for (settings, one, other) in rows {
        let faults = load(settings).unwrap_err().0;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(one) && faults[0].contains(other), "{faults:?}");
    }
    let fine: [&Settings; 4] = [
        &[(ANNOUNCE, "600"), ("AUTHSERVICE__KEYS__RETAIN_SECONDS", "930")],
        &[(ROTATE_AFTER, "661")],
        &[(ROTATE_AFTER, "20"), (ANNOUNCE, "10"), (MAX_AGE, "5"), (ACCESS, "10")],
        &[(ROTATE_AFTER, "0"), (MAX_AGE, "0")],
    ];
    for settings in fine {
        load(settings).unwrap();
    }
}
