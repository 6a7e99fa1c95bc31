//! `auth/*`: sign-in, refresh, logout, sessions.

use std::sync::Arc;

use poem::http::StatusCode;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::types::Password;
use poem_openapi::{Object, OpenApi};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::Tag;
use super::bearer::{AccessToken, RefreshToken};
use super::body::{Body, Faulty, FieldFault, Fields, Form};
use super::error::{Code, Documented, Refusal, Refused};
use super::reply::{NoContent, Reply, Timestamp};
use crate::accounts::Claimed;
use crate::app::App;
use crate::audit::Origin;
use crate::sessions::{self, Session};
use crate::tokens;

pub(super) struct AuthApi {
    pub(super) app: Arc<App>,
}

/// Who wants to sign in.
#[derive(Object)]
#[oai(example)]
struct UserLogin {
    #[oai(validator(max_length = 254))]
    email: String,
    /// 8 to 128 characters.
    #[oai(validator(min_length = 8, max_length = 128))]
    password: Password,
}

impl poem_openapi::types::Example for UserLogin {
    fn example() -> Self {
        Self { email: "alice@example.com".to_owned(), password: Password("Str0ng!Passw0rd".to_owned()) }
    }
}

/// What was typed.
struct Login {
    email: Claimed,
    password: SecretString,
}

impl Form for Login {
    type Schema = UserLogin;

    fn read(fields: &mut Fields) -> Result<Self, Faulty> {
        let (email, password) = (fields.email_of_anybody(), fields.password());
        Ok(Self { email: email?, password: password? })
    }
}

/// An access token and the refresh token that gets the next one.
#[derive(Object)]
#[oai(example)]
struct TokenPair {
    /// JWT (RFC 9068); verify it with `/.well-known/jwks.json`.
    access_token: String,
    /// Opaque to clients. Each refresh replaces it.
    refresh_token: String,
    /// Always `Bearer`.
    token_type: String,
    /// Life of the access token in seconds.
    expires_in: i64,
}

impl poem_openapi::types::Example for TokenPair {
    fn example() -> Self {
        Self {
            access_token: "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCIs...".to_owned(),
            refresh_token: "eyJhbGciOiJSUzI1NiIsInR5cCI6InJlZnJlc2gr...".to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: 900,
        }
    }
}

impl From<tokens::Pair> for TokenPair {
    fn from(pair: tokens::Pair) -> Self {
        Self {
            access_token: pair.access.expose_secret().to_owned(),
            refresh_token: pair.refresh.expose_secret().to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: pair.expires_in,
        }
    }
}

/// A live session: one sign-in on one device.
#[derive(Object)]
#[oai(example)]
struct SessionRead {
    session_id: Uuid,
    /// The User-Agent header at sign-in; empty when there was none.
    user_agent: Option<String>,
    /// The client's address at sign-in.
    ip_address: Option<String>,
    created_at: Timestamp,
    /// When it was last refreshed.
    last_seen_at: Option<Timestamp>,
    /// True for the session of the access token that asks.
    current: bool,
}

impl poem_openapi::types::Example for SessionRead {
    fn example() -> Self {
        let time = Timestamp(chrono::DateTime::from_timestamp(1_795_341_943, 722_058_000).unwrap_or_default());
        Self {
            session_id: Uuid::from_u128(0xf2c1_f6a5_6d4b_4f7c_9b2b_8f3b_9d2a_1e11),
            user_agent: Some("DemoClient/1.0".to_owned()),
            ip_address: Some("203.0.113.42".to_owned()),
            created_at: time,
            last_seen_at: Some(time),
            current: true,
        }
    }
}

impl SessionRead {
    fn new(session: Session, current: Uuid) -> Self {
        Self {
            current: session.id == current,
            session_id: session.id,
            user_agent: Some(session.user_agent),
            ip_address: session.ip_address,
            created_at: Timestamp(session.created_at),
            last_seen_at: Some(Timestamp(session.last_seen_at)),
        }
    }
}

struct SignIn;
impl Documented for SignIn {
    const CODES: &'static [Code] = &[Code::InvalidCredentials, Code::UserInactive, Code::RateLimited];
    const HAS_FIELDS: bool = true;
}

struct Refresh;
impl Documented for Refresh {
    const CODES: &'static [Code] = &[
        Code::InvalidTokenType,
        Code::MalformedRefreshToken,
        Code::NotAuthenticated,
        Code::InvalidAuthScheme,
        Code::TokenExpired,
        Code::InvalidToken,
        Code::RefreshReuseDetected,
        Code::RateLimited,
    ];
}

struct Logout;
impl Documented for Logout {
    const CODES: &'static [Code] =
        &[Code::InvalidTokenType, Code::NotAuthenticated, Code::InvalidAuthScheme, Code::InvalidToken];
}

struct Own;
impl Documented for Own {
    const CODES: &'static [Code] = super::ACCESS_CODES;
}

struct EndOwn;
impl Documented for EndOwn {
    const CODES: &'static [Code] = super::ACCESS_CODES;
    const ALSO: &'static [Code] = &[Code::SessionNotFound];
    const HAS_FIELDS: bool = true;
}

#[OpenApi(tag = "Tag::Auth")]
impl AuthApi {
    /// Sign in
    ///
    /// Opens a session and returns its first tokens. `invalid_credentials` for an unknown address, a wrong password, and an inactive
    /// user with a wrong password alike; `user_inactive` only to whoever has the right password. `rate_limited` after too many failures of the
    /// account or from the client's address, and when everybody signs in at once: the password was not looked at.
    #[oai(path = "/auth/login", method = "post", operation_id = "login_auth_api_v1_auth_login_post")]
    async fn login(&self, Data(origin): Data<&Origin>, body: Body<Login>) -> Result<Reply<TokenPair>, Refused<SignIn>> {
        let Body(Login { email, password }) = body;
        let pair = self.app.accounts.sign_in(email, password, origin, &*self.app.clock).await?;
        Ok(Reply(pair.into()))
    }

    /// Refresh
    ///
    /// Exchanges the refresh token in the Authorization header for a new pair; a body is ignored. Keep the new refresh token and
    /// forget the old one. If the answer was lost, send the same token again: within the retry window (30 seconds) it gets the
    /// same successor. An older token is taken for stolen: `refresh_reuse_detected`, and the session has ended. That code also
    /// stands for a session that ended otherwise; `token_expired` for one that was not refreshed in time. On 503 the same token
    /// may be sent again.
    #[oai(path = "/auth/refresh", method = "post", operation_id = "refresh_auth_api_v1_auth_refresh_post")]
    async fn refresh(
        &self,
        Data(origin): Data<&Origin>,
        token: RefreshToken,
    ) -> Result<Reply<TokenPair>, Refused<Refresh>> {
        let token = token.0.inspect_err(|_| self.app.metrics.refreshes.count("missing"))?;
        let pair = self.app.sessions.rotate(&token, origin, self.app.clock.now()).await?;
        Ok(Reply(pair.into()))
    }

    /// Sign out
    ///
    /// Ends the session of the refresh token in the Authorization header, also of an older or expired one. Calling it again is 204
    /// too.
    #[oai(path = "/auth/logout", method = "post", operation_id = "logout_auth_api_v1_auth_logout_post")]
    async fn logout(
        &self,
        Data(origin): Data<&Origin>,
        token: RefreshToken,
    ) -> Result<NoContent<true>, Refused<Logout>> {
        match self.app.sessions.logout(&token.0?, origin, self.app.clock.now()).await {
            // The seed's odd one out: not the shape of its other domain errors.
            Err(sessions::Error::Token(tokens::Error::Malformed)) => {
                Err(Refusal::Detail(StatusCode::BAD_REQUEST, "Malformed refresh token").into())
            }
            other => other.map(|()| NoContent).map_err(Into::into),
        }
    }

    /// Sign out everywhere
    ///
    /// Ends every session of the user, the one that asks included: its access token is refused from the next request on.
    #[oai(path = "/auth/logout-all", method = "post", operation_id = "logout_all_auth_api_v1_auth_logout_all_post")]
    async fn logout_all(&self, Data(origin): Data<&Origin>, token: AccessToken) -> Result<NoContent, Refused<Own>> {
        let now = self.app.clock.now();
        let caller = self.app.accounts.caller(&token.0, now).await?;
        self.app.accounts.log_out_everywhere(&caller, origin, now).await?;
        Ok(NoContent)
    }

    /// List the own sessions
    ///
    /// Live ones only, the one seen last first; at most as many as a user may have (50).
    #[oai(path = "/auth/sessions", method = "get", operation_id = "list_my_sessions_auth_api_v1_auth_sessions_get")]
    async fn list(&self, token: AccessToken) -> Result<Reply<Vec<SessionRead>>, Refused<Own>> {
        let now = self.app.clock.now();
        let caller = self.app.accounts.caller(&token.0, now).await?;
        let sessions = self.app.sessions.list(caller.user.id, now).await?;
        Ok(Reply(sessions.into_iter().map(|session| SessionRead::new(session, caller.session_id)).collect()))
    }

    /// End one of the own sessions
    ///
    /// `session_not_found` when the user has no such live session. The own one may be ended too.
    #[oai(
        path = "/auth/sessions/:session_id",
        method = "delete",
        operation_id = "end_session_auth_api_v1_auth_sessions__session_id__delete"
    )]
    async fn end(
        &self,
        Data(origin): Data<&Origin>,
        token: AccessToken,
        /// A `session_id` of the list.
        session_id: Path<String>,
    ) -> Result<NoContent, Refused<EndOwn>> {
        let now = self.app.clock.now();
        let caller = self.app.accounts.caller(&token.0, now).await?;
        let Ok(id) = Uuid::try_parse(&session_id) else {
            return Err(Refusal::Faults(vec![FieldFault::uuid_parsing("session_id")]).into());
        };
        self.app.sessions.end_own(caller.user.id, id, origin, now).await?;
        Ok(NoContent)
    }
}
