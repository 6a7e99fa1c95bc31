//! Connections: our own acceptor, because poem's has no time limit for a request's head, no caps, and spins when descriptors run out.
//!
//! HTTP/1.1 only; HTTP/2 is the business of whatever terminates TLS.

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use poem::Request;
use poem::http::StatusCode;
use poem::web::{LocalAddr, RemoteAddr};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::front::Front;
use super::guard::Unreadable;
use super::head::{Gate, MAX_HEAD};
use super::origin;
use crate::config;
use crate::telemetry::metrics::Held;

/// From the first byte of a request to the end of its head, and from accept to the first byte.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Between two requests.
const IDLE_TIME: Duration = Duration::from_mins(1);
/// Without a byte taken by a client that is being answered.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// While a handler works; far above every bound inside.
const ANSWER_TIME: Duration = Duration::from_mins(1);
/// What is still read, and for how long, of a client that goes on sending after our answer.
const LINGER_BYTES: u64 = 4 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be.
#[derive(Debug, Clone)]
pub struct Caps {
    /// `None` lifts them.
    limits: Option<(usize, usize)>,
    exempt: Vec<IpNet>,
    open: Arc<Mutex<(usize, HashMap<IpAddr, usize>)>>,
}

impl Caps {
    /// Reads the caps from the configuration.
    #[must_use]
    pub fn new(limits: &config::Limits, server: &config::Server) -> Self {
        let limits = limits.enabled.then_some((limits.connections, limits.connections_per_address));
        Self { limits, exempt: server.trusted_proxies.clone(), open: Arc::default() }
    }

    /// A place for a connection, given back when dropped, or who has too many: its address, or all.
    fn take(&self, peer: IpAddr) -> Result<Place, &'static str> {
        let is_exempt = origin::is_trusted(&self.exempt, peer);
        // Whoever has one address of version 6 has 2^64 of them.
        let peer = match peer {
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
            IpAddr::V4(_) => peer,
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = open.1.get(&peer).copied().unwrap_or_default();
        if let Some((all, each)) = self.limits {
            if open.0 >= all {
                return Err("all");
            }
            if of_peer >= each && !is_exempt {
                return Err("address");
            }
        }
        open.0 += 1;
        open.1.insert(peer, of_peer + 1);
        Ok(Place { caps: self.clone(), peer })
    }
}

struct Place {
    caps: Caps,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.caps.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.0 -= 1;
        if let std::collections::hash_map::Entry::Occupied(mut count) = open.1.entry(self.peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Accepts until `stop` is told, then lets requests in flight finish for at most `grace`.
pub async fn serve(
    listener: TcpListener,
    front: Arc<Front>,
    caps: Caps,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "accepting a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match caps.take(peer.ip().to_canonical()) {
            Ok(place) => {
                let open = Held::new(&front.metrics().connections);
                connections.spawn(connection(stream, peer, Arc::clone(&front), (place, open), stop.clone()));
            }
            // Closed without a word, which costs the least.
            Err(reason) => front.metrics().connections_refused.count(reason),
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, finished).await.is_err() {
        tracing::warn!("requests in flight were cut off");
    }
}

/// Returns once `stop` is told, or nobody can tell it any more.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|is_told| *is_told).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    front: Arc<Front>,
    _held: (Place, Held),
    mut stop: watch::Receiver<bool>,
) {
    let Ok(local) = stream.local_addr() else { return };
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(error = %error, "a connection");
    }
    let state = Arc::new(Mutex::new(State::new()));
    let service = service_fn({
        let state = Arc::clone(&state);
        move |request: hyper::Request<hyper::body::Incoming>| {
            let (front, state) = (Arc::clone(&front), Arc::clone(&state));
            let refusal = lock(&state).answer();
            // Boxed, so that the connection can be taken apart at its end.
            Box::pin(async move {
                let parts = (request, LocalAddr(local.into()), RemoteAddr(peer.into()), poem::http::uri::Scheme::HTTP);
                let mut request = Request::from(parts);
                if let Some(status) = refusal {
                    request.set_data(Unreadable(status));
                }
                let response = front.answer(request).await;
                lock(&state).wait();
                Ok::<hyper::Response<_>, std::convert::Infallible>(response.into())
            })
        }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).half_close(false);
    let mut connection = builder.serve_connection(TokioIo::new(Timed::new(stream, state)), service);
    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => ended,
        () = told(&mut stop) => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended");
    }
    linger(connection.into_parts().io.into_inner().stream).await;
}

/// Closes our side and reads what the client still sends, for a while: a close with unread bytes would be a reset, and the client
/// would lose the answer that told it to stop.
async fn linger(mut stream: TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        let mut rest = stream.take(LINGER_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(LINGER_TIME, drained).await;
}

/// What a connection is waiting for, and until when.
#[derive(Clone, Copy)]
enum Phase {
    /// The first byte of a request.
    Waiting(Instant),
    /// The rest of its head.
    Head(Instant),
    /// Our own answer; the body has its own time limit.
    Answering(Instant),
}

/// What the stream and the service of a connection tell each other.
struct State {
    phase: Phase,
    gate: Gate,
}

impl State {
    fn new() -> Self {
        Self { phase: Phase::Waiting(Instant::now() + HEAD_TIME), gate: Gate::new() }
    }

    /// Bytes have come. Returns what is handed on instead, if not they.
    fn read(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if let Phase::Waiting(_) = self.phase {
            self.phase = Phase::Head(Instant::now() + HEAD_TIME);
        }
        self.gate.pass(bytes)
    }

    /// A request begins to be answered. Returns why its head is refused, if it is.
    fn answer(&mut self) -> Option<StatusCode> {
        self.phase = Phase::Answering(Instant::now() + ANSWER_TIME);
        self.gate.taken()
    }

    /// The answer is made.
    fn wait(&mut self) {
        self.phase = Phase::Waiting(Instant::now() + IDLE_TIME);
    }

    fn deadline(&self) -> Instant {
        let (Phase::Waiting(deadline) | Phase::Head(deadline) | Phase::Answering(deadline)) = self.phase;
        deadline
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream that fails when the client is too slow, and on which heads come whole.
struct Timed {
    stream: TcpStream,
    state: Arc<Mutex<State>>,
    /// To be handed on before anything else is read.
    ready: Vec<u8>,
    read: Pin<Box<Sleep>>,
    /// Runs while the client takes nothing.
    write: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    fn new(stream: TcpStream, state: Arc<Mutex<State>>) -> Self {
        Self { stream, state, ready: Vec::new(), read: Box::pin(sleep_until(Instant::now() + HEAD_TIME)), write: None }
    }

    /// Fails once what is waited for has not come in time.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let deadline = lock(&self.state).deadline();
        if self.read.deadline() != deadline {
            self.read.as_mut().reset(deadline);
        }
        ready!(self.read.as_mut().poll(context));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Fails once the client has taken nothing for too long.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let write = self.write.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_TIME)));
        ready!(write.as_mut().poll(context));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.ready.is_empty() {
            let before = buffer.filled().len();
            let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(context, buffer) else {
                return this.poll_late(context).map(Err);
            };
            result?;
            let read = &buffer.filled()[before..];
            let Some(instead) = (!read.is_empty()).then(|| lock(&this.state).read(read)).flatten() else {
                return Poll::Ready(Ok(()));
            };
            buffer.set_filled(before);
            this.ready = instead;
        }
        let handed = this.ready.len().min(buffer.remaining());
        buffer.put_slice(&this.ready[..handed]);
        this.ready.drain(..handed);
        if this.ready.is_empty() {
            this.ready = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(result) => {
                self.write = None;
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_stalled(context).map(Err),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            Poll::Ready(result) => {
                self.write = None;
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_stalled(context).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
