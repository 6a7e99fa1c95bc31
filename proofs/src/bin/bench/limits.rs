//! What the parts of a request cost on this machine, in this run: a request cannot cost less than the sum of its parts.

use std::path::Path;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use poem::listener::TcpListener;
use poem::{Route, get, handler};
use proofs::process::Usage;
use proofs::sql::Sql;
use proofs::{Error, Result};
use tokio::time::Instant;

use crate::load::precise;

/// As long as the JWK Set of one RSA-2048 key.
const CONSTANT: &str = concat!(
    r#"{"keys":[{"alg":"RS256","e":"AQAB","kid":"0000000000000000000000000000000000000000000","kty":"RSA","#,
    r#""n":"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"#,
    r"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    r"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    r#"000000000","use":"sig"}]}"#
);

/// Serves a constant answer until the process is killed.
pub(crate) async fn serve_floor(port: u16) -> Result<()> {
    #[handler]
    fn constant() -> &'static str {
        CONSTANT
    }
    let listener = TcpListener::bind(("127.0.0.1", port));
    Ok(poem::Server::new(listener).run(Route::new().at("/", get(constant))).await?)
}

/// CPU milliseconds of one call, over about a second.
fn cost(mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let cpu = || -> Result<f64> { Ok(Usage::of(std::process::id())?.cpu_seconds) };
    let (started, before, mut calls) = (Instant::now(), cpu()?, 0);
    while started.elapsed() < Duration::from_secs(1) {
        call()?;
        calls += 1;
    }
    Ok((cpu()? - before) * 1000.0 / precise(calls))
}

/// One RS256 signature over as much as an access token, with a key that is kept.
pub(crate) fn signature() -> Result<f64> {
    let key = PKey::from_rsa(Rsa::generate(2048)?)?;
    let text = [b'x'; 500];
    cost(|| {
        Signer::new(MessageDigest::sha256(), &key)?.sign_oneshot_to_vec(&text)?;
        Ok(())
    })
}

/// One Argon2id hash with the default parameters, in memory that is kept.
#[expect(clippy::disallowed_methods, reason = "the bare hash is what is measured")]
pub(crate) fn password_hash() -> Result<f64> {
    let parameters = Params::new(19_456, 2, 1, Some(32)).map_err(|error| Error::from(error.to_string()))?;
    let mut memory = vec![Block::default(); parameters.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
    let mut tag = [0; 32];
    cost(|| {
        let hashed = argon2.hash_password_into_with_memory(b"Str0ng!Passw0rd", &[7; 16], &mut tag, &mut memory);
        hashed.map_err(|error| Error::from(error.to_string()))
    })
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS single (id INTEGER PRIMARY KEY, generation BIGINT NOT NULL)";

/// Durable commits of one row a second, by so many clients, each after the other's answer.
pub(crate) async fn commits(url: &str, clients: usize, time: Duration) -> Result<f64> {
    let sql = Sql::connect(url).await?;
    sql.run(TABLE).await?;
    for id in 0..clients {
        sql.run(&format!("INSERT INTO single VALUES ({id}, 0) ON CONFLICT DO NOTHING")).await?;
    }
    let tasks: Vec<_> = (0..clients)
        .map(|id| {
            let url = url.to_owned();
            tokio::spawn(async move {
                let sql = Sql::connect(&url).await?;
                if sql.is_sqlite() {
                    sql.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL").await?;
                }
                let (started, mut commits) = (Instant::now(), 0_usize);
                while started.elapsed() < time {
                    sql.run(&format!("UPDATE single SET generation = generation + 1 WHERE id = {id}")).await?;
                    commits += 1;
                }
                Ok::<_, Error>(precise(commits) / started.elapsed().as_secs_f64())
            })
        })
        .collect();
    let mut sum = 0.0;
    for task in tasks {
        sum += task.await??;
    }
    Ok(sum)
}

/// URL of a SQLite file for [`commits`].
pub(crate) fn sqlite_url(directory: &Path) -> String {
    format!("sqlite://{}/single.db?mode=rwc", directory.display())
}
