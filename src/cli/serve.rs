//! `authservice serve`: from the configuration to a stopped server.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Args;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Error, Pauses, Rereading, clock_of};
use crate::app::App;
use crate::clock::DatabaseClock;
use crate::config::Config;
use crate::db::Db;
use crate::telemetry::metrics::Metrics;
use crate::web::front::Front;
use crate::web::listener::{self, Caps};
use crate::{jobs, routes, telemetry};

/// Run the server
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Do not apply migrations; refuse to start when some are missing
    #[arg(long)]
    no_migrate: bool,
}

/// Neither a collector that is away nor a database that hangs keeps the server from ending.
const CLOSING: Duration = Duration::from_secs(2);
/// How long a scrape may hold up the end.
const ADMIN_GRACE: Duration = Duration::from_secs(1);
/// A start that takes longer listens meanwhile. Faults of the settings are told before; those of the keys too when the database
/// answers in time.
const HEAD_START: Duration = Duration::from_secs(2);

impl Serve {
    /// A server whose database does not answer listens nevertheless: it lives, is not ready, and goes on as soon as it can.
    pub(super) async fn run(self, config: Config) -> Result<(), Error> {
        let logs = telemetry::start(&config.log);
        let metrics = Arc::new(Metrics::new(config.database.engine()));
        tokio::spawn(logs.report_drops(Arc::clone(&metrics)));
        let traces = telemetry::traces::start(&config.traces);
        // Before anybody can know that the server runs: a signal is then heard.
        let mut signals = Signals::hear()?;
        let mut starting = pin!(self.start(&config, &metrics));
        let mut started = tokio::select! {
            started = &mut starting => Some(started?),
            () = signals.any() => return Ok(()),
            () = tokio::time::sleep(HEAD_START) => None,
        };

        let server = &config.server;
        let (listener, address) = listen("server.port", &server.host, server.port).await?;
        let admin = Admin::start(&config, &metrics).await?;
        let (stop, stopped) = watch::channel(false);
        let front = Arc::new(routes::waiting(server, Arc::clone(&metrics)));
        let caps = Caps::new(&config.limits, server);
        let grace = Duration::from_secs(server.shutdown_seconds);
        let serving = tokio::spawn(listener::serve(listener, Arc::clone(&front), caps, stopped, grace));

        if started.is_none() {
            tracing::info!(address = %address, "listening, not ready yet");
            tell_systemd(&[NotifyState::Status("waiting for the database")]);
            started = tokio::select! {
                started = starting => Some(started?),
                () = signals.any() => None,
            };
        }
        if let Some((app, clock)) = &started {
            routes::open(&front, app);
            admin.open(app);
            jobs::start(app, clock, &front, traces.as_ref().map(telemetry::traces::Sending::headers));
            tracing::info!(address = %address, issuer = app.config.server.issuer(), "listening");
            tell_systemd(&[NotifyState::Ready, NotifyState::Status("ready")]);
            signals.wait(app, &front).await;
        }
        tell_systemd(&[NotifyState::Stopping, NotifyState::Status("finishing requests in flight")]);
        let _ = stop.send(true);
        serving.await.map_err(|error| Error::Internal(error.to_string()))?;
        admin.stop().await;
        let closing = tokio::time::timeout(CLOSING, async {
            if let Some(traces) = traces {
                traces.stop().await;
            }
            if let Some((app, _)) = started {
                app.db.clone().close().await;
            }
        });
        if closing.await.is_err() {
            tracing::warn!("the database does not let its connections go");
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Starts the application, as often as it takes for the database to answer. Its password may come later, or change meanwhile.
    async fn start(&self, config: &Config, metrics: &Arc<Metrics>) -> Result<(Arc<App>, Arc<DatabaseClock>), Error> {
        let (mut pauses, mut is_told) = (Pauses::default(), false);
        let mut config = Rereading::of(config);
        loop {
            match self.attempt(&config.now, metrics).await {
                Err(Error::Restored) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::error!("{}", jobs::RESTORED);
                    }
                    pauses.next().await;
                }
                Err(Error::Unavailable(why)) if config.now.database.connect_timeout_seconds > 0 => {
                    tracing::warn!(error = why, "waiting for the database");
                    pauses.next().await;
                }
                done => return done,
            }
            if let Some(faults) = config.reread() {
                tracing::warn!(error = faults, "the secrets in files are not read anew: those before are used");
            }
        }
    }

    async fn attempt(&self, config: &Config, metrics: &Arc<Metrics>) -> Result<(Arc<App>, Arc<DatabaseClock>), Error> {
        let db = Db::connect_counted(&config.database, Arc::clone(metrics)).await?;
        let started = self.begin(config, &db).await;
        if started.is_err() {
            // It is tried again with connections of its own: these would stay open.
            db.close().await;
        }
        started
    }

    async fn begin(&self, config: &Config, db: &Db) -> Result<(Arc<App>, Arc<DatabaseClock>), Error> {
        require_durable(db, config).await?;
        if self.no_migrate {
            migration::require_current(db.writer()).await?;
        } else {
            for name in migration::up(db.writer()).await? {
                tracing::info!(migration = name, "applied");
            }
        }
        for step in migration::status(db.writer()).await? {
            if step.state == migration::State::Newer {
                tracing::warn!(
                    migration = step.name,
                    "of a newer release, which has run here; this one may run nevertheless"
                );
            }
        }
        if !db.is_known_or_new().await? {
            return Err(Error::Restored);
        }
        let clock = Arc::new(clock_of(db).await?);
        let app = App::new(config.clone(), db.clone(), Arc::clone(&clock) as _).await?;
        db.warm().await;
        app.sessions.stamp(app.clock.now()).await?;
        Ok((app, clock))
    }
}

/// Says how far the server is when systemd asks for it (`sd_notify(3)`, `Type=notify`); nothing otherwise.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = %error, "systemd was not told");
    }
}

/// Listens, or says which setting cannot be.
async fn listen(setting: &str, host: &str, port: u16) -> Result<(TcpListener, SocketAddr), Error> {
    let unavailable = |error| Error::Unavailable(format!("cannot listen on {host}:{port} ({setting}): {error}"));
    let listener = TcpListener::bind((host, port)).await.map_err(unavailable)?;
    let address = listener.local_addr().map_err(unavailable)?;
    Ok((listener, address))
}

/// The listener of operators, if there is one. It answers until the public one has ended.
struct Admin {
    app: Arc<OnceLock<Arc<App>>>,
    stop: watch::Sender<bool>,
    serving: Option<JoinHandle<()>>,
}

impl Admin {
    async fn start(config: &Config, metrics: &Arc<Metrics>) -> Result<Self, Error> {
        let (app, (stop, stopped)) = (Arc::default(), watch::channel(false));
        if !config.admin.enabled {
            return Ok(Self { app, stop, serving: None });
        }
        let (listener, address) = listen("admin.port", &config.admin.host, config.admin.port).await?;
        let front = Arc::new(routes::admin(&config.server, metrics, &app));
        // Its own: whoever has taken every place of the public listener has taken none of these.
        let caps = Caps::new(&config.limits, &config.server);
        let serving = tokio::spawn(listener::serve(listener, front, caps, stopped, ADMIN_GRACE));
        tracing::info!(address = %address, "listening for operators");
        Ok(Self { app, stop, serving: Some(serving) })
    }

    fn open(&self, app: &Arc<App>) {
        let _ = self.app.set(Arc::clone(app));
    }

    async fn stop(self) {
        let _ = self.stop.send(true);
        if let Some(serving) = self.serving {
            let _ = serving.await;
        }
    }
}

/// What was answered 200 must survive a crash of the database.
async fn require_durable(db: &Db, config: &Config) -> Result<(), Error> {
    let missing = db.missing_timeouts().await?.join(", ");
    if !missing.is_empty() {
        tracing::warn!(
            settings = missing,
            "the database's role has no such time limit: a lost statement may hold its locks for ever"
        );
    }
    let settings = db.unsafe_settings().await?.join(", ");
    if settings.is_empty() {
        return Ok(());
    }
    if config.database.allow_data_loss {
        tracing::warn!(settings, "the database may lose what it has acknowledged: these settings are off");
        return Ok(());
    }
    Err(Error::Configuration(format!(
        "the database may lose what it has acknowledged: {settings} is off; turn it on, or set database.allow_data_loss for tests"
    )))
}

/// The signals that stop the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn hear() -> Result<Self, Error> {
        let hear = |kind| signal(kind).map_err(|error| Error::Internal(error.to_string()));
        Ok(Self { terminate: hear(SignalKind::terminate())?, interrupt: hear(SignalKind::interrupt())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Returns when it is time to stop accepting: after SIGTERM a while later, so that load balancers notice, after SIGINT at once.
    async fn wait(mut self, app: &App, front: &Front) {
        tokio::select! {
            _ = self.interrupt.recv() => app.stop(),
            _ = self.terminate.recv() => {
                app.stop();
                front.drain();
                let drain = Duration::from_secs(app.config.server.drain_seconds);
                tracing::info!(seconds = drain.as_secs(), "draining");
                tokio::select! {
                    () = tokio::time::sleep(drain) => {}
                    _ = self.interrupt.recv() => {}
                    _ = self.terminate.recv() => {}
                }
            }
        }
    }
}
