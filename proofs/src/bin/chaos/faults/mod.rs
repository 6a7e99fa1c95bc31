//! Every fault: its id in the catalogue, what is done, where it can be done. One file each, or one for a few that belong together.

use std::pin::Pin;

use proofs::Result;

use crate::world::{Engine, World};

mod balancer;
mod clocks;
mod conflicts;
mod crashes;
mod descriptors;
mod entropy;
mod failover;
mod full_disks;
mod ghosts;
mod hangs;
mod key_files;
mod kills;
mod later;
mod locks;
mod logins;
mod migrations;
mod poison;
mod pooler;
mod pools;
mod races;
mod restarts;
mod rotation;
mod sinks;
mod slow_clients;
mod soak;
mod starts;
mod storms;
mod upgrade;

/// A running trial.
type Trial<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// One fault.
pub(crate) struct Fault {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) engines: &'static [Engine],
    pub(crate) run: for<'a> fn(&'a mut World) -> Trial<'a>,
}

const BOTH: &[Engine] = &[Engine::Sqlite, Engine::Postgres];
const SQLITE: &[Engine] = &[Engine::Sqlite];
const POSTGRES: &[Engine] = &[Engine::Postgres];

/// A line of the list.
const fn fault(
    id: &'static str,
    engines: &'static [Engine],
    what: &'static str,
    run: for<'a> fn(&'a mut World) -> Trial<'a>,
) -> Fault {
    Fault { id, what, engines, run }
}

/// All of them, in the order of a run.
pub(crate) const FAULTS: &[Fault] = &[
    fault("R01", POSTGRES, "the database is down at the start", |world| Box::pin(starts::without_database(world))),
    fault("R02", POSTGRES, "PostgreSQL crashes under load", |world| Box::pin(crashes::run(world))),
    fault("R03", POSTGRES, "PostgreSQL hangs under load", |world| Box::pin(hangs::run(world))),
    fault("R04", POSTGRES, "PostgreSQL fails over to a standby", |world| Box::pin(failover::run(world))),
    fault("R05", POSTGRES, "a database that may lose commits", |world| Box::pin(starts::unsafe_database(world))),
    fault("R06", SQLITE, "the disk is full", |world| Box::pin(full_disks::sqlite(world))),
    fault("R07", POSTGRES, "the disk of PostgreSQL is full", |world| Box::pin(full_disks::postgres(world))),
    fault("R08", SQLITE, "another process holds the lock", |world| Box::pin(locks::run(world))),
    fault("R09", BOTH, "rolling restarts under load", |world| Box::pin(restarts::run(world))),
    fault("R10", BOTH, "kill -9 at random moments", |world| Box::pin(kills::run(world))),
    fault("R11", BOTH, "64 refreshes with one token at once", |world| Box::pin(races::parallel(world))),
    fault("R12", BOTH, "refreshes race what ends sessions", |world| Box::pin(races::ends(world))),
    fault("R13", POSTGRES, "replicas whose clocks differ", |world| Box::pin(clocks::apart(world))),
    fault("R14", BOTH, "the host's clock steps by an hour", |world| Box::pin(clocks::steps(world))),
    fault("R15", BOTH, "signing keys rotate under load", |world| Box::pin(rotation::run(world))),
    fault("R17", BOTH, "many migrate at once", |world| Box::pin(migrations::at_once(world))),
    fault("R18", BOTH, "the schema is newer", |world| Box::pin(migrations::newer(world))),
    fault("R19", SQLITE, "a configuration full of faults", |world| Box::pin(starts::bad_configuration(world))),
    fault("R20", SQLITE, "key files that are no good", |world| Box::pin(key_files::bad_files(world))),
    fault("R21", SQLITE, "key files that others may read", |world| Box::pin(key_files::modes(world))),
    fault("R23", BOTH, "a flood of sign-ins", |world| Box::pin(logins::run(world))),
    fault("R24", BOTH, "no descriptor is left", |world| Box::pin(descriptors::run(world))),
    fault("R25", SQLITE, "clients that are slow or silent", |world| Box::pin(slow_clients::run(world))),
    fault("R26", POSTGRES, "a slow database and a small pool", |world| Box::pin(pools::run(world))),
    fault("R27", POSTGRES, "terminated connections, 40P01, 40001", |world| Box::pin(conflicts::run(world))),
    fault("R28", POSTGRES, "PgBouncer in transaction mode", |world| Box::pin(pooler::run(world))),
    fault("R29", POSTGRES, "all clients at once after an outage", |world| Box::pin(storms::run(world))),
    fault("R30", BOTH, "a long run with short lives", |world| Box::pin(soak::run(world))),
    fault("R32", SQLITE, "no random bytes", |world| Box::pin(entropy::run(world))),
    fault("R33", SQLITE, "nobody reads the log", |world| Box::pin(sinks::run(world))),
    fault("R35", BOTH, "rows that make no sense", |world| Box::pin(poison::run(world))),
    fault("R37", POSTGRES, "a request that was given up goes on", |world| Box::pin(ghosts::run(world))),
    fault("R38", POSTGRES, "rolling restarts behind HAProxy", |world| Box::pin(balancer::run(world))),
    fault("R39", BOTH, "an upgrade from an older build, and back", |world| Box::pin(upgrade::run(world))),
    fault("R40", BOTH, "a later release migrates, and is rolled back", |world| Box::pin(later::run(world))),
];
