// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel's network configuration, asked for and watched through rtnetlink(7); and what any netlink(7)
//! protocol has in common. The form of messages is that of the `netlink-packet-*` crates.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use netlink_packet_core::{
    Emitable, ErrorBuffer, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator, Parseable,
};
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    route::RouteHeader,
};
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

const REFUSED: &str = "the kernel refuses to report its network";

/// One message of an answer, without its header.
pub struct Message(Vec<u8>);

/// A netlink socket, in the network namespace this thread is in.
pub fn open(protocol: SockProtocol) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
}

/// A message to the kernel, with `flags` (`NLM_F_*`) beside `NLM_F_REQUEST`.
pub fn request<M: NetlinkSerializable>(flags: u16, message: M) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Everything that `message` asks for, in the network namespace this thread is in.
///
/// # Errors
/// What the kernel says, an `Errno`.
pub fn dump<M: NetlinkSerializable>(protocol: SockProtocol, message: M) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    each_of_dump(protocol, message, |message| messages.push(message))?;
    Ok(messages)
}

/// The same, one message after the other: there may be many.
///
/// # Errors
/// As of [`dump`].
pub fn each_of_dump<M: NetlinkSerializable>(
    protocol: SockProtocol,
    message: M,
    mut see: impl FnMut(Message),
) -> Result<()> {
    let socket = open(protocol).context("cannot open a netlink socket")?;
    let asked = request(NLM_F_DUMP, message);
    send(socket.as_raw_fd(), &asked, MsgFlags::empty()).context("cannot query the network of the kernel")?;

    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let len = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received.context(REFUSED)?,
        };
        for (kind, body) in each(&buffer[..len]) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = ErrorBuffer::new_checked(body).ok().and_then(|error| error.code());
                    let error = Errno::from_raw(-code.map_or(0, i32::from));
                    return Err(anyhow::Error::new(error).context(REFUSED));
                }
                _ => see(Message(body.to_owned())),
            }
        }
    }
}

/// Kind and body of each message in what was received.
fn each(mut received: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(received).ok()?;
        let (kind, body) = (message.message_type(), message.payload());
        received = received.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

impl Message {
    /// As if the kernel had said it.
    #[cfg(test)]
    pub fn of(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// All of it.
    pub fn whole<M: Parseable<[u8]>>(&self) -> Option<M> {
        M::parse(&self.0).ok()
    }

    /// Its fixed part, without attributes.
    pub fn fixed<M: Parseable<[u8]> + Emitable + Default>(&self) -> Option<M> {
        M::parse(self.0.get(..M::default().buffer_len())?).ok()
    }

    /// Its attributes, each in a message of its own: a parser that stumbles over one gives up the whole message, and
    /// newer kernels have attributes of other forms, which are to cost no more than themselves.
    pub fn each<M: Parseable<[u8]> + Emitable + Default>(&self) -> impl Iterator<Item = M> {
        let (fixed, attributes) = self.0.split_at_checked(M::default().buffer_len()).unwrap_or_default();
        let attributes = NlasIterator::new(attributes).map_while(Result::ok);
        attributes.filter_map(move |attribute| {
            let len = usize::from(attribute.length());
            M::parse(&[fixed, &attribute.into_inner()[..len]].concat()).ok()
        })
    }
}

/// The host's own address in an answer about one, if there is one. Of a point-to-point link `IFA_ADDRESS` is the other end's (`include/uapi/linux/if_addr.h`).
pub fn local_address(message: &Message) -> Option<IpAddr> {
    let (mut local, mut address) = (None, None);
    for attribute in message.each::<AddressMessage>().flat_map(|message| message.attributes) {
        match attribute {
            AddressAttribute::Local(said) => local = Some(said),
            AddressAttribute::Address(said) => address = Some(said),
            _ => {}
        }
    }
    local.or(address)
}

/// Tells when something has changed.
pub struct Watch(OwnedFd);

impl Watch {
    /// Of the network namespace this thread is in: what `groups` names.
    pub fn new(groups: u32) -> Result<Self> {
        let netlink = open(SockProtocol::NetlinkRoute).context("cannot open a netlink socket")?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("cannot watch network changes")?;
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
    !matches!(kind, libc::RTM_NEWROUTE | libc::RTM_DELROUTE)
        || RouteHeader::parse(body).is_ok_and(|route| route.destination_prefix_length == 0)
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
    }

    #[test]
    fn an_attribute_that_is_cut_off_or_of_no_known_form_is_not_read_and_the_others_are() {
        let of = |attributes: &[u8]| -> Vec<AddressAttribute> {
            let message = Message::of([&[0; 8], attributes].concat());
            message.each::<AddressMessage>().flat_map(|message| message.attributes).collect()
        };
        let local = |last| AddressAttribute::Local(IpAddr::from([192, 0, 2, last]));
        let attribute = [8, 0, 2, 0, 192, 0, 2, 1];
        assert_eq!(of(&attribute), [local(1)]);
        for len in 0..attribute.len() {
            assert_eq!(of(&attribute[..len]), []);
        }
        assert_eq!(of(&[0; 8]), [], "a length of zero ends it");
        let odd = [7, 0, 2, 0, 192, 0, 2, 0];
        assert_eq!(of(&[odd, attribute].concat()), [local(1)]);
        let in_order = [192, 0, 2, 2];
        assert_eq!(of(&[&attribute[..], &[8, 0, 2, 0], &in_order].concat()), [local(1), local(2)]);
        assert_eq!(Message::of(vec![0; 7]).each::<AddressMessage>().count(), 0);
    }

    #[test]
    fn of_routes_only_those_to_everywhere_matter() {
        let route = |prefix| [2, prefix, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(matters(libc::RTM_NEWROUTE, &route(0)));
        assert!(!matters(libc::RTM_DELROUTE, &route(24)));
        assert!(matters(libc::RTM_NEWLINK, &[0, 9]));
    }
}
