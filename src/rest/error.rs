//! THE table of REST errors: every code, its status and message, and which error of a domain it answers.
//!
//! Shapes are the seed's: `{"error":{"code","message"}}` for what a domain refuses, `{"detail":[..]}` for a body with faulty fields,
//! `{"detail":".."}` for what no handler saw.

use std::borrow::Cow;
use std::marker::PhantomData;

use poem::Response;
use poem::http::{HeaderValue, StatusCode, header};
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::{ToJSON as _, Type};
use poem_openapi::{ApiResponse, Enum, Object};
use serde_json::json;

use super::body::FieldFault;
use crate::accounts;
use crate::limits;
use crate::sessions;
use crate::tokens;
use crate::web;

/// Stable names of errors: what a client may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Enum)]
#[oai(rename_all = "snake_case", rename = "ErrorCode")]
pub(crate) enum Code {
    EmailTaken,
    InvalidCredentials,
    UserInactive,
    UserNotFound,
    SessionNotFound,
    NotAuthenticated,
    InvalidAuthScheme,
    TokenExpired,
    InvalidToken,
    InvalidTokenType,
    MalformedRefreshToken,
    RefreshReuseDetected,
    RateLimited,
    TemporarilyUnavailable,
    PayloadTooLarge,
    InternalError,
}

impl Code {
    /// Status, name on the wire, message.
    pub(super) fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::EmailTaken => (S::CONFLICT, "email_taken", "Email already registered"),
            Self::InvalidCredentials => (S::UNAUTHORIZED, "invalid_credentials", "Invalid credentials"),
            Self::UserInactive => (S::FORBIDDEN, "user_inactive", "User is inactive"),
            Self::UserNotFound => (S::NOT_FOUND, "user_not_found", "User not found"),
            Self::SessionNotFound => (S::NOT_FOUND, "session_not_found", "Session not found"),
            Self::NotAuthenticated => (S::UNAUTHORIZED, "not_authenticated", "Not authenticated"),
            Self::InvalidAuthScheme => (S::UNAUTHORIZED, "invalid_auth_scheme", "Invalid authentication scheme"),
            Self::TokenExpired => (S::UNAUTHORIZED, "token_expired", "Token expired."),
            Self::InvalidToken => (S::UNAUTHORIZED, "invalid_token", "Invalid token"),
            Self::InvalidTokenType => (S::BAD_REQUEST, "invalid_token_type", "Invalid token type."),
            Self::MalformedRefreshToken => (S::BAD_REQUEST, "malformed_refresh_token", "Malformed refresh token."),
            Self::RefreshReuseDetected => (S::UNAUTHORIZED, "refresh_reuse_detected", "Refresh token reuse detected"),
            Self::RateLimited => (S::TOO_MANY_REQUESTS, "rate_limited", "Too many requests"),
            Self::TemporarilyUnavailable => {
                (S::SERVICE_UNAVAILABLE, "temporarily_unavailable", "Temporarily unavailable, try again")
            }
            Self::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, "payload_too_large", "The request body is too large"),
            Self::InternalError => (S::INTERNAL_SERVER_ERROR, "internal_error", "Internal server error"),
        }
    }
}

/// A refusal, ready to be answered.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The domain shape.
    Coded {
        /// Chooses status and name.
        code: Code,
        /// Replaces the message of the code.
        message: Option<Cow<'static, str>>,
        /// Seconds, with 429 and 503.
        retry_after: Option<u64>,
    },
    /// The framework shape of a body with faulty fields: 422.
    Faults(Vec<FieldFault>),
    /// The framework shape of anything else.
    Detail(StatusCode, &'static str),
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self::Coded { code, message: None, retry_after: None }
    }
}

impl Refusal {
    /// Trouble of ours: the same request may be sent again.
    fn unavailable() -> Self {
        Self::Coded { code: Code::TemporarilyUnavailable, message: None, retry_after: Some(web::try_again_after()) }
    }

    pub(crate) fn into_response(self) -> Response {
        let (code, message, retry_after) = match self {
            Self::Coded { code, message, retry_after } => (code, message, retry_after),
            Self::Faults(faults) => {
                return web::json(StatusCode::UNPROCESSABLE_ENTITY, &json!({"detail": faults.to_json()}));
            }
            Self::Detail(status, text) => return web::detail(status, text),
        };
        let (status, name, text) = code.row();
        let mut response = web::coded(status, name, message.as_deref().unwrap_or(text));
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            // Bare, as the seed's.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Refusal> for poem::Error {
    fn from(refusal: Refusal) -> Self {
        Self::from_response(refusal.into_response())
    }
}

impl From<tokens::Error> for Refusal {
    fn from(error: tokens::Error) -> Self {
        match error {
            tokens::Error::Invalid(text) => {
                Self::Coded { code: Code::InvalidToken, message: Some(text.into()), retry_after: None }
            }
            tokens::Error::Expired => Code::TokenExpired.into(),
            tokens::Error::WrongKind => Code::InvalidTokenType.into(),
            tokens::Error::Malformed => Code::MalformedRefreshToken.into(),
            tokens::Error::Keys(_) | tokens::Error::Random(_) => {
                tracing::error!(error = %error, "a token was not issued");
                Self::unavailable()
            }
        }
    }
}

impl From<sessions::Error> for Refusal {
    fn from(error: sessions::Error) -> Self {
        match error {
            sessions::Error::Dead
            | sessions::Error::Inactive
            | sessions::Error::Reused
            | sessions::Error::FromTheFuture => Code::RefreshReuseDetected.into(),
            sessions::Error::Expired => Code::TokenExpired.into(),
            sessions::Error::RateLimited { retry_after } => rate_limited(retry_after),
            sessions::Error::NotFound => Code::SessionNotFound.into(),
            sessions::Error::Token(error) => error.into(),
            sessions::Error::Contended => {
                tracing::warn!("a refresh token was contended");
                Self::unavailable()
            }
            sessions::Error::Storage(error) => storage(&error),
        }
    }
}

impl From<limits::Error> for Refusal {
    fn from(error: limits::Error) -> Self {
        match error {
            limits::Error::RateLimited { retry_after } => rate_limited(retry_after),
            limits::Error::Storage(error) => storage(&error),
        }
    }
}

impl From<accounts::Error> for Refusal {
    fn from(error: accounts::Error) -> Self {
        match error {
            accounts::Error::EmailTaken => Code::EmailTaken.into(),
            accounts::Error::PasswordRefused(reason) => {
                Self::Faults(vec![FieldFault::value_error("password", "value is not an acceptable password", &reason)])
            }
            accounts::Error::InvalidCredentials => Code::InvalidCredentials.into(),
            accounts::Error::Inactive => Code::UserInactive.into(),
            accounts::Error::NotFound => Code::UserNotFound.into(),
            accounts::Error::SessionEnded => {
                let message = Some("The session has ended".into());
                Self::Coded { code: Code::InvalidToken, message, retry_after: None }
            }
            accounts::Error::Limits(error) => error.into(),
            accounts::Error::Session(error) => error.into(),
            accounts::Error::Token(error) => error.into(),
            accounts::Error::Password(error) => {
                tracing::warn!(error = %error, "a password was not hashed");
                Self::unavailable()
            }
            accounts::Error::Random(error) => {
                tracing::error!(error = %error, "no random bytes");
                Self::unavailable()
            }
            accounts::Error::Storage(error) => storage(&error),
        }
    }
}

fn rate_limited(retry_after: u64) -> Refusal {
    Refusal::Coded { code: Code::RateLimited, message: None, retry_after: Some(retry_after) }
}

/// Trouble of the database is 503, never a verdict about a token.
fn storage(error: &sea_orm::DbErr) -> Refusal {
    tracing::error!(error = %error, "the database");
    Refusal::unavailable()
}

/// Shapes an error that no handler shaped: what poem's own extractors and routes refuse.
pub(crate) fn from_framework(error: &poem::Error) -> Response {
    match error.status() {
        StatusCode::NOT_FOUND => web::detail(StatusCode::NOT_FOUND, "Not Found"),
        StatusCode::METHOD_NOT_ALLOWED => web::detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
        status if status.is_client_error() => web::detail(status, "There was an error parsing the request"),
        _ => {
            tracing::error!(error = %error, "a handler failed");
            Refusal::from(Code::InternalError).into_response()
        }
    }
}

/// The codes that an operation may answer, for its documentation.
pub(crate) trait Documented: Send + Sync + 'static {
    const CODES: &'static [Code];
    /// More, where the codes are a list that several operations share.
    const ALSO: &'static [Code] = &[];
    /// True when a body is read, so that 422 may come.
    const HAS_FIELDS: bool = false;
}

/// A refusal of an operation that documents its codes by `D`.
#[derive(Debug)]
pub(crate) struct Refused<D>(Refusal, PhantomData<fn() -> D>);

impl<D> From<Refusal> for Refused<D> {
    fn from(refusal: Refusal) -> Self {
        Self(refusal, PhantomData)
    }
}

impl<D> From<sessions::Error> for Refused<D> {
    fn from(error: sessions::Error) -> Self {
        Refusal::from(error).into()
    }
}

impl<D> From<accounts::Error> for Refused<D> {
    fn from(error: accounts::Error) -> Self {
        Refusal::from(error).into()
    }
}

impl<D> From<Refused<D>> for poem::Error {
    fn from(refused: Refused<D>) -> Self {
        refused.0.into()
    }
}

/// What any operation may answer.
const COMMON: [Code; 3] = [Code::PayloadTooLarge, Code::InternalError, Code::TemporarilyUnavailable];
/// Framework refusals of any operation.
const DETAILS: [(StatusCode, &str); 6] = [
    (StatusCode::BAD_REQUEST, "There was an error parsing the body"),
    (StatusCode::REQUEST_TIMEOUT, "Request Timeout"),
    (StatusCode::URI_TOO_LONG, "URI Too Long"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Content-Encoding"),
    (StatusCode::EXPECTATION_FAILED, "Expectation Failed"),
    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large"),
];

impl<D: Documented> ApiResponse for Refused<D> {
    fn meta() -> MetaResponses {
        let mut codes: Vec<Code> = D::CODES.iter().chain(D::ALSO).chain(&COMMON).copied().collect();
        codes.sort_by_key(|code| (code.row().0, *code));
        codes.dedup();
        let mut responses: Vec<MetaResponse> =
            codes.chunk_by(|a, b| a.row().0 == b.row().0).map(coded_response).collect();
        for (status, text) in DETAILS {
            let example = json!({"detail": text});
            match responses.iter_mut().find(|response| response.status == Some(status.as_u16())) {
                Some(response) => {
                    let domain = response.content[0].schema.clone();
                    response.content[0].schema = MetaSchemaRef::Inline(Box::new(MetaSchema {
                        one_of: vec![domain, Detail::schema_ref()],
                        ..MetaSchema::ANY
                    }));
                }
                None => responses.push(response(status, leak(format!("`{text}`")), Detail::schema_ref(), example)),
            }
        }
        if D::HAS_FIELDS {
            let example = json!({"detail": [FieldFault::missing("email").to_json()]});
            let schema = ValidationError::schema_ref();
            responses.push(response(StatusCode::UNPROCESSABLE_ENTITY, "Every faulty field", schema, example));
        }
        responses.sort_by_key(|response| response.status);
        MetaResponses { responses }
    }

    fn register(registry: &mut Registry) {
        ErrorBody::register(registry);
        Detail::register(registry);
        ValidationError::register(registry);
    }
}

fn coded_response(codes: &[Code]) -> MetaResponse {
    let (status, name, message) = codes[0].row();
    let lines: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.row().1, code.row().2)).collect();
    let example = json!({"error": {"code": name, "message": message}});
    let mut documented = response(status, leak(lines.join("; ")), ErrorBody::schema_ref(), example);
    let header = |name: &str, description: &str| MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required: true,
        deprecated: false,
        schema: String::schema_ref(),
    };
    match status {
        StatusCode::UNAUTHORIZED => documented.headers.push(header("WWW-Authenticate", "Always `Bearer`")),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            documented.headers.push(header("Retry-After", "Seconds until the same request may be sent again"));
        }
        _ => {}
    }
    documented
}

fn response(
    status: StatusCode,
    description: &'static str,
    schema: MetaSchemaRef,
    example: serde_json::Value,
) -> MetaResponse {
    let schema =
        MetaSchemaRef::Inline(Box::new(MetaSchema { all_of: vec![schema], example: Some(example), ..MetaSchema::ANY }));
    MetaResponse {
        description,
        status: Some(status.as_u16()),
        status_range: None,
        content: vec![MetaMediaType { content_type: "application/json", schema }],
        headers: Vec::new(),
    }
}

/// The registry wants static text; the document is built a bounded number of times.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A refusal.
#[derive(Object)]
struct ErrorBody {
    error: ErrorDetail,
}

/// What was refused.
#[derive(Object)]
struct ErrorDetail {
    /// Stable; made for programs.
    code: Code,
    /// Made for people; may change.
    message: String,
}

/// A request that no handler saw.
#[derive(Object)]
struct Detail {
    detail: String,
}

/// A body with faulty fields.
#[derive(Object)]
struct ValidationError {
    detail: Vec<FieldFault>,
}
