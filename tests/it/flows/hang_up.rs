//! Clients that send a request and hang up before its answer: what they began is finished, and it harms nobody else.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::family;
use crate::support::{API, TestApp, each_engine};

/// Sends a request with a refresh token and closes the connection at once.
async fn send_and_hang_up(app: &TestApp, path: &str, token: &str) {
    let mut stream = TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
    let head = format!("POST {API}/{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// Asks until the session has ended. Each question takes its time, and there is an end to them.
async fn ends(app: &TestApp, access: &str) {
    for _ in 0..2000 {
        if app.me(access).await.status == 401 {
            return;
        }
    }
    panic!("the session goes on");
}

/// RFC 9700 4.14.2: whoever uses an older token cannot save the session by hanging up.
#[tokio::test]
async fn a_theft_or_logout_is_committed_although_nobody_waits_for_the_answer() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        for _ in 0..20 {
            let first = app.sign_in("alice@example.com").await;
            let second = app.refresh(&first.refresh).await.pair();
            let third = app.refresh(&second.refresh).await.pair();
            send_and_hang_up(&app, "auth/refresh", &first.refresh).await;
            ends(&app, &third.access).await;
            assert_eq!(family(&app, &third.refresh).await.revoked_reason.as_deref(), Some("REUSE_DETECTED"));

            let other = app.sign_in("alice@example.com").await;
            send_and_hang_up(&app, "auth/logout", &other.refresh).await;
            ends(&app, &other.access).await;
        }
    })
    .await;
}

/// A transaction that is left half-way must not swallow the next one on its connection.
#[tokio::test]
async fn what_was_answered_200_is_committed_while_others_hang_up() {
    each_engine(async |app| {
        let beside = app.another_replica().await;
        for email in ["alice@example.com", "mallory@example.com"] {
            app.register(email).await;
        }
        let mut pair = app.sign_in("alice@example.com").await;
        for generation in 1..=30 {
            let rude = app.sign_in("mallory@example.com").await;
            let newer = app.refresh(&rude.refresh).await.pair();
            app.refresh(&newer.refresh).await.pair();
            for path in ["auth/refresh", "auth/logout", "auth/refresh"] {
                send_and_hang_up(&app, path, &rude.refresh).await;
            }

            pair = app.refresh(&pair.refresh).await.pair();

            // Read through connections of its own: an open transaction would hide that nothing was committed.
            assert_eq!(family(&beside, &pair.refresh).await.generation, generation);
        }
    })
    .await;
}
