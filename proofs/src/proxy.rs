//! A TCP proxy that breaks the network between two programs as it is told. It needs no rights.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Result;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It works.
    Pass,
    /// Every piece of an answer comes this much later.
    Delay(Duration),
    /// Nothing arrives and nothing is refused, on old connections and on new ones.
    Blackhole,
    /// New connections are reset.
    Refuse,
    /// What the server answers is thrown away and the connection is reset: the work is done, the answer is lost.
    LoseAnswers,
    /// Our side to the server is closed after each piece of a request: a client that says no more and still reads.
    HalfClose,
}

#[derive(Debug, Clone)]
struct State {
    mode: Mode,
    targets: Vec<SocketAddr>,
    /// Connections of an older round are cut.
    round: u64,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts a proxy; new connections go to the targets in turn.
    pub async fn start(targets: &[SocketAddr]) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (state, seen) = watch::channel(State { mode: Mode::Pass, targets: targets.to_vec(), round: 0 });
        let task = tokio::spawn(accept(listener, seen));
        Ok(Self { address, state, task })
    }

    /// Changes what the network does, also for connections that are open.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Changes where new connections go.
    pub fn send_to(&self, targets: &[SocketAddr]) {
        self.state.send_modify(|state| state.targets = targets.to_vec());
    }

    /// Resets every open connection.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.round += 1);
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    let mut turn = 0_usize;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(connection(client, state.clone(), turn));
                turn = turn.wrapping_add(1);
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(client: TcpStream, mut state: watch::Receiver<State>, turn: usize) {
    let round = state.borrow().round;
    let joined = async {
        let target = {
            let is_open = |state: &State| state.mode != Mode::Blackhole;
            let state = state.wait_for(is_open).await.ok()?;
            if state.mode == Mode::Refuse || state.targets.is_empty() {
                return None;
            }
            state.targets[turn % state.targets.len()]
        };
        TcpStream::connect(target).await.ok()
    };
    let Some(server) = joined.await else { return reset(&client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Whichever ends first, both sockets are dropped; reset when they shall not end well.
    let _ = (client.set_zero_linger(), server.set_zero_linger());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pump(from_client, to_server, state.clone(), Way::Up);
    let down = pump(from_server, to_client, state.clone(), Way::Down);
    tokio::select! {
        () = async { tokio::join!(up, down); } => {}
        _ = state.wait_for(|state| state.round != round) => {}
    }
}

fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Copies one direction until its end; an error ends it too.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>, way: Way) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        let Ok(mode) = state.wait_for(|state| state.mode != Mode::Blackhole).await.map(|state| state.mode) else {
            break;
        };
        if length == 0 {
            break;
        }
        match mode {
            Mode::Delay(time) if way == Way::Down => tokio::time::sleep(time).await,
            Mode::LoseAnswers if way == Way::Down => break,
            _ => {}
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
        if mode == Mode::HalfClose && way == Way::Up {
            break;
        }
    }
    let _ = to.shutdown().await;
}
