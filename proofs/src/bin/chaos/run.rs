//! A run: which faults are tried where, in which order, and what is told at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proofs::Result;
use proofs::dice::Dice;
use proofs::postgres::Cluster;
use tokio::task::JoinSet;

use crate::Run;
use crate::faults::{FAULTS, Fault};
use crate::report::{Report, say};
use crate::world::{Engine, Size, World};

/// Tries the chosen faults and returns how many promises were broken.
pub(crate) async fn try_faults(run: Run) -> Result<usize> {
    let except = choose(&run.except)?;
    let chosen: Vec<&Fault> =
        choose(&run.faults)?.into_iter().filter(|fault| except.iter().all(|left| left.id != fault.id)).collect();
    let seed = run.seed.unwrap_or_else(from_the_kernel);
    say(&format!("seed {seed}"));
    let root = Arc::new(Root::make(seed)?);
    let run = Arc::new(run);
    let on = |engines: &[Engine]| -> Vec<(&'static Fault, Engine)> {
        let pairs = |fault: &&'static Fault| -> Vec<_> {
            let engines = engines.iter().filter(|engine| fault.engines.contains(engine) && run.engine.has(**engine));
            engines.map(|engine| (*fault, *engine)).collect()
        };
        chosen.iter().flat_map(pairs).collect()
    };
    // Much of a run is waiting: a short one tries both databases side by side. A long one measures, and is alone.
    let lanes = if run.short {
        vec![on(&[Engine::Sqlite]), on(&[Engine::Postgres])]
    } else {
        vec![on(&[Engine::Sqlite, Engine::Postgres])]
    };
    let mut tasks = JoinSet::new();
    for lane in lanes {
        tasks.spawn(try_in_turn(lane, Arc::clone(&run), seed, Arc::clone(&root)));
    }
    let mut report = Report::default();
    while let Some(lane) = tasks.join_next().await {
        report.append(lane??);
    }
    report.print();
    if let Some(path) = &run.json {
        append(path, &report.as_json(seed))?;
    }
    if report.is_empty() {
        return Err("nothing was tried".into());
    }
    Ok(report.broken())
}

async fn try_in_turn(lane: Vec<(&'static Fault, Engine)>, run: Arc<Run>, seed: u64, root: Arc<Root>) -> Result<Report> {
    let size = Size::new(run.short, run.seconds, run.kills, run.clients);
    let (mut report, mut cluster) = (Report::default(), None);
    for (fault, engine) in lane {
        if engine == Engine::Postgres && cluster.is_none() {
            cluster = Some(Arc::new(Cluster::start(&root.0.join("postgres"), "")?));
        }
        let directory = root.0.join(format!("{}-{}", fault.id, engine.label()));
        // A seed of its own, so that a fault alone repeats what it did among others.
        let dice = Dice::new(seed).part(number_of(fault.id));
        let mut world = World::new(fault.id, engine, size, dice, &directory, cluster.clone()).await?;
        world.overrides.clone_from(&run.overrides);
        world.sabotage.clone_from(&run.sabotage);
        let trial = try_fault(fault, world).await;
        if trial.broken() > 0 {
            say(&format!("  kept: {}", root.keep(&directory)?.display()));
        }
        let _ = std::fs::remove_dir_all(&directory);
        report.append(trial);
    }
    Ok(report)
}

/// The folder of a run; removed at its end, also by Ctrl-C.
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Root {
    fn make(seed: u64) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("chaos-{}-{seed:x}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Moves what is worth a look out of it.
    fn keep(&self, directory: &Path) -> Result<PathBuf> {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let kept =
            self.0.with_file_name(format!("{}-{name}", self.0.file_name().unwrap_or_default().to_string_lossy()));
        std::fs::rename(directory, &kept)?;
        Ok(kept)
    }
}

async fn try_fault(fault: &Fault, mut world: World) -> Report {
    let engine = world.engine.label();
    say(&format!("{} {engine}: {}", fault.id, fault.what));
    let started = tokio::time::Instant::now();
    if let Err(error) = (fault.run)(&mut world).await {
        let figure = format!("{error}; until then: {}", world.ledger.summary());
        world.promise("the run reaches its end", figure, false);
    }
    say(&format!("  {} {engine} took {:.1} s", fault.id, started.elapsed().as_secs_f64()));
    world.report
}

fn choose(ids: &[String]) -> Result<Vec<&'static Fault>> {
    if ids.iter().any(|id| id == "all") {
        return Ok(FAULTS.iter().collect());
    }
    let find = |id: &String| {
        let fault = FAULTS.iter().find(|fault| fault.id.eq_ignore_ascii_case(id));
        fault.ok_or_else(|| format!("no fault {id}: see `chaos list`").into())
    };
    ids.iter().map(find).collect()
}

fn number_of(id: &str) -> u64 {
    id.bytes().fold(0, |number, byte| number * 256 + u64::from(byte))
}

/// A seed that nobody chose.
fn from_the_kernel() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    u64::from_str_radix(&text.replace('-', "")[..12], 16).unwrap_or(1)
}

fn append(path: &Path, line: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{line}")?;
    Ok(())
}
