//! R35: a row that makes no sense harms its own account only.

use proofs::Result;
use proofs::api::Api;

use crate::crowd::{DOMAIN, PASSWORD};
use crate::verdict;
use crate::world::World;

/// What is broken, and how.
const POISON: [(&str, &str); 6] = [
    ("hash that is none", "UPDATE users SET hashed_password = 'nonsense' WHERE email_canonical = '{email}'"),
    (
        "hash that is cut",
        "UPDATE users SET hashed_password = '$argon2id$v=19$m=19456,t=2' WHERE email_canonical = '{email}'",
    ),
    (
        "hash that is huge",
        "UPDATE users SET hashed_password = '$argon2id$v=19$m=4294967295,t=9999,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA' WHERE email_canonical = '{email}'",
    ),
    ("hash of nothing", "UPDATE users SET hashed_password = '' WHERE email_canonical = '{email}'"),
    (
        "unknown key",
        "UPDATE refresh_tokens SET key_id = 'gone' WHERE user_id = (SELECT id FROM users WHERE email_canonical = '{email}')",
    ),
    (
        "last generation",
        "UPDATE refresh_tokens SET generation = 9223372036854775807 WHERE user_id = (SELECT id FROM users WHERE email_canonical = '{email}')",
    ),
];

pub(super) async fn run(world: &mut World) -> Result<()> {
    let server = world.start(&world.settings("server")?).await?;
    let mut api = Api::new(server.address());
    let healthy = format!("healthy@{DOMAIN}");
    api.must_register(&healthy, PASSWORD).await?;
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    for (number, (name, statement)) in POISON.iter().enumerate() {
        let email = format!("poison{number}@{DOMAIN}");
        api.must_register(&email, PASSWORD).await?;
        let pair = api.must_login(&email, PASSWORD).await?;
        let sql = world.sql().await?;
        sql.run(&statement.replace("{email}", &email)).await?;
        sql.close().await;
        let statuses = [
            api.login(&email, PASSWORD).await?.status,
            api.refresh(&pair.refresh).await?.status,
            api.me(&pair.access).await?.status,
        ];
        told.push(format!("{name}: login {}, refresh {}, me {}", statuses[0], statuses[1], statuses[2]));
        if statuses.iter().any(|status| ![200, 401, 503].contains(status)) {
            wrong.push(*name);
        }
        // The others go on.
        api.must_login(&healthy, PASSWORD).await?;
    }
    world.promise("a poisoned row is 200, 401 or 503 for its account only", told.join("; "), wrong.is_empty());
    verdict::scan_logs(world)
}
