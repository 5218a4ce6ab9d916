// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which sockets the kernel shows: a program for `inet_diag_bc_run` (`net/ipv4/inet_diag.c`), which runs on each.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{Emitable as _, NetlinkSerializable};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, SOCK_DIAG_BY_FAMILY, inet::InetRequest};

/// `INET_DIAG_REQ_BYTECODE`, `include/uapi/linux/inet_diag.h`.
const BYTECODE: u16 = 1;
/// `INET_DIAG_BC_D_COND`: the peer's address is in a network.
const D_COND: u8 = 8;
/// `struct inet_diag_bc_op`, then `struct inet_diag_hostcond` without its address.
const CONDITION: usize = 4 + 8;
/// Of whatever port.
const ANY_PORT: i32 = -1;

/// What is asked for, and of which peers.
pub struct Filtered {
    pub request: InetRequest,
    pub remote: Option<IpNet>,
}

/// The program that shows the sockets of peers in `network`, in both forms that an IPv4 address has.
pub fn program(network: &IpNet) -> Vec<u8> {
    let (family, address) = match network.network() {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    let len = CONDITION + address.len();
    // Yes leads to the end, no to 4 bytes beyond it, which is how a program says no.
    let mut program = vec![D_COND, len as u8];
    program.extend((len as u16 + 4).to_ne_bytes());
    program.extend([family, network.prefix_len(), 0, 0]);
    program.extend(ANY_PORT.to_ne_bytes());
    program.extend(address);
    program
}

impl Filtered {
    /// The attribute with the program, if there is one. A program is a multiple of 4 bytes long.
    fn attribute(&self) -> Vec<u8> {
        let Some(program) = self.remote.as_ref().map(program) else { return Vec::new() };
        let mut attribute = Vec::new();
        attribute.extend((program.len() as u16 + 4).to_ne_bytes());
        attribute.extend(BYTECODE.to_ne_bytes());
        attribute.extend(program);
        attribute
    }
}

impl NetlinkSerializable for Filtered {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        self.request.buffer_len() + self.attribute().len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (request, attribute) = buffer.split_at_mut(self.request.buffer_len());
        self.request.emit(request);
        attribute.copy_from_slice(&self.attribute());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_one_condition_that_ends_it_or_leads_beyond() {
        let of = |network: &str| program(&network.parse().unwrap());
        let any_port = [0xff; 4];
        let mut v4 = vec![D_COND, 16];
        v4.extend(20_u16.to_ne_bytes());
        v4.extend([AF_INET, 24, 0, 0]);
        v4.extend(any_port);
        v4.extend([203, 0, 113, 0]);
        assert_eq!(of("203.0.113.9/24"), v4);
        let v6 = of("2001:db8::/32");
        assert_eq!((v6.len(), v6[1]), (28, 28));
        assert_eq!(v6[2..4], 32_u16.to_ne_bytes());
        assert_eq!((v6[4], v6[5], &v6[12..16]), (AF_INET6, 32, &[0x20, 1, 0x0d, 0xb8][..]));
    }
}
