//! `users/*`: registration and the own profile.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::types::Password;
use poem_openapi::{Object, OpenApi};

use super::Tag;
use super::bearer::AccessToken;
use super::body::{Body, Faulty, Fields, Form};
use super::error::{Code, Documented, Refused};
use super::reply::{Reply, Timestamp};
use crate::accounts::{Registration, User};
use crate::app::App;
use crate::audit::Origin;

pub(super) struct UsersApi {
    pub(super) app: Arc<App>,
}

/// Who wants an account.
#[derive(Object)]
#[oai(example)]
pub(super) struct UserCreate {
    /// Unique regardless of case.
    #[oai(validator(max_length = 254))]
    email: String,
    /// 8 to 128 characters; no common password.
    #[oai(validator(min_length = 8, max_length = 128))]
    password: Password,
    /// Shown as given.
    #[oai(validator(max_length = 255))]
    full_name: Option<String>,
}

impl poem_openapi::types::Example for UserCreate {
    fn example() -> Self {
        Self {
            email: "alice@example.com".to_owned(),
            password: Password("Str0ng!Passw0rd".to_owned()),
            full_name: Some("Alice".to_owned()),
        }
    }
}

impl Form for Registration {
    type Schema = UserCreate;

    fn read(fields: &mut Fields) -> Result<Self, Faulty> {
        let (email, password, full_name) = (fields.email(), fields.password(), fields.full_name());
        Ok(Self { email: email?, password: password?, full_name: full_name? })
    }
}

/// A user, as the user sees it.
#[derive(Object)]
#[oai(example)]
struct UserRead {
    /// Local part as typed, domain in lower case.
    email: String,
    full_name: Option<String>,
    /// Counts from 1.
    id: i64,
    is_active: bool,
    is_superuser: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl poem_openapi::types::Example for UserRead {
    fn example() -> Self {
        let time = Timestamp(chrono::DateTime::from_timestamp(1_795_341_943, 722_058_000).unwrap_or_default());
        Self {
            email: "alice@example.com".to_owned(),
            full_name: Some("Alice".to_owned()),
            id: 1,
            is_active: true,
            is_superuser: false,
            created_at: time,
            updated_at: time,
        }
    }
}

impl From<User> for UserRead {
    fn from(user: User) -> Self {
        Self {
            email: user.email,
            full_name: user.full_name,
            id: user.id,
            is_active: user.is_active,
            is_superuser: user.is_superuser,
            created_at: Timestamp(user.created_at),
            updated_at: Timestamp(user.updated_at),
        }
    }
}

struct Register;
impl Documented for Register {
    const CODES: &'static [Code] = &[Code::EmailTaken, Code::RateLimited];
    const HAS_FIELDS: bool = true;
}

struct Me;
impl Documented for Me {
    const CODES: &'static [Code] = super::ACCESS_CODES;
}

#[OpenApi(tag = "Tag::Users")]
impl UsersApi {
    /// Register a user
    ///
    /// Creates an active account. No tokens are issued: sign in afterwards. The address is unique regardless of case; among the
    /// faults of 422 are common and guessable passwords. `email_taken` when the address has an account. `rate_limited` after too many
    /// registrations from the client's address, and when everybody registers at once.
    #[oai(path = "/users/register", method = "post", operation_id = "register_user_auth_api_v1_users_register_post")]
    async fn register(
        &self,
        Data(origin): Data<&Origin>,
        body: Body<Registration>,
    ) -> Result<Reply<UserRead, 201>, Refused<Register>> {
        let user = self.app.accounts.register(body.0, origin, self.app.clock.now()).await?;
        Ok(Reply(user.into()))
    }

    /// Read the own profile
    ///
    /// The user is looked up anew at each call: a deactivated user gets `user_inactive`, a deleted one `user_not_found`, and an access
    /// token whose session has ended `invalid_token`.
    #[oai(path = "/users/me", method = "get", operation_id = "me_auth_api_v1_users_me_get")]
    async fn me(&self, token: AccessToken) -> Result<Reply<UserRead>, Refused<Me>> {
        let caller = self.app.accounts.caller(&token.0, self.app.clock.now()).await?;
        Ok(Reply(caller.user.into()))
    }
}
