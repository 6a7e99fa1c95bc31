//! Sign-in, refresh, logout, sessions.

use crate::support::{claims, each_engine};

#[tokio::test]
async fn a_sign_in_opens_a_session_whose_tokens_work() {
    each_engine(async |app| {
        let pair = app.alice().await;

        assert_eq!(app.me(&pair.access).await.json()["email"], "alice@example.com");
        let next = app.refresh(&pair.refresh).await.pair();
        assert_eq!(claims(&next.refresh)["gen"], 1);
        assert_eq!(claims(&next.access)["sid"], claims(&pair.access)["sid"]);
    })
    .await;
}
