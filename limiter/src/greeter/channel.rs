// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Messages between the daemon and the greeter's process: over sockets that keep their bounds (`SOCK_SEQPACKET`), with
//! descriptors where a message has some.

use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Serialize, de::DeserializeOwned};

/// The longest message, in bytes.
const LONGEST: usize = 64 << 10;

/// Two sockets that are connected with each other.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a message, with these descriptors; never waits.
///
/// # Errors
/// `WouldBlock` if the other side has too much to read already; otherwise what the kernel says.
pub fn send(socket: impl AsFd, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(io::Error::other)?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut room);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, flags)?;
    Ok(())
}

/// Room for what is received.
#[derive(Debug)]
pub struct Reader(Vec<u8>);

impl Reader {
    /// Room for the longest message.
    pub fn new() -> Self {
        Self(vec![0; LONGEST])
    }

    /// The next message and its descriptors; `None` if the other side is gone. Does not wait if `flags` say so.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; `InvalidData` if it is none that this side knows.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        socket: impl AsFd,
        flags: RecvFlags,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut room);
        let mut bytes = [IoSliceMut::new(&mut self.0)];
        let received = recvmsg(socket, &mut bytes, &mut ancillary, flags | RecvFlags::CMSG_CLOEXEC)?;
        let files = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let files: Vec<OwnedFd> = files.flatten().collect();
        if received.bytes == 0 {
            return Ok(None);
        }
        let message = self.0.get(..received.bytes).and_then(|bytes| postcard::from_bytes(bytes).ok());
        match message {
            Some(message) if !received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) => {
                Ok(Some((message, files)))
            }
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustix::net::send as send_bytes;

    use super::{
        super::messages::{Notice, Order, Question},
        *,
    };

    #[test]
    fn a_message_arrives_with_its_descriptors_and_the_end_is_seen() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, &"hello", &[ours.as_fd(), theirs.as_fd()]).unwrap();
        let mut reader = Reader::new();
        let (text, files) = reader.receive::<String>(&theirs, RecvFlags::empty()).unwrap().unwrap();
        assert_eq!((text.as_str(), files.len()), ("hello", 2));
        let nothing = reader.receive::<String>(&theirs, RecvFlags::DONTWAIT);
        assert_eq!(nothing.unwrap_err().kind(), ErrorKind::WouldBlock);
        drop((ours, files));
        assert!(reader.receive::<String>(&theirs, RecvFlags::empty()).unwrap().is_none());
    }

    #[test]
    fn who_reads_nothing_is_not_waited_for() {
        let (ours, _theirs) = pair().unwrap();
        let refused = (0..10_000).find_map(|_| send(&ours, &"hello", &[]).err());
        assert_eq!(refused.unwrap().kind(), ErrorKind::WouldBlock);
    }

    proptest! {
        /// Of a greeter that somebody has taken over.
        #[test]
        fn no_bytes_whatever_confuse_who_reads(bytes in prop::collection::vec(any::<u8>(), 1..2_000)) {
            let (ours, theirs) = pair().unwrap();
            let mut reader = Reader::new();
            for _ in 0..3 {
                send_bytes(&ours, &bytes, SendFlags::DONTWAIT).unwrap();
            }
            let flags = RecvFlags::DONTWAIT;
            let is_sound = |error: Option<io::Error>| error.is_none_or(|error| error.kind() == ErrorKind::InvalidData);
            prop_assert!(is_sound(reader.receive::<Notice>(&theirs, flags).err()));
            prop_assert!(is_sound(reader.receive::<Question>(&theirs, flags).err()));
            prop_assert!(is_sound(reader.receive::<Order>(&theirs, flags).err()));
        }
    }
}
