//! The resource servers in `examples/` are run, and all of them judge the same tokens alike.
//!
//! Python, Node.js and Rust always run. The others run where their tools are, and say so where they are not; with `EXAMPLES=all`
//! a tool that is missing is a failure.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use poem::listener::{Acceptor as _, Listener as _, TcpListener};
use poem::{IntoEndpoint as _, Request, Server};
use reqwest::Method;
use serde_json::{Value, json};

use self::child::{Running, find, root, run};
use self::issuer::Issuer;
use crate::support::{Answer, claims};

mod child;
mod issuer;

/// What tells one example from another.
#[derive(Clone, Copy)]
struct Traits {
    /// Asks the server about every token, so that a session's end counts at once and there are no keys to read.
    is_online: bool,
    /// Keeps the keys for a second only, in this test.
    is_forgetful: bool,
    /// What new keys may be for, besides RS256.
    algorithms: &'static [&'static str],
}

/// What most of them are.
const PLAIN: Traits = Traits { is_online: false, is_forgetful: false, algorithms: &["ES256", "PS256", "EdDSA"] };

/// The program, if it is on this machine.
fn tool(example: &str, program: &str) -> Option<PathBuf> {
    use std::io::Write as _;
    let found = find(program);
    if found.is_none() {
        assert!(std::env::var("EXAMPLES").as_deref() != Ok("all"), "{example}: no {program} on this machine");
        // Said past cargo's capture, which would hide it in a test that passes.
        let _ = writeln!(std::io::stderr(), "examples: {example} NOT RUN: no {program} on this machine");
    }
    found
}

/// These are never left out in silence.
fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with scripts/test.sh"))
}

fn folder(example: &str) -> PathBuf {
    root().join("examples").join(example)
}

/// A resource server in a language, which reads its settings from the environment.
fn settings(mut command: Command, issuer: &Issuer, port: u16) -> Command {
    command.env("AUTH_ISSUER", &issuer.url).env("PORT", port.to_string()).env("AUTH_JWKS_COOLDOWN", "1");
    command.env_remove("AUTH_AUDIENCE");
    command
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap()
}

/// `GET /orders`.
async fn orders(url: &str, authorization: Option<&str>) -> Answer {
    let request = client().request(Method::GET, format!("{url}/orders"));
    Answer::of(match authorization {
        Some(value) => request.header("Authorization", value),
        None => request,
    })
    .await
}

async fn with_token(url: &str, token: &str) -> Answer {
    orders(url, Some(&format!("Bearer {token}"))).await
}

/// The answer to a token as soon as it is as expected, or the last one.
async fn soon(url: &str, token: &str, status: u16) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = with_token(url, token).await;
        if answer.status == status || Instant::now() > deadline {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is wrong with the answer to a request that must be let in.
fn unlike_welcome(answer: &Answer, token: &str) -> Option<String> {
    let is_right = answer.status == 200 && answer.json()["sub"] == claims(token)["sub"];
    (!is_right).then(|| format!("{answer:?}"))
}

/// What is wrong with a refusal: RFC 6750 3 and 3.1.
fn unlike_refusal(answer: &Answer, has_token: bool, traits: Traits) -> Option<String> {
    let challenge = answer.header("www-authenticate");
    // Our own server says no more than `Bearer`, and a proxy that asks it passes that on.
    let says_enough = challenge.contains("error=\"invalid_token\"") == has_token || (has_token && traits.is_online);
    let is_right = answer.status == 401 && challenge.starts_with("Bearer") && says_enough;
    (!is_right).then(|| format!("{answer:?}"))
}

/// Every row of the table, in an order that matters: a verifier that can read no keys, one that has read them, one that meets
/// new keys. Returns a token whose session lives on.
async fn judges_tokens_rightly(example: &Running, issuer: &Issuer, traits: Traits) -> String {
    let url = &example.url;
    let good = &issuer.pair.access;
    let mut faults = Vec::new();
    let mut row = |name: &str, fault: Option<String>| faults.extend(fault.map(|fault| format!("{name}: {fault}")));

    let unavailable = with_token(url, good).await;
    row("the keys cannot be read", (unavailable.status != 503).then(|| format!("{unavailable:?}")));
    issuer.come_up();
    row("a valid token", unlike_welcome(&soon(url, good, 200).await, good));

    row("no token", unlike_refusal(&orders(url, None).await, false, traits));
    row("another scheme", unlike_refusal(&orders(url, Some("Basic YWxpY2U6eA==")).await, false, traits));
    for (name, forgery) in issuer.forgeries().await {
        row(name, unlike_refusal(&with_token(url, &forgery).await, true, traits));
    }
    row("a valid token after all these", unlike_welcome(&with_token(url, good).await, good));

    // Anybody can make up kids; that must not become a request to the server each time.
    let (before, started) = (issuer.readings(), Instant::now());
    for token in issuer.unknown_kids(60) {
        row("an unknown kid", unlike_refusal(&with_token(url, &token).await, true, traits));
    }
    let (readings, seconds) = (issuer.readings() - before, started.elapsed().as_secs());
    let most = usize::try_from(seconds).unwrap() + 3;
    row("unknown kids", (readings > most).then(|| format!("the keys were read {readings} times in {seconds} s")));

    let mut new = String::new();
    for algorithm in traits.algorithms {
        new = issuer.token_of_a_new_key(algorithm).await;
        row(&format!("a token of a new key for {algorithm}"), unlike_welcome(&soon(url, &new, 200).await, &new));
    }
    row("a token of the oldest key", unlike_welcome(&with_token(url, good).await, good));

    issuer.end_session().await;
    let after = with_token(url, good).await;
    let fault = if traits.is_online { unlike_refusal(&after, true, traits) } else { unlike_welcome(&after, good) };
    row("its session has ended", fault);

    issuer.go_down();
    let away = with_token(url, &new).await;
    row(
        "the server is away",
        match away.status {
            503 if traits.is_online || traits.is_forgetful => None,
            _ if traits.is_online => Some(format!("{away:?}")),
            _ => unlike_welcome(&away, &new),
        },
    );
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
    new
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python() {
    let python = setting("VERIFIER_PYTHON");
    let issuer = Issuer::start().await;
    let example = Running::start(|port, _| {
        let mut command = Command::new(&python);
        command.arg(folder("python").join("server.py"));
        settings(command, &issuer, port)
    })
    .await;
    judges_tokens_rightly(&example, &issuer, PLAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    // An ES module finds its packages beside itself only.
    let modules = Path::new(&setting("VERIFIER_NODE_DIR")).join("node_modules");
    let issuer = Issuer::start().await;
    let example = Running::start(|port, directory| {
        std::fs::copy(folder("node").join("server.mjs"), directory.join("server.mjs")).unwrap();
        std::os::unix::fs::symlink(&modules, directory.join("node_modules")).unwrap();
        let mut command = Command::new("node");
        command.arg(directory.join("server.mjs"));
        settings(command, &issuer, port)
    })
    .await;
    judges_tokens_rightly(&example, &issuer, PLAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust() {
    let target = root().join("target/examples");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(folder("rust").join("Cargo.toml"));
    run({
        build.env("CARGO_TARGET_DIR", &target);
        build
    })
    .await;
    let issuer = Issuer::start().await;
    let example = Running::start(|port, _| settings(Command::new(target.join("debug/orders")), &issuer, port)).await;
    judges_tokens_rightly(&example, &issuer, PLAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go() {
    let Some(go) = tool("go", "go") else { return };
    let program = root().join("target/examples/go/orders");
    let mut build = Command::new(go);
    build.current_dir(folder("go")).args(["build", "-mod=readonly", "-o"]).arg(&program).arg(".");
    run(build).await;
    let issuer = Issuer::start().await;
    let example = Running::start(|port, _| settings(Command::new(&program), &issuer, port)).await;
    judges_tokens_rightly(&example, &issuer, PLAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java() {
    let Some(maven) = tool("java", "mvn") else { return };
    let mut build = Command::new(maven);
    build.current_dir(folder("java")).args(["--batch-mode", "--quiet", "--no-transfer-progress", "package"]);
    run(build).await;
    let issuer = Issuer::start().await;
    let example = Running::start(|port, _| {
        let mut command = Command::new("java");
        command.arg("-jar").arg(folder("java").join("target/orders.jar"));
        settings(command, &issuer, port)
    })
    .await;
    judges_tokens_rightly(&example, &issuer, Traits { algorithms: &["ES256", "PS256"], ..PLAIN }).await;
}

/// What a server behind a proxy got.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// A server that believes the proxy in front of it: it answers with the subject that `subject` finds in a request.
async fn behind(subject: fn(&Request) -> String) -> (String, Seen) {
    let seen = Seen::default();
    let shared = Arc::clone(&seen);
    let endpoint = poem::endpoint::make(move |mut request: Request| {
        let shared = Arc::clone(&shared);
        async move {
            // Whoever answers before the body has come makes the proxy fail to send it.
            request.take_body().into_bytes().await?;
            let headers = request.headers().iter();
            let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            *shared.lock().unwrap() = headers.collect();
            Ok::<_, poem::Error>(json!({"sub": subject(&request)}).to_string())
        }
    });
    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
    let address = acceptor.local_addr()[0].to_string();
    let address = address.trim_start_matches("socket://").to_owned();
    tokio::spawn(Server::new_with_acceptor(acceptor).run(endpoint.into_endpoint()));
    (address, seen)
}

/// The configuration with each pattern, which must be there, replaced.
fn adapted(path: &Path, replacements: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in replacements {
        assert!(text.contains(from), "{}: no {from}", path.display());
        text = text.replace(from, to);
    }
    text
}

/// The server behind believes what the proxy says of the client; the client must not be able to say it.
async fn lets_no_forgery_through(url: &str, token: &str, seen: &Seen) {
    const NAMES: [&str; 9] = [
        "x-user-id",
        "x-user",
        "x-remote-user",
        "remote-user",
        "x-auth-sub",
        "x-forwarded-user",
        "x-forwarded-email",
        "x-forwarded-groups",
        "forwarded",
    ];
    let client = client();
    let request = || client.get(format!("{url}/orders")).bearer_auth(token);
    let mut forged = request().header("X-Forwarded-For", "192.0.2.1").header("X-Other", "kept");
    for name in NAMES {
        forged = forged.header(name, "mallory");
    }

    let answer = Answer::of(forged).await;

    assert_eq!(unlike_welcome(&answer, token), None);
    let headers = seen.lock().unwrap().clone();
    let all: Vec<&str> = headers.iter().map(|(_, value)| value.as_str()).collect();
    assert!(!all.contains(&"mallory") && !all.iter().any(|value| value.contains("192.0.2.1")), "{headers:?}");
    assert!(all.contains(&"kept"), "{headers:?}");

    // The name with underscores is the same to many frameworks: dropped, or the request refused.
    seen.lock().unwrap().clear();
    let _ = Answer::of(request().header("X_Auth_Sub", "mallory").header("X_User_Id", "mallory")).await;
    assert!(!format!("{:?}", seen.lock().unwrap()).contains("mallory"));

    // Two tokens in one request: the one that goes on, if any does, is the one that was checked.
    for values in [["Bearer x.y.z", token], [token, "Bearer x.y.z"]] {
        seen.lock().unwrap().clear();
        let values = values.map(|value| if value == token { format!("Bearer {token}") } else { value.to_owned() });
        let twice =
            client.get(format!("{url}/orders")).header("Authorization", &values[0]).header("Authorization", &values[1]);
        let answer = Answer::of(twice).await;
        let passed = seen.lock().unwrap().clone();
        let passed: Vec<_> =
            passed.iter().filter(|(name, _)| name == "authorization").map(|(_, value)| value).collect();
        match answer.status {
            200 => assert_eq!(passed, [&format!("Bearer {token}")], "{answer:?}"),
            _ => assert!(passed.is_empty(), "{passed:?} {answer:?}"),
        }
    }

    // A body goes to the server behind, and no one else waits for it.
    let answer = Answer::of(client.post(format!("{url}/orders")).bearer_auth(token).body("x".repeat(100_000))).await;
    assert_eq!(unlike_welcome(&answer, token), None);

    // A token in the query is none (RFC 9700 4.3.2).
    let answer = Answer::of(client.get(format!("{url}/orders?access_token={token}"))).await;
    assert_eq!(answer.status, 401, "{answer:?}");
}

/// nginx is where scripts/setup.sh unpacks it, or installed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx() {
    let unpacked = root().join("target/verifiers/nginx/usr/sbin/nginx");
    let Some(nginx) = Some(unpacked).filter(|path| path.is_file()).or_else(|| tool("nginx", "nginx")) else { return };
    let issuer = Issuer::start().await;
    // nginx has verified the token: whoever gets it only reads it.
    let (address, seen) = behind(|request| {
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        claims(token)["sub"].as_str().unwrap().to_owned()
    })
    .await;
    let example = Running::start(|port, directory| {
        // An nginx that is not installed has no folders of its own.
        let paths =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};"));
        let text = adapted(
            &folder("nginx").join("nginx.conf"),
            &[
                ("http {", &format!("http {{ access_log off; {}", paths.join(" "))),
                ("server 127.0.0.1:9998", &issuer.url.replace("http://", "server ")),
                ("server 127.0.0.1:8081", &format!("server {address}")),
                ("listen 127.0.0.1:8080", &format!("listen 127.0.0.1:{port}")),
            ],
        );
        std::fs::write(directory.join("nginx.conf"), text).unwrap();
        let mut command = Command::new(&nginx);
        // One process, which takes its workers with it when it is killed.
        command.arg("-p").arg(directory).args(["-c", "nginx.conf", "-e", "stderr"]);
        command.args(["-g", "daemon off; master_process off; pid nginx.pid;"]);
        command
    })
    .await;

    let token = judges_tokens_rightly(&example, &issuer, Traits { is_online: true, ..PLAIN }).await;
    issuer.come_up();
    lets_no_forgery_through(&example.url, &token, &seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy() {
    let unpacked = root().join("target/verifiers/envoy/envoy/_bin/envoy");
    let Some(envoy) = Some(unpacked).filter(|path| path.is_file()).or_else(|| tool("envoy", "envoy")) else { return };
    let issuer = Issuer::start().await;
    let (address, seen) = behind(|request| request.header("x-auth-sub").unwrap_or_default().to_owned()).await;
    let example = Running::start(|port, directory| {
        let port_of = |address: &str| format!("port_value: {}", address.rsplit(':').next().unwrap());
        let text = adapted(
            &folder("envoy").join("envoy.yaml"),
            &[
                ("port_value: 9998", &port_of(&issuer.url)),
                ("http://127.0.0.1:9998", &issuer.url),
                ("port_value: 8081", &port_of(&address)),
                ("port_value: 8080", &format!("port_value: {port}")),
                ("cache_duration: 300s", "cache_duration: 1s"),
            ],
        );
        std::fs::write(directory.join("envoy.yaml"), text).unwrap();
        let mut command = Command::new(&envoy);
        command.arg("-c").arg(directory.join("envoy.yaml")).args([
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "-l",
            "warning",
        ]);
        command
    })
    .await;

    let token = judges_tokens_rightly(&example, &issuer, Traits { is_forgetful: true, ..PLAIN }).await;
    issuer.come_up();
    lets_no_forgery_through(&example.url, &token, &seen).await;
}

/// What is installed for the tests is what the examples ask for.
#[test]
fn the_examples_pin_what_is_tested() {
    let setup = std::fs::read_to_string(root().join("scripts/setup.sh")).unwrap();
    let version = |name: &str| {
        let (_, rest) = setup.split_once(&format!("readonly {name}=")).unwrap();
        rest.lines().next().unwrap().to_owned()
    };
    let requirements = std::fs::read_to_string(folder("python").join("requirements.txt")).unwrap();
    assert_eq!(requirements.trim(), format!("PyJWT[crypto]=={}", version("PYJWT_VERSION")));
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(folder("node").join(name)).unwrap()).unwrap() };
    let jose = version("JOSE_VERSION");
    assert_eq!(read("package.json")["dependencies"]["jose"], jose);
    assert_eq!(read("package-lock.json")["packages"]["node_modules/jose"]["version"], jose);
}
