//! What a container's health check and a deployment's test get to hear.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};

use super::{Operator, Server, free_port};
use crate::support::Engine;

const DOCUMENT: &str = "/.well-known/openid-configuration";

/// The operator of a server that runs, who knows its port.
fn beside(operator: Operator, server: &Server) -> Operator {
    let port = server.base.rsplit_once(':').unwrap().1.to_owned();
    operator.with("AUTHSERVICE__SERVER__PORT", port)
}

/// A server that answers everything with this, and then closes the connection.
fn stand_in(answer: impl Into<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let answer = answer.into().replace("{base}", &base);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    base
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// An issuer behind TLS with one key, and its certificate, which is good for so many days.
pub(super) fn tls_stand_in(days: u32) -> (String, String) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let certificate = certificate(&key, days);
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls_server()).unwrap();
    acceptor.set_private_key(&key).unwrap();
    acceptor.set_certificate(&certificate).unwrap();
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let body = format!(r#"{{"issuer":"{base}","jwks_uri":"{base}/jwks","keys":[{{"kid":"one"}}]}}"#);
    let pem = String::from_utf8(certificate.to_pem().unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Who does not trust the certificate hangs up.
            let Ok(mut stream) = acceptor.accept(stream.unwrap()) else { continue };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(ok(&body).as_bytes());
            let _ = stream.shutdown();
        }
    });
    (base, pem)
}

fn certificate(key: &PKey<Private>, days: u32) -> X509 {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "localhost").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(days).unwrap()).unwrap();
    let names = SubjectAlternativeName::new().dns("localhost").build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(names).unwrap();
    builder.sign(key, MessageDigest::sha256()).unwrap();
    builder.build()
}

#[tokio::test]
async fn a_server_is_ready_then_drains_then_is_gone() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await.with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "300");
        let mut server = operator.serve().await;
        let operator = beside(operator, &server);

        let ready = operator.run(&["healthcheck"]).exits(0);
        let live = operator.run(&["healthcheck", "--live"]).exits(0);
        assert_eq!((ready.printed().as_str(), live.printed().as_str()), ("ready\n", "live\n"), "{engine:?}");

        server.process.signal("TERM");
        server.process.logged("draining").await.unwrap();
        let draining = operator.run(&["healthcheck"]).exits(1);
        let url = format!("{}/health/ready", server.base);
        assert_eq!(draining.printed(), format!("authservice: not ready: {url} answered 503: accepting failed\n"));
        operator.run(&["healthcheck", "--live"]).exits(0);

        server.process.signal("INT");
        server.process.ended().await;
        for probe in [&["healthcheck"][..], &["healthcheck", "--live"]] {
            let gone = operator.run(probe).exits(1);
            assert!(gone.stderr.contains("refused"), "{engine:?}: {gone:?}");
            assert_eq!((gone.stdout.as_str(), gone.stderr.lines().count()), ("", 1), "{engine:?}: {gone:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_waits_for_its_database_lives_and_is_not_ready() {
    let operator = Operator::new()
        .with("AUTHSERVICE__SERVER__PORT", free_port().to_string())
        .with("SERVICE_HOST", "0.0.0.0")
        .with("DATABASE_URL", "postgres://user:CANARY@127.0.0.1:1/name");
    let mut process = operator.spawn(&["serve"]);
    process.logged("listening, not ready yet").await.unwrap();

    operator.run(&["healthcheck", "--live"]).exits(0);
    let waiting = operator.run(&["healthcheck"]).exits(1);

    assert!(waiting.stderr.contains("not ready") && waiting.stderr.contains("503"), "{waiting:?}");
}

/// RFC 8414 3.3: the issuer in the document must be the one that the client knows.
#[tokio::test]
async fn a_discovery_document_must_name_the_issuer_and_lead_to_a_key() {
    let operator = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__SERVER__ISSUER", "https://auth.example/id");
    let server = operator.serve().await;
    let url = format!("{}{DOCUMENT}", server.base);

    // The pod does not reach https://auth.example: the JWK Set is read where the document was.
    let own = operator.run(&["healthcheck", "--url", &url]).exits(0);
    assert_eq!(own.printed(), "issuer https://auth.example/id, 1 key(s)\n");
    let stranger = Operator::new();
    stranger.run(&["healthcheck", "--url", &url, "--issuer", "https://auth.example/id"]).exits(0);
    let metadata = format!("{}/.well-known/oauth-authorization-server", server.base);
    operator.run(&["healthcheck", "--url", &metadata]).exits(0);

    for issuer in ["https://auth.example/id/", "https://auth.example", "https://auth.example/ID"] {
        let other = operator.run(&["healthcheck", "--url", &url, "--issuer", issuer]).exits(1);
        assert!(other.stderr.contains("\"https://auth.example/id\"") && other.stderr.contains(issuer), "{other:?}");
    }
    let nothing = operator.run(&["healthcheck", "--url", &format!("{}/nothing", server.base)]).exits(1);
    assert!(nothing.stderr.contains("404"), "{nothing:?}");
    assert_eq!(stranger.files(), Vec::<String>::new());
}

#[test]
fn whatever_else_a_server_answers_is_not_well() {
    let document = ok(r#"{"issuer":"http://localhost:9998","jwks_uri":"http://localhost:9998/jwks"}"#);
    let rows = [
        ("a document that is its own JWK Set", document, "holds no key"),
        ("no URL", ok(r#"{"issuer":"http://localhost:9998","jwks_uri":"jwks"}"#), "no URL"),
        ("an empty object", ok("{}"), "the issuer null"),
        ("not JSON", ok("<html>"), "not JSON"),
        ("a redirect", format!("HTTP/1.1 302 Found\r\nLocation: {{base}}{DOCUMENT}\r\n\r\n"), "302"),
        ("half an answer", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned(), "{base}"),
        ("not HTTP", "SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "{base}"),
        ("two megabytes", ok(&" ".repeat(2 << 20)), "too long"),
    ];
    for (name, answer, expected) in rows {
        let base = stand_in(answer);

        let outcome = Operator::new().run(&["healthcheck", "--url", &format!("{base}{DOCUMENT}")]).exits(1);

        assert!(outcome.stderr.contains(&expected.replace("{base}", &base)), "{name}: {outcome:?}");
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().count()), ("", 1), "{name}: {outcome:?}");
    }
}

#[test]
fn a_certificate_counts_only_when_this_machine_trusts_it() {
    let operator = Operator::new();
    let (base, certificate) = tls_stand_in(30);
    operator.write("certificate.pem", &certificate);
    let arguments = ["healthcheck", "--url", &format!("{base}{DOCUMENT}"), "--issuer", &base];

    let stranger = operator.run(&arguments).exits(1);
    assert!(stranger.stderr.contains("certificate"), "{stranger:?}");

    let operator = operator.with("SSL_CERT_FILE", "certificate.pem");
    assert_eq!(operator.run(&arguments).exits(0).printed(), format!("issuer {base}, 1 key(s)\n"));
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let operator = Operator::new().with("SERVICE_PORT", listener.local_addr().unwrap().port().to_string());

    let outcome = operator.run(&["healthcheck", "--live", "--timeout", "1"]).exits(1);

    assert!(outcome.stderr.contains("no answer within 1 s"), "{outcome:?}");
    assert!(outcome.took >= Duration::from_secs(1), "{outcome:?}");
}

#[test]
fn what_cannot_be_asked_is_said() {
    let operator = Operator::new();
    let ftp = operator.run(&["healthcheck", "--url", "ftp://auth.example/.well-known/openid-configuration"]).exits(65);
    assert!(ftp.stderr.contains("must be an http or https URL"), "{ftp:?}");
    for arguments in [&["--issuer", "https://auth.example"][..], &["--url", "svc"], &["--live", "--url", "http://svc/"]]
    {
        operator.run(&[&["healthcheck"], arguments].concat()).exits(2);
    }
    let operator =
        operator.with("AUTHSERVICE__SERVER__PORT", "0").with("AUTHSERVICE__SERVER__ISSUER", "http://localhost");
    let port = operator.run(&["healthcheck"]).exits(78);
    assert!(port.stderr.contains("server.port"), "{port:?}");
}
