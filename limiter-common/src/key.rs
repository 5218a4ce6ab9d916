// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the ledger counts by.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, ServiceId, ServicePolicy, room::rooms, rule::Network};

/// Which of a service's limits a count belongs to.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// The source itself: /32 and /64 by default.
    Source = 0,
    /// The source's network: /24 and /48 by default.
    Network = 1,
    /// The whole service. Not in the ledger: it has a table of its own.
    Total = 2,
}

/// How coarsely sources are counted for which there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level {
    /// [`Key::level`] of such entries.
    pub number: u8,
    /// Prefix length for IPv4, as of an IPv6 address.
    ipv4: u8,
    /// Prefix length for IPv6.
    ipv6: u8,
    /// Those together may hold 2 to the power of this times what one may.
    pub shift: u8,
}

impl Level {
    /// The levels, the finest first: four times what one source may have for a /56, or a /24 of IPv4; sixteen times
    /// for a /48, or a /16; 64 times for all others of the family.
    pub const ALL: [Self; 3] = [
        Self { number: 1, ipv4: 96 + 24, ipv6: 56, shift: 2 },
        Self { number: 2, ipv4: 96 + 16, ipv6: 48, shift: 4 },
        Self::LAST,
    ];

    /// The one that takes in a whole family.
    pub const LAST: Self = Self { number: 3, ipv4: 96, ipv6: 0, shift: 6 };

    /// Of this number, 1 to 3.
    #[inline(always)]
    pub(crate) const fn of(number: u8) -> Self {
        match number {
            1 => Self::ALL[0],
            2 => Self::ALL[1],
            _ => Self::LAST,
        }
    }

    #[inline(always)]
    pub(crate) const fn prefix(self, source: &Addr) -> u8 {
        if source.is_v4() { self.ipv4 } else { self.ipv6 }
    }
}

/// What the ledger counts by. The prefix length is part of it: after a change of prefix, what was
/// counted under the old one is let go under the old one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
pub struct Key {
    /// The source: an address with the bits behind the prefix cleared.
    pub addr: Addr,
    /// The service, a [`ServiceId`].
    pub service: u8,
    /// A [`Tier`].
    pub tier: u8,
    /// Prefix length of `addr` as an IPv6 address: 96 + n for IPv4.
    pub prefix: u8,
    /// 0: the entry is one source's, or one network's. Otherwise the number of its [`Level`].
    pub level: u8,
    /// Always 0. The kernel compares keys eight bytes at a time, and what is left byte by byte (`memcmp`,
    /// lib/string.c), which takes longer; and it rounds their size up anyway.
    pub zero: [u8; 4],
}

impl Key {
    /// Nobody's.
    pub const NONE: Self =
        Self { addr: Addr([0; 4]), service: 0, tier: 0, prefix: 0, level: 0, zero: [0; 4] };

    /// The key under which a connection from `remote` to `service` is counted, whose rule says `source_prefix` of what makes a
    /// source of it ([`crate::Scope::source_prefix`]).
    #[inline(always)]
    #[must_use]
    pub const fn source(
        service: ServiceId,
        policy: &ServicePolicy,
        source_prefix: u8,
        remote: &Addr,
    ) -> Self {
        let host = remote.host();
        let prefix = if source_prefix != 0 { source_prefix } else { policy.source.of(&host) };
        Self::at(service, Tier::Source, prefix, &host)
    }

    /// The key under which the network of `remote` is counted. It is as much larger than the source as the service says,
    /// if the source is smaller than the service's are, and never smaller than the source.
    #[inline(always)]
    #[must_use]
    pub const fn network(
        service: ServiceId,
        policy: &ServicePolicy,
        source_prefix: u8,
        remote: &Addr,
    ) -> Self {
        let host = remote.host();
        let (of_source, of_network) = (policy.source.of(&host), policy.network.of(&host));
        let prefix = if source_prefix == 0 {
            of_network
        } else {
            let moved = of_network.wrapping_add(source_prefix.saturating_sub(of_source));
            if moved < source_prefix { moved } else { source_prefix }
        };
        Self::at(service, Tier::Network, prefix, &host)
    }

    /// The name of a service's total, for whom it is a count like others.
    #[must_use]
    pub const fn total(service: ServiceId) -> Self {
        Self {
            addr: Addr([0; 4]),
            service: service.0,
            tier: Tier::Total as u8,
            prefix: 0,
            level: 0,
            zero: [0; 4],
        }
    }

    /// Whether this is the network of a source, not the source itself.
    #[must_use]
    pub const fn is_network(&self) -> bool {
        self.tier == Tier::Network as u8
    }

    /// Whether several sources are counted here, for want of room.
    #[inline(always)]
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.level != 0
    }

    /// The key that the source of this one shares with others; `None` where that would be no coarser.
    #[inline(always)]
    #[must_use]
    pub const fn shared(&self, level: Level) -> Option<Self> {
        let mut key = *self;
        if key.share(level) { Some(key) } else { None }
    }

    /// Changes this key to what [`Self::shared`] makes of it; `false` where it would be no coarser, and is as it was.
    #[inline(always)]
    pub const fn share(&mut self, level: Level) -> bool {
        let prefix = level.prefix(&self.addr);
        if prefix >= self.prefix && level.number != Level::LAST.number {
            return false;
        }
        self.addr = self.addr.cut(prefix);
        self.prefix = prefix;
        self.level = level.number;
        true
    }

    /// Index of the [`crate::Room`] for the entry.
    #[inline(always)]
    #[must_use]
    pub const fn room(&self) -> u32 {
        rooms::SOURCES + (self.level & 3) as u32
    }

    /// Whether this names a service's total.
    #[inline(always)]
    #[must_use]
    pub const fn is_total(&self) -> bool {
        self.tier == Tier::Total as u8
    }

    #[inline(always)]
    pub(crate) const fn at(service: ServiceId, tier: Tier, prefix: u8, remote: &Addr) -> Self {
        Self {
            addr: remote.cut(prefix),
            service: service.0,
            tier: tier as u8,
            prefix,
            level: 0,
            zero: [0; 4],
        }
    }

    /// 32 bits that tell this key from others, stored in its entry: a look-up's result can be told
    /// from memory that has come to serve another source in between.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        // FNV-1a's step (offset and prime of the 32-bit variant) over words instead of bytes.
        let [a, b, c, d] = self.addr.0;
        let scope = self.service as u32
            | (self.tier as u32) << 8
            | (self.prefix as u32) << 16
            | (self.level as u32) << 24;
        let mut hash = 0x811c_9dc5_u32;
        hash = (hash ^ a).wrapping_mul(0x0100_0193);
        hash = (hash ^ b).wrapping_mul(0x0100_0193);
        hash = (hash ^ c).wrapping_mul(0x0100_0193);
        hash = (hash ^ d).wrapping_mul(0x0100_0193);
        (hash ^ scope).wrapping_mul(0x0100_0193)
    }

    /// The addresses that it is of.
    #[must_use]
    pub const fn addresses(&self) -> Network {
        Network { prefix: self.prefix as u32, addr: self.addr }
    }

    /// Prefix length as people write it: 0 to 32 for IPv4, 0 to 128 for IPv6.
    #[must_use]
    pub const fn prefix_len(&self) -> u8 {
        self.addresses().prefix_len() as u8
    }
}

const _: () = assert!(size_of::<Key>() == 24);

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for Key {}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::service::Prefixes;

    fn key(ip: IpAddr) -> Key {
        let policy = ServicePolicy { source: Prefixes { ipv4: 32, ipv6: 64 }, ..Default::default() };
        Key::source(ServiceId(1), &policy, 0, &Addr::from(ip))
    }

    proptest! {
        #[test]
        fn ipv6_hosts_of_one_64_are_one_source_and_no_others(a: u128, b: u128) {
            let same = a >> 64 == b >> 64;
            prop_assume!([a, b].iter().all(|bits| Addr::from(IpAddr::V6((*bits).into())).host().to_ip().is_ipv6()));
            prop_assume!(!Addr::from(IpAddr::V6(a.into())).is_v4() && !Addr::from(IpAddr::V6(b.into())).is_v4());
            prop_assert_eq!(key(IpAddr::V6(a.into())) == key(IpAddr::V6(b.into())), same);
            let neighbour = (a & !u128::from(u64::MAX)) | u128::from(b as u64);
            prop_assert_eq!(key(IpAddr::V6(a.into())), key(IpAddr::V6(neighbour.into())));
        }

        #[test]
        fn ipv4_hosts_are_sources_of_their_own(a: u32, b: u32) {
            prop_assert_eq!(key(IpAddr::V4(a.into())) == key(IpAddr::V4(b.into())), a == b);
            prop_assert_eq!(key(IpAddr::V4(a.into())).prefix_len(), 32);
        }
    }
}
