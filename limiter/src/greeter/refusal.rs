// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Why a client is refused, and what it is told.

use std::{collections::HashMap, io, os::fd::AsFd};

use limiter_common::{Grounds, Protocol, Reason, grounds::Options};
use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpKeepIdle};
use socket2::SockRef;

use crate::config::Config;

/// What a refused client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client speaks.
    pub protocol: Protocol,
    /// Why it is refused.
    pub reason: Reason,
    /// What there is of that which has reached its limit, as [`Grounds::count`].
    pub count: u32,
    /// The limit, as [`Grounds::limit`].
    pub limit: u32,
}

/// What is served at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// What its clients speak.
    pub protocol: Protocol,
}

/// What is served at which port: all that the greeter has to know of the configuration, and plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services(HashMap<u16, Service>);

impl Services {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        config
            .services
            .iter()
            .flat_map(|service| service.ports.iter().map(|port| (*port, service.protocol)))
            .map(|(port, protocol)| (port, Service { protocol }))
            .collect()
    }

    /// What is served at `port`, if anything is.
    #[must_use]
    pub fn at(&self, port: u16) -> Option<Service> {
        self.0.get(&port).copied()
    }

    /// Each port, and what is served there.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Service)> {
        self.0.iter().map(|(&port, &service)| (port, service))
    }
}

impl FromIterator<(u16, Service)> for Services {
    fn from_iter<T: IntoIterator<Item = (u16, Service)>>(services: T) -> Self {
        Self(services.into_iter().collect())
    }
}

impl Service {
    /// What a client is told that was refused here on these grounds.
    #[must_use]
    pub const fn refusal(self, Grounds { reason, count, limit }: Grounds) -> Refusal {
        Refusal { protocol: self.protocol, reason, count, limit }
    }
}

/// The grounds that a connection bears; `None` if it bears none.
#[must_use]
pub fn grounds(connection: &impl AsFd) -> Option<Grounds> {
    let notsent_lowat = SockRef::from(connection).tcp_notsent_lowat().ok()?;
    let keepidle_s = getsockopt(connection, TcpKeepIdle).ok()?;
    Options { notsent_lowat, keepidle_s }.grounds()
}

/// Has a connection bear these grounds, as the kernel program does with those that it refuses.
///
/// # Errors
/// What the system says if it is no TCP socket.
pub fn bear(connection: &impl AsFd, grounds: Grounds) -> io::Result<()> {
    let Options { notsent_lowat, keepidle_s } = Options::of(grounds.pack());
    SockRef::from(connection).set_tcp_notsent_lowat(notsent_lowat)?;
    Ok(setsockopt(connection, TcpKeepIdle, &keepidle_s)?)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use socket2::Socket;

    use super::*;

    fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_connection_bears_what_it_was_given_and_nothing_by_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (client, served) = pair(&listener);
        assert_eq!((grounds(&client), grounds(&served)), (None, None));
        for (reason, count, limit) in [
            (Reason::Concurrency, 8, 8),
            (Reason::Network, 1, 1_000_000),
            (Reason::Total, 1_000_000, 1_000_000),
            (Reason::Rate, 0, Grounds::MAX),
        ] {
            let given = Grounds { reason, count, limit };
            bear(&served, given).unwrap();
            assert_eq!(grounds(&served), Some(given));
        }
        assert_eq!(grounds(&client), None);
    }

    /// The two options are for the socket's owner alone.
    #[test]
    fn what_a_connection_bears_turns_nothing_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_client, served) = pair(&listener);
        bear(&served, Grounds { reason: Reason::Concurrency, count: 8, limit: 8 }).unwrap();
        let socket = Socket::from(served);
        assert!(!socket.keepalive().unwrap());
        // More than a segment at once, none of it sent before: nothing waits for what is not sent.
        assert_eq!(socket.send(&[b'x'; 16_384]).unwrap(), 16_384);
    }

    #[test]
    fn every_port_of_the_configuration_is_served_and_no_other() {
        let services = Services::of(&Config::default());
        let at = |port| services.at(port).map(|Service { protocol }| protocol);
        assert_eq!(at(25), Some(Protocol::Smtp));
        assert_eq!(at(465), Some(Protocol::Smtp));
        assert_eq!(at(143), Some(Protocol::Imap));
        assert_eq!(at(993), Some(Protocol::Imap));
        assert_eq!(at(80), None);
    }
}
