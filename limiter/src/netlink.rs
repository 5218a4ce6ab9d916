//! The kernel's network configuration, asked for and watched through rtnetlink(7); and what any netlink(7)
//! protocol has in common.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
    },
};

/// Messages of `ADDRESSES` (`RTMGRP_*`, include/uapi/linux/rtnetlink.h): addresses come and go.
pub const ADDRESSES: u32 = 0x10 | 0x100;
/// Links come, go and change.
pub const LINKS: u32 = 1;
/// Routes come and go; of these, only default routes are noticed.
pub const ROUTES: u32 = 0x40 | 0x400;

const REFUSED: &str = "the kernel does not tell of its network";
/// Of `struct nlmsghdr`, include/uapi/linux/netlink.h.
const HEADER: usize = 16;

/// One message of an answer, without its header.
pub struct Message(Vec<u8>);

/// An attribute of a message: its type and its value.
pub type Attribute<'a> = (u16, &'a [u8]);

/// A netlink socket, in the network namespace this thread is in.
pub fn open(protocol: SockProtocol) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
}

/// A message to the kernel: `flags` (`NLM_F_*`) beside `NLM_F_REQUEST`, and its body.
pub fn request(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0_u8; HEADER];
    message[..4].copy_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    message.extend(body);
    message
}

fn rtnetlink() -> Result<OwnedFd> {
    open(SockProtocol::NetlinkRoute).context("cannot open a netlink socket")
}

/// Everything of the kind that `kind` asks for (`RTM_GET*`), in the network namespace this thread is in.
pub fn dump(kind: u16) -> Result<Vec<Message>> {
    // The longest fixed part, `struct ifinfomsg`, all zeros: whatever there is.
    dump_of(SockProtocol::NetlinkRoute, kind, &[0; 16])
}

/// The same of any protocol, and with a body.
///
/// # Errors
/// What the kernel says, an `Errno`.
pub fn dump_of(protocol: SockProtocol, kind: u16, body: &[u8]) -> Result<Vec<Message>> {
    let socket = open(protocol).context("cannot open a netlink socket")?;
    let asked = request(kind, libc::NLM_F_DUMP, body);
    send(socket.as_raw_fd(), &asked, MsgFlags::empty()).context("cannot ask the kernel for its network")?;

    let mut messages = Vec::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let len = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received.context(REFUSED)?,
        };
        for (kind, body) in each(&buffer[..len]) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(messages),
                libc::NLMSG_ERROR => {
                    let error = number(body, 0).unwrap_or_default() as i32;
                    return Err(anyhow::Error::new(Errno::from_raw(-error)).context(REFUSED));
                }
                _ => messages.push(Message(body.to_owned())),
            }
        }
    }
}

/// Kind and body of each message in what was received.
pub fn each(mut received: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = number(received, 0)? as usize;
        let body = received.get(HEADER..len)?;
        let kind = u16::from_ne_bytes([received[4], received[5]]);
        received = received.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The attributes in `bytes` (`struct rtattr`).
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    /// `NLA_TYPE_MASK`, include/uapi/linux/netlink.h.
    const TYPE: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let value = bytes.get(4..len)?;
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & TYPE;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The 32-bit number at `offset`.
pub fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

impl Message {
    /// As if the kernel had said it.
    #[cfg(test)]
    pub fn of(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Its fixed part and its attributes, if the fixed part is as long.
    pub fn split(&self, fixed: usize) -> Option<(&[u8], &[u8])> {
        self.0.split_at_checked(fixed)
    }
}

/// Tells when something has changed.
pub struct Watch(OwnedFd);

impl Watch {
    /// Of the network namespace this thread is in: what `groups` names.
    pub fn new(groups: u32) -> Result<Self> {
        let netlink = rtnetlink()?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("cannot watch the network")?;
        Ok(Self(netlink))
    }

    /// Whether anything has since the last call.
    pub fn has_changed(&self) -> bool {
        let mut buffer = [0_u8; 16 * 1024];
        let mut changed = false;
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => changed |= each(&buffer[..len]).any(|(kind, body)| matters(kind, body)),
                // There was more than fits.
                Err(Errno::ENOBUFS) => changed = true,
                Err(_) => return changed,
            }
        }
    }
}

/// Routers learn and forget routes all day; only those for everywhere (`rtm_dst_len` of `struct rtmsg`) matter.
fn matters(kind: u16, body: &[u8]) -> bool {
    !matches!(kind, libc::RTM_NEWROUTE | libc::RTM_DELROUTE) || body.get(1) == Some(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_not_read() {
        let whole = [&20_u32.to_ne_bytes()[..], &[7, 0, 0, 0], &[0; 8], &[1, 2, 3, 4]].concat();
        assert_eq!(each(&whole).collect::<Vec<_>>(), [(7, &[1, 2, 3, 4][..])]);
        for len in 0..whole.len() {
            assert_eq!(each(&whole[..len]).count(), 0);
        }
        let attribute = [8, 0, 3, 0, 5, 6, 7, 8];
        assert_eq!(attributes(&attribute).collect::<Vec<_>>(), [(3, &[5, 6, 7, 8][..])]);
        for len in 0..attribute.len() {
            assert_eq!(attributes(&attribute[..len]).count(), 0);
        }
        assert_eq!(attributes(&[0; 8]).count(), 0, "a length of zero ends it");
    }

    #[test]
    fn of_routes_only_those_to_everywhere_matter() {
        assert!(matters(libc::RTM_NEWROUTE, &[2, 0, 0, 0]));
        assert!(!matters(libc::RTM_DELROUTE, &[2, 24, 0, 0]));
        assert!(matters(libc::RTM_NEWLINK, &[0, 9]));
    }
}
