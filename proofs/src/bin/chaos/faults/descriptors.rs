//! R24: no file descriptor is left.

use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::Api;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::crowd::{DOMAIN, PASSWORD};
use crate::probe::{READY, wait_for};
use crate::verdict;
use crate::world::World;

const LIMIT: &str = "--nofile=256";
const SOCKETS: usize = 600;
/// Descriptors in use when there is no room for another connection.
const FULL: usize = 250;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let settings = world.settings("server")?.through(&["prlimit", LIMIT]);
    let server = world.start(&settings).await?;
    let mut old = Api::new(server.address());
    let email = format!("alice@{DOMAIN}");
    old.must_register(&email, PASSWORD).await?;
    let pair = old.must_login(&email, PASSWORD).await?;
    // Those that do not fit into the server's queue are not waited for. More come until no descriptor is left, and before the
    // first of them are closed for being idle, after 10 seconds.
    let flood = Instant::now();
    let mut idle: Vec<TcpStream> = Vec::new();
    while server.usage()?.descriptors < FULL && flood.elapsed() < Duration::from_secs(5) {
        let mut opening = JoinSet::new();
        for _ in 0..SOCKETS.saturating_sub(idle.len()).max(100) {
            opening.spawn(timeout(Duration::from_millis(500), TcpStream::connect(server.address())));
        }
        idle.extend(opening.join_all().await.into_iter().filter_map(|opened| opened.ok()?.ok()));
    }
    let before = server.usage()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = server.usage()?;
    let answer = old.refresh(&pair.refresh).await?;
    let open = idle.len();
    drop(idle);
    // Whoever knocks while the system's queue is still full is told nothing, and knocks again a second later.
    let pause = Duration::from_millis(200);
    tokio::time::sleep(pause).await;
    let healed = pause + wait_for(server.address(), READY, 200, Duration::from_secs(20)).await?;

    let busy = (after.cpu_seconds - before.cpu_seconds) / 2.0 * 100.0;
    let figure = format!("{busy:.0} % of a core with {open} sockets and {} descriptors", after.descriptors);
    world.promise("it does not spin", figure, busy < 20.0 && after.descriptors >= FULL);
    world.promise(
        "an open connection is served, with the database",
        format!("refresh: {}", answer.status),
        answer.status == 200,
    );
    world.promise(
        "new connections within 1 s after the flood",
        format!("{healed:.2?}"),
        healed < Duration::from_secs(1),
    );
    verdict::scan_logs(world)
}
