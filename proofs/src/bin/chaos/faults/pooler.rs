//! R28: `PgBouncer` between the server and PostgreSQL, which gives a connection away after each transaction.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proofs::{Result, process};

use crate::crowd::{Crowd, Plan};
use crate::refusal::Start;
use crate::verdict;
use crate::world::World;

struct Pooler(Child);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) async fn run(world: &mut World) -> Result<()> {
    // As it is mostly set up; and with the parameters ignored by which the server asks for its time limits.
    for (name, ignored) in [("plain", "extra_float_digits"), ("ignoring", "extra_float_digits, options")] {
        behind(world, name, ignored).await?;
        world.new_ledger();
    }
    Ok(())
}

async fn behind(world: &mut World, name: &str, ignored: &str) -> Result<()> {
    let (port, target) = (process::free_port()?, world.cluster()?.port);
    let folder = world.directory().join(format!("pooler-{name}"));
    std::fs::create_dir_all(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    let path = folder.join("pgbouncer.ini");
    let settings = format!(
        "[databases]\n* = host=127.0.0.1 port={target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = any\npool_mode = transaction\nmax_client_conn = 200\ndefault_pool_size = 10\n\
         ignore_startup_parameters = {ignored}\n"
    );
    let named = world.url.rsplit('/').next().unwrap_or_default().to_owned();
    std::fs::write(&path, settings.replace("* = ", &format!("{named} = dbname={named} user=postgres ")))?;
    let mut command = if process::is_root() {
        // Not runuser, which stays between us and what it runs.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "pgbouncer"]);
        command
    } else {
        Command::new("pgbouncer")
    };
    let spawned = command.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(child) = spawned else {
        world.tell("not tried: there is no pgbouncer");
        return Ok(());
    };
    let mut pooler = Pooler(child);
    tokio::time::sleep(Duration::from_millis(500)).await;
    if pooler.0.try_wait()?.is_some() {
        world.tell("not tried: pgbouncer does not start here");
        return Ok(());
    }
    let url = format!("postgres://postgres@127.0.0.1:{port}/{named}");
    let settings = world.settings(name)?.with("DATABASE_URL", &url);
    let settings = settings.with("AUTHSERVICE__DATABASE__CONNECT_TIMEOUT_SECONDS", "2");
    let start = Start::of(&settings).await?;
    let figure =
        start.code.map_or_else(|| "it starts".to_owned(), |code| format!("exit {code}: {}", start.text.trim()));
    let promise = format!("the server starts behind PgBouncer that ignores {ignored}");
    world.promise(&promise, figure, start.code.is_none());
    if start.code.is_none() {
        let server = world.start(&settings).await?;
        let plan = Plan::on(&[server.address()]).with_churn();
        let crowd = Crowd::sign_in(world, server.address(), world.size.clients(16, 48)).await?;
        let load = crowd.go(world, &plan);
        tokio::time::sleep(world.size.seconds(4, 60)).await;
        let crowd = load.stop().await?;
        verdict::check(world, crowd, &plan).await?;
    }
    drop(pooler);
    Ok(())
}
