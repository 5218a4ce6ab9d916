// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! SYNs of one source who is banned, as fast as one processor sends them.

use std::{
    net::Ipv4Addr,
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use nix::libc;
use socket2::{Domain, Socket, Type};

use super::{
    lab::{Lab, Place, port},
    plan::Contestant,
};

/// Who floods; none of the clients.
pub const FLOODER: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 7);

/// Frames, each from a port of its own.
const FRAMES: u16 = 4096;

/// No flood lasts longer, whatever becomes of who measures meanwhile.
const AT_MOST: Duration = Duration::from_secs(60);

/// Floods a contestant until `during` is over; it can see how many frames went.
///
/// The one without any protection is not told apart from the others by what it does with the flood, but by
/// not getting it: the frames bear the hardware address of nobody. What is left is what sending takes.
///
/// # Errors
///
/// When it cannot be sent; and what `during` returns.
pub fn run<T>(
    lab: &Lab,
    contestant: Contestant,
    place: Place,
    during: impl FnOnce(&AtomicU64) -> Result<T>,
) -> Result<T> {
    let hardware = if contestant == Contestant::Nothing { [2, 0, 0, 0, 9, 9] } else { place.hardware() };
    let frames: Vec<_> = (0..FRAMES).map(|number| frame(hardware, place, 10_000 + number)).collect();
    let socket = lab.clients().run(|| open(place))?;
    let (sent, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let flood = scope.spawn(|| send(&socket, &frames, &sent, &over));
        let outcome = during(&sent);
        over.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| anyhow!("the flood died"))??;
        outcome
    })
}

fn send(socket: &Socket, frames: &[Vec<u8>], sent: &AtomicU64, over: &AtomicBool) -> Result<()> {
    let began = Instant::now();
    while !over.load(Ordering::Relaxed) && began.elapsed() < AT_MOST {
        for frame in frames.iter().take(256) {
            match socket.send(frame) {
                Ok(_) => sent.fetch_add(1, Ordering::Relaxed),
                // The wire is full: what is lost is lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(error) => return Err(error).context("cannot send the flood"),
            };
        }
    }
    Ok(())
}

/// A packet socket (packet(7)) on the clients' end of a contestant's wire, past the queue of the interface.
fn open(place: Place) -> Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).context("cannot open a packet socket")?;
    let bypass: libc::c_int = 1;
    // SAFETY: the value is as long as said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const bypass).cast(),
            size_of_val(&bypass) as u32,
        )
    };
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        // Nothing is to be caught.
        sll_protocol: 0,
        sll_ifindex: nix::net::if_::if_nametoindex(place.wire().as_str())? as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is one of packet sockets, as long as said.
    let bound =
        unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    if set != 0 || bound != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot bind a packet socket");
    }
    Ok(socket)
}

/// A SYN for the port that admits (RFC 791, 3.1; RFC 9293, 3.1).
fn frame(hardware: [u8; 6], place: Place, from: u16) -> Vec<u8> {
    let (source, to) = (FLOODER.octets(), place.v4(1).octets());
    let mut ip = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ip[12..16].copy_from_slice(&source);
    ip[16..20].copy_from_slice(&to);
    let sum = checksum(&ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut tcp = [0; 20];
    tcp[..2].copy_from_slice(&from.to_be_bytes());
    tcp[2..4].copy_from_slice(&port::ADMITS.to_be_bytes());
    tcp[4..8].copy_from_slice(&u32::from(from).wrapping_mul(2_654_435_761).to_be_bytes());
    tcp[12..16].copy_from_slice(&[0x50, 0x02, 0xff, 0xff]);
    // The pseudo header: addresses, protocol, length.
    let sum = checksum(&tcp, checksum_of(&ip[12..20]) + 6 + 20);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut frame = Vec::from(hardware);
    frame.extend([2, 0, 0, 0, 0, 2, 0x08, 0x00]);
    frame.extend(ip);
    frame.extend(tcp);
    frame
}

/// The sum of 16-bit words.
fn checksum_of(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum()
}

/// The Internet checksum (RFC 1071), on top of what was summed up already.
fn checksum(bytes: &[u8], before: u32) -> u16 {
    let mut sum = checksum_of(bytes) + before;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_checksums_are_right() {
        let frame = frame([2; 6], Place(3), 10_007);
        let (ip, tcp) = (&frame[14..34], &frame[34..]);
        assert_eq!(checksum(ip, 0), 0);
        assert_eq!(checksum(tcp, checksum_of(&ip[12..20]) + 6 + 20), 0);
    }
}
