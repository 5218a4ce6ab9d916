// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Services and their policy.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Rate, names::names};

/// Index of a service in the policy table; 0 is "no service".
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ServiceId(pub u8);

/// What the clients of a service speak, so that a refusal can be said in it.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// SMTP and submission (RFC 5321, RFC 6409).
    Smtp = 1,
    /// IMAP (RFC 9051).
    Imap = 2,
    /// POP3 (RFC 1939).
    Pop3 = 3,
    /// `ManageSieve` (RFC 5804).
    Sieve = 4,
}

names!(Protocol { Smtp => "smtp", Imap => "imap", Pop3 => "pop3", Sieve => "sieve" });

impl Protocol {
    /// From its number in [`ServicePolicy::protocol`].
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Smtp),
            2 => Some(Self::Imap),
            3 => Some(Self::Pop3),
            4 => Some(Self::Sieve),
            _ => None,
        }
    }
}

/// How a refusal is answered.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Response {
    /// In the client's own protocol, through the greeter; a reset where there is no greeter.
    Reply = 0,
    /// With a TCP reset: the client sees "connection refused".
    Reset = 1,
    /// Not at all: the client sees nothing until it gives up.
    Drop = 2,
}

names!(Response { Reply => "reply", Reset => "reset", Drop => "drop" });

impl Response {
    /// From its number in [`ServicePolicy::response`].
    #[inline(always)]
    #[must_use]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Reply,
            2 => Self::Drop,
            _ => Self::Reset,
        }
    }
}

/// Whether verdicts are carried out.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// They are.
    Enforce = 0,
    /// They are made and counted, and nobody is refused.
    Observe = 1,
}

names!(Mode { Enforce => "enforce", Observe => "observe" });

impl Mode {
    /// From its number in [`ServicePolicy::mode`].
    #[inline(always)]
    #[must_use]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Enforce,
            _ => Self::Observe,
        }
    }
}

/// Prefix lengths of one tier.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Prefixes {
    /// For IPv4, 0 to 32.
    pub ipv4: u8,
    /// For IPv6, 0 to 128.
    pub ipv6: u8,
}

impl Prefixes {
    /// The one of the family of `addr`, as of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn of(self, addr: &Addr) -> u8 {
        if addr.is_v4() { 96 + self.ipv4 } else { self.ipv6 }
    }
}

/// Keepalive on counted connections (`TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`; tcp(7)): a peer
/// that vanished is given up after `idle + probes * interval` seconds without an answer.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Keepalive {
    /// Seconds of silence before the first probe, 1 to 32,767; 0: keepalive is left as it is.
    pub idle_s: u16,
    /// Seconds between probes, 1 to 32,767.
    pub interval_s: u16,
    /// Probes without an answer after which the peer is given up, 1 to 127.
    pub probes: u16,
    /// Always 0.
    pub zero: u16,
}

impl Keepalive {
    /// Probes sent before a peer is given up.
    pub const PROBES: u16 = 3;

    /// Keepalive that gives a peer up after `seconds` (30 to 86,400): a first probe after a quarter of
    /// them, then one with each quarter.
    #[must_use]
    pub const fn within(seconds: u32) -> Self {
        let probes = Self::PROBES;
        let interval_s = (seconds / (probes as u32 + 1)) as u16;
        Self { idle_s: (seconds - interval_s as u32 * probes as u32) as u16, interval_s, probes, zero: 0 }
    }

    /// The seconds after which a silent peer is given up; 0: keepalive is left as it is.
    #[must_use]
    pub const fn seconds(&self) -> u32 {
        if self.idle_s == 0 { 0 } else { self.idle_s as u32 + self.interval_s as u32 * self.probes as u32 }
    }
}

/// The policy of one service as the kernel reads it: one entry of the policy table, one cache line.
///
/// An entry with an empty name is no service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct ServicePolicy {
    /// Name in ASCII, padded with zeros; at most 15 characters, so that one zero always follows.
    pub name: [u8; 16],
    /// Handshakes one source may complete in a time.
    pub rate: Rate,
    /// Keepalive on counted connections.
    pub keepalive: Keepalive,
    /// Connections one source may hold, 1 to [`Self::MAX_LIMIT`].
    pub max_connections: u32,
    /// Connections one network may hold, up to [`Self::MAX_LIMIT`]; 0: no limit, and
    /// networks are not counted.
    pub network_max_connections: u32,
    /// Connections of the whole service, up to [`Self::MAX_LIMIT`]; 0: no limit.
    pub max_total: u32,
    /// Connections on top of `max_total` that only allowed sources may use, up to
    /// [`Self::MAX_LIMIT`].
    pub reserve: u32,
    /// What makes a source of an address.
    pub source: Prefixes,
    /// What makes a network of an address: at most as long as [`Self::source`].
    pub network: Prefixes,
    /// A [`Protocol`].
    pub protocol: u8,
    /// A [`Response`].
    pub response: u8,
    /// A [`Mode`].
    pub mode: u8,
    /// Seconds a handshake without a place waits for one, 0 to [`Self::MAX_WAIT_S`]; 0: its client is
    /// told at once.
    pub wait_s: u8,
}

const _: () = assert!(size_of::<ServicePolicy>() == 64);

impl ServicePolicy {
    /// The largest limit there is: a million, more than a host has memory for.
    pub const MAX_LIMIT: u32 = 1_000_000;

    /// The longest `wait_s`, in seconds: the kernel gives a handshake up after 63 (five SYN-ACKs repeated,
    /// `net.ipv4.tcp_synack_retries`; tcp(7)), and until then its client can still be told.
    pub const MAX_WAIT_S: u8 = 60;

    /// Whether verdicts are only counted.
    #[inline(always)]
    #[must_use]
    pub const fn observes(&self) -> bool {
        matches!(Mode::from_u8(self.mode), Mode::Observe)
    }

    /// Whether networks have a limit, and so are counted.
    #[inline(always)]
    #[must_use]
    pub const fn has_network(&self) -> bool {
        self.network_max_connections != 0
    }

    /// The name, or `""` for no service.
    #[must_use]
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|&byte| byte == 0).unwrap_or(self.name.len());
        core::str::from_utf8(&self.name[..end]).unwrap_or("")
    }

    /// A name as the table holds it; `None` if it is empty, longer than 15 bytes, or holds anything
    /// but lower-case letters, digits, `-` and `_`.
    #[must_use]
    pub fn pack_name(name: &str) -> Option<[u8; 16]> {
        let fits = !name.is_empty() && name.len() < 16;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if !fits || !name.bytes().all(plain) {
            return None;
        }
        let mut packed = [0; 16];
        packed[..name.len()].copy_from_slice(name.as_bytes());
        Some(packed)
    }
}

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for ServicePolicy {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalive_gives_a_peer_up_at_the_second_asked_for() {
        for seconds in 30..=86_400 {
            let keepalive = Keepalive::within(seconds);
            assert_eq!(keepalive.seconds(), seconds);
            // The kernel's bounds (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, include/net/tcp.h).
            assert!((1..=32_767).contains(&keepalive.interval_s), "{seconds}");
            assert!((1..=32_767).contains(&keepalive.idle_s), "{seconds}");
        }
    }

    #[test]
    fn a_name_is_short_and_plain() {
        for good in ["smtp", "a", "sub-mission_2", "fifteen-letters"] {
            let policy =
                ServicePolicy { name: ServicePolicy::pack_name(good).unwrap(), ..Default::default() };
            assert_eq!(policy.name(), good);
        }
        for bad in ["", "sixteen-letters!", "Smtp", "a b", "ünïcode", "sixteen-letters-"] {
            assert_eq!(ServicePolicy::pack_name(bad), None, "{bad}");
        }
    }
}
