//! The schema: up, down and up again, by many at once, and equal to the entities.

use std::collections::BTreeSet;
use std::time::Duration;

use authservice::config::Config;
use authservice::db::Db;
use authservice::entity::{self, audit_event, auth_session, rate_limit, refresh_token, signing_key, user};
use sea_orm::{
    ConnectionTrait as _, DatabaseBackend, DatabaseConnection, EntityTrait, IdenStatic as _, Iterable as _, Statement,
    TransactionTrait as _,
};
use tempfile::TempDir;

use crate::support::database::Database;
use crate::support::{Engine, TestApp, each_engine_with};

/// A database without any table.
struct Bare {
    database: Database,
    _directory: TempDir,
}

impl Bare {
    async fn new(engine: Engine) -> Self {
        eprintln!("engine: {engine:?}");
        let directory = TempDir::new().unwrap();
        let database = match engine {
            Engine::Sqlite => Database::create(engine, directory.path()).await,
            Engine::Postgres => Database::create_bare().await,
        };
        Self { database, _directory: directory }
    }

    /// A connection as a replica makes it.
    async fn connect(&self) -> Db {
        let environment = [("DATABASE_URL".to_owned(), self.database.url.clone())].into();
        let config = Config::load(None, &environment).unwrap();
        Db::connect(&config.database).await.unwrap()
    }
}

/// Rows of one text column.
async fn texts(db: &DatabaseConnection, sql: &str) -> Vec<String> {
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// Everything that DDL made, in order.
async fn schema(db: &DatabaseConnection) -> Vec<String> {
    if db.get_database_backend() == DatabaseBackend::Sqlite {
        let sql = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master WHERE name <> 'sqlite_sequence' ORDER BY 1";
        return texts(db, sql).await;
    }
    let mut schema = Vec::new();
    for sql in [
        "SELECT table_name || '.' || column_name || ' ' || ordinal_position || ' ' || data_type || ' ' || coalesce(character_maximum_length::text, '') \
            || ' ' || is_nullable || ' ' || coalesce(column_default, '') \
            FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
        "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint \
            WHERE connamespace = 'public'::regnamespace ORDER BY 1",
        "SELECT relname || ' ' || coalesce(reloptions::text, '') FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
    ] {
        schema.extend(texts(db, sql).await);
    }
    schema
}

async fn tables(db: &DatabaseConnection) -> BTreeSet<String> {
    let sql = match db.get_database_backend() {
        DatabaseBackend::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'sqlite_sequence'",
        _ => "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'",
    };
    texts(db, sql).await.into_iter().collect()
}

#[tokio::test]
async fn up_down_and_up_again_is_the_same_schema() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let bare = Bare::new(engine).await;
        let db = bare.connect().await;
        let db = db.writer();
        let names: Vec<String> = migration::status(db).await.unwrap().into_iter().map(|step| step.name).collect();

        assert_eq!(migration::up(db).await.unwrap(), names);
        let first = schema(db).await;
        assert!(migration::up(db).await.unwrap().is_empty(), "a second time there is nothing to do");
        assert_eq!(schema(db).await, first);
        migration::down(db).await.unwrap();
        assert_eq!(tables(db).await, ["seaql_migrations".to_owned()].into());
        assert_eq!(migration::up(db).await.unwrap(), names);

        assert_eq!(schema(db).await, first);
        migration::require_current(db).await.unwrap();
    }
}

/// The migrator of sea-orm takes no lock: without ours replicas that start at once would apply everything several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_apply_everything_once() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let bare = std::sync::Arc::new(Bare::new(engine).await);
        let replicas: Vec<_> = (0..8)
            .map(|_| {
                let bare = std::sync::Arc::clone(&bare);
                tokio::spawn(async move { migration::up(bare.connect().await.writer()).await.unwrap() })
            })
            .collect();
        let mut applied = Vec::new();
        for replica in replicas {
            applied.extend(replica.await.unwrap());
        }

        let db = bare.connect().await;
        let known: Vec<String> =
            migration::status(db.writer()).await.unwrap().into_iter().map(|step| step.name).collect();
        assert_eq!(applied, known, "each of them by one replica");
        assert_eq!(texts(db.writer(), "SELECT version FROM seaql_migrations ORDER BY 1").await, known);
    }
}

/// A backup holds what is listed, and `doctor` asks for the rights on it.
#[tokio::test]
async fn the_list_of_tables_names_every_table() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let bare = Bare::new(engine).await;
        let db = bare.connect().await;
        migration::up(db.writer()).await.unwrap();

        let listed: BTreeSet<String> =
            entity::TABLES.iter().chain(&entity::MADE_ANEW).map(|table| (*table).to_owned()).collect();

        assert_eq!(listed, tables(db.writer()).await);
    }
}

/// Requests that come while a migration waits for a table wait behind it. On SQLite there is one writer anyway.
#[tokio::test]
async fn a_migration_that_waits_for_a_table_lets_requests_go_first() {
    let bare = Bare::new(Engine::Postgres).await;
    let (db, busy) = (bare.connect().await, bare.connect().await);
    migration::up(db.writer()).await.unwrap();
    let locks = "SELECT pid::text FROM pg_locks WHERE locktype = 'advisory' AND granted \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let tx = busy.writer().begin().await.unwrap();
    tx.execute_unprepared("LOCK TABLE seaql_migrations IN ACCESS EXCLUSIVE MODE").await.unwrap();

    let migrating = tokio::spawn(async move { migration::up(db.writer()).await });

    // It takes the lock of migrations, lets it go, and takes it again.
    for is_held in [true, false, true] {
        let mut tries = 0;
        while texts(busy.writer(), locks).await.is_empty() == is_held {
            tries += 1;
            assert!(tries < 500, "held: {is_held}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    tx.commit().await.unwrap();
    assert!(migrating.await.unwrap().unwrap().is_empty());
}

/// An entity that lacks a column would not notice; one that has too many would at its first query.
#[tokio::test]
async fn entities_are_equal_to_their_tables() {
    // Rows of limits are there while there are limits.
    each_engine_with(&[("AUTHSERVICE__LIMITS__ENABLED", "true")], async |app| {
        let pair = app.alice().await;
        app.refresh(&pair.refresh).await.pair();

        let read = [
            read::<user::Entity>(&app, "users").await,
            read::<auth_session::Entity>(&app, "auth_sessions").await,
            read::<refresh_token::Entity>(&app, "refresh_tokens").await,
            read::<signing_key::Entity>(&app, "signing_keys").await,
            read::<audit_event::Entity>(&app, "audit_events").await,
            read::<rate_limit::Entity>(&app, "rate_limits").await,
        ];

        let mut tables = tables(app.app.db.writer()).await;
        // Those that are read and written by statements that name their columns; the last two are the migrator's own.
        for name in ["adoptions", "service_clock", "database_identity", "schema_compatibility", "seaql_migrations"] {
            tables.remove(name);
        }
        assert_eq!(tables, read.map(str::to_owned).into(), "every table has an entity");
    })
    .await;
}

/// Reads a row through the entity and compares the names of columns.
async fn read<E: EntityTrait>(app: &TestApp, table: &'static str) -> &'static str {
    let db = app.app.db.writer();
    E::find().one(db).await.unwrap().unwrap_or_else(|| panic!("{table} is empty"));
    let sql = match app.engine {
        Engine::Sqlite => format!("SELECT name FROM pragma_table_info('{table}')"),
        Engine::Postgres => {
            format!(
                "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '{table}'"
            )
        }
    };
    let columns: BTreeSet<String> = texts(db, &sql).await.into_iter().collect();
    let known: BTreeSet<String> = E::Column::iter().map(|column| column.as_str().to_owned()).collect();
    assert_eq!(known, columns, "{table}");
    table
}
