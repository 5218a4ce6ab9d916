// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Connecting from the client host, as a mail client does, and as one does not.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::Lab;

/// What a client got for its connection attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The first line the server said, without its end.
    Line(String),
    /// The server closed without a word.
    Closed,
    /// "Connection refused", or "reset by peer".
    Reset,
    /// Nothing within the time: no connection, or no word.
    Silence,
}

impl Answer {
    /// Whether this is the greeting of a mail server, not of the greeter.
    pub fn is_service(&self) -> bool {
        matches!(self, Self::Line(line) if line.starts_with("220 ") || line.starts_with("* OK") || line.starts_with("+OK"))
    }

    fn from_error(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::Reset
            }
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Silence,
            _ => panic!("an answer no one expects: {error}"),
        }
    }
}

/// A socket of the calling thread's network namespace, bound to `source`.
fn socket(source: IpAddr) -> Socket {
    let domain = if source.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(source, 0).into()).expect("an address of the client host");
    socket
}

/// Connects from the calling thread's network namespace.
pub fn dial(source: IpAddr, to: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let socket = socket(source);
    socket.connect_timeout(&to.into(), within)?;
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(within))?;
    Ok(stream)
}

/// Sends a SYN from the calling thread's network namespace, and does not wait for what becomes of it.
pub fn knock(source: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket(source);
    socket.set_nonblocking(true).expect("a socket can be non-blocking");
    let started = socket.connect(&to.into());
    assert!(
        started.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EINPROGRESS)),
        "connect did not start"
    );
    socket.set_nonblocking(false).expect("a socket can be blocking");
    socket.into()
}

/// Connects from the calling thread's network namespace, and waits for the first line.
pub fn answer(source: IpAddr, to: SocketAddr, within: Duration) -> (Option<TcpStream>, Answer) {
    match dial(source, to, within) {
        Ok(stream) => {
            let answer = first_line(&stream, within);
            (Some(stream), answer)
        }
        Err(error) => (None, Answer::from_error(&error)),
    }
}

/// The first line the server says.
pub fn first_line(stream: &TcpStream, within: Duration) -> Answer {
    stream.set_read_timeout(Some(within)).expect("a timeout above 0");
    let mut line = String::new();
    // What follows the first line may be lost with the buffer: no server here says two at once.
    match BufReader::new(stream).read_line(&mut line) {
        Ok(0) => Answer::Closed,
        Ok(_) => Answer::Line(line.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Answer::from_error(&error),
    }
}

/// Says `words`, and waits for one line.
pub fn ask(mut stream: &TcpStream, words: &str, within: Duration) -> Answer {
    match stream.write_all(format!("{words}\r\n").as_bytes()) {
        Ok(()) => first_line(stream, within),
        Err(error) => Answer::from_error(&error),
    }
}

/// Closes with a reset instead of a FIN.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket can linger");
    drop(stream);
}

impl Lab {
    /// Connects from an address of the client host; the connection need not be served.
    pub fn dial(&self, source: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
        self.client.run(|| dial(source, to, super::SOON))
    }

    /// What a client at `source` gets at `to`.
    pub fn answer(&self, source: IpAddr, to: SocketAddr) -> Answer {
        self.client.run(|| answer(source, to, super::SOON).1)
    }

    /// A connection that the mail server behind `to` serves.
    #[track_caller]
    pub fn served(&self, source: IpAddr, to: SocketAddr) -> TcpStream {
        match self.client.run(|| answer(source, to, super::SOON)) {
            (Some(stream), answer) if answer.is_service() => stream,
            (_, answer) => panic!("{source} is to be served at {to}, and got {answer:?}"),
        }
    }
}
