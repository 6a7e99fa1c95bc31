//! Every fault: its id in the catalogue, what is done, where it can be done. One file each, or one for a few that belong together.

use std::pin::Pin;

use proofs::Result;

use crate::world::{Engine, World};

mod kills;

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

/// All of them, in the order of a run.
pub(crate) const FAULTS: &[Fault] =
    &[Fault { id: "R10", what: "kill -9 at random moments", engines: BOTH, run: |world| Box::pin(kills::run(world)) }];
