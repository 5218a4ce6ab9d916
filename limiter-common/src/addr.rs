// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Addresses: 16 bytes everywhere, IPv4 mapped to `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

/// The third word of an IPv4-mapped address, in network byte order.
const MAPPED: u32 = 0xffff_u32.to_be();

/// The first word of `64:ff9b::/96`, in network byte order.
const NAT64: u32 = 0x0064_ff9b_u32.to_be();

/// The first word of `2002::/16`, of which [`HALF_OF_A_WORD`] counts, in network byte order.
const SIX_TO_FOUR: u32 = 0x2002_0000_u32.to_be();
const HALF_OF_A_WORD: u32 = 0xffff_0000_u32.to_be();

/// An address in the one form the limiter knows.
///
/// Four words in network byte order, as the kernel hands them out: aligned, so that the BPF target
/// need not load them byte by byte.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord, Pod, Zeroable)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    /// From an IPv4 address as one word in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Both halves, in the order of memory, so that the compiler need not take apart what is loaded at once.
    #[inline(always)]
    #[must_use]
    pub const fn halves(&self) -> [u64; 2] {
        let [a, b, c, d] = self.0;
        [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32]
    }

    /// The address that has these [`Self::halves`].
    #[inline(always)]
    #[must_use]
    pub const fn of_halves([first, second]: [u64; 2]) -> Self {
        Self([first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32])
    }

    /// The address with all bits behind the first `prefix` (0 to 128) cleared.
    #[inline(always)]
    #[must_use]
    pub const fn cut(&self, prefix: u8) -> Self {
        let [a, b, c, d] = self.0;
        // Looked up and not worked out: in the kernel each connection does it some ten times, and for the verifier
        // every branch is another way through what follows.
        let mask = &MASKS[prefix as usize];
        Self([a & mask[0], b & mask[1], c & mask[2], d & mask[3]])
    }

    /// Whether this is a loopback address: 127.0.0.0/8 (RFC 1122, 3.2.1.3) or `::1`.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        let [a, b, c, d] = self.0;
        (self.is_v4() && u32::from_be(d) >> 24 == 127) || (a == 0 && b == 0 && c == 0 && u32::from_be(d) == 1)
    }

    /// Whether `self`, connecting to `local`, is the host talking to itself: loopback, or the very
    /// address it connects to, which is what Linux chooses as the source for one of its own.
    #[inline(always)]
    #[must_use]
    pub fn is_local(&self, local: &Self) -> bool {
        self.is_loopback() || self.0 == local.0
    }

    /// The IPv4 host that this address stands for, as a translator (NAT64, `64:ff9b::/96`; RFC 6052, 2.1) or a 6to4 router
    /// (`2002::/16`; RFC 3056, 2) has written it; any other address, and what would be a loopback address, is itself.
    ///
    /// The answer to such an address goes to that host, or to whoever translates for it, so nobody else completes a
    /// handshake in its name.
    #[inline(always)]
    #[must_use]
    pub const fn host(&self) -> Self {
        let [a, b, c, d] = self.0;
        let (first, second) = (u32::from_be(a), u32::from_be(b));
        let v4 = if a == NAT64 && b == 0 && c == 0 {
            d
        } else if first >> 16 == 0x2002 {
            (first << 16 | second >> 16).to_be()
        } else {
            return *self;
        };
        let host = Self::from_v4_word(v4);
        if host.is_loopback() { *self } else { host }
    }

    /// Whether it is of `64:ff9b::/96` or `2002::/16`, where addresses are those of IPv4 hosts ([`Self::host`]).
    #[inline(always)]
    #[must_use]
    pub const fn is_translated(&self) -> bool {
        let [a, b, c, _] = self.0;
        ((a ^ NAT64) | b | c) == 0 || (a ^ SIX_TO_FOUR) & HALF_OF_A_WORD == 0
    }

    /// The usual form, for people: mapped addresses as IPv4.
    #[must_use]
    pub fn to_ip(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from(u32::from_be(self.0[3])))
        } else {
            IpAddr::V6(Ipv6Addr::from(bytemuck::cast::<[u32; 4], [u8; 16]>(self.0)))
        }
    }
}

/// The usual form, for people: mapped addresses as IPv4.
#[cfg(feature = "user")]
impl core::fmt::Display for Addr {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.to_ip().fmt(out)
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        let v6 = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self(bytemuck::cast::<[u8; 16], [u32; 4]>(v6.octets()))
    }
}

/// The network mask of each prefix length. As many as a byte can mean, so that nothing has to be checked.
static MASKS: [[u32; 4]; 256] = {
    let mut masks = [[0; 4]; 256];
    let mut prefix = 0;
    while prefix < 256 {
        let p = prefix as u32;
        masks[prefix] = [mask(p, 0), mask(p, 32), mask(p, 64), mask(p, 96)];
        prefix += 1;
    }
    masks
};

/// The part of a 128-bit network mask of length `prefix` that falls on the word starting at bit
/// `from`, in network byte order.
const fn mask(prefix: u32, from: u32) -> u32 {
    if prefix <= from {
        0
    } else if prefix - from >= 32 {
        u32::MAX
    } else {
        (u32::MAX << (32 - (prefix - from))).to_be()
    }
}

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for Addr {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_address_survives_the_round_trip(v4: u32, v6: u128) {
            let v4 = IpAddr::V4(v4.into());
            prop_assert_eq!(Addr::from(v4).to_ip(), v4);
            let of_both = Addr::from(IpAddr::V6(v6.into()));
            prop_assert_eq!(Addr::of_halves(of_both.halves()), of_both);
            let v6 = Ipv6Addr::from(v6);
            prop_assert_eq!(Addr::from(IpAddr::V6(v6)).to_ip(), IpAddr::V6(v6).to_canonical());
        }

        #[test]
        fn cutting_keeps_the_first_bits_and_no_other(bits: u128, prefix in 0u8..=128) {
            let cut = Addr::from(IpAddr::V6(bits.into())).cut(prefix);
            let expected = if prefix == 0 { 0 } else { bits & (u128::MAX << (128 - u32::from(prefix))) };
            prop_assert_eq!(cut, Addr::from(IpAddr::V6(expected.into())));
            prop_assert_eq!(cut.cut(prefix), cut);
        }

        #[test]
        fn what_a_translator_has_written_is_its_ipv4_host_and_nothing_else_is(v4: u32, bits: u128, site: u128) {
            let host = Addr::from(IpAddr::V4(v4.into()));
            let site = site & (u128::MAX >> 48);
            for written in [0x0064_ff9b_u128 << 96 | u128::from(v4), 0x2002_u128 << 112 | u128::from(v4) << 80 | site] {
                let written = Addr::from(IpAddr::V6(written.into()));
                prop_assert!(written.is_translated() && !host.is_translated());
                prop_assert_eq!(written.host(), if host.is_loopback() { written } else { host });
            }
            let is_translated = bits >> 32 == 0x0064_ff9b_u128 << 64 || bits >> 112 == 0x2002;
            let other = Addr::from(IpAddr::V6(bits.into()));
            prop_assert!(is_translated || other.host() == other);
            prop_assert_eq!(other.is_translated(), is_translated);
            prop_assert_eq!(host.host(), host);
        }

        #[test]
        fn a_mapped_peer_of_a_dual_stack_listener_is_the_same_source(v4: u32) {
            let plain = Addr::from(IpAddr::V4(v4.into()));
            prop_assert_eq!(plain, Addr::from(IpAddr::V6(Ipv4Addr::from(v4).to_ipv6_mapped())));
            prop_assert_eq!(plain, Addr::from_v4_word(v4.to_be()));
            prop_assert!(plain.is_v4());
        }
    }

    #[test]
    fn translated_addresses_of_the_rfcs_are_their_hosts_and_no_loopback_address() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        for written in
            ["64:ff9b::198.51.100.1", "64:ff9b::c633:6401", "2002:c633:6401::1", "2002:c633:6401:ffff::"]
        {
            assert_eq!(addr(written).host(), addr("198.51.100.1"), "{written}");
        }
        for other in [
            "64:ff9b::127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b:0:0:0:1:c633:6401",
            "64:ff9b:1::c633:6401",
            "2003::",
        ] {
            assert_eq!(addr(other).host(), addr(other), "{other}");
        }
    }

    #[test]
    fn loopback_and_the_address_connected_to_are_our_own() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let local = addr("192.0.2.1");
        for own in ["127.0.0.1", "127.9.9.9", "::1", "192.0.2.1"] {
            assert!(addr(own).is_local(&local), "{own}");
        }
        for other in ["192.0.2.2", "128.0.0.1", "126.255.255.255", "::2", "2001:db8::1"] {
            assert!(!addr(other).is_local(&local), "{other}");
        }
    }
}
