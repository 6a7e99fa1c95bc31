//! `users`: what an operator does shows on a running server from the next request on.

use serde_json::Value;

use super::{Operator, Server};
use crate::support::{Engine, PASSWORD, Pair};

const OTHER: &str = "An0ther!Passphrase";

/// A server on each engine, and the operator beside it.
async fn each_engine(test: impl AsyncFn(Operator, &Server)) {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await;
        let server = operator.serve().await;
        test(operator, &server).await;
    }
}

/// Asserts that neither token of an ended session is worth anything.
async fn is_over(server: &Server, pair: &Pair) {
    server.me(&pair.access).await.refused(401, "invalid_token");
    server.refresh(&pair.refresh).await.refused(401, "refresh_reuse_detected");
}

#[tokio::test]
async fn users_are_listed_by_id_in_pages() {
    each_engine(async |operator, server| {
        for name in ["carol", "alice", "bob"] {
            server.register(&format!("{name}@example.com"), PASSWORD).await;
        }
        operator.run(&["users", "deactivate", "alice@example.com"]).exits(0);

        let list = |arguments: &[&str]| operator.run(&[&["users", "list"], arguments].concat()).exits(0).stdout;

        let all = list(&[]);
        let rows: Vec<Vec<&str>> = all.lines().map(|line| line.split('\t').collect()).collect();
        let of = |column: usize| rows.iter().map(|row| row[column]).collect::<Vec<_>>();
        assert_eq!(of(1), ["active", "inactive", "active"]);
        assert_eq!(of(3), ["carol@example.com", "alice@example.com", "bob@example.com"]);
        assert!(of(2).iter().all(|time| time.len() == 20 && time.ends_with('Z')), "{all}");
        let ids = of(0);
        assert!(ids.is_sorted_by_key(|id| id.parse::<i64>().unwrap()), "{all}");

        assert_eq!(list(&["--limit", "2"]).lines().count(), 2);
        assert_eq!(list(&["--after", ids[1]]), format!("{}\n", all.lines().last().unwrap()));
        assert_eq!(list(&["--after", ids[0], "--limit", "1"]), format!("{}\n", all.lines().nth(1).unwrap()));
        assert_eq!(list(&["--after", ids[2]]), "");
    })
    .await;
}

#[tokio::test]
async fn users_are_listed_as_json_without_their_hashes() {
    each_engine(async |operator, server| {
        let body =
            serde_json::json!({"email": "alice@example.com", "password": PASSWORD, "full_name": "Alice \"A\"\nB"});
        assert_eq!(server.post("users/register", &body).await.status, 201);
        server.register("bob@example.com", PASSWORD).await;

        let listed = operator.run(&["users", "list", "--json"]).exits(0).stdout;

        let rows: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 2, "{listed}");
        assert_eq!(rows[0]["email"], "alice@example.com");
        assert_eq!(rows[0]["full_name"], "Alice \"A\"\nB");
        assert_eq!((&rows[0]["is_active"], &rows[0]["is_superuser"]), (&true.into(), &false.into()));
        assert_eq!(rows[1]["full_name"], Value::Null);
        assert!(rows[0]["id"].is_i64() && rows[0]["subject"].is_string() && rows[0]["created_at"].is_string());
        assert!(!listed.contains("argon2") && !listed.contains("hash"), "{listed}");
    })
    .await;
}

#[tokio::test]
async fn a_deactivated_user_is_out_at_once_and_may_come_back_later() {
    each_engine(async |operator, server| {
        let alice = server.alice().await;
        server.register("bob@example.com", PASSWORD).await;
        let bob = server.login("bob@example.com", PASSWORD).await.pair();

        // An address is the same in any case.
        let outcome = operator.run(&["users", "deactivate", "ALICE@Example.com"]).exits(0);

        assert_eq!(outcome.stdout, "deactivated; every session has ended\n");
        server.me(&alice.access).await.refused(403, "user_inactive");
        server.refresh(&alice.refresh).await.refused(401, "refresh_reuse_detected");
        server.login("alice@example.com", PASSWORD).await.refused(403, "user_inactive");
        server.login("alice@example.com", OTHER).await.refused(401, "invalid_credentials");
        assert_eq!(server.me(&bob.access).await.status, 200);
        let again = operator.run(&["users", "deactivate", "alice@example.com"]).exits(0);
        assert_eq!(again.stdout, "was inactive already\n");

        let outcome = operator.run(&["users", "activate", "alice@example.com"]).exits(0);

        assert_eq!(outcome.stdout, "activated\n");
        is_over(server, &alice).await;
        let pair = server.login("alice@example.com", PASSWORD).await.pair();
        assert_eq!(server.me(&pair.access).await.status, 200);
        let again = operator.run(&["users", "activate", "alice@example.com"]).exits(0);
        assert_eq!(again.stdout, "was active already\n");
        assert_eq!(server.me(&pair.access).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_new_password_counts_at_once_and_ends_every_session() {
    each_engine(async |operator, server| {
        let first = server.alice().await;
        let second = server.login("alice@example.com", PASSWORD).await.pair();

        let outcome =
            operator.run_with_input(&["users", "set-password", "alice@example.com"], &format!("{OTHER}\n")).exits(0);

        assert_eq!(outcome.printed(), "the password is set; every session has ended\n");
        is_over(server, &first).await;
        is_over(server, &second).await;
        server.login("alice@example.com", PASSWORD).await.refused(401, "invalid_credentials");
        let pair = server.login("alice@example.com", OTHER).await.pair();
        assert_eq!(server.me(&pair.access).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_password_is_taken_as_it_stands_on_the_first_line() {
    let operator = Operator::on(Engine::Sqlite).await;
    let server = operator.serve().await;
    server.register("alice@example.com", PASSWORD).await;
    let rows = [
        ("no line break", "pl4in-and-l0ng!", "pl4in-and-l0ng!"),
        ("line break of Windows", "w1ndows-and-l0ng!\r\n", "w1ndows-and-l0ng!"),
        ("blanks around", "  bl4nks-around!  \n", "  bl4nks-around!  "),
        ("more lines", "f1rst-line-0nly!\nsecond-line\n", "f1rst-line-0nly!"),
        ("other scripts", "пароль-длинный-7\n", "пароль-длинный-7"),
    ];
    for (name, input, password) in rows {
        operator.run_with_input(&["users", "set-password", "alice@example.com"], input).exits(0);
        assert_eq!(server.login("alice@example.com", password).await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_explained_and_changes_nothing() {
    each_engine(async |operator, server| {
        let pair = server.alice().await;
        // Arguments, standard input, what the message names.
        let rows: [(&[&str], &str, &str); 12] = [
            (&["deactivate", "nobody@example.com"], "", "no such user"),
            (&["activate", "nobody@example.com"], "", "no such user"),
            (&["set-password", "nobody@example.com"], "Str0ng!Passw0rd\n", "no such user"),
            (&["deactivate", "not an address"], "", "authservice: "),
            (&["activate", ""], "", "authservice: "),
            (&["set-password", "alice@"], "Str0ng!Passw0rd\n", "authservice: "),
            (&["set-password", "alice@example.com"], "", "8 to 128 characters"),
            (&["set-password", "alice@example.com"], "\n", "8 to 128 characters"),
            (&["set-password", "alice@example.com"], "Sh0rt!\n", "8 to 128 characters"),
            (&["set-password", "alice@example.com"], "password123\n", "authservice: "),
            (&["set-password", "alice@example.com"], "alice@example.com\n", "authservice: "),
            (&["set-password", "alice@example.com"], "nul-\0-in-it-12\n", "NUL"),
        ];
        for (arguments, input, expected) in rows {
            let outcome = operator.run_with_input(&[&["users"], arguments].concat(), input).exits(65);
            assert!(outcome.stderr.contains(expected), "{arguments:?}: {outcome:?}");
            assert_eq!(outcome.stdout, "", "{arguments:?}");
            assert!(
                input.trim().len() < 8 || arguments[1] == input.trim() || !outcome.stderr.contains(input.trim()),
                "{arguments:?}: {outcome:?}"
            );
        }

        assert_eq!(server.me(&pair.access).await.status, 200);
        assert_eq!(server.login("alice@example.com", PASSWORD).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_does_is_audited() {
    each_engine(async |operator, server| {
        server.register("alice@example.com", PASSWORD).await;
        for command in ["deactivate", "deactivate", "activate"] {
            operator.run(&["users", command, "alice@example.com"]).exits(0);
        }
        operator.run_with_input(&["users", "set-password", "alice@example.com"], OTHER).exits(0);

        let events = operator.texts("SELECT event FROM audit_events WHERE event <> 'key_added' ORDER BY id").await;

        // The second deactivation changed nothing.
        let expected = ["user_registered", "user_deactivated", "user_activated", "password_set"];
        assert_eq!(events, expected);
    })
    .await;
}
