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
//! Strangers talk to it, so it is a [`process`] of its own, which may do nothing else ([`crate::sandbox`]): `event_loop` and
//! what it uses run there. The daemon has a thread that starts it, tells it what to say ([`Settings`]), and signs and
//! looks up what it asks for. They talk by `messages`.
//!
//! Everything is bounded by [`Bounds`]: connections, time and bytes, and TLS handshakes besides. In plain text there
//! is one write, which either fits the socket's buffer or is given up; no client can make the greeter wait to speak.

mod bounds;
mod channel;
mod child;
mod clients;
mod event_loop;
mod health;
mod listener;
mod log;
mod messages;
mod notes;
pub mod process;
mod refusal;
mod reply;
mod seats;
mod settings;
mod setup;
#[cfg(test)]
mod tests;
pub mod tls;
mod totals;
mod words;

use std::{
    io,
    net::{IpAddr, TcpStream},
    time::{Duration, Instant},
};

use limiter_common::Grounds;
use process::{Control, Launch, Line, Parts, Steer, Supervisor};
use refusal::Service;
use socket2::SockRef;
use tokio::sync::watch;

pub use bounds::Bounds;
pub use health::{Health, Process};
pub use listener::Listener;
pub use log::{Answer, LINES, Line as LogLine, RefusalLog, Refused};
pub use refusal::{Services, bear};
pub use settings::Settings;
pub use totals::{Snapshot, Totals};
pub use words::{Dues, Words};

/// Hands the greeter connections that did not come to its listener.
#[derive(Debug)]
pub struct Teller {
    line: Line,
    settings: Settings,
    log: RefusalLog,
    totals: Totals,
}

impl Teller {
    /// Whether a client of `port` can be told anything.
    pub fn tells(&self, port: u16) -> bool {
        self.settings.get().services.at(port).is_some()
    }

    /// Whether there is a greeter. Without one, a client has to be reset.
    pub fn is_there(&self) -> bool {
        self.line.is_up()
    }

    /// Notes for the log that a client of `port` got a reset.
    pub fn note_reset(&self, port: u16, remote: IpAddr, grounds: Grounds) {
        let said = self.settings.get();
        let Some(Service { protocol, .. }) = said.services.at(port) else { return };
        let service = said.words.name(port, protocol);
        drop(said);
        let Grounds { reason, count, limit } = grounds;
        let answer = Answer::Reset;
        self.log.note(Refused { service, remote, reason, count, limit, answer }, 1, Instant::now());
    }

    /// Has a client told why it is refused, on the grounds that `client` bears. Where the greeter has ended, or has too
    /// much to do, the client is reset.
    pub fn tell(&self, client: &TcpStream) {
        if self.line.tell(client).is_err() {
            // With nothing to linger for, the kernel sends RST when it is closed.
            let _closed_politely_at_worst = SockRef::from(client).set_linger(Some(Duration::ZERO));
            self.totals.count_reset();
        }
    }
}

/// Has refused connections accepted, and told why, by a process.
#[derive(Debug)]
pub struct Greeter(Supervisor);

impl Greeter {
    /// A greeter that is started by `launch`, says what `settings` hold at the time, and asks `dues` where the words have
    /// `{retry}`. Refused clients are led to `listener` already; `steer` leads them to others.
    ///
    /// # Errors
    /// For want of descriptors or memory.
    pub fn new(
        listener: Listener,
        settings: Settings,
        dues: Box<dyn Dues>,
        steer: Steer,
        launch: Box<dyn Launch>,
        bounds: Bounds,
    ) -> io::Result<Self> {
        let (poll, waker) = Supervisor::poll()?;
        settings.wake(waker.clone());
        let parts = Parts {
            settings,
            dues,
            steer,
            launch,
            bounds,
            log: RefusalLog::new(),
            totals: Totals::new()?,
            line: Line::default(),
            health: Health::default(),
        };
        Ok(Self(Supervisor::new(poll, waker, listener, parts)))
    }

    /// Hands it connections that did not come to its listener.
    #[must_use]
    pub fn teller(&self) -> Teller {
        let Parts { line, settings, log, totals, .. } = self.0.parts();
        Teller { line: line.clone(), settings: settings.clone(), log: log.clone(), totals: totals.clone() }
    }

    /// Who was refused, for whoever writes the log.
    #[must_use]
    pub fn log(&self) -> RefusalLog {
        self.0.parts().log.clone()
    }

    /// What is counted, live; it outlasts the greeter.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.0.parts().totals.clone()
    }

    /// How its process is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.parts().health.clone()
    }

    /// Serves until `stop` holds `true` or its sender is gone; then the listener is closed at once, and
    /// this ends when the clients it speaks to are done, within twice [`Bounds::time`].
    ///
    /// # Errors
    /// If the thread cannot go on.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, as everything of Tokio's does.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let Self(mut supervisor) = self;
        let control = StopsAtLast(supervisor.control());
        let mut thread = tokio::task::spawn_blocking(move || supervisor.run());
        let ended = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => None,
            ended = &mut thread => Some(ended),
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                control.0.stop();
                thread.await
            }
        };
        ended.map_err(io::Error::other)?
    }
}

/// Stops the thread also when nobody waits for it any more.
struct StopsAtLast(Control);

impl Drop for StopsAtLast {
    fn drop(&mut self) {
        self.0.stop();
    }
}
