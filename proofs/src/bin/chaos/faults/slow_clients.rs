//! R25: clients that send slowly, say nothing, or read nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proofs::api::PREFIX;
use proofs::server::Server;
use proofs::{Error, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::probe::{READY, wait_for};
use crate::verdict;
use crate::world::World;

/// Longer than any limit of the server.
const PATIENCE: Duration = Duration::from_secs(75);

/// When the server let go of a client, and what it had answered by then.
struct Gone {
    after: Duration,
    answer: String,
}

pub(super) async fn run(world: &mut World) -> Result<()> {
    let server = world.start(&world.settings("server")?).await?;
    let address = server.address();
    let base = server.usage()?.descriptors;
    let login = format!(
        "POST {PREFIX}/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    let (silent, head, body) = tokio::join!(said(address, ""), trickled(address), said(address, &login));
    let rows = [
        ("a client that says nothing", silent?, 10, ""),
        ("a head that comes a byte a second", head?, 10, ""),
        ("a body that does not come", body?, 15, "HTTP/1.1 408"),
    ];
    for (what, gone, seconds, answer) in rows {
        report(world, what, &gone, seconds, answer);
    }
    if !world.size.is_short {
        let request = format!("GET {READY} HTTP/1.1\r\nHost: x\r\n\r\n");
        let (idle, unread) = tokio::join!(said(address, &request), never_reading(&server));
        report(world, "an idle connection", &idle?, 60, "HTTP/1.1 200");
        report(world, "a client that never reads", &unread?, 30, "");
    }
    sleep(Duration::from_millis(2_500)).await;
    let left = server.usage()?.descriptors;
    world.promise("every descriptor comes back", format!("{left} after, {base} before"), left <= base + 2);
    wait_for(address, READY, 200, Duration::from_secs(5)).await?;
    verdict::scan_logs(world)
}

fn report(world: &mut World, what: &str, gone: &Gone, seconds: u64, answer: &str) {
    let first = gone.answer.lines().next().unwrap_or("no answer");
    let limit = Duration::from_secs(seconds);
    let is_kept = gone.after >= limit.saturating_sub(Duration::from_secs(1))
        && gone.after <= limit + Duration::from_secs(4)
        && gone.answer.starts_with(answer);
    world.promise(&format!("{what} is let go after {seconds} s"), format!("{:.1?}, {first}", gone.after), is_kept);
}

/// Says this, reads until the server closes.
async fn said(address: SocketAddr, text: &str) -> Result<Gone> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(text.as_bytes()).await?;
    let (started, mut answer) = (Instant::now(), Vec::new());
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    Ok(Gone { after: started.elapsed(), answer: String::from_utf8_lossy(&answer).into_owned() })
}

/// Slowloris.
async fn trickled(address: SocketAddr) -> Result<Gone> {
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let started = Instant::now();
    let writing = tokio::spawn(async move {
        for byte in b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
            writer.write_all(&[*byte]).await?;
            sleep(Duration::from_secs(1)).await;
        }
        Ok::<(), Error>(())
    });
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, reader.read_to_end(&mut answer)).await;
    writing.abort();
    Ok(Gone { after: started.elapsed(), answer: String::from_utf8_lossy(&answer).into_owned() })
}

/// Asks for much and reads nothing; the server has let go when its descriptor is gone.
async fn never_reading(server: &Server) -> Result<Gone> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream = socket.connect(server.address()).await?;
    sleep(Duration::from_millis(100)).await;
    let open = server.usage()?.descriptors;
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    let _ = timeout(Duration::from_secs(1), stream.write_all(&request)).await;
    let started = Instant::now();
    while server.usage()?.descriptors >= open && started.elapsed() < PATIENCE {
        sleep(Duration::from_millis(200)).await;
    }
    Ok(Gone { after: started.elapsed(), answer: String::new() })
}
