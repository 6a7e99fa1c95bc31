//! R33: whoever reads the log stops reading.

use std::io::Read as _;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair};
use proofs::server::Server;
use proofs::times::Times;

use crate::crowd::{DOMAIN, PASSWORD};
use crate::world::World;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let (mut reader, writer) = std::io::pipe()?;
    let mut server = Server::spawn_into(&world.settings("server")?, writer.into())?;
    server.ready_within(Duration::from_secs(30)).await?;
    let mut api = Api::new(server.address());
    api.client = api.client.answer_within(Duration::from_secs(3));
    let email = format!("alice@{DOMAIN}");
    api.must_register(&email, PASSWORD).await?;
    let mut pair = api.must_login(&email, PASSWORD).await?;
    let (started, mut times, mut stuck) = (Instant::now(), Times::default(), 0);
    // A pipe takes 64 KiB, which is some hundred lines.
    for _ in 0..600 {
        let began = Instant::now();
        match api.refresh(&pair.refresh).await {
            Ok(answer) => {
                times.add(began.elapsed());
                pair = Pair::of(&answer).unwrap_or(pair);
            }
            Err(_) => stuck += 1,
        }
        if stuck > 2 || started.elapsed() > Duration::from_secs(20) {
            break;
        }
    }
    let figure = format!(
        "{} refreshes answered, longest {:.1?}; {stuck} without an answer within 3 s",
        times.count(),
        times.longest()
    );
    world.promise("requests are answered while nobody reads the log", figure, stuck == 0 && times.count() >= 500);
    let mut buffer = vec![0; 256 * 1024];
    let read = tokio::task::block_in_place(|| reader.read(&mut buffer))?;
    let reading = std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
    });
    let answer = api.refresh(&pair.refresh).await.map_or(0, |answer| answer.status);
    world.promise("it goes on when the log is read again", format!("{answer} after {read} bytes"), answer == 200);
    server.kill()?;
    let _ = reading.join();
    Ok(())
}
