//! The REST API: the seed's wire, kept to the byte where a client can see it.
//!
//! Doc comments of operations are the API reference. Knows no SQL and no other surface.

use std::sync::Arc;

use poem::endpoint::BoxEndpoint;
use poem::{EndpointExt as _, IntoEndpoint as _};
use poem_openapi::{OpenApiService, Tags};

use crate::app::App;

mod auth;
mod bearer;
mod body;
mod document;
mod error;
mod reply;
mod users;

pub(crate) use document::{Document, oauth2_redirect, start};
use error::Code;
pub(crate) use error::from_framework;

/// What an access token can be refused with.
const ACCESS_CODES: &[Code] = &[
    Code::InvalidTokenType,
    Code::NotAuthenticated,
    Code::InvalidAuthScheme,
    Code::TokenExpired,
    Code::InvalidToken,
    Code::UserInactive,
    Code::UserNotFound,
];

#[derive(Tags)]
enum Tag {
    /// Accounts and profiles.
    Users,
    /// Sign-in, tokens and sessions.
    Auth,
}

type Service = OpenApiService<(users::UsersApi, auth::AuthApi), ()>;

/// Builds the API, to be mounted at its prefix, and its description.
pub(crate) fn build(app: &Arc<App>) -> (BoxEndpoint<'static>, Document) {
    let service = service(app);
    let document = Document::new(&service, &app.config.server.api_prefix);
    (service.into_endpoint().boxed(), document)
}

/// The API with its identity, which is the seed's.
fn service(app: &Arc<App>) -> Service {
    let apis = (users::UsersApi { app: Arc::clone(app) }, auth::AuthApi { app: Arc::clone(app) });
    OpenApiService::new(apis, "Auth Service", env!("CARGO_PKG_VERSION")).description(
        "Sign in over REST, verify access tokens with `/.well-known/jwks.json`. \
         Answers have an `X-Request-Id`; quote it when you report a problem.",
    )
}
