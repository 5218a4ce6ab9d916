// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who listens, as the kernel tells of sockets: for what matters of a listener beside its port.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::IpAddr,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use netlink_packet_core::{Nla, NlasIterator};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla as Attribute},
};
use nix::{errno::Errno, sys::socket::SockProtocol};

use crate::netlink::{self, Message};

/// `INET_DIAG_ULP_INFO`, and in it `INET_ULP_INFO_NAME`; netlink-packet-sock-diag knows neither, nor the next.
const ULP_INFO: u16 = 19;
const ULP_NAME: u16 = 1;
/// `INET_DIAG_CGROUP_ID`, since Linux 5.9.
const CGROUP_ID: u16 = 21;

/// A socket that listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    /// The address it is bound to.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The interface or VRF that it is bound to; 0: none.
    pub ifindex: u32,
    /// Whether it takes IPv4, too, where it is bound to `::`.
    pub takes_both: bool,
    /// Whether it speaks Multipath TCP (RFC 8684). What the limiter counts is a connection of TCP, a subflow: a client
    /// may end the only one and keep its session, and begin another in its place later.
    pub is_mptcp: bool,
    /// The id of its cgroup; none where the kernel does not tell.
    pub cgroup: Option<u64>,
    /// The inode of its descriptor.
    pub inode: u32,
    /// Connections that nobody has accepted yet.
    pub queued: u32,
    /// How many there may be; one more is taken (`sk_acceptq_is_full`, `include/net/sock.h`).
    pub backlog: u32,
}

/// Those of TCP in the network namespace this thread is in.
///
/// # Errors
/// What the kernel says, which may lack the module `inet_diag`.
pub fn all() -> Result<Vec<Listener>> {
    let mut all = Vec::new();
    for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            // The kernel tells of the upper layer to who asks for this (`inet_sk_diag_fill`, net/ipv4/inet_diag.c).
            extensions: ExtensionFlags::INFO,
            states: StateFlags::LISTEN,
            socket_id: any,
        };
        match netlink::dump(SockProtocol::NetlinkSockDiag, SockDiagMessage::InetRequest(request)) {
            Ok(messages) => all.extend(messages.iter().filter_map(listener)),
            // A kernel without IPv6 has no such sockets.
            Err(error) if family == AF_INET6 && error.downcast_ref() == Some(&Errno::ENOENT) => {}
            Err(error) => return Err(error).context("cannot list the listening sockets"),
        }
    }
    Ok(all)
}

fn listener(message: &Message) -> Option<Listener> {
    let InetResponse { header, nlas } = message.whole()?;
    let (mut takes_both, mut is_mptcp, mut cgroup) = (header.family == AF_INET6, false, None);
    for attribute in nlas {
        match attribute {
            Attribute::SkV6Only(only) => takes_both &= !only,
            Attribute::Other(other) => match (other.kind(), value(&other)) {
                (ULP_INFO, info) => is_mptcp = is_mptcp_layer(&info),
                (CGROUP_ID, id) => cgroup = id.try_into().ok().map(u64::from_ne_bytes),
                _ => {}
            },
            _ => {}
        }
    }
    let SocketId { source_address: address, source_port: port, interface_id: ifindex, .. } = header.socket_id;
    Some(Listener {
        address,
        port,
        ifindex,
        takes_both,
        is_mptcp,
        cgroup,
        inode: header.inode,
        // Of a listener the queues are these (`tcp_diag_get_info`, net/ipv4/tcp_diag.c).
        queued: header.recv_queue,
        backlog: header.send_queue,
    })
}

fn value(attribute: &impl Nla) -> Vec<u8> {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value
}

/// One of Multipath TCP is a socket of TCP with an upper layer (ULP) of this name (`net/mptcp/subflow.c`).
fn is_mptcp_layer(info: &[u8]) -> bool {
    let mut attributes = NlasIterator::new(info).map_while(Result::ok);
    let name = attributes.find(|attribute| attribute.kind() == ULP_NAME);
    name.is_some_and(|name| name.value().split(|byte| *byte == 0).next() == Some(b"mptcp"))
}

/// Where the cgroups with these ids are, in the tree that is mounted at `root`.
pub fn cgroup_paths(root: &Path, ids: &HashSet<u64>) -> HashMap<u64, PathBuf> {
    let of_root = fs::metadata(root).map(|about| about.ino());
    let mut found: HashMap<u64, PathBuf> =
        of_root.into_iter().filter(|id| ids.contains(id)).map(|id| (id, root.to_owned())).collect();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop().filter(|_| found.len() < ids.len()) {
        for (path, inode) in directories(&dir) {
            if ids.contains(&inode) {
                found.insert(inode, path.clone());
            }
            left.push(path);
        }
    }
    found
}

/// The ids of the cgroup `id` and of all below it, in the tree that is mounted at `root`; none if it is not there, or is
/// all of the tree.
pub fn cgroups_below(root: &Path, id: u64) -> Option<HashSet<u64>> {
    if fs::metadata(root).ok()?.ino() == id {
        return None;
    }
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for (path, inode) in directories(&dir) {
            if inode == id {
                return Some(tree(path, id));
            }
            left.push(path);
        }
    }
    None
}

fn tree(top: PathBuf, id: u64) -> HashSet<u64> {
    let (mut ids, mut left) = (HashSet::from([id]), vec![top]);
    while let Some(dir) = left.pop() {
        for (path, inode) in directories(&dir) {
            ids.insert(inode);
            left.push(path);
        }
    }
    ids
}

/// The directories in `dir`, with their numbers. One that goes meanwhile is no error.
fn directories(dir: &Path) -> impl Iterator<Item = (PathBuf, u64)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_dir).map(|entry| (entry.path(), entry.ino()))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// `struct inet_diag_msg`, `include/uapi/linux/inet_diag.h`; its attributes are behind.
    const MESSAGE: usize = 72;

    fn message(family: u8, address: &[u8], attributes: &[u8]) -> Vec<u8> {
        let mut message = vec![0; MESSAGE];
        message[0] = family;
        message[4..6].copy_from_slice(&143_u16.to_be_bytes());
        message[8..8 + address.len()].copy_from_slice(address);
        message[40] = 7;
        message.extend(attributes);
        message
    }

    #[test]
    fn a_listener_at_any_address_takes_both_families_where_it_says_so() {
        let only = |value| [5, 0, 11, 0, value, 0, 0, 0];
        let of = |family, address: &[u8], attributes: &[u8]| {
            let read = listener(&Message::of(message(family, address, attributes))).unwrap();
            assert_eq!((read.port, read.ifindex, read.is_mptcp, read.cgroup), (143, 7, false, None));
            (read.address, read.takes_both)
        };
        let all = Ipv4Addr::UNSPECIFIED.octets();
        let any = Ipv6Addr::UNSPECIFIED;
        assert_eq!(of(AF_INET, &[192, 0, 2, 1], &[]), (IpAddr::from([192, 0, 2, 1]), false));
        assert_eq!(of(AF_INET, &all, &[]), (IpAddr::from(all), false));
        assert_eq!(of(AF_INET6, &any.octets(), &only(0)), (any.into(), true));
        assert_eq!(of(AF_INET6, &any.octets(), &only(1)), (any.into(), false));
        assert_eq!(of(AF_INET6, &any.octets(), &[]), (any.into(), true));
    }

    #[test]
    fn the_cgroup_of_a_listener_is_read() {
        let attribute = [12, 0, CGROUP_ID as u8, 0, 0x39, 5, 0, 0, 1, 0, 0, 0];
        let read = listener(&Message::of(message(AF_INET, &[0; 4], &attribute))).unwrap();
        assert_eq!(read.cgroup, Some(0x1_0000_0539));
    }

    #[test]
    fn the_accept_queue_of_a_listener_is_read() {
        let mut bytes = message(AF_INET, &[0; 4], &[]);
        for (at, value) in [(56, 3_u32), (60, 128), (68, 4711)] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let read = listener(&Message::of(bytes)).unwrap();
        assert_eq!((read.queued, read.backlog, read.inode), (3, 128, 4711));
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let whole = message(AF_INET, &[192, 0, 2, 1], &[]);
        for len in 0..whole.len() {
            assert_eq!(listener(&Message::of(whole[..len].to_vec())), None);
        }
    }
}
