// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ledger: for each (service, tier, source) the live count and what is known of the source.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Count, Key, Scope, ServiceId, ServicePolicy, key::Level};

/// What is known of one source, or of one network. 56 bytes: with the kernel's 48 of a hash element
/// and the key's 24 (kernel/bpf/hashtab.c) an entry stays within a 128-byte allocation.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Entry {
    /// [`Key::tag`] of the key it was made for. Before the count: the kernel fills memory that comes to
    /// serve another source from the front, so whoever takes a place in it sees the new tag.
    pub tag: u32,
    /// When a connection was last counted or let go, in seconds of `CLOCK_MONOTONIC`: the kernel's coarse one,
    /// which costs the path of a connection next to nothing.
    pub last_seen_s: u32,
    /// The live count; changed only by the steps of [`crate::count`].
    pub count: Count,
    /// When the source is due ([`crate::rate`]), in nanoseconds of `CLOCK_BOOTTIME`.
    pub due_ns: u64,
    /// Connections counted since the entry exists. Wraps.
    pub accepted: u32,
    /// The most connections that there were when one came since the history looked last; 0: none came. As
    /// [`Self::peak`].
    pub recent_peak: u32,
    /// SYNs refused since the entry exists. Wraps.
    pub refused: u32,
    /// The number under which its key is in the ring ([`crate::room`]), the low half.
    pub ring_number: u32,
    /// Completing ACKs held back at the gate since the entry exists.
    pub held: u32,
    /// The most connections at one time. Written without a lock: two CPUs may lose a peak by one.
    pub peak: u32,
    /// Of the connections, those that were let through where refusals are only counted.
    pub beyond: u32,
    /// How many such there were since the entry exists. Wraps.
    pub would_refuse: u32,
}

/// The count of a whole service, in a cache line of its own: every connection comes by.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Total {
    /// The live count; changed only by the steps of [`crate::count`].
    pub count: Count,
    /// The handshakes that wait for a place, whatever for, and nothing else: changed by the same steps.
    pub waiting: Count,
    /// Records of handshakes that were held back, in whatever state.
    pub records: u64,
    /// Of the connections, those that were let through where refusals are only counted.
    pub beyond: u32,
    /// Always 0.
    pub zero: [u32; 9],
}

/// What a connection holds. It gives back exactly what it took, whatever the policy says by then: see [`crate::ConnectionRecord`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct CountKeys {
    /// The source's entry, or the one it shares with others. Its service is the one whose total is counted.
    pub source: Key,
    /// Its network's entry; zeros (no service) where that is not counted.
    pub network: Key,
}

impl CountKeys {
    /// What a connection from `remote` to `service` is counted in, of which the rules say `scope`.
    #[inline(always)]
    #[must_use]
    pub const fn new(service: ServiceId, policy: &ServicePolicy, scope: Scope, remote: &Addr) -> Self {
        let prefix = scope.source_prefix;
        let has_network = policy.has_network() ^ scope.network_differs;
        let of_network = if has_network { Key::network(service, policy, prefix, remote) } else { Key::NONE };
        Self { source: Key::source(service, policy, prefix, remote), network: of_network }
    }

    /// The service.
    #[inline(always)]
    #[must_use]
    pub const fn service(&self) -> ServiceId {
        ServiceId(self.source.service)
    }

    /// The same for a source without an entry of its own, in one that it shares with others; `None` where that would
    /// be no coarser than the source. The entry stands for its network, too.
    #[inline(always)]
    #[must_use]
    pub const fn shared(&self, level: Level) -> Option<Self> {
        match self.source.shared(level) {
            Some(of_source) => Some(Self { source: of_source, network: Key::NONE }),
            None => None,
        }
    }

    /// Whether the network is counted, too.
    #[inline(always)]
    #[must_use]
    pub const fn has_network(&self) -> bool {
        self.network.service != 0
    }
}

/// A place reserved by the gate on one CPU, for the packet that CPU is handling.
///
/// The kernel turns the packet into a connection, or drops it, before the CPU handles another one
/// for a listener; so a pending reservation found by the next packet is one that came to nothing.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Pending {
    /// 0: none. Otherwise the number of the reservation on this CPU, so that it is taken once.
    pub generation: u64,
    /// Number of the last reservation on this CPU.
    pub last_generation: u64,
    /// What the handshake paid for its rate, in nanoseconds.
    pub paid_ns: u64,
    /// The peer whose ACK it is for.
    pub remote: Addr,
    /// The peer's port.
    pub remote_port: u32,
    /// What was reserved.
    pub count_keys: CountKeys,
    /// The peer's and the local port of the SYN that admission wants dropped, the latter in the low half;
    /// 0: none.
    pub drop_ports: u32,
    /// The peer whose SYN it is.
    pub drop_remote: Addr,
}

const _: () = assert!(size_of::<Entry>() == 56 && size_of::<Total>() == 64);

#[cfg(feature = "user")]
mod user {
    use super::{Entry, Pending, Total};

    // SAFETY: the types are `bytemuck::Pod`: any bytes are a value, and there is no padding.
    unsafe impl aya::Pod for Entry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Pending {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Total {}
}

#[cfg(test)]
pub(crate) mod tests {
    use core::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::{Rule, RuleMatch, Tier, rule::SourcePrefix, service::Prefixes};

    /// What rules may say of what makes a source, of each family.
    pub fn any_source_prefix() -> impl Strategy<Value = Option<(u8, u8)>> {
        prop::option::of((1u8..=32, 1u8..=128))
    }

    fn scope(source_prefix: u8) -> Scope {
        Scope { source_prefix, ..Scope::SERVICES }
    }

    /// The prefix of an address whose rule says so.
    pub fn prefix_of(own: Option<(u8, u8)>, remote: &Addr) -> u8 {
        let bits = own.map_or(0, |(v4, v6)| if remote.is_v4() { 96 + v4 } else { v6 });
        Rule { source_prefix: SourcePrefix::of_rule(bits), ..Rule::default() }.source_prefix(remote)
    }

    proptest! {
        #[test]
        fn a_source_lies_within_its_network_and_is_counted_apart_from_it(
            ip: IpAddr, ipv4 in 1u8..=32, ipv6 in 1u8..=128,
        ) {
            let policy = ServicePolicy {
                source: Prefixes { ipv4: 32, ipv6: 128 },
                network: Prefixes { ipv4, ipv6 },
                network_max_connections: 1,
                ..Default::default()
            };
            let count_keys = CountKeys::new(ServiceId(3), &policy, Scope::SERVICES, &Addr::from(ip));
            prop_assert!(count_keys.has_network() && count_keys.network.is_network() && !count_keys.source.is_network());
            prop_assert_ne!(count_keys.network, count_keys.source);
            prop_assert_eq!(count_keys.source.addr.cut(count_keys.network.prefix), count_keys.network.addr);
            let alone = ServicePolicy { network_max_connections: 0, ..policy };
            prop_assert!(!CountKeys::new(ServiceId(3), &alone, Scope::SERVICES, &Addr::from(ip)).has_network());
            // A rule may have a limit for networks where the service has none: the same network is counted.
            let by_rule = Scope { network_differs: true, ..Scope::SERVICES };
            prop_assert_eq!(CountKeys::new(ServiceId(3), &alone, by_rule, &Addr::from(ip)), count_keys);
            // Who is allowed takes no place in it.
            for policy in [policy, alone] {
                let allowed = Scope { source_prefix: 0, ..RuleMatch::ALLOW.scope(&policy) };
                prop_assert!(!CountKeys::new(ServiceId(3), &policy, allowed, &Addr::from(ip)).has_network());
            }
        }

        /// The rule's word on what makes a source counts for it, and for the network around it as far as it must.
        #[test]
        fn a_rule_makes_sources_of_its_own_that_lie_within_their_networks(
            ip: IpAddr, other: u128, own in any_source_prefix(),
            of_source in (1u8..=32, 1u8..=128), larger_by in (0u8..32, 0u8..128),
        ) {
            let of_network = Prefixes {
                ipv4: of_source.0.saturating_sub(larger_by.0).max(1), ipv6: of_source.1.saturating_sub(larger_by.1).max(1),
            };
            let of_source = Prefixes { ipv4: of_source.0, ipv6: of_source.1 };
            let policy = ServicePolicy { source: of_source, network: of_network, network_max_connections: 1, ..Default::default() };
            let remote = Addr::from(ip);
            let own = prefix_of(own, &remote);
            let count_keys = CountKeys::new(ServiceId(3), &policy, scope(own), &remote);
            let services = CountKeys::new(ServiceId(3), &policy, Scope::SERVICES, &remote);
            prop_assert_eq!(services.source.prefix, of_source.of(&remote.host()));
            prop_assert_eq!(count_keys.source.prefix, if own == 0 { services.source.prefix } else { own });
            prop_assert_eq!(count_keys.source.addr, remote.host().cut(count_keys.source.prefix));
            prop_assert_eq!(count_keys.source.addr.cut(count_keys.network.prefix), count_keys.network.addr);
            prop_assert!(count_keys.network.prefix != 0 && count_keys.network.prefix <= count_keys.source.prefix);
            if own != 0 && own < services.source.prefix {
                prop_assert_eq!(count_keys.network.prefix, services.network.prefix.min(own));
            } else {
                let distance = |count_keys: &CountKeys| count_keys.source.prefix - count_keys.network.prefix;
                prop_assert_eq!(distance(&count_keys), distance(&services));
            }
            // Whoever differs within the prefix alone is the same source, and nobody else is.
            let behind = if count_keys.source.prefix == 128 { 0 } else { u128::MAX >> count_keys.source.prefix };
            let bits = u128::from_be_bytes(bytemuck::cast(remote.host().0));
            let same = Addr(bytemuck::cast((bits & !behind | other & behind).to_be_bytes()));
            prop_assert_eq!(Key::at(ServiceId(3), Tier::Source, count_keys.source.prefix, &same), count_keys.source);
            let another = Addr(bytemuck::cast((bits ^ (behind + 1)).to_be_bytes()));
            prop_assert_ne!(Key::at(ServiceId(3), Tier::Source, count_keys.source.prefix, &another), count_keys.source);
        }

        #[test]
        fn what_a_translator_has_written_is_its_ipv4_host_whatever_a_rule_says(v4: u32, bits in 1u8..=128, site: u128) {
            let host = Addr::from(IpAddr::V4(v4.into()));
            prop_assume!(!host.is_loopback());
            let rule = Rule { source_prefix: SourcePrefix::of_rule(bits), ..Rule::default() };
            let site = site & (u128::MAX >> 48);
            for written in [0x0064_ff9b_u128 << 96 | u128::from(v4), 0x2002_u128 << 112 | u128::from(v4) << 80 | site] {
                prop_assert_eq!(rule.source_prefix(&Addr::from(IpAddr::V6(written.into()))), 0);
            }
            prop_assert_eq!(rule.source_prefix(&host), bits);
        }

        #[test]
        fn a_shared_entry_has_the_whole_source_in_it_and_is_nobodys_own(
            ip: IpAddr, ipv4 in 1u8..=32, ipv6 in 1u8..=128, own in any_source_prefix(),
        ) {
            let policy = ServicePolicy { source: Prefixes { ipv4, ipv6 }, ..Default::default() };
            let remote = Addr::from(ip);
            let own = prefix_of(own, &remote);
            let count_keys = CountKeys::new(ServiceId(1), &policy, scope(own), &remote);
            let shared: std::vec::Vec<_> = Level::ALL.into_iter().filter_map(|level| count_keys.shared(level)).collect();
            prop_assert_eq!(shared.last().map(|count_keys| count_keys.source.prefix_len()), Some(0));
            for (shared, level) in shared.iter().zip(Level::ALL.iter().skip(3 - shared.len())) {
                prop_assert!(shared.source.is_shared() && !shared.has_network() && shared.service() == count_keys.service());
                prop_assert!(shared.source.prefix <= count_keys.source.prefix);
                prop_assert_eq!(count_keys.source.addr.cut(shared.source.prefix), shared.source.addr);
                prop_assert_eq!(shared.source.level, level.number);
                prop_assert_ne!(shared.source, count_keys.source);
            }
        }

    }
}
