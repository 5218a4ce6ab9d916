// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Connecting from the client host, as a mail client does, and as one does not.
#![expect(clippy::expect_used, clippy::panic, reason = "the test fails, and says where")]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{Lab, SOON};

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

/// A socket of the calling thread's network namespace that does not block, bound to `source`.
///
/// Without a port, one that is free for this connection is enough, it need not be free for all; a port that is given
/// may serve other connections, too.
///
/// # Errors
///
/// When the address is none of this host's, or the port is taken.
pub fn bound(source: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(source), Type::STREAM.nonblocking(), None)?;
    if source.port() == 0 {
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
    } else {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&source.into())?;
    Ok(socket)
}

/// Sends the SYN of a socket that does not block, and does not wait for what becomes of it.
///
/// # Errors
///
/// When it is refused already, or cannot be sent.
pub fn begin(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(()),
    }
}

/// Connects from the calling thread's network namespace.
///
/// # Errors
///
/// When there is no connection within the time.
pub fn dial(source: IpAddr, to: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&to.into(), within)?;
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(within))?;
    Ok(stream)
}

/// Sends a SYN from the calling thread's network namespace, and does not wait for what becomes of it.
pub fn knock(source: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = bound(SocketAddr::new(source, 0)).expect("an address of the client host");
    begin(&socket, to).expect("a SYN is sent, and not answered yet");
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
pub fn reset(socket: impl AsFd) {
    // It fails where the other side was faster.
    let _ended_anyway = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

impl Lab {
    /// Connects from an address of the client host; the connection need not be served.
    ///
    /// # Errors
    ///
    /// When there is none soon.
    pub fn dial(&self, source: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
        self.client.run(|| dial(source, to, SOON))
    }

    /// What a client at `source` gets at `to`.
    pub fn answer(&self, source: IpAddr, to: SocketAddr) -> Answer {
        self.client.run(|| answer(source, to, SOON).1)
    }

    /// A connection that the mail server behind `to` serves.
    #[track_caller]
    pub fn served(&self, source: IpAddr, to: SocketAddr) -> TcpStream {
        match self.client.run(|| answer(source, to, SOON)) {
            (Some(stream), answer) if answer.is_service() => stream,
            (_, answer) => panic!("{source} is to be served at {to}, and got {answer:?}"),
        }
    }
}
