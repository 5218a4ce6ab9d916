// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A handshake with one client, at whose end it is told why it is refused.

use std::{
    fmt,
    io::{self, ErrorKind, Read as _, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::net::TcpStream;
use rustls::{
    Error, PeerIncompatible, ServerConfig, ServerConnection,
    server::{AcceptedAlert, Acceptor},
};

use super::{
    alert::{REFUSED, TOO_OLD},
    budget::Budget,
};
use crate::greeter::seats::Seat;

/// What a token of the budget is worth.
const PAID: Duration = Duration::from_millis(1);

/// A handshake that goes on.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    config: Arc<ServerConfig>,
    /// What is said at its end.
    line: String,
    /// How many bytes are still read.
    left: usize,
    /// How much of the CPU has been paid for.
    paid: Duration,
    /// One of the handshakes that may go on at a time.
    _place: Seat,
}

enum State {
    /// The client has not said hello.
    Silent(Box<Acceptor>),
    /// It has.
    Going(Box<ServerConnection>),
}

impl fmt::Debug for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Silent(_) => "Silent",
            Self::Going(_) => "Going",
        })
    }
}

/// What came of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The client has to say more, or to read.
    Waits,
    /// This is the last that the client is sent.
    Ends(Vec<u8>, End),
    /// The client is gone.
    Gone,
}

/// How a handshake ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the reason.
    Told,
    /// With an alert, because there are too many handshakes.
    OverBudget,
    /// With an alert, because of something that the client says, or does not say.
    Failed,
}

impl Handshake {
    /// One that begins.
    pub fn new(config: Arc<ServerConfig>, line: String, bytes: usize, place: Seat) -> Self {
        let state = State::Silent(Box::default());
        Self { state, config, line, left: bytes, paid: PAID, _place: place }
    }

    /// Goes on as far as possible without waiting.
    pub fn step(&mut self, stream: &TcpStream, budget: &mut Budget, now: Instant) -> Step {
        loop {
            if self.flush(stream).is_err() {
                return Step::Gone;
            }
            match self.read(stream) {
                Ok(0) => return Step::Gone,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Waits,
                Err(error) if error.kind() == ErrorKind::FileTooLarge => return self.give_up(),
                Err(_) => return Step::Gone,
            }
            if let Some(end) = self.proceed(budget, now) {
                return end;
            }
        }
    }

    /// The last that is sent to a client whose time is up.
    pub fn give_up(&self) -> Step {
        match self.state {
            State::Silent(_) => Step::Ends(REFUSED.to_vec(), End::Failed),
            // Only who knows the keys can say something now, and this is none of what the library says.
            State::Going(_) => Step::Gone,
        }
    }

    /// Reads what there is, within the bound.
    ///
    /// # Errors
    /// `FileTooLarge` beyond the bound; otherwise what the socket says.
    fn read(&mut self, stream: &TcpStream) -> io::Result<usize> {
        if self.left == 0 {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let mut bounded = stream.take(self.left as u64);
        let read = match &mut self.state {
            State::Silent(acceptor) => acceptor.read_tls(&mut bounded),
            State::Going(connection) => connection.read_tls(&mut bounded),
        }?;
        self.left = self.left.saturating_sub(read);
        Ok(read)
    }

    /// Makes something of what was read; how it ends, if it does.
    fn proceed(&mut self, budget: &mut Budget, now: Instant) -> Option<Step> {
        let begun = Instant::now();
        let end = match &mut self.state {
            State::Silent(acceptor) => match acceptor.accept() {
                Ok(None) => return None,
                Ok(Some(_)) if !budget.begin(now) => {
                    return Some(Step::Ends(REFUSED.to_vec(), End::OverBudget));
                }
                Ok(Some(accepted)) => match accepted.into_connection(Arc::clone(&self.config)) {
                    Ok(connection) => {
                        self.state = State::Going(Box::new(connection));
                        self.answer()
                    }
                    Err((_, alert)) => Some(Step::Ends(bytes_of(alert), End::Failed)),
                },
                // Of TLS 1.1 and older, where there is no such extension; the library's own alert speaks of ciphers.
                Err((Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired), _)) => {
                    return Some(Step::Ends(TOO_OLD.to_vec(), End::Failed));
                }
                Err((_, alert)) => return Some(Step::Ends(bytes_of(alert), End::Failed)),
            },
            State::Going(_) => self.answer(),
        };
        let took = begun.elapsed();
        budget.pay(took.saturating_sub(self.paid));
        self.paid = self.paid.saturating_sub(took);
        end
    }

    /// Answers what was read; how it ends, if it does.
    fn answer(&mut self) -> Option<Step> {
        let State::Going(connection) = &mut self.state else { return None };
        let end = match connection.process_new_packets() {
            Err(_) => End::Failed,
            Ok(_) if connection.is_handshaking() => return None,
            // The library keeps it: nothing can fail.
            Ok(_) if connection.writer().write_all(self.line.as_bytes()).is_err() => End::Failed,
            Ok(_) => {
                connection.send_close_notify();
                End::Told
            }
        };
        let mut last = Vec::new();
        while connection.wants_write() && connection.write_tls(&mut last).is_ok_and(|written| written > 0) {}
        Some(Step::Ends(last, end))
    }

    /// Sends what the library has to say, as far as the socket takes it.
    fn flush(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        let State::Going(connection) = &mut self.state else { return Ok(()) };
        while connection.wants_write() {
            match connection.write_tls(&mut stream) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn bytes_of(mut alert: AcceptedAlert) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Into memory, which takes all.
    let _never_fails = alert.write_all(&mut bytes);
    bytes
}
