//! What kind of trouble an error of the database is, for those who count them.

use std::borrow::Cow;

use sea_orm::sqlx;
use sea_orm::{DbErr, RuntimeErr};

/// The word for a connection that was not had in time.
pub(super) const ACQUIRE: &str = "acquire_timeout";
/// The word for a connection that could not be opened, or broke.
pub(super) const CONNECTION: &str = "connection";
/// SQLSTATE of a statement that took too long (PostgreSQL, appendix A).
const QUERY_CANCELED: &str = "57014";
/// SQLSTATEs, or their classes, of a server that lets nobody in or goes away.
const UNREACHABLE: [&str; 5] = ["08", "53300", "57P01", "57P02", "57P03"];

/// The word for it; `None` for what is an answer: a row that is there already.
pub(super) fn kind(error: &DbErr) -> Option<&'static str> {
    let runtime = match error {
        DbErr::ConnectionAcquire(_) => return Some(ACQUIRE),
        DbErr::Conn(runtime) | DbErr::Exec(runtime) | DbErr::Query(runtime) => runtime,
        _ => return Some("other"),
    };
    let RuntimeErr::SqlxError(cause) = runtime else {
        // Our own time limit (`limited.rs`).
        return Some("statement_timeout");
    };
    match &**cause {
        sqlx::Error::PoolTimedOut => Some(ACQUIRE),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            Some(CONNECTION)
        }
        sqlx::Error::Database(refusal) if refusal.is_unique_violation() => None,
        sqlx::Error::Database(refusal) => Some(of_code(&refusal.code().unwrap_or(Cow::Borrowed("")))),
        _ => Some("other"),
    }
}

fn of_code(code: &str) -> &'static str {
    match code {
        QUERY_CANCELED => "statement_timeout",
        _ if UNREACHABLE.iter().any(|known| code.starts_with(known)) => CONNECTION,
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sea_orm::error::ConnAcquireErr;

    use super::*;

    #[test]
    fn every_kind_of_trouble_has_a_word() {
        let sqlx = |error| DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)));
        let rows = [
            (DbErr::ConnectionAcquire(ConnAcquireErr::Timeout), "acquire_timeout"),
            (DbErr::Conn(RuntimeErr::Internal("no answer within 2s".to_owned())), "statement_timeout"),
            (sqlx(sqlx::Error::PoolTimedOut), "acquire_timeout"),
            (sqlx(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())), "connection"),
            (sqlx(sqlx::Error::RowNotFound), "other"),
            (DbErr::Custom("a writer went away".to_owned()), "other"),
        ];
        for (error, expected) in rows {
            assert_eq!(kind(&error), Some(expected), "{error}");
        }
        for (code, expected) in [
            ("57014", "statement_timeout"),
            ("57P01", "connection"),
            ("08006", "connection"),
            ("40001", "other"),
            ("", "other"),
        ] {
            assert_eq!(of_code(code), expected, "{code}");
        }
    }
}
