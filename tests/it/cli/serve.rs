//! A start: with nothing at all, with the seed's environment, beside others, or not at all.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use super::{BINARY, Operator, Server, free_port};
use crate::support::{Answer, Engine, PASSWORD, claims, copy_private, jwt_header};

/// `copy_private` takes paths from the package's directory, which is where tests run.
const KNOWN_KEY: &str = "tests/keys/private.pem";

fn mode(operator: &Operator, name: &str) -> u32 {
    std::fs::metadata(operator.path(name)).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn an_empty_directory_and_a_port_are_enough() {
    // Somebody else may take a port between our asking and our using it.
    for _ in 0..5 {
        let port = free_port();
        let operator = Operator::new().with("SERVICE_PORT", port.to_string());
        let mut process = operator.spawn(&["serve"]);
        if process.logged("listening").await == Err(Some(69)) {
            continue;
        }
        let server = Server::of(process).await;

        assert_eq!(server.base, format!("http://127.0.0.1:{port}"));
        assert_eq!(server.get("/health/ready").await.status, 200);
        assert_eq!(server.get("/").await.json()["message"], "3, 2, 1, Start! Service Auth!");
        let discovery = server.get("/.well-known/openid-configuration").await.json();
        assert_eq!(discovery["issuer"], format!("http://localhost:{port}"));
        let pair = server.alice().await;
        assert_eq!(claims(&pair.access)["iss"], format!("http://localhost:{port}"));
        assert_eq!(server.me(&pair.access).await.json()["email"], "alice@example.com");
        assert_eq!(server.kids().await, [jwt_header(&pair.access)["kid"].as_str().unwrap()]);

        let files = operator.files();
        for name in ["authservice.db", "keys/encryption.key"] {
            assert!(files.iter().any(|file| file == name), "{files:?}");
        }
        // What holds hashes, sealed keys or the key to them is the owner's alone.
        for name in files {
            assert_eq!(mode(&operator, &name), 0o600, "{name}");
        }
        assert_eq!(mode(&operator, "keys"), 0o700);
        return;
    }
    panic!("no free port in five attempts");
}

#[tokio::test]
async fn every_line_of_the_log_is_an_object_and_none_holds_a_secret() {
    for level in ["info", "debug", "trace"] {
        let operator = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__LOG__LEVEL", level);
        let server = operator.serve().await;
        let (email, password) = ("canary.address@example.com", "C4nary!Passw0rd");
        server.register(email, password).await;
        let pair = server.login(email, password).await.pair();
        let next = server.refresh(&pair.refresh).await.pair();
        let mut secrets = vec![email.to_owned(), password.to_owned()];
        for token in [&pair.access, &pair.refresh, &next.access, &next.refresh] {
            // Each part alone would be too much, the signature most of all.
            secrets.extend(token.split('.').skip(1).map(str::to_owned));
        }
        assert_eq!(server.me(&next.access).await.status, 200);
        server.login(email, "C4nary!Wr0ng").await.refused(401, "invalid_credentials");
        server.login("canary.nobody@example.com", password).await.refused(401, "invalid_credentials");
        assert_eq!(server.post("auth/login", &json!({"email": "canary.no.address", "password": 7})).await.status, 422);
        server.me("canary.no.token").await.refused(401, "invalid_token");
        server.refresh("canary.no.token").await.refused(401, "invalid_token");
        let strange = server
            .request(Method::GET, "/canary-path?canary-query=canary\r\n")
            .header("x-request-id", "canary-id")
            .header("user-agent", "canary-agent");
        assert_eq!(Answer::of(strange).await.status, 404);
        let invented = server.request(Method::from_bytes(b"C4nary").unwrap(), "/");
        assert_eq!(Answer::of(invented).await.status, 405);
        assert_eq!(
            Answer::of(server.request(Method::POST, "auth/logout").bearer_auth(&next.refresh)).await.status,
            204
        );
        secrets.extend(["canary", "C4nary"].map(str::to_owned));

        let stderr = server.process.stderr.now();
        let lines = server.stop().await;

        assert_eq!(stderr, Vec::<String>::new(), "{level}");
        assert!(lines.len() >= 10, "{level}: {lines:#?}");
        for line in &lines {
            let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{level}: {error}: {line}"));
            assert!(object["message"].is_string() && object["level"].is_string(), "{level}: {line}");
            for secret in &secrets {
                assert!(!line.contains(secret), "{level}: {secret} in {line}");
            }
        }
        assert!(lines.iter().any(|line| line.contains("\"method\":\"_OTHER\"")), "{level}: {lines:#?}");
        // Each request has left its line.
        let answered = lines.iter().filter(|line| line.contains("\"answered\"")).count();
        assert_eq!(answered, 12, "{level}: {lines:#?}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();

    let outcome = Operator::new().with("SERVICE_PORT", address.port().to_string()).run(&["serve"]).exits(69);

    assert!(outcome.stderr.contains(&address.to_string()), "{outcome:?}");
    assert!(outcome.stderr.contains("in use"), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
}

#[tokio::test]
async fn four_replicas_that_start_at_once_share_one_key() {
    let operator = Operator::on(Engine::Postgres).await;

    let processes: Vec<_> = (0..4).map(|_| operator.spawn(&["serve"])).collect();
    let mut servers = Vec::new();
    for process in processes {
        servers.push(Server::of(process).await);
    }

    let kids = servers[0].kids().await;
    assert_eq!(kids.len(), 1);
    assert_eq!(operator.texts("SELECT kid FROM signing_keys WHERE purpose = 'signing'").await, kids);
    // Of keys that are never published there is one of each purpose too.
    let purposes = operator.texts("SELECT purpose FROM signing_keys ORDER BY purpose").await;
    assert!(purposes.is_sorted_by(|one, next| one < next), "{purposes:?}");
    assert_eq!(operator.files(), ["keys/encryption.key"]);
    let pair = servers[0].alice().await;
    for server in &servers {
        assert_eq!(server.get("/health/ready").await.status, 200);
        assert_eq!(server.kids().await, kids);
        // What one has signed the others believe.
        assert_eq!(server.me(&pair.access).await.status, 200);
        let own = server.login("alice@example.com", PASSWORD).await.pair();
        assert_eq!(jwt_header(&own.access)["kid"], kids[0].as_str());
        assert_eq!(servers[3].me(&own.access).await.status, 200);
    }
}

#[tokio::test]
async fn behind_a_pooler_the_server_asks_for_nothing_at_the_start_of_a_connection() {
    for (pooled, expected) in [("false", false), ("true", true)] {
        let operator = Operator::on(Engine::Postgres).await.with("AUTHSERVICE__DATABASE__TRANSACTION_POOLING", pooled);
        let server = operator.serve().await;

        server.alice().await;

        // Its own time limits are those of the connection; without them the role has none, and it says so.
        let log = server.stop().await.join("\n");
        assert_eq!(log.contains("idle_in_transaction_session_timeout, statement_timeout"), expected, "{log}");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_opened_stop_the_start_and_are_kept() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await;
        let server = operator.serve().await;
        let kept = server.kids().await;
        server.stop().await;
        let key = std::fs::read_to_string(operator.path("keys/encryption.key")).unwrap();

        std::fs::remove_file(operator.path("keys/encryption.key")).unwrap();
        let missing = operator.run(&["serve"]).exits(78);
        let operator = operator.with("AUTHSERVICE__KEYS__ENCRYPTION_KEY", "ab".repeat(31) + "cd");
        let other = operator.run(&["serve"]).exits(78);

        assert!(missing.stderr.contains("keys/encryption.key"), "{engine:?}: {missing:?}");
        assert!(other.stderr.contains("nothing was changed"), "{engine:?}: {other:?}");
        assert!(!operator.path("keys/encryption.key").exists(), "{engine:?}");
        assert_eq!(operator.texts("SELECT kid FROM signing_keys WHERE purpose = 'signing'").await, kept, "{engine:?}");

        // The right key heals, given as a setting too.
        let operator = operator.with("AUTHSERVICE__KEYS__ENCRYPTION_KEY", key.trim());
        assert_eq!(operator.serve().await.kids().await, kept, "{engine:?}");
    }
}

/// In a container every process has the same number, so a killed start leaves the very file that the next one wants to make.
#[tokio::test]
async fn what_a_killed_start_left_behind_does_not_stop_the_next() {
    let operator = Operator::on(Engine::Sqlite).await;
    let script = "mkdir -m 700 keys && : > keys/.encryption.key.$$ && exec \"$0\" serve";

    let server = Server::of(operator.spawn_program("sh", &["-c", script, BINARY])).await;

    assert_eq!(server.kids().await.len(), 1);
    assert_eq!(mode(&operator, "keys/encryption.key"), 0o600);
}

#[tokio::test]
async fn the_environment_of_the_seed_makes_the_server_of_the_seed() {
    let operator = Operator::on(Engine::Postgres).await;
    let url: reqwest::Url = operator.environment["DATABASE_URL"].to_str().unwrap().parse().unwrap();
    let mut operator = operator
        .with("POSTGRES_DB", url.path().trim_start_matches('/'))
        .with("POSTGRES_USER", url.username())
        .with("POSTGRES_PASSWORD", url.password().unwrap_or("any"))
        .with("POSTGRES_HOST", url.host_str().unwrap())
        .with("POSTGRES_PORT", url.port().unwrap_or(5432).to_string())
        .with("API_V1_PREFIX", "/api/v7")
        .with("JWT_TYPE_FIELD", "kind")
        .with("JWT_ACCESS_TYPE", "short")
        .with("JWT_REFRESH_TYPE", "long")
        .with("JWT_ACCESS_TTL_MIN", "5")
        .with("JWT_REFRESH_TTL_MIN", "60")
        .with("ECHO", "1")
        .with("SERVICE_RELOAD", "1")
        .with("PRIVATE_KEY_PATH", "private.pem")
        .with("PUBLIC_KEY_PATH", "public.pem");
    operator.environment.remove("DATABASE_URL");
    copy_private(std::path::Path::new(KNOWN_KEY), &operator.path("private.pem"));
    let private = std::fs::read(KNOWN_KEY).unwrap();
    let public = openssl::pkey::PKey::private_key_from_pem(&private).unwrap();
    operator.write("public.pem", &String::from_utf8(public.public_key_to_pem().unwrap()).unwrap());

    let server = operator.serve().await;

    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    assert_eq!(server.post("/api/v7/users/register", &body).await.status, 201);
    assert_eq!(server.post("users/register", &body).await.status, 404);
    let answer = server.post("/api/v7/auth/login", &body).await;
    assert_eq!(answer.json()["expires_in"], 300);
    let pair = answer.pair();
    assert_eq!(claims(&pair.access)["kind"], "short");
    let refresh = claims(&pair.refresh);
    assert_eq!(refresh["kind"], "long");
    assert_eq!(refresh["exp"].as_i64().unwrap() - refresh["iat"].as_i64().unwrap(), 3600);
    let again = server.request(Method::POST, "/api/v7/auth/refresh").bearer_auth(&pair.refresh);
    assert_eq!(Answer::of(again).await.status, 200);
    let swapped = server.request(Method::GET, "/api/v7/users/me").bearer_auth(&pair.refresh);
    Answer::of(swapped).await.refused(400, "invalid_token_type");
    // The key that the seed used signs at once.
    let modulus = public.rsa().unwrap().n().to_vec();
    let jwk = server.get("/.well-known/jwks.json").await.json()["keys"][0].clone();
    let published = BASE64_URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    assert_eq!(published, modulus);
    assert_eq!(jwt_header(&pair.access)["kid"], jwk["kid"]);
}

/// The database comes up minutes after the server: nobody restarts it, and an orchestrator sees that it lives.
#[tokio::test]
async fn a_server_whose_database_is_not_there_yet_lives_and_goes_on_when_it_is() {
    let port = free_port();
    let operator = Operator::new()
        .with("SERVICE_PORT", port.to_string())
        .with("DATABASE_URL", "sqlite://later/authservice.db?mode=rwc");
    let mut process = operator.spawn(&["serve"]);
    process.logged("listening, not ready yet").await.unwrap();
    let client = reqwest::Client::new();
    let get = async |path: &str| Answer::of(client.get(format!("http://127.0.0.1:{port}{path}"))).await;

    let live = get("/health/live").await;
    assert_eq!((live.status, live.body.as_str()), (200, r#"{"status":"ok"}"#));
    for path in ["/health/ready", "/.well-known/jwks.json", "/auth_api/v1/users/me", "/nowhere"] {
        let answer = get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "temporarily_unavailable"), "{path}");
        assert!(matches!(answer.header("retry-after"), "1" | "2" | "3"), "{answer:?}");
        assert!(!answer.header("x-request-id").is_empty(), "{path}");
    }
    std::fs::create_dir(operator.path("later")).unwrap();
    let server = Server::of(process).await;

    assert_eq!(server.get("/health/ready").await.status, 200);
    server.alice().await;
}

#[tokio::test]
async fn a_signal_ends_the_wait_for_the_database() {
    for (name, message) in [("TERM", "waiting for the database"), ("INT", "listening, not ready yet")] {
        let operator = Operator::new()
            .with("SERVICE_PORT", free_port().to_string())
            .with("DATABASE_URL", "sqlite://never/authservice.db?mode=rwc");
        let mut process = operator.spawn(&["serve"]);
        process.logged(message).await.unwrap();

        process.signal(name);

        assert_eq!(process.ended().await, Some(0), "{name}");
    }
}
