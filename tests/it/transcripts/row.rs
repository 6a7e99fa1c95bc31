//! One request of the transcripts with its answers: the seed's, and ours where it differs on purpose.

use chrono::DateTime;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::token::Bearer;
use crate::support::{API, Answer, PASSWORD};

/// Why our answer is not the seed's: a line of the contract's section 9, or a decision.
pub(super) struct Changed(pub(super) &'static str);

pub(super) const REUSE_ENDS: Changed = Changed("section 9 line 1");
pub(super) const LOGOUT_ENDS: Changed = Changed("section 9 line 2");
pub(super) const INACTIVE: Changed = Changed("section 9 line 3");
pub(super) const CASELESS: Changed = Changed("section 9 line 4");
pub(super) const NO_ECHO: Changed = Changed("section 9 line 8");
pub(super) const FORWARDED: Changed = Changed("section 9 line 10");
pub(super) const ACCESS_CHECK: Changed = Changed("decision: access check");
pub(super) const ACCESS_TOKEN: Changed = Changed("decision: access token");
pub(super) const END_OF_SESSION: Changed = Changed("decision: end of session");
pub(super) const HEAD_ANSWERS: Changed = Changed("decision: seed's wire, small print");
pub(super) const NO_PLAIN_TEXT: Changed = Changed("decision: seed's database, no plain comparison");
pub(super) const PASSWORDS: Changed = Changed("decision: passwords");
pub(super) const RETRY: Changed = Changed("decision: refresh token, a retry gets the same successor");
pub(super) const NUL: Changed = Changed("security.md B22");
pub(super) const NEVER_500: Changed = Changed("security.md 0.2");
pub(super) const TYPED_CLAIMS: Changed = Changed("security.md T23");

/// A heading of the transcripts.
pub(super) struct Row {
    pub(super) heading: &'static str,
    pub(super) before: Vec<Before>,
    pub(super) request: Request,
    pub(super) seed: Expected,
    pub(super) ours: Option<(Changed, Expected)>,
    /// The name by which later rows call the tokens of the answer.
    pub(super) saves: Option<&'static str>,
    pub(super) facts: Vec<Fact>,
    pub(super) are_claims_shown: bool,
}

/// What the transcripts did between two headings.
pub(super) enum Before {
    /// Changed the database by hand.
    Sql(&'static str),
    /// Signed in: name of the tokens, address, User-Agent.
    SignIn(&'static str, &'static str, &'static str),
    /// Refreshed the tokens of that name.
    Refresh(&'static str),
    /// Let seconds pass.
    Wait(i64),
}

/// What the database holds afterwards: what it means, a query for a number, and the number.
pub(super) struct Fact(pub(super) &'static str, pub(super) &'static str, pub(super) i64);

pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, Vec<u8>)>,
    pub(super) bearer: Option<Bearer>,
    pub(super) is_lower_case: bool,
    pub(super) body: Vec<u8>,
    /// How many servers share the database when requests come at once.
    pub(super) replicas: usize,
}

pub(super) enum Expected {
    Answer(Seen),
    /// As many requests at once, in any order.
    Statuses(Vec<u16>),
}

/// An answer as far as clients rely on it. A header that is absent is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    status: u16,
    content_type: String,
    authenticate: String,
    allow: String,
    location: String,
    /// JSON text in which `<id>`, `<time>`, `<uuid>`, `<token>`, `<text>` stand for a value and `<all>` for the rest.
    body: String,
}

pub(super) fn get(heading: &'static str, path: &str) -> Row {
    Row::new(heading, Method::GET, path)
}

pub(super) fn post(heading: &'static str, path: &str) -> Row {
    Row::new(heading, Method::POST, path)
}

pub(super) fn register(heading: &'static str, body: impl Into<Vec<u8>>) -> Row {
    post(heading, "users/register").json(body)
}

/// A registration with the usual password.
pub(super) fn register_email(heading: &'static str, email: &str) -> Row {
    register(heading, json!({"email": email, "password": PASSWORD}).to_string())
}

pub(super) fn login(heading: &'static str, email: &str, password: &str) -> Row {
    post(heading, "auth/login").json(json!({"email": email, "password": password}).to_string())
}

impl Row {
    /// `path` with a leading slash, or within the REST API.
    pub(super) fn new(heading: &'static str, method: Method, path: &str) -> Self {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{API}/{path}") };
        Self {
            heading,
            before: Vec::new(),
            request: Request {
                method,
                path,
                headers: Vec::new(),
                bearer: None,
                is_lower_case: false,
                body: Vec::new(),
                replicas: 1,
            },
            seed: Expected::Statuses(Vec::new()),
            ours: None,
            saves: None,
            facts: Vec::new(),
            are_claims_shown: false,
        }
    }

    pub(super) fn before(mut self, step: Before) -> Self {
        self.before.push(step);
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.request.headers.push((name, value.as_ref().to_vec()));
        self
    }

    pub(super) fn auth(self, value: &'static str) -> Self {
        self.header("authorization", value)
    }

    pub(super) fn bearer(mut self, bearer: Bearer) -> Self {
        self.request.bearer = Some(bearer);
        self
    }

    /// Writes the scheme as `bearer`.
    pub(super) fn lower_case(mut self) -> Self {
        self.request.is_lower_case = true;
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.request.body = body.into();
        self
    }

    pub(super) fn json(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/json").body(body)
    }

    pub(super) fn on_replicas(mut self, replicas: usize) -> Self {
        self.request.replicas = replicas;
        self
    }

    /// The answer of the transcript.
    pub(super) fn gives(mut self, seen: impl Into<Expected>) -> Self {
        self.seed = seen.into();
        self
    }

    /// Our answer, which differs.
    pub(super) fn changed(mut self, why: Changed, seen: impl Into<Expected>) -> Self {
        self.ours = Some((why, seen.into()));
        self
    }

    pub(super) fn saved(mut self, name: &'static str) -> Self {
        self.saves = Some(name);
        self
    }

    /// The transcript shows the claims of both tokens.
    pub(super) fn decoded(mut self) -> Self {
        self.are_claims_shown = true;
        self
    }

    pub(super) fn fact(mut self, what: &'static str, sql: &'static str, number: i64) -> Self {
        self.facts.push(Fact(what, sql, number));
        self
    }
}

impl From<Seen> for Expected {
    fn from(seen: Seen) -> Self {
        Self::Answer(seen)
    }
}

impl<const N: usize> From<[u16; N]> for Expected {
    fn from(statuses: [u16; N]) -> Self {
        Self::Statuses(statuses.to_vec())
    }
}

impl Expected {
    pub(super) fn is_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Answer(one), Self::Answer(other)) => one == other,
            (Self::Statuses(one), Self::Statuses(other)) => one == other,
            _ => false,
        }
    }
}

impl Seen {
    /// An answer without a body and its headers.
    pub(super) fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn text(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self { status, content_type: content_type.to_owned(), body: body.into(), ..Self::default() }
    }

    pub(super) fn json(status: u16, body: impl Into<String>) -> Self {
        Self::text(status, "application/json", body)
    }

    /// An error that a domain answers. With 401 comes a challenge.
    pub(super) fn coded(status: u16, code: &str, message: &str) -> Self {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#);
        Self { authenticate: if status == 401 { "Bearer" } else { "" }.to_owned(), ..Self::json(status, body) }
    }

    /// The wording is free.
    pub(super) fn invalid_token() -> Self {
        Self::coded(401, "invalid_token", "<text>")
    }

    pub(super) fn detail(status: u16, text: &str) -> Self {
        Self::json(status, format!(r#"{{"detail":"{text}"}}"#))
    }

    pub(super) fn not_allowed(allow: &str) -> Self {
        Self { allow: allow.to_owned(), ..Self::detail(405, "Method Not Allowed") }
    }

    pub(super) fn moved(location: &str) -> Self {
        Self { location: location.to_owned(), ..Self::empty(307) }
    }

    pub(super) fn faults(list: &str) -> Self {
        Self::json(422, format!(r#"{{"detail":[{list}]}}"#))
    }

    pub(super) fn bad_email(input: &str, reason: &str) -> Self {
        let input = json!(input);
        Self::faults(&format!(
            r#"{{"type":"value_error","loc":["body","email"],"msg":"value is not a valid email address: {reason}","input":{input},"ctx":{{"reason":"{reason}"}}}}"#
        ))
    }

    pub(super) fn bad_password(reason: &str) -> Self {
        Self::faults(&format!(
            r#"{{"type":"value_error","loc":["body","password"],"msg":"value is not an acceptable password: {reason}","ctx":{{"reason":"{reason}"}}}}"#
        ))
    }

    pub(super) fn crash() -> Self {
        Self::text(500, "text/plain; charset=utf-8", "Internal Server Error")
    }

    pub(super) fn pair() -> Self {
        let body = r#"{"access_token":"<token>","refresh_token":"<token>","token_type":"Bearer","expires_in":900}"#;
        Self::json(200, body)
    }

    /// `full_name` as JSON.
    pub(super) fn user(status: u16, email: &str, full_name: &str) -> Self {
        let body = format!(
            r#"{{"email":"{email}","full_name":{full_name},"id":<id>,"is_active":true,"is_superuser":false,"created_at":"<time>","updated_at":"<time>"}}"#
        );
        Self::json(status, body)
    }

    /// The answer to HEAD.
    pub(super) fn bodyless(mut self) -> Self {
        self.body.clear();
        self
    }

    /// With these times instead of any.
    pub(super) fn dated(mut self, times: &str) -> Self {
        self.body = self.body.replace(r#""created_at":"<time>","updated_at":"<time>""#, times);
        self
    }

    /// What an answer shows, its values redacted where this one has placeholders.
    pub(super) fn of(answer: &Answer, expected: &Self, base: &str) -> Self {
        Self {
            status: answer.status,
            content_type: answer.header("content-type").to_owned(),
            authenticate: answer.header("www-authenticate").to_owned(),
            allow: answer.header("allow").to_owned(),
            location: answer.header("location").replace(base, "<base>"),
            body: redacted(&answer.body, &expected.body),
        }
    }
}

/// Puts the placeholders of `pattern` where `text` has values of their kinds; other values stay and show in the difference.
fn redacted(text: &str, mut pattern: &str) -> String {
    let (mut rest, mut done) = (text, String::new());
    while let Some((literal, (kind, next))) =
        pattern.split_once('<').and_then(|(literal, tail)| Some((literal, tail.split_once('>')?)))
    {
        let Some(behind) = rest.strip_prefix(literal) else {
            break;
        };
        let end = match kind {
            "all" => behind.len(),
            "id" => behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len()),
            _ => end_of_string(behind),
        };
        let (value, tail) = behind.split_at(end);
        done.push_str(literal);
        if is_of_kind(kind, value) {
            done.extend(["<", kind, ">"]);
        } else {
            done.push_str(value);
        }
        (rest, pattern) = (tail, next);
    }
    done + rest
}

fn end_of_string(text: &str) -> usize {
    let mut is_escaped = false;
    let is_end = |c: char| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    };
    text.find(is_end).unwrap_or(text.len())
}

fn is_of_kind(kind: &str, value: &str) -> bool {
    match kind {
        "all" => true,
        // Six digits of a second, or none.
        "time" => {
            DateTime::parse_from_rfc3339(value).is_ok() && value.ends_with('Z') && [20, 27].contains(&value.len())
        }
        "uuid" => value.len() == 36 && Uuid::try_parse(value).is_ok(),
        "token" => value.split('.').filter(|part| part.len() > 20).count() == 3,
        _ => !value.is_empty(),
    }
}
