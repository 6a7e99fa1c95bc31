//! A storm of logins beside refreshes and JWK Sets at fixed rates: who already has a session must not notice it.

use std::time::Duration;

use proofs::Result;

use crate::load::{self, Group, Op, Outcome};
use crate::stage::Stage;

const LOGINS: Group = Group { op: Op::Login, workers: 32, rate: None };
const REFRESHES: Group = Group { op: Op::Refresh, workers: 4, rate: Some(20) };
const SETS: Group = Group { op: Op::Get("/.well-known/jwks.json"), workers: 4, rate: Some(100) };

/// What each group saw.
pub(crate) struct Storm {
    /// Refreshes and JWK Sets without logins.
    pub(crate) calm: Vec<Outcome>,
    /// Logins and nothing else.
    pub(crate) alone: Outcome,
    /// Logins, refreshes and JWK Sets.
    pub(crate) beside: Vec<Outcome>,
}

pub(crate) async fn run(stage: &Stage, seconds: u64) -> Result<Storm> {
    let time = Duration::from_secs(seconds);
    println!("storm on {}", stage.name);
    let nothing = || Ok(());
    let calm = load::run(stage, stage.address(), &[REFRESHES, SETS], time, nothing).await?;
    let alone = load::run(stage, stage.address(), &[LOGINS], time, nothing).await?.remove(0);
    let beside = load::run(stage, stage.address(), &[LOGINS, REFRESHES, SETS], time, nothing).await?;
    Ok(Storm { calm, alone, beside })
}
