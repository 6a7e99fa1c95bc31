//! Refreshes that race against each other and against everything that ends a session, on two replicas.

use std::collections::HashSet;
use std::sync::Arc;

use authservice::accounts::Email;
use authservice::audit::Origin;
use authservice::entity::{auth_session, refresh_token, user};
use chrono::TimeDelta;
use reqwest::Method;
use sea_orm::EntityTrait as _;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{ALICE, events, family};
use crate::support::{Answer, PASSWORD, Pair, TestApp, each_engine_with};

/// Whoever waits for a connection here waits for its turn, not for a database in trouble: 503 would hide a verdict. And a cheap
/// signature leaves the processor to the races.
const SETTINGS: [(&str, &str); 4] = [
    ("AUTHSERVICE__DATABASE__ACQUIRE_TIMEOUT_SECONDS", "30"),
    ("AUTHSERVICE__DATABASE__STATEMENT_TIMEOUT_SECONDS", "30"),
    ("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA"),
    ("AUTHSERVICE__REFRESH__MAX_SESSIONS_PER_USER", "1000"),
];
const NEW_PASSWORD: &str = "An0ther!Passw0rd";

/// Two replicas on one database.
async fn two(app: TestApp) -> Arc<[TestApp; 2]> {
    let replica = app.another_replica().await;
    Arc::new([app, replica])
}

/// RFC 9700 4.14.2: however many use one token at once, it is exchanged once, and there is one successor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_refreshes_with_one_token_take_one_step_and_get_one_successor() {
    const ROUNDS: i64 = 100;
    const PARALLEL: usize = 64;
    each_engine_with(&SETTINGS, async |app| {
        let mut newest = app.alice().await.refresh;
        let replicas = two(app).await;
        let mut issued = HashSet::from([newest.clone()]);
        for round in 1..=ROUNDS {
            let mut tasks = JoinSet::new();
            for index in 0..PARALLEL {
                let request = replicas[index % 2].request(Method::POST, "auth/refresh");
                tasks.spawn(Answer::of(request.bearer_auth(&newest)));
            }

            let answers = tasks.join_all().await;

            let successors: HashSet<String> = answers.iter().map(|answer| answer.pair().refresh).collect();
            assert_eq!(successors.len(), 1, "round {round}");
            newest = successors.into_iter().next().unwrap();
            issued.insert(newest.clone());
            assert_eq!(family(&replicas[0], &newest).await.generation, round);
        }
        assert_eq!(issued.len(), usize::try_from(ROUNDS).unwrap() + 1, "no fork");
        assert_eq!(family(&replicas[0], &newest).await.revoked_at, None);
    })
    .await;
}

/// RFC 9700 4.14.2: of a retry that turned into theft and the owner's next refresh, both at once, the theft always wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_theft_that_races_refreshes_of_the_newest_token_ends_the_session() {
    each_engine_with(&SETTINGS, async |app| {
        app.register(ALICE).await;
        let replicas = two(app).await;
        for _ in 0..5 {
            let sessions = open(&replicas[0], 10).await;
            let mut newest = Vec::new();
            for stolen in &sessions {
                newest.push(replicas[0].refresh(&stolen.refresh).await.pair());
            }
            replicas[0].advance(TimeDelta::seconds(30));
            let mut tasks = JoinSet::new();
            for (index, (stolen, newest)) in sessions.iter().zip(&newest).enumerate() {
                for (index, token) in
                    [&newest.refresh, &stolen.refresh, &newest.refresh].iter().enumerate().skip(index % 2)
                {
                    let request = replicas[index % 2].request(Method::POST, "auth/refresh");
                    tasks.spawn(Answer::of(request.bearer_auth(token)));
                }
            }

            let answers = tasks.join_all().await;

            for answer in answers.iter().filter(|answer| answer.status != 200) {
                answer.refused(401, "refresh_reuse_detected");
            }
            let issued = answers.iter().filter(|answer| answer.status == 200).map(Answer::pair);
            let pairs: Vec<Pair> = sessions.iter().chain(&newest).cloned().chain(issued).collect();
            are_over(&replicas, &pairs).await;
            for pair in &sessions {
                let reason = family(&replicas[0], &pair.refresh).await.revoked_reason;
                assert_eq!(reason.as_deref(), Some("REUSE_DETECTED"));
            }
        }
        assert_eq!(events(&replicas[0], "refresh_reuse").await.len(), 50);
    })
    .await;
}

/// RFC 7009 2.1: after the answer to a logout no token of the session works, whatever was in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_wins_every_race_against_refreshes() {
    race(Ender::Logout).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_everywhere_wins_every_race_against_refreshes() {
    race(Ender::LogoutAll).await;
}

/// RFC 9700 4.14.2: refresh tokens are revoked when the password changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_change_wins_every_race_against_refreshes() {
    race(Ender::PasswordChange).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deactivation_wins_every_race_against_refreshes() {
    race(Ender::Deactivation).await;
}

/// A sign-in that has verified the old password opens no session that outlives the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sign_in_with_the_old_password_survives_its_change() {
    each_engine_with(&SETTINGS, async |app| {
        app.register(ALICE).await;
        let replicas = two(app).await;
        let mut passwords = [PASSWORD, NEW_PASSWORD];
        for round in 0..10 {
            let [old, new] = passwords;
            let mut tasks = JoinSet::new();
            for index in 0..6 {
                let request = replicas[index % 2].request(Method::POST, "auth/login");
                tasks.spawn(Answer::of(request.json(&json!({"email": ALICE, "password": old}))));
            }
            let (app, email) = (&replicas[round % 2].app, email());

            let accounts = app.accounts.management();
            let set = accounts.set_password(&email, new.into(), app.clock.now());
            set.await.unwrap();

            for answer in tasks.join_all().await {
                if answer.status == 200 {
                    are_over(&replicas, &[answer.pair()]).await;
                } else {
                    answer.refused(401, "invalid_credentials");
                }
            }
            let live = "SELECT COUNT(*) FROM auth_sessions WHERE revoked_at IS NULL";
            assert_eq!(replicas[0].count(live).await, 0, "round {round}");
            passwords = [new, old];
        }
    })
    .await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ender {
    Logout,
    LogoutAll,
    PasswordChange,
    Deactivation,
}

impl Ender {
    fn reason(self) -> &'static str {
        match self {
            Self::Logout => "USER_LOGOUT",
            Self::LogoutAll => "USER_LOGOUT_ALL",
            Self::PasswordChange => "PASSWORD_CHANGE",
            Self::Deactivation => "DEACTIVATED",
        }
    }

    /// Ends the sessions of these tokens, which are all the live ones of the user.
    async fn end(self, app: &TestApp, sessions: &[Pair]) {
        let accounts = app.app.accounts.management();
        match self {
            Self::Logout => {
                let mut tasks = JoinSet::new();
                for pair in sessions {
                    let request = app.request(Method::POST, "auth/logout");
                    tasks.spawn(Answer::of(request.bearer_auth(&pair.refresh)));
                }
                for answer in tasks.join_all().await {
                    assert_eq!(answer.status, 204, "{answer:?}");
                }
            }
            Self::LogoutAll => {
                let answer = app.with_token(Method::POST, "auth/logout-all", &sessions[0].access).await;
                assert_eq!(answer.status, 204, "{answer:?}");
            }
            Self::PasswordChange => accounts.set_password(&email(), NEW_PASSWORD.into(), app.now()).await.unwrap(),
            Self::Deactivation => {
                assert!(accounts.set_active(&email(), false, app.now()).await.unwrap());
            }
        }
    }
}

fn email() -> Email {
    Email::parse(ALICE).unwrap()
}

/// 200 races: 20 rounds in which ten sessions of one user, each refreshed without pause by two clients on two replicas, are ended.
async fn race(ender: Ender) {
    const ROUNDS: usize = 20;
    const SESSIONS: usize = 10;
    each_engine_with(&SETTINGS, async |app| {
        app.register(ALICE).await;
        let replicas = two(app).await;
        for round in 0..ROUNDS {
            let sessions = open(&replicas[round % 2], SESSIONS).await;
            let answered = Arc::new(Semaphore::new(0));
            let mut clients = JoinSet::new();
            for pair in sessions.clone() {
                clients.spawn(refresh_until_refused(Arc::clone(&replicas), pair, Arc::clone(&answered)));
            }

            // Later in each round: after the first answer, or in the midst of the second or third step.
            let steps = u32::try_from(1 + round * 2).unwrap();
            answered.acquire_many(steps).await.unwrap().forget();
            ender.end(&replicas[round % 2], &sessions).await;

            let histories = clients.join_all().await;
            if ender == Ender::Deactivation {
                let newest = histories[0].last().unwrap();
                for app in &*replicas {
                    app.me(&newest.access).await.refused(403, "user_inactive");
                    app.refresh(&newest.refresh).await.refused(401, "refresh_reuse_detected");
                }
                let app = &replicas[0];
                // What has ended does not come back with its user.
                assert!(app.app.accounts.management().set_active(&email(), true, app.now()).await.unwrap());
            }
            are_over(&replicas, &histories.concat()).await;
            for history in histories {
                let tokens: HashSet<&str> = history.iter().map(|pair| pair.refresh.as_str()).collect();
                let row = family(&replicas[0], &history[0].refresh).await;
                assert_eq!(row.revoked_reason.as_deref(), Some(ender.reason()), "no false theft");
                assert_eq!(tokens.len(), usize::try_from(row.generation).unwrap() + 1, "no fork");
            }
        }
        assert!(events(&replicas[0], "refresh_reuse").await.is_empty());
        no_session_lives(&replicas[0]).await;
    })
    .await;
}

/// Opens sessions as sign-in does, without the time that a password hash takes.
async fn open(app: &TestApp, count: usize) -> Vec<Pair> {
    use secrecy::ExposeSecret as _;

    let (db, sessions) = (&app.app.db, &app.app.sessions);
    let alice = user::Entity::find().one(db.reader()).await.unwrap().unwrap();
    let mut pairs = Vec::new();
    for _ in 0..count {
        let tx = db.begin().await.unwrap();
        let owner = (alice.id, alice.subject);
        let opened = sessions.open(&tx, owner, &Origin::default(), app.now()).await.unwrap();
        tx.commit().await.unwrap();
        let pair = sessions.first_tokens(&opened, app.now()).await.unwrap();
        pairs.push(Pair {
            access: pair.access.expose_secret().to_owned(),
            refresh: pair.refresh.expose_secret().to_owned(),
        });
    }
    pairs
}

/// Sends the newest token to both replicas at once, again and again, until one of them refuses. Returns every pair of the session.
async fn refresh_until_refused(replicas: Arc<[TestApp; 2]>, first: Pair, answered: Arc<Semaphore>) -> Vec<Pair> {
    let mut history = vec![first];
    for _ in 0..1000 {
        let token = history.last().unwrap().refresh.clone();
        let (one, other) = tokio::join!(replicas[0].refresh(&token), replicas[1].refresh(&token));
        for answer in [&one, &other] {
            if answer.status == 200 {
                history.push(answer.pair());
                answered.add_permits(1);
            } else {
                answer.refused(401, "refresh_reuse_detected");
            }
        }
        if one.status != 200 || other.status != 200 {
            return history;
        }
        assert_eq!(one.pair().refresh, other.pair().refresh, "no fork");
    }
    panic!("the session did not end");
}

/// Asserts that no token of the pairs works: each refresh token on one replica, each access token on the other.
async fn are_over(replicas: &[TestApp; 2], pairs: &[Pair]) {
    let refresh_tokens: HashSet<&str> = pairs.iter().map(|pair| pair.refresh.as_str()).collect();
    let mut tasks = JoinSet::new();
    for (index, token) in refresh_tokens.into_iter().enumerate() {
        let request = replicas[index % 2].request(Method::POST, "auth/refresh");
        tasks.spawn(Answer::of(request.bearer_auth(token)));
    }
    for answer in tasks.join_all().await {
        answer.refused(401, "refresh_reuse_detected");
    }
    let mut tasks = JoinSet::new();
    for (index, pair) in pairs.iter().enumerate() {
        let request = replicas[(index + 1) % 2].request(Method::GET, "users/me");
        tasks.spawn(Answer::of(request.bearer_auth(&pair.access)));
    }
    for answer in tasks.join_all().await {
        answer.refused(401, "invalid_token");
    }
}

async fn no_session_lives(app: &TestApp) {
    let db = app.app.db.writer();
    let sessions = auth_session::Entity::find().all(db).await.unwrap();
    let families = refresh_token::Entity::find().all(db).await.unwrap();
    assert_eq!(sessions.len(), families.len());
    assert!(sessions.iter().all(|session| session.revoked_at.is_some()));
    assert!(families.iter().all(|family| family.revoked_at.is_some()));
}
