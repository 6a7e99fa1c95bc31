//! Every claim set, as it is read.

use uuid::Uuid;

/// A verified access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// Row number of the user.
    pub user_id: i64,
    /// `sub`; absent in the seed's bare profile.
    pub subject: Option<Uuid>,
    /// `sid`.
    pub session_id: Uuid,
}

/// An authentic refresh token. What it claims is judged against its family's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshClaims {
    /// `sid`; an opaque token names none.
    pub session_id: Option<Uuid>,
    /// `fam`.
    pub family_id: Uuid,
    /// `jti`; absent in tokens that name none.
    pub jti: Option<Uuid>,
    /// `gen`; absent in tokens of the old service.
    pub generation: Option<i64>,
    /// SHA-256 of a token of the old service.
    pub legacy_hash: Option<[u8; 32]>,
}
