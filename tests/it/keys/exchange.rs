//! The key-encryption key is exchanged in its files while servers run: nobody restarts, and a wrong one harms nobody.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use authservice::app::App;
use authservice::clock::Clock as _;
use authservice::jobs::Secrets;
use authservice::keys::{Management, Purpose, Resealed, SealedBy};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{Place, maker};
use crate::support::{Engine, TestApp, jwt_header};

const CURRENT: &str = "AUTHSERVICE__KEYS__ENCRYPTION_KEY_FILE";
const PREVIOUS: &str = "AUTHSERVICE__KEYS__PREVIOUS_ENCRYPTION_KEY_FILE";
const ALGORITHM: (&str, &str) = ("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA");

fn encryption_key(word: &str) -> String {
    BASE64_STANDARD.encode(openssl::sha::sha256(word.as_bytes()))
}

/// The two files of one replica, as they are mounted.
struct Files {
    current: PathBuf,
    previous: PathBuf,
}

impl Files {
    fn new(directory: &Path, name: &str) -> Self {
        let [current, previous] = ["current", "previous"].map(|file| directory.join(format!("{name}-{file}")));
        Self { current, previous }
    }

    fn hold(&self, current: &str, previous: &str) {
        std::fs::write(&self.current, current).unwrap();
        std::fs::write(&self.previous, previous).unwrap();
    }

    fn settings(&self) -> [(&str, &str); 3] {
        [(CURRENT, self.current.to_str().unwrap()), (PREVIOUS, self.previous.to_str().unwrap()), ALGORITHM]
    }
}

/// Has the files read again; 1 when what they hold is not taken.
async fn reread(secrets: &mut Secrets, app: &App) -> i64 {
    secrets.reread(app).await;
    app.metrics.secrets_refused.get()
}

/// A command beside the server, with the files as they are now.
fn command(app: &App) -> Management {
    Management::new(app.db.clone(), &app.config.reread().unwrap()).unwrap()
}

async fn sealed_by(app: &TestApp) -> Vec<SealedBy> {
    let listed = command(&app.app).list(app.now()).await.unwrap();
    listed.into_iter().map(|one| one.sealed_by).collect()
}

/// Who signs what a server gives out now.
async fn signer(app: &TestApp) -> String {
    let pair = app.sign_in("alice@example.com").await;
    jwt_header(&pair.access)["kid"].as_str().unwrap().to_owned()
}

/// The files change at once: what was the key is the previous one. One replica reads them late, after the keys were resealed.
#[tokio::test]
async fn both_files_may_change_at_once() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        eprintln!("engine: {engine:?}");
        let mounted = tempfile::TempDir::new().unwrap();
        let (old, new) = (encryption_key("old"), encryption_key("new"));
        let (files, late_files) = (Files::new(mounted.path(), "one"), Files::new(mounted.path(), "late"));
        files.hold(&old, "");
        late_files.hold(&old, "");
        let app = TestApp::start(engine, &files.settings()).await;
        let late = app.another_replica_with(&late_files.settings()).await;
        let (mut secrets, mut late_secrets) = (Secrets::of(&app.app.config, None), Secrets::of(&late.app.config, None));
        app.alice().await;
        let first = signer(&app).await;

        files.hold(&new, &old);
        assert_eq!(reread(&mut secrets, &app.app).await, 0);
        assert_eq!(sealed_by(&app).await, [SealedBy::Previous; 2]);
        let done = command(&app.app).reseal(app.now()).await.unwrap();
        assert_eq!(done, Resealed { resealed: 2, current: 0, unopened: vec![] });

        // Whoever has not read the files yet goes on with what he has in memory, and fights nobody.
        for replica in [&app, &late] {
            assert!(replica.app.keyring.poll(app.now()).await);
            replica.app.keyring.upkeep(app.now()).await.unwrap();
            assert_eq!(signer(replica).await, first);
            assert_eq!(replica.get("/health/ready").await.status, 200);
        }
        assert_eq!(sealed_by(&app).await, [SealedBy::Current; 2]);

        // What is sealed with the new key only reaches him when he has it.
        command(&app.app).rotate(Purpose::Signing, true, app.now()).await.unwrap();
        for replica in [&app, &late] {
            assert!(replica.app.keyring.poll(app.now()).await);
        }
        let second = signer(&app).await;
        assert_ne!(second, first);
        assert_eq!(late.get("/health/ready").await.status, 503);
        late_files.hold(&new, &old);
        assert_eq!(reread(&mut late_secrets, &late.app).await, 0);
        assert_eq!(signer(&late).await, second);
        assert_eq!(late.get("/health/ready").await.status, 200);

        // Both may drop the old one, and so may whoever starts.
        for (replica, files, secrets) in [(&app, &files, &mut secrets), (&late, &late_files, &mut late_secrets)] {
            files.hold(&new, "");
            assert_eq!(reread(secrets, &replica.app).await, 0);
            assert_eq!(signer(replica).await, second);
        }
        assert_eq!(signer(&app.another_replica().await).await, second);
    }
}

/// The server seals with the new key from then on, not only the commands.
#[tokio::test]
async fn what_a_server_makes_later_is_sealed_with_the_new_key() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let mounted = tempfile::TempDir::new().unwrap();
        let files = Files::new(mounted.path(), "one");
        files.hold(&encryption_key("old"), "");
        let mut settings = files.settings().to_vec();
        settings.push(("AUTHSERVICE__KEYS__ROTATE_AFTER_SECONDS", "3600"));
        let app = TestApp::start(engine, &settings).await;
        let mut secrets = Secrets::of(&app.app.config, None);
        files.hold(&encryption_key("new"), &encryption_key("old"));
        assert_eq!(reread(&mut secrets, &app.app).await, 0);

        app.advance(chrono::TimeDelta::seconds(3600));
        app.app.keyring.upkeep(app.now()).await.unwrap();

        let seals = sealed_by(&app).await;
        assert_eq!(seals.iter().filter(|by| **by == SealedBy::Current).count(), 2, "{engine:?}: {seals:?}");
        assert_eq!(seals.iter().filter(|by| **by == SealedBy::Previous).count(), 2, "{engine:?}: {seals:?}");
    }
}

#[tokio::test]
async fn files_that_do_not_open_what_is_there_are_refused() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        eprintln!("engine: {engine:?}");
        let mounted = tempfile::TempDir::new().unwrap();
        let (old, new, wrong) = (encryption_key("old"), encryption_key("new"), encryption_key("wrong"));
        let files = Files::new(mounted.path(), "one");
        files.hold(&old, "");
        let app = TestApp::start(engine, &files.settings()).await;
        let mut secrets = Secrets::of(&app.app.config, None);
        app.alice().await;
        let kid = signer(&app).await;

        let refused = [
            (wrong.as_str(), ""),
            (&new, ""),
            (&wrong, new.as_str()),
            ("", &old),
            ("half a ke", ""),
            (&old, &old),
            (&new, "half a ke"),
        ];
        for (current, previous) in refused {
            files.hold(current, previous);
            assert_eq!(reread(&mut secrets, &app.app).await, 1, "{current} {previous}");
            assert!(app.app.keyring.poll(app.now()).await);
            app.app.keyring.upkeep(app.now()).await.unwrap();
            assert_eq!(signer(&app).await, kid);
        }
        std::fs::remove_file(&files.current).unwrap();
        assert_eq!(reread(&mut secrets, &app.app).await, 1, "no file");

        // Half of the keys are sealed with the new one: without the old one the other half would be lost.
        files.hold(&new, &old);
        assert_eq!(reread(&mut secrets, &app.app).await, 0);
        command(&app.app).rotate(Purpose::Signing, true, app.now()).await.unwrap();
        assert!(app.app.keyring.poll(app.now()).await);
        files.hold(&new, "");
        assert_eq!(reread(&mut secrets, &app.app).await, 1);
        assert_eq!(sealed_by(&app).await.iter().filter(|by| **by == SealedBy::Unknown).count(), 2);
        files.hold(&new, &old);
        assert_eq!(reread(&mut secrets, &app.app).await, 0);
        assert_ne!(signer(&app).await, kid);
    }
}

/// Without a setting the key lies in the directory, which is a mounted one too.
#[tokio::test]
async fn the_file_in_the_directory_is_read_again() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let previous = place.directory.path().join("previous");
        std::fs::write(&previous, "").unwrap();
        let settings = [ALGORITHM, (PREVIOUS, previous.to_str().unwrap())];
        let app: Arc<App> = place.open(&settings).await.unwrap();
        let mut secrets = Secrets::of(&app.config, None);
        let kid = maker(&app, Purpose::Signing);
        let made = std::fs::read(place.keys().join("encryption.key")).unwrap();
        assert_eq!(reread(&mut secrets, &app).await, 0);

        place.put("encryption.key", encryption_key("new"), 0o644);
        std::fs::write(&previous, &made).unwrap();
        assert_eq!(reread(&mut secrets, &app).await, 1, "others may read it");
        place.put("encryption.key", encryption_key("new"), 0o600);
        assert_eq!(reread(&mut secrets, &app).await, 0);
        command(&app).reseal(place.clock.now()).await.unwrap();
        std::fs::write(&previous, "").unwrap();
        assert_eq!(reread(&mut secrets, &app).await, 0);

        assert_eq!(maker(&place.open(&settings).await.unwrap(), Purpose::Signing), kid);
        std::fs::remove_file(place.keys().join("encryption.key")).unwrap();
        assert_eq!(reread(&mut secrets, &app).await, 1, "the next start would make another, or none");
        assert_eq!(maker(&app, Purpose::Signing), kid);
    }
}
