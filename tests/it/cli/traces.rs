//! Traces as a collector gets them from the real binary, and the ids that log lines have.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName, SubjectKeyIdentifier};
use openssl::x509::{X509, X509Name};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Operator, PATIENCE, Server};
use crate::support::collector::{Collector, Span, Verdict};
use crate::support::{API, Answer, Engine, PASSWORD};

const SERVER: i32 = 2;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// With a collector, by the standard's names.
async fn traced(engine: Engine, collector: &Collector) -> Operator {
    Operator::on(engine).await.with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.base)
}

/// Log lines as objects.
fn objects(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The one log line about a request to this route.
fn answered<'a>(lines: &'a [Value], route: &str) -> &'a Value {
    let mut found = lines.iter().filter(|line| line["message"] == "answered" && line["route"] == route);
    let line = found.next().unwrap_or_else(|| panic!("{route} is not in {lines:#?}"));
    assert!(found.next().is_none(), "{route} is there twice");
    line
}

/// The one span with this name.
fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

/// Names of the spans directly within another, sorted, each once.
fn within(spans: &[Span], parent: &Span) -> Vec<String> {
    let children = spans.iter().filter(|span| span.parent_id == parent.id);
    let mut names: Vec<String> = children
        .inspect(|child| {
            assert_eq!(child.trace_id, parent.trace_id);
            assert!(child.times.0 >= parent.times.0 && child.times.1 <= parent.times.1, "{child:#?} in {parent:#?}");
        })
        .map(|child| child.name.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A certificate for 127.0.0.1 that signs itself, and its key, in PEM.
fn certificate() -> (Vec<u8>, Vec<u8>) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "collector").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&Asn1Integer::from_bn(&BigNum::from_u32(1).unwrap()).unwrap()).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(key_id).unwrap();
    let address = SubjectAlternativeName::new().ip("127.0.0.1").build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(address).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    (builder.build().to_pem().unwrap(), key.private_key_to_pem_pkcs8().unwrap())
}

/// Asks with a traceparent.
async fn with_parent(server: &Server, traceparents: &[&str]) -> Answer {
    let request = server.request(Method::GET, "/");
    Answer::of(traceparents.iter().fold(request, |request, text| request.header("traceparent", *text))).await
}

#[tokio::test]
async fn a_sign_in_and_a_refresh_are_traced_and_no_span_holds_a_secret() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let collector = Collector::start(&[Verdict::Taken]).await;
        let operator = traced(engine, &collector)
            .await
            .with("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20sesame")
            .with("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test");
        let server = operator.serve().await;
        let (email, password) = ("canary.address@example.com", "C4nary!Passw0rd");
        server.register(email, password).await;
        let pair = server.login(email, password).await.pair();
        let next = server.refresh(&pair.refresh).await.pair();
        let strange = server
            .request(Method::from_bytes(b"CANARY").unwrap(), "/canary-path?canary-query=canary")
            .header("x-request-id", "canary-id")
            .header("user-agent", "canary-agent")
            .bearer_auth("canary-token");
        let strange = Answer::of(strange).await;
        server.get("/health/ready").await;

        let lines = objects(&server.stop().await);

        let spans = collector.spans();
        let sign_in = named(&spans, &format!("POST {API}/auth/login"));
        let expected: BTreeMap<String, String> = [
            ("http.request.method", "POST"),
            ("http.route", &format!("{API}/auth/login")),
            ("http.response.status_code", "200"),
            ("url.scheme", "http"),
            ("server.address", "localhost"),
            ("request.id", answered(&lines, &format!("{API}/auth/login"))["span"]["request.id"].as_str().unwrap()),
        ]
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .collect();
        assert_eq!((&sign_in.attributes, sign_in.kind, sign_in.is_error), (&expected, SERVER, false), "{engine:?}");
        assert_eq!(sign_in.parent_id, "", "{engine:?}");
        assert_eq!(
            within(&spans, sign_in),
            ["password hash", "read", "sign tokens", "transaction", "write"],
            "{engine:?}"
        );
        let refresh = named(&spans, &format!("POST {API}/auth/refresh"));
        assert_eq!(within(&spans, refresh), ["read", "sign tokens", "write"], "{engine:?}");
        assert_ne!(refresh.trace_id, sign_in.trace_id);
        let system = if engine == Engine::Sqlite { "sqlite" } else { "postgresql" };
        let databases = spans.iter().filter(|span| ["read", "write", "transaction"].contains(&span.name.as_str()));
        for span in databases {
            assert_eq!(span.attributes, BTreeMap::from([("db.system.name".to_owned(), system.to_owned())]));
        }
        // Methods and paths of strangers name nothing; probes and work in the background have no span.
        let other = named(&spans, "HTTP");
        assert_eq!((strange.status, other.attributes["http.request.method"].as_str()), (404, "_OTHER"), "{engine:?}");
        assert!(!other.is_error && !other.attributes.contains_key("http.route"), "{other:#?}");
        assert_eq!(spans.iter().filter(|span| span.parent_id.is_empty()).count(), 4, "{spans:#?}");
        // The log and the trace lead to each other.
        for (span, route) in [(sign_in, "auth/login"), (refresh, "auth/refresh")] {
            let line = &answered(&lines, &format!("{API}/{route}"))["span"];
            assert_eq!((line["trace_id"].as_str(), line["span_id"].as_str()), (Some(&*span.trace_id), Some(&*span.id)));
        }

        let messages = collector.received();
        assert_eq!(messages[0].path, "/v1/traces");
        assert_eq!(messages[0].headers["content-type"], "application/x-protobuf");
        assert_eq!(messages[0].headers["authorization"], "Bearer sesame");
        let resource = messages[0].resource();
        assert_eq!(resource["service.name"], "authservice");
        assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(resource["deployment.environment.name"], "test");
        assert_eq!(resource["telemetry.sdk.language"], "rust");
        let mut secrets = vec!["canary".to_owned(), "C4nary".to_owned(), "sesame".to_owned()];
        for token in [&pair.access, &pair.refresh, &next.access, &next.refresh] {
            secrets.extend(token.split('.').skip(1).map(str::to_owned));
        }
        for secret in secrets {
            let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!messages.iter().any(|message| holds(&message.body)), "{engine:?}: {secret} is in a span");
            assert!(!lines.iter().any(|line| line.to_string().contains(&secret)), "{engine:?}: {secret} is in the log");
        }
    }
}

#[tokio::test]
async fn a_request_that_fails_for_the_database_is_an_error_in_its_trace() {
    let collector = Collector::start(&[Verdict::Taken]).await;
    let operator = traced(Engine::Sqlite, &collector).await;
    let server = operator.serve().await;
    let pair = server.alice().await;
    operator.sql("ALTER TABLE refresh_tokens RENAME TO gone").await;

    assert_eq!(server.refresh(&pair.refresh).await.status, 503);

    server.stop().await;
    let spans = collector.spans();
    let refresh = named(&spans, &format!("POST {API}/auth/refresh"));
    assert!(refresh.is_error && refresh.attributes["error.type"] == "503", "{refresh:#?}");
    let read = spans.iter().find(|span| span.parent_id == refresh.id).unwrap();
    assert!(read.name == "read" && read.is_error, "{read:#?}");
}

/// W3C Trace Context 3.2 and 4.2; docs/decisions/0014.
#[tokio::test]
async fn the_trace_of_a_trusted_caller_goes_on_and_no_other() {
    let sampled = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let unsampled = format!("00-{TRACE}-00f067aa0ba902b7-00");
    // Trusted, ratio, headers; spans, and whether they belong to the caller's trace.
    let rows: [(&str, &str, &[&str], usize, bool); 9] = [
        ("127.0.0.0/8", "1", &[&sampled], 1, true),
        ("127.0.0.0/8", "1", &[&unsampled], 0, true),
        ("127.0.0.0/8", "0", &[&sampled], 1, true),
        ("127.0.0.0/8", "0", &[], 0, false),
        ("127.0.0.0/8", "1", &[&sampled[1..]], 1, false),
        ("127.0.0.0/8", "1", &[&sampled, &sampled], 1, false),
        ("192.0.2.1", "1", &[&sampled], 1, false),
        ("192.0.2.1", "1", &[&unsampled], 1, false),
        ("192.0.2.1", "0", &[&sampled], 0, false),
    ];
    for (trusted, ratio, headers, count, is_theirs) in rows {
        let collector = Collector::start(&[Verdict::Taken]).await;
        let operator = traced(Engine::Sqlite, &collector)
            .await
            .with("AUTHSERVICE__TRACES__SAMPLE_RATIO", ratio)
            .with("AUTHSERVICE__SERVER__TRUSTED_PROXIES", trusted);
        let server = operator.serve().await;

        assert_eq!(with_parent(&server, headers).await.status, 200);

        let lines = objects(&server.stop().await);
        let name = format!("{trusted} {ratio} {headers:?}");
        let spans = collector.spans();
        assert_eq!(spans.len(), count, "{name}: {spans:#?}");
        for span in &spans {
            assert_eq!((span.name.as_str(), span.kind), ("GET /", SERVER), "{name}");
            assert_eq!(span.trace_id == TRACE, is_theirs, "{name}");
            assert_eq!(span.parent_id, if is_theirs { "00f067aa0ba902b7" } else { "" }, "{name}");
        }
        // Lines have the id of the caller's trace also when it is not sampled.
        assert_eq!(answered(&lines, "/")["span"]["trace_id"] == TRACE, is_theirs, "{name}");
    }
}

#[tokio::test]
async fn nothing_is_traced_or_sent_unless_it_is_asked_for() {
    let collector = Collector::start(&[Verdict::Taken]).await;
    let operators = [
        Operator::on(Engine::Sqlite).await,
        traced(Engine::Sqlite, &collector).await.with("OTEL_SDK_DISABLED", "true"),
    ];
    for operator in operators {
        let server = operator.serve().await;
        server.alice().await;

        let lines = objects(&server.stop().await);

        assert!(collector.received().is_empty());
        assert!(!lines.iter().any(|line| line["message"] == "requests are traced"), "{lines:#?}");
        let span = &answered(&lines, &format!("{API}/auth/login"))["span"];
        assert!(span["request.id"].is_string() && span.as_object().unwrap().len() == 2, "{span}");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_costs_a_warning() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (refusing, silent) = (closed.local_addr().unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    drop(closed);
    let rows = [(refusing, "refused"), (silent.local_addr().unwrap(), "")];
    for (address, why) in rows {
        let operator = Operator::on(Engine::Sqlite)
            .await
            .with("AUTHSERVICE__TRACES__ENDPOINT", format!("http://{address}/v1/traces"))
            .with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "0");
        let mut server = operator.serve().await;
        server.alice().await;

        let started = Instant::now();
        server.process.signal("TERM");

        assert_eq!(server.process.ended().await, Some(0));
        assert!(started.elapsed() < Duration::from_secs(8), "{address}: {:?}", started.elapsed());
        let lines = objects(&server.process.stdout.last());
        assert_eq!(lines.last().unwrap()["message"], "stopped");
        let warnings: Vec<&Value> = lines.iter().filter(|line| line["level"] == "WARN").collect();
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        if why.is_empty() {
            assert_eq!(warnings[0]["message"], "the last spans were not sent: the collector takes too long");
        } else {
            assert_eq!(warnings[0]["message"], "spans were lost");
            // One for each request, and those within.
            assert!(warnings[0]["spans"].as_u64().unwrap() > 5, "{warnings:#?}");
            assert!(warnings[0]["error"].as_str().unwrap().contains(why), "{warnings:#?}");
        }
    }
}

#[tokio::test]
async fn what_a_collector_does_not_take_is_counted() {
    // Messages that arrive, and why the one span is lost.
    let rows: [(&[Verdict], usize, Option<&str>); 3] = [
        (&[Verdict::Status(400)], 1, Some("status 400")),
        (&[Verdict::AllButOne], 1, Some("one is too many")),
        // It is asked again.
        (&[Verdict::Status(503), Verdict::Taken], 2, None),
    ];
    for (verdicts, messages, lost) in rows {
        let collector = Collector::start(verdicts).await;
        let operator = traced(Engine::Sqlite, &collector).await;
        let server = operator.serve().await;
        with_parent(&server, &[]).await;
        if messages > 1 {
            // The first message goes out by itself, and is sent again a while later.
            let started = Instant::now();
            while collector.received().len() < messages {
                assert!(started.elapsed() < PATIENCE, "{verdicts:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }

        let lines = objects(&server.stop().await);

        let received = collector.received();
        assert_eq!(received.len(), messages, "{verdicts:?}");
        assert!(received.iter().all(|message| message.body == received[0].body), "{verdicts:?}");
        let told: Vec<_> = lines
            .iter()
            .filter(|line| line["message"] == "spans were lost")
            .map(|line| (line["spans"].as_u64().unwrap(), line["error"].as_str().unwrap()))
            .collect();
        assert_eq!(told, lost.map(|why| (1, why)).into_iter().collect::<Vec<_>>(), "{verdicts:?}");
    }
}

/// The certificate is judged as any other client would judge it.
#[tokio::test]
async fn a_collector_may_speak_tls() {
    let operator = Operator::on(Engine::Sqlite).await;
    let (certificate, key) = certificate();
    std::fs::write(operator.path("ca.pem"), &certificate).unwrap();
    let collector = Collector::start_with_tls(&certificate, &key).await;
    let operator = operator.with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.base);

    let server = operator.serve().await;
    with_parent(&server, &[]).await;
    let refused = objects(&server.stop().await);
    assert!(collector.received().is_empty());
    let lost = refused.iter().find(|line| line["message"] == "spans were lost").unwrap();
    assert!(lost["error"].as_str().unwrap().contains("certificate"), "{lost}");

    let ca = operator.path("ca.pem");
    let operator = operator.with("SSL_CERT_FILE", ca);
    let server = operator.serve().await;
    with_parent(&server, &[]).await;
    let lines = server.stop().await;
    assert_eq!(collector.spans().len(), 1, "{lines:#?}");
}

/// Also lines of the threads that hash, and those of a log of errors.
#[tokio::test]
async fn every_line_about_a_request_has_its_id_whatever_the_format_and_level() {
    for format in ["json", "pretty"] {
        let operator = Operator::on(Engine::Sqlite)
            .await
            .with("AUTHSERVICE__LOG__LEVEL", "error,authservice::cli=info")
            .with("AUTHSERVICE__LOG__FORMAT", format)
            .with("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "127.0.0.1");
        let mut process = operator.spawn(&["serve"]);
        let address = process.listening().await;
        let client = reqwest::Client::new();
        let body = json!({"email": "alice@example.com", "password": PASSWORD});
        for (path, status) in [("users/register", 201), ("auth/login", 401)] {
            let request = client.post(format!("http://{address}{API}/{path}")).json(&body);
            assert_eq!(Answer::of(request.header("x-request-id", "the-id")).await.status, status);
            operator.sql("UPDATE users SET hashed_password = 'rubbish'").await;
        }
        process.signal("INT");
        assert_eq!(process.ended().await, Some(0));

        let lines = process.stdout.last();
        let line = lines.iter().find(|line| line.contains("a stored password hash cannot be read"));
        let line = line.unwrap_or_else(|| panic!("{lines:#?}"));
        assert!(line.contains("the-id") && !line.contains('\u{1b}'), "{line}");
        assert!(!lines.iter().any(|line| line.contains("answered")), "{lines:#?}");
    }
}
