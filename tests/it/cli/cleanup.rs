//! `cleanup` deletes what the server would delete, and no more.

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};

use super::Operator;
use crate::support::{Engine, PASSWORD};

#[tokio::test]
async fn sessions_that_were_over_long_enough_go_and_no_key_is_needed_for_it() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let mut operator = Operator::on(engine).await.with("AUTHSERVICE__LIMITS__ENABLED", "false");
        let server = operator.serve().await;
        let ended = server.alice().await;
        let live = server.login("alice@example.com", PASSWORD).await.pair();
        let logout = server.request(reqwest::Method::POST, "auth/logout").bearer_auth(&ended.refresh);
        assert_eq!(logout.send().await.unwrap().status(), 204);

        // Beside the running server; kept for a week by default.
        assert_eq!(
            operator.run(&["cleanup"]).exits(0).printed(),
            "deleted 0 session(s), 0 audit event(s), 0 budget(s)\n",
            "{engine:?}"
        );
        operator = operator.with("AUTHSERVICE__CLEANUP__RETENTION_DAYS", "0");
        assert_eq!(
            operator.run(&["cleanup"]).exits(0).printed(),
            "deleted 1 session(s), 0 audit event(s), 0 budget(s)\n",
            "{engine:?}"
        );
        assert_eq!(operator.texts("SELECT user_agent FROM auth_sessions").await.len(), 1, "{engine:?}");
        assert_eq!(server.refresh(&live.refresh).await.status, 200, "{engine:?}");

        server.stop().await;
        std::fs::remove_dir_all(operator.path("keys")).unwrap();
        assert_eq!(
            operator.run(&["cleanup"]).exits(0).printed(),
            "deleted 0 session(s), 0 audit event(s), 0 budget(s)\n",
            "{engine:?}"
        );
        assert!(!operator.path("keys").exists(), "{engine:?}");
    }
}

#[tokio::test]
async fn events_and_budgets_whose_time_is_over_go_too() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await.with("AUTHSERVICE__AUDIT__RETENTION_DAYS", "1");
        let server = operator.serve().await;
        // What a sign-in was counted in says nothing any more when it has succeeded.
        server.alice().await;
        server.stop().await;
        let old = "UPDATE audit_events SET at = '2026-01-01T00:00:00+00:00' WHERE event = 'signed_in'";
        let db = operator.database().await;
        db.execute_unprepared(old).await.unwrap();
        db.close().await.unwrap();

        let printed = operator.run(&["cleanup"]).exits(0).printed();

        assert!(printed.starts_with("deleted 0 session(s), 1 audit event(s), "), "{engine:?}: {printed}");
        assert!(!printed.contains(" 0 budget(s)"), "{engine:?}: {printed}");
    }
}

#[tokio::test]
async fn whoever_sweeps_already_is_left_alone() {
    let operator = Operator::on(Engine::Postgres).await;
    operator.run(&["migrate", "up"]).exits(0);
    let db = operator.database().await;
    let sweeping = db.begin().await.unwrap();
    // The bytes of "authswee".
    sweeping.execute_unprepared("SELECT pg_advisory_xact_lock(x'6175746873776565'::bigint)").await.unwrap();

    let outcome = operator.run(&["cleanup"]).exits(0);

    assert_eq!(
        outcome.printed(),
        "deleted 0 session(s), 0 audit event(s), 0 budget(s); another process is sweeping and goes on\n"
    );
    sweeping.rollback().await.unwrap();
    db.close().await.unwrap();
}
