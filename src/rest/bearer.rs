//! Tokens in the Authorization header (RFC 6750 2.1), as the seed reads it. What a token is worth is decided by the domains.

use poem::http::{StatusCode, header};
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use super::error::{Code, Refusal};

/// An access token, not verified yet.
pub(super) struct AccessToken(pub(super) String);

/// A refresh token, not verified yet; or why there is none, which the operation counts.
pub(super) struct RefreshToken(pub(super) Result<String, Refusal>);

impl<'a> ApiExtractor<'a> for AccessToken {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme("AccessToken", scheme("The `access_token` of sign-in or refresh."));
    }

    fn security_schemes() -> Vec<&'static str> {
        vec!["AccessToken"]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        Ok(Self(token(request)?))
    }
}

impl<'a> ApiExtractor<'a> for RefreshToken {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme("RefreshToken", scheme("The newest `refresh_token` of the session."));
    }

    fn security_schemes() -> Vec<&'static str> {
        vec!["RefreshToken"]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        Ok(Self(token(request)))
    }
}

fn scheme(description: &'static str) -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "http",
        description: Some(description),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: Some("JWT"),
        flows: None,
        openid_connect_url: None,
    }
}

fn token(request: &Request) -> Result<String, Refusal> {
    // RFC 6750 2: one way of sending a token in a request, and never the query (RFC 9700 4.3.2).
    let query = request.original_uri().query().unwrap_or_default();
    if query.split('&').any(|pair| pair == "access_token" || pair.starts_with("access_token=")) {
        return Err(Refusal::Detail(
            StatusCode::BAD_REQUEST,
            "A token belongs in the Authorization header, not in the query",
        ));
    }
    let Some(value) = request.headers().get(header::AUTHORIZATION) else {
        return Err(Code::NotAuthenticated.into());
    };
    // Bytes that are not ASCII cannot be a token of ours.
    let Ok(value) = value.to_str() else {
        return Err(Code::InvalidToken.into());
    };
    match value.split_once(' ') {
        None | Some((_, "")) => Err(Code::NotAuthenticated.into()),
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.to_owned()),
        Some(_) => Err(Code::InvalidAuthScheme.into()),
    }
}
