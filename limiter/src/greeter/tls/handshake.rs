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
    cpu,
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
        let before = cpu::used();
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
        let took = cpu::used().saturating_sub(before);
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

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use rustls::{
        ClientConfig, ClientConnection, RootCertStore,
        crypto::ring,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    };

    use super::*;
    use crate::greeter::Bounds;

    /// The whole host stands still while it looks for the certificate, and there is none.
    #[derive(Debug)]
    struct StandsStill;

    impl ResolvesServerCert for StandsStill {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            limiter_lab::let_time_pass(Duration::from_millis(500), "the host stands still");
            None
        }
    }

    #[test]
    fn a_handshake_pays_for_the_cpu_and_not_for_the_time_in_which_the_host_stands_still() {
        let bounds = Bounds { handshakes_per_second: 1, handshakes_at_once: 200, ..Bounds::default() };
        let mut budget = Budget::new(&bounds);
        let versions = &[&rustls::version::TLS13];
        let provider = Arc::new(ring::default_provider());
        let server =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
        let server = server.unwrap().with_no_client_auth().with_cert_resolver(Arc::new(StandsStill));
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let client = client.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let mut client =
            ClientConnection::new(Arc::new(client), "mail.example.org".try_into().unwrap()).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_tls(&mut stream).unwrap();
        let (accepted, remote) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let accepted = TcpStream::from_std(accepted);
        let place = budget.place(remote.ip()).unwrap();
        let mut handshake = Handshake::new(Arc::new(server), String::new(), 16 << 10, place);
        let (begun, now) = (Instant::now(), Instant::now());
        let step = loop {
            match handshake.step(&accepted, &mut budget, now) {
                Step::Waits => thread::yield_now(),
                step => break step,
            }
        };
        assert!(matches!(step, Step::Ends(_, End::Failed)), "{step:?}");
        assert!(begun.elapsed() >= Duration::from_millis(500), "it stood still");
        assert!(budget.begin(now), "there is still budget");
    }
}
