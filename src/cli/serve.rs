//! `authservice serve`: from the configuration to a stopped server.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::{Error, connect};
use crate::app::App;
use crate::clock::DatabaseClock;
use crate::config::Config;
use crate::web::listener::{self, Caps};
use crate::{jobs, routes, telemetry};

/// Run the server
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Do not apply migrations; refuse to start when some are missing
    #[arg(long)]
    no_migrate: bool,
}

impl Serve {
    pub(super) async fn run(self, config: Config) -> Result<(), Error> {
        telemetry::start(&config.log);
        let db = connect(&config).await?;
        if self.no_migrate {
            migration::require_current(db.writer()).await?;
        } else {
            for name in migration::up(db.writer()).await? {
                tracing::info!(migration = name, "applied");
            }
        }
        let clock = Arc::new(DatabaseClock::default());
        db.measure_clock(&clock).await?;
        let app = App::new(config, db, Arc::clone(&clock) as _).await?;
        app.sessions.stamp(app.clock.now()).await?;
        // Before anybody can know that the server runs: a signal is then heard.
        let signals = Signals::hear()?;
        let server = &app.config.server;
        let listener = TcpListener::bind((server.host.as_str(), server.port)).await.map_err(|error| {
            Error::Unavailable(format!("cannot listen on {}:{}: {error}", server.host, server.port))
        })?;
        let address = listener.local_addr().map_err(|error| Error::Unavailable(error.to_string()))?;
        tracing::info!(address = %address, issuer = server.issuer(), "listening");
        jobs::start(&app, &clock);

        let (stop, stopped) = watch::channel(false);
        let front = Arc::new(routes::front(&app));
        let caps = Caps::new(&app.config.limits, server);
        let grace = Duration::from_secs(server.shutdown_seconds);
        let serving = tokio::spawn(listener::serve(listener, front, caps, stopped, grace));
        signals.wait(&app).await;
        let _ = stop.send(true);
        serving.await.map_err(|error| Error::Internal(error.to_string()))?;
        app.db.clone().close().await;
        tracing::info!("stopped");
        Ok(())
    }
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

    /// Returns when it is time to stop accepting: after SIGTERM a while later, so that load balancers notice, after SIGINT at once.
    async fn wait(mut self, app: &App) {
        tokio::select! {
            _ = self.interrupt.recv() => app.stop(),
            _ = self.terminate.recv() => {
                app.stop();
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
