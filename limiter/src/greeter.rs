// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The greeter: tells refused clients why, in their own protocol.
//!
//! The admission program steers refused handshakes to the greeter's [`Listener`], which no one can
//! address. What is accepted there was meant for a mail port, and still bears its address: so the
//! local port says which service was wanted ([`Services`]), and the connection itself bears the grounds on which it was
//! refused ([`limiter_common::grounds`]). The greeter says it, half-closes, waits for the client to have read it, and
//! closes; a client that cannot be told (the connection bears no grounds) gets a reset. Where TLS starts at once, the reason
//! is said inside [`tls`].
//!
//! Everything is bounded by [`Bounds`]: connections, time and bytes, and TLS handshakes besides. In plain text there
//! is one write, which either fits the socket's buffer or is given up; no client can make the greeter wait to speak.

mod bounds;
mod clients;
mod event_loop;
mod listener;
mod log;
mod refusal;
mod reply;
mod seats;
#[cfg(test)]
mod tests;
pub mod tls;
mod totals;
mod words;

use std::{
    io,
    net::{IpAddr, TcpStream},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Instant,
};

use event_loop::{EventLoop, Handed};
use limiter_common::Grounds;
use mio::Waker;
use refusal::Service;
use seats::{Seat, Seats};
use tokio::sync::watch;

pub use bounds::Bounds;
pub use listener::Listener;
pub use log::{Answer, LINES, Line, RefusalLog, Refused};
pub use refusal::{Services, bear};
pub use totals::{Snapshot, Totals};
pub use words::{Dues, Words};

/// Hands the greeter connections that did not come to its listener.
#[derive(Debug)]
pub struct Teller {
    clients: Sender<Handed>,
    seats: Seats,
    services: watch::Receiver<Services>,
    words: watch::Receiver<Words>,
    log: RefusalLog,
    totals: Totals,
    waker: Arc<Waker>,
}

impl Teller {
    /// Whether a client of `port` can be told anything.
    pub fn tells(&self, port: u16) -> bool {
        self.services.borrow().at(port).is_some()
    }

    /// Notes for the log that a client of `port` got a reset.
    pub fn note_reset(&self, port: u16, remote: IpAddr, grounds: Grounds) {
        let Some(Service { protocol, .. }) = self.services.borrow().at(port) else { return };
        let service = self.words.borrow().name(port, protocol);
        let Grounds { reason, count, limit } = grounds;
        let answer = Answer::Reset;
        self.log.note(Refused { service, remote, reason, count, limit, answer }, Instant::now());
    }

    /// A seat for a client at `remote`, before a socket is made for it; none if there is no room for it, and it has to
    /// be reset.
    pub fn seat(&self, remote: IpAddr) -> Option<Seat> {
        let seat = self.seats.take(remote);
        if seat.is_none() {
            self.totals.count_dropped_full();
        }
        seat
    }

    /// Has a client told why it is refused, on the grounds that `client` bears. Where the greeter has ended, the client is
    /// disconnected.
    pub fn tell(&self, client: TcpStream, seat: Seat) {
        let _has_ended = self.clients.send((client, seat));
        // An eventfd can always be written to.
        let _never_fails = self.waker.wake();
    }
}

/// Accepts refused connections and tells them why.
#[derive(Debug)]
pub struct Greeter {
    event_loop: EventLoop,
    clients: Sender<Handed>,
    orders: Receiver<()>,
    handle: Handle,
}

/// Gives the greeter's thread orders; dropped, ends it.
#[derive(Debug)]
struct Handle {
    orders: Option<Sender<()>>,
    /// Shared with the thread: closed before it has looked, it would wake nobody.
    waker: Arc<Waker>,
}

impl Handle {
    /// Closes the listener, and ends it when everyone has heard.
    fn stop(&self) -> io::Result<()> {
        // It looks after the order is there. When the thread has ended there is nobody to tell.
        let _nobody = self.orders.as_ref().map(|orders| orders.send(()));
        self.waker.wake()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.orders = None;
        // An eventfd can always be written to.
        let _never_fails = self.waker.wake();
    }
}

impl Greeter {
    /// A greeter for these `services` that says what `words` hold at the time, and asks `dues` where they have `{retry}`.
    ///
    /// # Errors
    /// If the kernel will not tell when somebody comes.
    pub fn new(
        listener: Listener,
        services: watch::Receiver<Services>,
        ports: tls::Ports,
        words: watch::Receiver<Words>,
        dues: Box<dyn Dues>,
        bounds: Bounds,
    ) -> io::Result<Self> {
        let (clients, handed) = channel();
        let (event_loop, waker) = EventLoop::new(listener, services, ports, words, dues, bounds, handed)?;
        let (sender, orders) = channel();
        Ok(Self {
            event_loop,
            clients,
            orders,
            handle: Handle { orders: Some(sender), waker: Arc::new(waker) },
        })
    }

    /// Hands it connections that did not come to its listener.
    #[must_use]
    pub fn teller(&self) -> Teller {
        Teller {
            clients: self.clients.clone(),
            seats: self.event_loop.seats().clone(),
            services: self.event_loop.services().clone(),
            words: self.event_loop.words().clone(),
            log: self.log(),
            totals: self.totals(),
            waker: Arc::clone(&self.handle.waker),
        }
    }

    /// Who was refused, for whoever writes the log.
    #[must_use]
    pub fn log(&self) -> RefusalLog {
        self.event_loop.log().clone()
    }

    /// What is counted, live; it outlasts the greeter.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.event_loop.totals().clone()
    }

    /// Serves until `stop` holds `true` or its sender is gone; then closes the listener at once, and
    /// ends when the clients it speaks to are done, within twice [`Bounds::time`].
    ///
    /// # Errors
    /// If the thread cannot go on.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, as everything of Tokio's does.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let Self { event_loop, orders, handle, .. } = self;
        let waker = Arc::clone(&handle.waker);
        let mut thread = tokio::task::spawn_blocking(move || {
            let _open = waker;
            event_loop.run(&orders)
        });
        let ended = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => None,
            ended = &mut thread => Some(ended),
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                handle.stop()?;
                thread.await
            }
        };
        ended.map_err(io::Error::other)?
    }
}
