//! Authorization, User-Agent, X-Forwarded-For and the target of a request, each a line of the input.
#![no_main]

use std::net::IpAddr;

use authservice_fuzz::server;
use libfuzzer_sys::fuzz_target;

const API: &str = "/auth_api/v1";
const ROUTES: [(&str, &str); 6] = [
    ("GET", "/users/me"),
    ("POST", "/auth/refresh"),
    ("POST", "/auth/logout"),
    ("POST", "/auth/logout-all"),
    ("GET", "/auth/sessions"),
    ("DELETE", "/auth/sessions/"),
];

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let mut lines = rest.split(|byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (authorization, user_agent, forwarded, tail) = (line(), line(), line(), line());
    let Ok(tail) = std::str::from_utf8(tail) else { return };
    let (method, path) = ROUTES[usize::from(*choice) % ROUTES.len()];
    // From a proxy that is trusted, or from anybody.
    let peer = if choice & 0x80 == 0 { [10, 0, 0, 1] } else { [192, 0, 2, 1] };
    let headers = [("authorization", authorization), ("user-agent", user_agent), ("x-forwarded-for", forwarded)];
    let target = format!("{API}{path}{tail}");
    let Some(answer) = server().ask(method, &target, &headers, IpAddr::from(peer), b"") else { return };
    answer.check();
    // Nobody has a token here.
    let is_exact = tail.is_empty() && !path.ends_with('/');
    let expected: &[u16] = if is_exact { &[400, 401] } else { &[307, 400, 401, 404, 405, 414] };
    assert!(expected.contains(&answer.status), "{method} {target}: {} {}", answer.status, answer.body);
});
