//! Who listens at mail ports, as admission knows it, against the kernel's own table.
//!
//! The programs count who begins and ends. Who began before them, or at a port that was nobody's then, is counted here.

use std::{collections::HashMap as StdHashMap, net::IpAddr, os::fd::AsRawFd as _, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::maps::{HashMap, Map, MapData};
use limiter_common::{Addr, listening::Endpoint};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, SockProtocol, recv, send},
};

use super::{
    sets::Sets,
    tables::{found, open},
    walk::walk,
};
use crate::netlink::{self, number};

/// `SOCK_DIAG_BY_FAMILY`, `include/uapi/linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `TCP_LISTEN`, `include/net/tcp_states.h`.
const LISTEN: u8 = 10;
/// Of `struct inet_diag_msg`, `include/uapi/linux/inet_diag.h`; its attributes are behind.
const MESSAGE: usize = 72;
/// `INET_DIAG_SKV6ONLY` of the same.
const V6_ONLY: u16 = 11;

/// How many sockets listen at each endpoint.
type Counts = StdHashMap<Endpoint, u64>;

/// Keeps what admission knows of listeners true.
pub struct Listening {
    map: HashMap<MapData, Endpoint, u64>,
    whole: MapData,
    policy: Sets,
    /// What was wrong in the last look: what the map says, and what the table.
    doubts: StdHashMap<Endpoint, (u64, u64)>,
}

impl Listening {
    /// The map pinned in `dir`.
    ///
    /// # Errors
    /// When the pins are not there.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            map: Map::HashMap(open(dir, "LISTENING")?).try_into()?,
            whole: open(dir, "LISTENING")?,
            policy: Sets::open(dir)?,
            doubts: StdHashMap::new(),
        })
    }

    /// Corrects what is wrong, at once.
    ///
    /// # Errors
    /// When the kernel does not tell who listens (module `inet_diag`), in the network namespace this thread is in.
    pub fn adopt(&mut self) -> Result<()> {
        let differences = self.differences()?;
        differences.into_iter().try_for_each(|(endpoint, (_, right))| self.set(&endpoint, right))
    }

    /// Corrects what was wrong in the last look in the same way: who begins or ends in between is counted already.
    ///
    /// # Errors
    /// As of [`Self::adopt`].
    pub fn round(&mut self) -> Result<()> {
        let differences = self.differences()?;
        for (endpoint, difference) in &differences {
            if self.doubts.get(endpoint) == Some(difference) {
                self.set(endpoint, difference.1)?;
            }
        }
        self.doubts = differences;
        Ok(())
    }

    /// How many listen at each endpoint of a mail port.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        let mut counts = Counts::new();
        walk(&self.whole, |endpoint, count| {
            counts.insert(endpoint, count);
        })
        .context("cannot read who listens")?;
        Ok(counts)
    }

    fn differences(&self) -> Result<StdHashMap<Endpoint, (u64, u64)>> {
        let known = self.counts()?;
        let set = self.policy.active()?;
        let mut right = Counts::new();
        for (endpoint, second) in listeners()? {
            if self.policy.service_of(set, endpoint.port)?.is_some() {
                for endpoint in [Some(endpoint), second].into_iter().flatten() {
                    *right.entry(endpoint).or_default() += 1;
                }
            }
        }
        let count = |counts: &Counts, endpoint: &Endpoint| counts.get(endpoint).copied().unwrap_or_default();
        let all = known.keys().chain(right.keys());
        let differences = all.map(|endpoint| (*endpoint, (count(&known, endpoint), count(&right, endpoint))));
        Ok(differences.filter(|(_, (known, right))| known != right).collect())
    }

    fn set(&mut self, endpoint: &Endpoint, count: u64) -> Result<()> {
        if count == 0 {
            found(self.map.remove(endpoint)).context("cannot note who listens no more")?;
        } else {
            match self.map.insert(endpoint, count, 0) {
                // No room: who listens there is not known, and nothing rests on it.
                Err(aya::maps::MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::E2BIG) => {}
                noted => noted.context("cannot note who listens")?,
            }
        }
        Ok(())
    }
}

/// Where each listening TCP socket of the network namespace this thread is in listens.
fn listeners() -> Result<Vec<(Endpoint, Option<Endpoint>)>> {
    let mut listeners = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        dump(family as u8, |message| listeners.extend(parse(message)))?;
    }
    Ok(listeners)
}

/// Shows each message on a listener of `family` to `see`.
fn dump(family: u8, mut see: impl FnMut(&[u8])) -> Result<()> {
    let socket = netlink::open(SockProtocol::NetlinkSockDiag).context("cannot ask for sockets")?;
    // `struct inet_diag_req_v2`: any address, any port.
    let mut asked = [0_u8; 56];
    asked[0] = family;
    asked[1] = libc::IPPROTO_TCP as u8;
    asked[4..8].copy_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
    let message = netlink::request(BY_FAMILY, libc::NLM_F_DUMP, &asked);
    send(socket.as_raw_fd(), &message, MsgFlags::empty()).context("cannot ask who listens")?;
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let len = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received.context("the kernel does not tell who listens")?,
        };
        for (kind, body) in netlink::each(&buffer[..len]) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => match Errno::from_raw(-(number(body, 0).unwrap_or_default() as i32)) {
                    // A kernel without IPv6 has no such sockets.
                    Errno::ENOENT if family == libc::AF_INET6 as u8 => return Ok(()),
                    errno => bail!("the kernel does not tell who listens: {errno}"),
                },
                _ => see(body),
            }
        }
    }
}

/// Reads `struct inet_diag_msg` of a listener.
fn parse(message: &[u8]) -> Option<(Endpoint, Option<Endpoint>)> {
    let (fixed, attributes) = message.split_at_checked(MESSAGE)?;
    let is_v6 = i32::from(fixed[0]) == libc::AF_INET6;
    let port = u16::from_be_bytes(*fixed[4..].first_chunk()?);
    let address: IpAddr = if is_v6 {
        IpAddr::from(*fixed[8..].first_chunk::<16>()?)
    } else {
        IpAddr::from(*fixed[8..].first_chunk::<4>()?)
    };
    let endpoint = Endpoint::new(Addr::from(address), port, number(fixed, 40)?);
    let only_v6 =
        netlink::attributes(attributes).any(|(kind, value)| kind == V6_ONLY && value.first() != Some(&0));
    Some((endpoint, endpoint.second(is_v6 && !only_v6)))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn message(family: i32, address: &[u8], attributes: &[u8]) -> Vec<u8> {
        let mut message = vec![0; MESSAGE];
        message[0] = family as u8;
        message[4..6].copy_from_slice(&143_u16.to_be_bytes());
        message[8..8 + address.len()].copy_from_slice(address);
        message[40] = 7;
        message.extend(attributes);
        message
    }

    #[test]
    fn a_listener_at_any_address_takes_both_families_where_it_says_so() {
        let v4 = |octets: [u8; 4]| Endpoint::new(Addr::from(IpAddr::from(octets)), 143, 7);
        let v6 = |address: Ipv6Addr| Endpoint::new(Addr::from(IpAddr::from(address)), 143, 7);
        let any = Ipv6Addr::UNSPECIFIED;
        let only = |value| [5, 0, 11, 0, value, 0, 0, 0];
        let of =
            |family, address: &[u8], attributes: &[u8]| parse(&message(family, address, attributes)).unwrap();
        let all = Ipv4Addr::UNSPECIFIED.octets();
        assert_eq!(of(libc::AF_INET, &[192, 0, 2, 1], &[]), (v4([192, 0, 2, 1]), None));
        assert_eq!(of(libc::AF_INET, &all, &[]), (v4(all), None));
        assert_eq!(of(libc::AF_INET6, &any.octets(), &only(0)), (v6(any), Some(v4(all))));
        assert_eq!(of(libc::AF_INET6, &any.octets(), &only(1)), (v6(any), None));
        assert_eq!(
            of(libc::AF_INET6, &Ipv6Addr::LOCALHOST.octets(), &only(0)),
            (v6(Ipv6Addr::LOCALHOST), None)
        );
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let whole = message(libc::AF_INET, &[192, 0, 2, 1], &[]);
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), None);
        }
    }
}
