//! Who listens, as the kernel tells of sockets: for what matters of a listener beside its port.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::Result;
use nix::{libc, sys::socket::SockProtocol};

use crate::netlink::{self, Message};

/// `SOCK_DIAG_BY_FAMILY`, `include/uapi/linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `TCP_LISTEN`, `include/net/tcp_states.h`.
const LISTEN: u32 = 10;
/// `struct inet_diag_req_v2`, `include/uapi/linux/inet_diag.h`.
const REQUEST: usize = 56;
/// `struct inet_diag_msg`, which has the local port in network order at 4.
const MESSAGE: usize = 72;
const LOCAL_PORT: usize = 4;
/// `INET_DIAG_INFO`: the kernel tells of the upper layer to who asks for this (`inet_sk_diag_fill`,
/// `net/ipv4/inet_diag.c`).
const INFO: u8 = 2;
/// `INET_DIAG_ULP_INFO`, and in it `INET_ULP_INFO_NAME`.
const ULP_INFO: u16 = 19;
const ULP_NAME: u16 = 1;
/// `INET_DIAG_CGROUP_ID`, since Linux 5.9.
const CGROUP_ID: u16 = 21;

/// A socket that listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Its port.
    pub port: u16,
    /// Whether it speaks Multipath TCP (RFC 8684). What the limiter counts is a connection of TCP, a subflow: a client
    /// may end the only one and keep its session, and begin another in its place later.
    pub is_mptcp: bool,
    /// The id of its cgroup; none where the kernel does not tell.
    pub cgroup: Option<u64>,
}

/// Those of TCP in the network namespace this thread is in.
///
/// # Errors
/// What the kernel says.
pub fn all() -> Result<Vec<Listener>> {
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0; REQUEST];
        request[0] = family as u8;
        request[1] = libc::IPPROTO_TCP as u8;
        request[2] = 1 << (INFO - 1);
        request[4..8].copy_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
        let listeners = netlink::dump_of(SockProtocol::NetlinkSockDiag, BY_FAMILY, &request)?;
        all.extend(listeners.iter().filter_map(listener));
    }
    Ok(all)
}

fn listener(message: &Message) -> Option<Listener> {
    let (fixed, attributes) = message.split(MESSAGE)?;
    let of = |kind| netlink::attributes(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value);
    // One of Multipath TCP is a socket of TCP with an upper layer (ULP) of this name (`net/mptcp/subflow.c`).
    let layer = of(ULP_INFO).and_then(|info| netlink::attributes(info).find(|(kind, _)| *kind == ULP_NAME));
    let is_mptcp =
        layer.is_some_and(|(_, name)| name.split(|byte| *byte == 0).next() == Some(b"mptcp".as_slice()));
    let cgroup = of(CGROUP_ID).and_then(|id| Some(u64::from_ne_bytes(id.try_into().ok()?)));
    let port = u16::from_be_bytes([fixed[LOCAL_PORT], fixed[LOCAL_PORT + 1]]);
    Some(Listener { port, is_mptcp, cgroup })
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
