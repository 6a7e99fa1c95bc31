//! R28: `PgBouncer` between the server and PostgreSQL, which gives a connection away after each transaction.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proofs::server::Server;
use proofs::{Result, process};

use crate::crowd::{Crowd, Plan};
use crate::verdict;
use crate::world::World;

struct Pooler(Child);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first version that keeps the prepared statements of its clients apart.
const OLDEST: (u32, u32) = (1, 21);

/// The program that PGBOUNCER names, or the one on the path, when it is new enough.
fn program() -> Option<String> {
    let program = std::env::var("PGBOUNCER").unwrap_or_else(|_| "pgbouncer".to_owned());
    let said = Command::new(&program).arg("--version").output().ok()?.stdout;
    let said = String::from_utf8_lossy(&said);
    let mut version = said.lines().next()?.strip_prefix("PgBouncer ")?.split('.').map(|part| part.parse::<u32>().ok());
    ((version.next()??, version.next()??) >= OLDEST).then_some(program)
}

pub(super) async fn run(world: &mut World) -> Result<()> {
    let Some(program) = program() else {
        world.leave_out("there is no PgBouncer 1.21 or newer (PGBOUNCER names one)");
        return Ok(());
    };
    let (port, target) = (process::free_port()?, world.cluster()?.port);
    let folder = world.directory().join("pooler");
    std::fs::create_dir_all(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    let path = folder.join("pgbouncer.ini");
    let settings = format!(
        "[databases]\n* = host=127.0.0.1 port={target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = any\npool_mode = transaction\nmax_client_conn = 200\ndefault_pool_size = 10\n\
         max_prepared_statements = 200\n"
    );
    let named = world.url.rsplit('/').next().unwrap_or_default().to_owned();
    std::fs::write(&path, settings.replace("* = ", &format!("{named} = dbname={named} user=postgres ")))?;
    let mut command = if process::is_root() {
        // Not runuser, which stays between us and what it runs.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", &program]);
        command
    } else {
        Command::new(&program)
    };
    let mut pooler =
        Pooler(command.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    tokio::time::sleep(Duration::from_millis(500)).await;
    if let Some(status) = pooler.0.try_wait()? {
        return Err(format!("{program} ended with {status}").into());
    }
    let url = format!("postgres://postgres@127.0.0.1:{port}/{named}");
    let settings = world.settings("server")?.with("DATABASE_URL", &url);
    let settings = settings.with("AUTHSERVICE__DATABASE__TRANSACTION_POOLING", "true");
    let servers = [world.start(&settings).await?, world.start(&settings.replica("two")?).await?];
    let addresses = servers.each_ref().map(Server::address);
    let plan = Plan::on(&addresses).with_churn();
    let crowd = Crowd::sign_in(world, addresses[0], world.size.clients(16, 48)).await?;
    let load = crowd.go(world, &plan);
    tokio::time::sleep(world.size.seconds(4, 60)).await;
    let crowd = load.stop().await?;
    let (refused, done) = (world.ledger.counted("answers 503"), world.ledger.counted("rotations"));
    let figure = format!("{done} refreshes of two replicas by way of 10 connections, {refused} answers 503");
    world.promise("the server works behind a pooler in transaction mode", figure, done > 0 && refused == 0);
    verdict::check(world, crowd, &plan).await?;
    drop(pooler);
    Ok(())
}
