//! The greeter: tells refused clients why, in their own protocol.
//!
//! The admission program steers refused handshakes to the greeter's [`Listener`], which no one can
//! address. What is accepted there was meant for a mail port, and still bears its address: so the
//! local port says which service was wanted, and [`Reasons`] says why it was refused. The greeter says
//! it, half-closes, waits for the client to have read it, and closes; a client that cannot be told
//! (TLS, or nobody knows a reason) gets a reset.
//!
//! Everything is bounded by [`Limits`]: connections, time and bytes. There is one write, which either
//! fits the socket's buffer or is given up; no client can make the greeter wait to speak.

mod imap;
mod listener;
mod pop3;
mod reply;
mod sieve;
mod smtp;
#[cfg(test)]
mod tests;
mod totals;
mod words;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use limiter_common::{Protocol, Reason};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tracing::warn;

pub use listener::Listener;
#[cfg(test)]
pub use totals::Snapshot;
pub use totals::Totals;
use words::Words;

/// Rest after `accept` failed for want of something; shorter would be spinning.
const REST: Duration = Duration::from_millis(100);
/// The least time between two warnings that `accept` fails.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What a refused client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client speaks.
    pub protocol: Protocol,
    /// Why it was refused.
    pub reason: Reason,
    /// The connections there are of what is over its limit: of the source, its network, or the whole
    /// service.
    pub connections: u32,
    /// Whether the port starts with TLS: then nothing can be said in plain text.
    pub tls: bool,
}

/// Knows why a connection was refused.
pub trait Reasons: Send + Sync + 'static {
    /// Why `remote` was refused at `local_port`; `None` if it was not, or is not known.
    ///
    /// Called once a connection, on the runtime's threads: it must not block for long. `remote` is
    /// IPv4 where the client is, never the mapped form.
    fn reason(&self, local_port: u16, remote: IpAddr) -> Option<Refusal>;
}

/// The greeter's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more is reset. At most [`Semaphore::MAX_PERMITS`] and `u32::MAX`.
    pub connections: usize,
    /// How long a client has to read the reply and close.
    pub time: Duration,
    /// How many bytes of what a client sends are read, and discarded.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, time: Duration::from_secs(2), bytes: 4096 }
    }
}

/// Accepts refused connections and tells them why.
#[derive(Debug)]
pub struct Greeter<R> {
    listener: TcpListener,
    shared: Arc<Shared<R>>,
    places: Arc<Semaphore>,
    connections: usize,
}

/// What every connection needs.
#[derive(Debug)]
struct Shared<R> {
    reasons: Arc<R>,
    hostname: watch::Receiver<String>,
    limits: Limits,
    totals: Totals,
}

impl<R: Reasons> Greeter<R> {
    /// A greeter that gives what `hostname` holds at the time as its name; `localhost` if that is none.
    ///
    /// # Errors
    /// If the runtime cannot take the listener.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with I/O and time, as everything of Tokio's does.
    pub fn new(
        listener: Listener,
        reasons: Arc<R>,
        hostname: watch::Receiver<String>,
        limits: Limits,
    ) -> io::Result<Self> {
        let connections = limits.connections.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Ok(Self {
            listener: TcpListener::from_std(listener.into())?,
            shared: Arc::new(Shared { reasons, hostname, limits, totals: Totals::default() }),
            places: Arc::new(Semaphore::new(connections)),
            connections,
        })
    }

    /// What is counted, live; it outlasts the greeter.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.totals.clone()
    }

    /// Serves until `stop` holds `true` or its sender is gone; then closes the listener at once, and
    /// ends when the clients it speaks to are done, within [`Limits::time`].
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let mut stopped = pin!(stop.wait_for(|stop| *stop));
        let mut warned: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut stopped => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer),
                Err(error) if is_the_connections_own(&error) => {}
                Err(error) => {
                    self.shared.totals.count_accept_error();
                    if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                        warn!("the greeter cannot accept connections, so refused clients wait: {error}");
                        warned = Some(Instant::now());
                    }
                    tokio::select! {
                        _ = &mut stopped => break,
                        () = tokio::time::sleep(REST) => {}
                    }
                }
            }
        }
        drop(self.listener);
        // Each gives its place back when it is done, so all of them together mean that all are done.
        let _all = self.places.acquire_many(u32::try_from(self.connections).unwrap_or(u32::MAX)).await;
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            tokio::spawn(greet(Arc::clone(&self.shared), stream, peer, place));
        } else {
            reply::reset(stream);
            self.shared.totals.count_dropped_full();
        }
    }
}

/// Whether `accept` reports what became of one connection: accept(2) passes pending network errors on
/// and asks to be called again.
fn is_the_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | Interrupted | NetworkDown | NetworkUnreachable | HostUnreachable
    )
}

/// Speaks to one client, holding its place.
async fn greet<R: Reasons>(
    shared: Arc<Shared<R>>,
    stream: TcpStream,
    peer: SocketAddr,
    _place: OwnedSemaphorePermit,
) {
    let remote = peer.ip().to_canonical();
    let refusal = stream.local_addr().ok().and_then(|local| shared.reasons.reason(local.port(), remote));
    let Some(Refusal { protocol, reason, connections, tls: false }) = refusal else {
        reply::reset(stream);
        return shared.totals.count_reset();
    };
    let hostname = words::hostname(shared.hostname.borrow().clone());
    let line = Words { hostname: &hostname, reason, connections, remote }.line(protocol);
    match reply::say(stream, line.as_bytes()) {
        Ok(said) => {
            shared.totals.count_greeted();
            said.wait_until_read(shared.limits).await;
        }
        Err(stream) => {
            reply::reset(stream);
            shared.totals.count_reset();
        }
    }
}
