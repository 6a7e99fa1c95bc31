//! Genuine access tokens whose session or user is no more.

use authservice::accounts::Email;
use chrono::TimeDelta;
use reqwest::Method;

use super::{ACCESS, Forge, INVALID, encode, fault};
use crate::support::{Engine, Pair, TestApp, claims};

/// What ends a session while its access token still lives.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Logout,
    LogoutAll,
    EndedFromTheList,
    PasswordSet,
    Deactivated,
    DeactivatedAndActivated,
    Reuse,
    DeletedRow,
    DeletedUser,
}

impl Ending {
    const ALL: [Self; 9] = [
        Self::Logout,
        Self::LogoutAll,
        Self::EndedFromTheList,
        Self::PasswordSet,
        Self::Deactivated,
        Self::DeactivatedAndActivated,
        Self::Reuse,
        Self::DeletedRow,
        Self::DeletedUser,
    ];

    fn answer(self) -> (u16, &'static str) {
        match self {
            Self::Deactivated => (403, "user_inactive"),
            Self::DeletedUser => (404, "user_not_found"),
            _ => INVALID,
        }
    }

    async fn happen(self, app: &TestApp, email: &str, pair: &Pair) {
        let (session, user) = (&claims(&pair.access)["sid"], &claims(&pair.access)["user_id"]);
        let (accounts, address, now) = (app.app.accounts.management(), Email::parse(email).unwrap(), app.now());
        match self {
            Self::Logout => assert_eq!(app.logout(&pair.refresh).await.status, 204),
            Self::LogoutAll => {
                assert_eq!(app.with_token(Method::POST, "auth/logout-all", &pair.access).await.status, 204);
            }
            Self::EndedFromTheList => {
                let path = format!("auth/sessions/{}", session.as_str().unwrap());
                assert_eq!(app.with_token(Method::DELETE, &path, &pair.access).await.status, 204);
            }
            Self::PasswordSet => {
                accounts.set_password(&address, "An0ther!Passw0rd".to_owned().into(), now).await.unwrap();
            }
            Self::Deactivated => assert!(accounts.set_active(&address, false, now).await.unwrap()),
            Self::DeactivatedAndActivated => {
                accounts.set_active(&address, false, now).await.unwrap();
                accounts.set_active(&address, true, now).await.unwrap();
            }
            Self::Reuse => {
                app.refresh(&pair.refresh).await.pair();
                app.advance(TimeDelta::seconds(31));
                app.refresh(&pair.refresh).await.refused(401, "refresh_reuse_detected");
            }
            Self::DeletedRow => {
                app.sql(&format!("DELETE FROM auth_sessions WHERE user_id = {user}")).await;
            }
            Self::DeletedUser => app.sql(&format!("DELETE FROM users WHERE id = {user}")).await,
        }
    }
}

/// RFC 9700 2.2.1, RFC 7009 3: the end of a session counts at once, on every replica, though the token has not expired.
#[tokio::test]
async fn an_access_token_dies_with_its_session_on_every_replica() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        eprintln!("engine: {engine:?}");
        let app = TestApp::start(engine, &[]).await;
        let other = app.another_replica().await;
        for (number, ending) in Ending::ALL.into_iter().enumerate() {
            let email = format!("user{number}@example.com");
            app.register(&email).await;
            let pair = app.sign_in(&email).await;
            assert_eq!(other.me(&pair.access).await.status, 200, "{ending:?}");

            ending.happen(&app, &email, &pair).await;

            for replica in [&app, &other] {
                for (method, path) in ACCESS {
                    let answer = replica.with_token(method, path, &pair.access).await;
                    assert_eq!(fault(&answer, ending.answer()), None, "{ending:?} at {path}");
                }
            }
        }
    }
}

/// RFC 9700 2.2.1: ending one session leaves the others alone.
#[tokio::test]
async fn another_session_of_the_user_lives_on() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let second = forge.app.sign_in("alice@example.com").await;

        assert_eq!(forge.app.logout(&second.refresh).await.status, 204);

        let faults = forge.refusals("ended", &second.access, INVALID).await;
        forge.finish(faults).await;
    }
}

/// The signature is judged first: whoever sends garbage costs the database nothing.
#[tokio::test]
async fn garbage_is_refused_without_asking_the_database() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        forge.app.sql("ALTER TABLE users RENAME TO users_away").await;
        let header = encode(forge.header("at+jwt"));
        let mut faults = Vec::new();

        for number in 0..200 {
            let garbage = format!("{header}.{}.{}", encode(number.to_string()), encode([7; 256]));
            let answer = forge.app.me(&garbage).await;
            faults.extend(fault(&answer, INVALID));
        }

        let answer = forge.app.me(&forge.pair.access).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "temporarily_unavailable"), "{answer:?}");
        assert!(matches!(answer.header("retry-after"), "1" | "2" | "3"), "{answer:?}");
        forge.app.sql("ALTER TABLE users_away RENAME TO users").await;
        forge.finish(faults).await;
    }
}
