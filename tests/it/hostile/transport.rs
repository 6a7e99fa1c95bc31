//! 2A: HTTP itself, on every route. What takes its time is in `slow.rs`.

use serde_json::json;

use super::oracle::{PASSWORD, Stage};
use super::wire::{bare, bearer, posted_as, request};
use super::{Case, LOGIN, LOGOUT, LOGOUT_ALL, ME, REFRESH, REGISTER, SESSIONS, case, each_engine, framing};
use crate::support::Pair;

pub(super) const LIVE: &str = "/health/live";
const DISCOVERY: &str = "/.well-known/openid-configuration";
const ALICE: &str = "canary.alice@example.com";

#[tokio::test]
async fn transport() {
    let never =
        [("A45: a user agent that is too long", "SELECT COUNT(*) FROM auth_sessions WHERE length(user_agent) > 255")];
    each_engine(&[], &never, async |stage| {
        let alice = stage.account(ALICE);
        let mut cases = methods(&alice);
        cases.extend(targets(&alice));
        cases.extend(heads());
        cases.extend(hosts());
        cases.extend(ignored(&alice));
        cases.extend(origins());
        cases.extend(framing::cases(&alice));
        for case in &cases {
            stage.run(case);
        }
        goes_on(stage, &alice);
    })
    .await;
}

/// Nothing of all that has touched her session.
fn goes_on(stage: &mut Stage, alice: &Pair) {
    stage.ask(&bearer(&format!("GET {ME}"), &alice.access), 200);
    stage.ask(&bearer(&format!("POST {REFRESH}"), &alice.refresh), 200);
}

fn sign_in() -> String {
    json!({"email": ALICE, "password": PASSWORD}).to_string()
}

/// A POST to login with extra header lines.
fn login_with(headers: impl AsRef<[u8]>) -> Vec<u8> {
    let body = sign_in();
    let own = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    request(&format!("POST {LOGIN}"), [own.as_bytes(), headers.as_ref()].concat(), body)
}

fn methods(alice: &Pair) -> Vec<Case> {
    let mut cases = vec![
        case("A02", "HEAD with a token", bearer(&format!("HEAD {ME}"), &alice.access), "200"),
        case("+A02", "HEAD without a token", bare(&format!("HEAD {ME}")), "401"),
        case("+A02", "HEAD on a POST route", bare(&format!("HEAD {LOGIN}")), "405"),
        case("A05", "TRACE /", request("TRACE /", "X-Secret: C4nary\r\n", ""), "405"),
        case("A05", "TRACE login", request(&format!("TRACE {LOGIN}"), "X-Secret: C4nary\r\n", ""), "405"),
        case(
            "A08",
            "override in a header",
            request(&format!("GET {LIVE}"), "X-HTTP-Method-Override: DELETE\r\n", ""),
            "200",
        ),
        case("A08", "override in the query", bare(&format!("GET {LIVE}?_method=DELETE")), "200"),
        case("+A08", "override of a GET", bearer(&format!("GET {LOGOUT_ALL}?_method=POST"), &alice.access), "405"),
        case("+A04", "OPTIONS *", bare("OPTIONS *"), "400|404|405"),
        case("+A07", "a method of 4 KiB", bare(&format!("{} {LIVE}", "M".repeat(4096))), "400|405"),
        case("+A07", "a method of odd bytes", bare("G\u{e9}T /"), "400"),
        case("+A07", "a method in quotes", bare("\"GET\" /"), "400"),
        case("+A07", "no method", bare(" /"), "400"),
        case("+A05", "CONNECT", bare("CONNECT evil.example:443"), "400|404|405"),
        case("+A05", "CONNECT without a port", bare("CONNECT evil.example"), "400|404|405"),
        case("+A05", "CONNECT a route", bare(&format!("CONNECT {LOGIN}")), "400|405"),
    ];
    for path in [REGISTER, LOGIN, REFRESH, LOGOUT, LOGOUT_ALL] {
        cases.push(case("A01", format!("GET {path}"), bare(&format!("GET {path}")), "405"));
        cases.push(case("A04", format!("OPTIONS {path}"), bare(&format!("OPTIONS {path}")), "405"));
        cases.push(case("A07", format!("post {path}"), bare(&format!("post {path}")), "400|405"));
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "PURGE", "PRI", "QUERY"] {
        cases.push(case("+A01", format!("{method} {ME}"), bearer(&format!("{method} {ME}"), &alice.access), "405"));
        cases.push(case("+A01", format!("{method} {LIVE}"), bare(&format!("{method} {LIVE}")), "405"));
    }
    cases
}

fn targets(alice: &Pair) -> Vec<Case> {
    let mut cases = Vec::new();
    let nowhere = [
        ("A09", "//auth_api/v1/users/me"),
        ("A09", "/auth_api/./v1/users/me"),
        ("A09", "/auth_api/v1/auth/../users/me"),
        ("A11", "/auth_api/v1/users/me;jsessionid=1"),
        ("A11", "/auth_api/v1/auth/..;/users/me"),
        ("A14", "/auth_api/v1/users/me%00"),
        ("A14", "/%00"),
        ("A15", "/auth_api/v1/users/me%zz"),
        ("A15", "/%"),
        ("+A09", "/auth_api/v1/auth/%2e%2e/users/me"),
        ("+A09", "/auth_api/v1/auth/%252e%252e/users/me"),
        ("+A09", "/auth_api/v1/auth/..%2fusers/me"),
        ("+A09", "/auth_api/v1/auth\\..\\users\\me"),
        ("+A09", "/auth_api/v1/users/me/."),
        ("+A09", "/auth_api/v1/users/me//"),
        ("+A09", "/AUTH_API/V1/USERS/ME"),
        ("+A09", "/auth_api/v1/users/%6d%65"),
        ("+A09", "/auth_api%2fv1%2fusers%2fme"),
        ("+A09", "/../../../../etc/passwd"),
        ("+A09", "/static/..%2f..%2f..%2fetc%2fpasswd"),
        ("+A15", "/auth_api/v1/auth/%c0%ae%c0%ae/users/me"),
        ("+A15", "/%c0%af"),
        ("+A15", "/%e0%80%af"),
        ("+A15", "/%u002e%u002e/"),
        ("+A15", "/%ff"),
        ("+A15", "/<script>evil</script>"),
        ("+A15", "/{session_id}"),
        ("+A15", "*"),
        ("+A15", "me"),
        ("+A15", "evil.example:80"),
        ("+A15", "?a=b"),
        ("+A15", "#"),
        ("+A15", "/auth_api/v1/users/me#evil"),
    ];
    for (id, target) in nowhere {
        // A fragment is no part of a target: left away, or refused (RFC 9112 3.2.1).
        let expected = if target.ends_with("#evil") { "200|400|404" } else { "400|404" };
        cases.push(case(id, target, bearer(&format!("GET {target}"), &alice.access), expected));
    }
    for path in [ME, LOGIN, SESSIONS, LIVE, DISCOVERY, "/docs", "/auth_api/v1/auth/sessions/x"] {
        cases.push(case("A12", format!("{path}/"), bare(&format!("GET {path}/")), "307"));
    }
    for (name, target) in [
        ("a host in the path", "//evil.example/auth_api/v1/users/me/"),
        ("a path of hosts", "/\\evil.example/"),
        ("an encoded host", "/%2f%2fevil.example/"),
        ("a line break", "/health/live%0d%0aSet-Cookie:evil/"),
    ] {
        cases.push(case("+A12", name, bare(&format!("GET {target}")), "400|404"));
    }
    cases.extend([
        case("A15", "0xFF in the path", [&b"GET /\xff"[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat(), "400|404"),
        case("+A15", "a raw control", b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "400"),
        case("+A15", "a raw tab", b"GET /\t HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "400"),
        case("+A15", "a raw DEL", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "400"),
        case("+A15", "raw UTF-8", bare("GET /ключ"), "400|404"),
        case("+A15", "UTF-16", utf16("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "400"),
        case("A21", "absolute-form", bare(&format!("GET http://evil.example{DISCOVERY}")), "200"),
        case("A21", "absolute-form with a user", bare(&format!("GET http://u:p@evil.example:1{DISCOVERY}")), "200|400"),
        case("+A21", "absolute-form of TLS", bare(&format!("GET https://evil.example{DISCOVERY}")), "200"),
        case("+A21", "absolute-form of a file", bare("GET file:///etc/passwd"), "400|404"),
        case("+A21", "absolute-form of a script", bare("GET javascript:evil()"), "400|404"),
        case("+A21", "absolute-form without a path", bare("GET http://evil.example"), "200"),
        case("+A21", "an open bracket", bare("GET http://[::1/"), "400"),
        case("+A17", "a query of 7 KiB", bare(&format!("GET {LIVE}?{}", "a".repeat(7 << 10))), "200"),
        case("+A17", "a query of 9 KiB", bare(&format!("GET {LIVE}?{}", "a".repeat(9 << 10))), "414"),
        case("+A17", "a path of 9 KiB", bare(&format!("GET /{}", "a".repeat(9 << 10))), "414"),
        case("+A17", "a path of 4,000 segments", bare(&format!("GET {}", "/a".repeat(4000))), "404"),
        case("+A17", "a target of 20 KiB", bare(&format!("GET /{}", "a".repeat(20 << 10))), "414|431"),
        case("+A17", "a target of 1 MiB", bare(&format!("GET /{}", "a".repeat(1 << 20))), "414|431"),
        case("+A17", "10,000 parameters", bare(&format!("GET {LIVE}?{}", "a&".repeat(4000))), "200"),
    ]);
    cases
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Header lines that are too many, too long, or not headers.
fn heads() -> Vec<Case> {
    let live = |headers: &[u8]| request(&format!("GET {LIVE}"), headers, "");
    let mut cases = vec![
        case("A17", "200 headers", live("X: 1\r\n".repeat(200).as_bytes()), "431"),
        case("A17", "a header of 64 KiB", live(format!("X: {}\r\n", "a".repeat(64 << 10)).as_bytes()), "431"),
        case("+A17", "a name of 20 KiB", live(format!("{}: 1\r\n", "a".repeat(20 << 10)).as_bytes()), "431"),
        case(
            "+A17",
            "99 headers of 150 bytes",
            live(format!("X: {}\r\n", "a".repeat(145)).repeat(99).as_bytes()),
            "200",
        ),
        case("+A17", "10,000 headers", live("a:\r\n".repeat(10_000).as_bytes()), "431"),
        case("A19", "a space before the colon", live(b"X : 1\r\n"), "400"),
        case("A19", "a space before the colon of Host", b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n".to_vec(), "400"),
        case("+A19", "a tab before the colon", live(b"X\t: 1\r\n"), "400"),
        case(
            "+A18",
            "1 MiB of line breaks first",
            ["\r\n".repeat(1 << 19).as_bytes(), &live(b"")].concat(),
            "200|400|431|closed",
        ),
        case("+A18", "an empty line first", ["\r\n".as_bytes(), &live(b"")].concat(), "200|400"),
        case("+A18", "a space first", [" ".as_bytes(), &live(b"")].concat(), "400"),
        case("+A18", "two spaces in the request line", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "400"),
        case("+A18", "a tab in the request line", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "400"),
        case("+A18", "a fourth word", b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n".to_vec(), "400"),
        case("+A18", "a byte order mark", [b"\xef\xbb\xbf".as_slice(), &live(b"")].concat(), "400"),
    ];
    let broken: [(&str, &str, &[u8]); 20] = [
        ("A18", "a bare CR", b"X: a\rb\r\n"),
        ("A18", "a bare LF", b"X: a\nY: b\r\n"),
        ("A18", "a folded line", b"X: a\r\n b\r\n"),
        ("A18", "NUL in a value", b"X: a\0b\r\n"),
        ("+A18", "NUL in a name", b"X\0: a\r\n"),
        ("+A18", "a control in a value", b"X: a\x01b\r\n"),
        ("+A18", "DEL in a value", b"X: a\x7fb\r\n"),
        ("+A18", "a control in a name", b"\x01: a\r\n"),
        ("+A18", "a byte above ASCII in a name", b"X\x80: a\r\n"),
        ("+A18", "a bracket in a name", b"X(Y): a\r\n"),
        ("+A18", "a slash in a name", b"X/Y: a\r\n"),
        ("+A18", "a quote in a name", b"\"X\": a\r\n"),
        ("+A18", "a space in a name", b"X Y: a\r\n"),
        ("+A18", "no name", b": a\r\n"),
        ("+A18", "no colon", b"nonsense\r\n"),
        ("+A18", "a folded line with a tab", b"X: a\r\n\tContent-Length: 5\r\n"),
        ("+A18", "a line of one space", b" \r\n"),
        ("+A18", "CR CR LF", b"X: a\r\r\n"),
        ("+A18", "LF CR", b"X: a\n\r"),
        ("+A18", "a vertical tab", b"X: a\x0bb\r\n"),
    ];
    cases.extend(broken.map(|(id, name, lines)| case(id, name, live(lines), "400")));
    let harmless: [(&str, &[u8]); 6] = [
        ("bytes above ASCII in a value", b"X: \x80\xff\r\n"),
        ("a tab in a value", b"X: a\tb\r\n"),
        ("an empty value", b"X:\r\n"),
        ("no space after the colon", b"X:a\r\n"),
        ("a name of every sign", b"!#$%&'*+-.^_`|~: a\r\n"),
        ("a header many times", b"X: a\r\nX: b\r\nx: c\r\n"),
    ];
    cases.extend(harmless.map(|(name, lines)| case("+A18", name, live(lines), "200")));
    cases
}

/// RFC 9112 3.2: exactly one Host, and a host in it.
fn hosts() -> Vec<Case> {
    let with = |hosts: &str, version: &str| format!("GET {DISCOVERY} HTTP/{version}\r\n{hosts}\r\n");
    let rows = [
        ("none", "", "400"),
        ("two", "Host: a\r\nHost: b\r\n", "400"),
        ("two that agree", "Host: a\r\nhost: a\r\n", "400"),
        ("two words", "Host: a b\r\n", "400"),
        ("a path", "Host: a/evil.example\r\n", "400"),
        ("a list", "Host: a, b\r\n", "400"),
        ("a script", "Host: <evil>\r\n", "400"),
        ("a port above 65535", "Host: a:99999\r\n", "200|400"),
        ("a port of letters", "Host: a:x\r\n", "200|400"),
        ("an open bracket", "Host: [::1\r\n", "400"),
        ("bytes above ASCII", "Host: пример\r\n", "400"),
        ("a user", "Host: user@evil.example\r\n", "200|400"),
        ("another host", "Host: evil.example\r\n", "200"),
        ("an address", "Host: [::1]:80\r\n", "200"),
        ("empty", "Host:\r\n", "200|400"),
    ];
    let mut cases: Vec<Case> = rows
        .into_iter()
        .map(|(name, hosts, expected)| case("+A44", format!("Host: {name}"), with(hosts, "1.1"), expected))
        .collect();
    cases.extend([
        case("+A44", "HTTP/1.0 without a host", with("", "1.0"), "200"),
        case("+A44", "HTTP/1.0 with two hosts", with("Host: a\r\nHost: b\r\n", "1.0"), "400"),
        case("+A44", "HTTP/1.2", with("Host: a\r\n", "1.2"), "200|400"),
        case("+A44", "HTTP/2.0", with("Host: a\r\n", "2.0"), "400"),
        case("+A44", "HTTP/1.10", with("Host: a\r\n", "1.10"), "400"),
        case("+A44", "http/1.1", with("Host: a\r\n", "1.1").replacen("HTTP", "http", 1), "400"),
        case("+A44", "ICY/1.1", with("Host: a\r\n", "1.1").replacen("HTTP", "ICY", 1), "400"),
    ]);
    cases
}

/// Headers that change nothing.
fn ignored(alice: &Pair) -> Vec<Case> {
    let me = |headers: &str| {
        request(&format!("GET {ME}"), format!("Authorization: Bearer {}\r\n{headers}", alice.access), "")
    };
    let long = "a".repeat(9 << 10);
    let rows: [(&str, &str, Vec<u8>, &str); 28] = [
        ("A34", "Expect: foo", login_with("Expect: foo\r\n"), "417"),
        ("+A34", "Expect: 100-continue, foo", login_with("Expect: 100-continue, foo\r\n"), "417"),
        ("+A34", "Expect: 100-CONTINUE", login_with("Expect: 100-CONTINUE\r\n"), "200"),
        ("+A34", "two expectations", login_with("Expect: 100-continue\r\nExpect: foo\r\n"), "417"),
        ("A35", "gzip", login_with("Content-Encoding: gzip\r\n"), "415"),
        ("+A35", "gzip, gzip", login_with("Content-Encoding: identity\r\nContent-Encoding: gzip\r\n"), "415"),
        ("+A35", "deflate, br, zstd", login_with("Content-Encoding: deflate, br, zstd\r\n"), "415"),
        ("A37", "Range", me("Range: bytes=0-\r\n"), "200"),
        ("A37", "If-None-Match: *", me("If-None-Match: *\r\n"), "200"),
        (
            "A37",
            "If-Match, If-Modified-Since",
            me("If-Match: \"x\"\r\nIf-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT\r\n"),
            "200",
        ),
        ("A37", "Range on login", login_with("Range: bytes=5-\r\n"), "200"),
        ("+A37", "1,000 ranges", me(&format!("Range: bytes={}\r\n", "0-,".repeat(1000))), "200"),
        (
            "A38",
            "Upgrade: websocket",
            me(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
            ),
            "200",
        ),
        (
            "A38",
            "Upgrade: h2c",
            me("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
            "200",
        ),
        (
            "A44",
            "X-Forwarded-Proto, -Host",
            request(
                &format!("GET {DISCOVERY}"),
                "X-Forwarded-Proto: evil\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\n",
                "",
            ),
            "200",
        ),
        (
            "A44",
            "Forwarded",
            request(&format!("GET {LIVE}/"), "Forwarded: for=evil;host=evil.example;proto=https\r\n", ""),
            "307",
        ),
        (
            "+A44",
            "X-Original-URL, X-Rewrite-URL",
            request(&format!("GET {LIVE}"), format!("X-Original-URL: {ME}\r\nX-Rewrite-URL: {ME}\r\n"), ""),
            "200",
        ),
        ("A47", "traceparent", me("traceparent: 00-evil-\r\ntracestate: =\r\nbaggage: ,\r\n"), "200"),
        ("+A47", "X-Request-Id", me("X-Request-Id: evil\r\n"), "200"),
        ("+A47", "cookies", me("Cookie: session=evil; =; ;;; a\r\nCookie: session=other\r\n"), "200"),
        ("+A47", "a cookie of 9 KiB", me(&format!("Cookie: {long}\r\n")), "200"),
        (
            "+A47",
            "Accept that cannot be met",
            me("Accept: image/png;q=0\r\nAccept-Charset: utf-7\r\nAccept-Encoding: evil\r\n"),
            "200",
        ),
        ("+A47", "Accept-Language of 9 KiB", me(&format!("Accept-Language: {long}\r\n")), "200"),
        ("+A47", "Connection names a header", me("Connection: Authorization\r\n"), "200|401"),
        ("+A47", "Proxy-Authorization", me("Proxy-Authorization: Basic eA==\r\n"), "200"),
        ("+A47", "TE: trailers", me("TE: trailers\r\nTrailer: Authorization\r\n"), "200"),
        ("+A47", "Max-Forwards", me("Max-Forwards: -1\r\n"), "200"),
        ("A49", "a form from a foreign page", posted_as(LOGIN, "text/plain", sign_in()), "422"),
    ];
    rows.into_iter().map(|(id, name, bytes, expected)| case(id, name, bytes, expected)).collect()
}

/// Where a request says that it comes from.
fn origins() -> Vec<Case> {
    let mut cases = Vec::new();
    let hops = [
        "1.2.3.4",
        "unknown",
        "127.0.0.9",
        "fe80::1%eth0",
        "999.1.1.1",
        "",
        "1.2.3.4:555",
        "10.0.0.0/8",
        "::ffff:1.2.3.4",
    ];
    let many = vec!["1.2.3.4"; 100].join(", ");
    for hops in hops.into_iter().chain([many.as_str()]) {
        for name in ["X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP"] {
            // Each is a sign-in, so not all with all.
            if name == "X-Forwarded-For" || hops == "1.2.3.4" {
                let header = format!("{name}: {hops}\r\n");
                cases.push(case("A41", format!("{name}: {hops:.20}"), login_with(header), "200"));
            }
        }
    }
    for (name, agent) in [
        ("8 KiB", vec![b'a'; 8 << 10]),
        ("escapes and a separator", b"\x80\xe2\x80\xa8[31mx".to_vec()),
        ("invalid UTF-8", b"\xff\xfe\xc0\x80".to_vec()),
        ("markup", b"<img src=x onerror=alert(1)>".to_vec()),
        ("SQL", b"'; DROP TABLE users; --".to_vec()),
        ("JSON", br#"","level":"ERROR","x":""#.to_vec()),
        ("empty", Vec::new()),
    ] {
        let header = [b"User-Agent: ".as_slice(), &agent, b"\r\n"].concat();
        cases.push(case("A45", format!("user agent: {name}"), login_with(header), "200"));
    }
    let two = "User-Agent: a\r\nUser-Agent: b\r\n";
    cases.push(case("+A45", "two user agents", login_with(two), "200"));
    for origin in ["https://evil.example", "null", "http://localhost", "https://localhost.evil.example"] {
        let preflight = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\nAccess-Control-Request-Private-Network: true\r\n"
        );
        for path in [LOGIN, ME, DISCOVERY] {
            let name = format!("preflight from {origin} to {path}");
            cases.push(case("A48", name, request(&format!("OPTIONS {path}"), &preflight, ""), "405"));
        }
        cases.push(case("+A48", format!("sign-in from {origin}"), login_with(format!("Origin: {origin}\r\n")), "200"));
    }
    cases
}
