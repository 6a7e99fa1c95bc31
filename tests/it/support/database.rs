//! A database of its own for each test: a file, or a clone of a migrated template on the PostgreSQL that `TEST_POSTGRES_URL` names.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use sea_orm::{ConnectOptions, ConnectionTrait as _, DatabaseConnection};
use tokio::sync::OnceCell;

use super::Engine;

/// Dropped when the last replica of a test is gone.
pub(crate) struct Database {
    pub(crate) url: String,
    name: Option<String>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);
static TEMPLATE: OnceCell<String> = OnceCell::const_new();

impl Database {
    /// Makes an empty database; on PostgreSQL it is migrated already.
    pub(crate) async fn create(engine: Engine, directory: &Path) -> Self {
        match engine {
            Engine::Sqlite => Self { url: format!("sqlite://{}/test.db?mode=rwc", directory.display()), name: None },
            Engine::Postgres => {
                let template = TEMPLATE.get_or_init(make_template).await;
                let name = format!("authservice_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
                let admin = admin().await;
                let sql = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy");
                admin.execute_unprepared(&sql).await.unwrap();
                Self { url: url_of(&name), name: Some(name) }
            }
        }
    }

    /// An empty PostgreSQL database without any table.
    pub(crate) async fn create_bare() -> Self {
        let name = format!("authservice_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        admin().await.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        Self { url: url_of(&name), name: Some(name) }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            at_the_end(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        }
    }
}

/// A role of the PostgreSQL, which belongs to no database. Everybody is trusted there, and asked for no password, but the members of
/// [`ASKED`].
pub(crate) struct Role {
    pub(crate) name: String,
}

/// The group whose members `scripts/test.sh` has asked for their passwords.
const ASKED: &str = "authservice_asked";

impl Role {
    /// Makes one that is asked for this password; another server than that of `scripts/test.sh` may trust it nevertheless.
    pub(crate) async fn asked(password: &str) -> Self {
        let group = format!(
            "DO $$BEGIN CREATE ROLE {ASKED}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END$$"
        );
        admin().await.execute_unprepared(&group).await.unwrap();
        Self::create(&format!("LOGIN SUPERUSER PASSWORD '{password}' IN ROLE {ASKED}")).await
    }

    /// Makes one with these options: `LOGIN SUPERUSER`.
    pub(crate) async fn create(options: &str) -> Self {
        let name = format!("authservice_role_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let role = Self { name };
        role.sql(&format!("CREATE ROLE {} {options}", role.name)).await;
        role
    }

    /// Changes its options.
    pub(crate) async fn alter(&self, options: &str) {
        self.sql(&format!("ALTER ROLE {} {options}", self.name)).await;
    }

    /// The URL of a database with this role and a password.
    pub(crate) fn url(&self, database: &str, password: &str) -> String {
        let mut url: reqwest::Url = database.parse().unwrap();
        url.set_username(&self.name).unwrap();
        url.set_password(Some(password)).unwrap();
        url.to_string()
    }

    async fn sql(&self, sql: &str) {
        admin().await.execute_unprepared(sql).await.unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        at_the_end(format!("DROP ROLE IF EXISTS {}", self.name));
    }
}

/// The test's runtime is ending; a thread of its own is not.
fn at_the_end(sql: String) {
    let done = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { admin().await.execute_unprepared(&sql).await.map(|_| ()) })
    });
    if let Ok(Err(error)) = done.join() {
        eprintln!("a test left something behind: {error}");
    }
}

async fn make_template() -> String {
    let name = format!("authservice_template_{}", std::process::id());
    admin().await.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
    let db = connect(&url_of(&name)).await;
    migration::up(&db).await.unwrap();
    db.close().await.unwrap();
    name
}

async fn admin() -> DatabaseConnection {
    connect(&server_url()).await
}

async fn connect(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    sea_orm::Database::connect(options).await.unwrap()
}

/// Tests on PostgreSQL are never left out in silence.
fn server_url() -> String {
    std::env::var("TEST_POSTGRES_URL").expect("TEST_POSTGRES_URL is not set: run the tests with scripts/test.sh")
}

fn url_of(name: &str) -> String {
    let mut url: reqwest::Url = server_url().parse().unwrap();
    url.set_path(name);
    url.to_string()
}
