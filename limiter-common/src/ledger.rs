//! The ledger: for each (service, tier, source) the live count and what is known of the source.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Places, Scope, ServiceId, ServicePolicy, room::rooms};

/// Which of a service's limits a count belongs to.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// The source itself: /32 and /64 by default.
    Narrow = 0,
    /// The source's network: /24 and /48 by default.
    Wide = 1,
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
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::ALL[0],
            2 => Self::ALL[1],
            _ => Self::LAST,
        }
    }

    #[inline(always)]
    const fn prefix(self, source: &Addr) -> u8 {
        if source.is_v4() { self.ipv4 } else { self.ipv6 }
    }
}

/// What the ledger counts by. The prefix length is part of it: after a change of prefix, what was
/// counted under the old one is let go under the old one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
pub struct Key {
    /// The source: an address with the bits behind the prefix cleared.
    pub source: Addr,
    /// The service, a [`ServiceId`].
    pub service: u8,
    /// A [`Tier`].
    pub tier: u8,
    /// Prefix length of `source` as an IPv6 address: 96 + n for IPv4.
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
        Self { source: Addr([0; 4]), service: 0, tier: 0, prefix: 0, level: 0, zero: [0; 4] };

    /// The key under which a connection from `remote` to `service` is counted, whose rule says `own` of what makes a
    /// source of it ([`Scope::source_prefix`]).
    #[inline(always)]
    #[must_use]
    pub const fn narrow(service: ServiceId, policy: &ServicePolicy, own: u8, remote: &Addr) -> Self {
        let host = remote.host();
        let prefix = if own != 0 { own } else { policy.narrow.of(&host) };
        Self::at(service, Tier::Narrow, prefix, &host)
    }

    /// The key under which the network of `remote` is counted. It is as much larger than the source as the service says,
    /// if the source is smaller than the service's are, and never smaller than the source.
    #[inline(always)]
    #[must_use]
    pub const fn wide(service: ServiceId, policy: &ServicePolicy, own: u8, remote: &Addr) -> Self {
        let host = remote.host();
        let (narrow, wide) = (policy.narrow.of(&host), policy.wide.of(&host));
        let prefix = if own == 0 {
            wide
        } else {
            let moved = wide.wrapping_add(own.saturating_sub(narrow));
            if moved < own { moved } else { own }
        };
        Self::at(service, Tier::Wide, prefix, &host)
    }

    /// The name of a service's total, for whom it is a count like others.
    #[must_use]
    pub const fn total(service: ServiceId) -> Self {
        Self {
            source: Addr([0; 4]),
            service: service.0,
            tier: Tier::Total as u8,
            prefix: 0,
            level: 0,
            zero: [0; 4],
        }
    }

    /// Whether this is the network of a source, not the source itself.
    #[must_use]
    pub const fn is_wide(&self) -> bool {
        self.tier == Tier::Wide as u8
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
        let prefix = level.prefix(&self.source);
        if prefix >= self.prefix && level.number != Level::LAST.number {
            return false;
        }
        self.source = self.source.cut(prefix);
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
    const fn at(service: ServiceId, tier: Tier, prefix: u8, remote: &Addr) -> Self {
        Self {
            source: remote.cut(prefix),
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
        let [a, b, c, d] = self.source.0;
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

    /// Prefix length as people write it: 0 to 32 for IPv4, 0 to 128 for IPv6.
    #[must_use]
    pub const fn prefix_len(&self) -> u8 {
        if self.source.is_v4() && self.prefix >= 96 { self.prefix - 96 } else { self.prefix }
    }
}

/// What is known of one source, or of one network. 48 bytes: with the kernel's 48 of a hash element
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
    /// The live count; changed only by the steps of [`crate::places`].
    pub places: Places,
    /// When the source is due ([`crate::rate`]), in nanoseconds of `CLOCK_BOOTTIME`.
    pub due_ns: u64,
    /// Connections counted since the entry exists.
    pub accepted: u64,
    /// SYNs refused since the entry exists. Wraps.
    pub refused: u32,
    /// The number under which its key is noted in the ring ([`crate::room`]), the low half.
    pub noted: u32,
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
    /// The live count; changed only by the steps of [`crate::places`].
    pub places: Places,
    /// The handshakes that wait for a place, whatever for, and nothing else: changed by the same steps.
    pub room: Places,
    /// Records of handshakes that were held back, in whatever state.
    pub records: u64,
    /// Of the connections, those that were let through where refusals are only counted.
    pub beyond: u32,
    /// Always 0.
    pub zero: [u32; 9],
}

/// What a connection holds. It gives back exactly what it took, whatever the policy says by then: see [`Note`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Claim {
    /// The source's entry, or the one it shares with others. Its service is the one whose total is counted.
    pub narrow: Key,
    /// Its network's entry; zeros (no service) where that is not counted.
    pub wide: Key,
}

impl Claim {
    /// What a connection from `remote` to `service` is counted in, of which the rules say `scope`.
    #[inline(always)]
    #[must_use]
    pub const fn new(service: ServiceId, policy: &ServicePolicy, scope: Scope, remote: &Addr) -> Self {
        let own = scope.source_prefix;
        let has_wide = policy.has_network() | scope.has_network;
        let wide = if has_wide { Key::wide(service, policy, own, remote) } else { Key::NONE };
        Self { narrow: Key::narrow(service, policy, own, remote), wide }
    }

    /// The service.
    #[inline(always)]
    #[must_use]
    pub const fn service(&self) -> ServiceId {
        ServiceId(self.narrow.service)
    }

    /// The same for a source without an entry of its own, in one that it shares with others; `None` where that would
    /// be no coarser than the source. The entry stands for its network, too.
    #[inline(always)]
    #[must_use]
    pub const fn shared(&self, level: Level) -> Option<Self> {
        match self.narrow.shared(level) {
            Some(narrow) => Some(Self { narrow, wide: Key::NONE }),
            None => None,
        }
    }

    /// Whether the network is counted, too.
    #[inline(always)]
    #[must_use]
    pub const fn has_wide(&self) -> bool {
        self.wide.service != 0
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
    pub ticket: u64,
    /// Number of the last reservation on this CPU.
    pub last_ticket: u64,
    /// What the handshake paid for its rate, in nanoseconds.
    pub paid_ns: u64,
    /// The peer whose ACK it is for.
    pub remote: Addr,
    /// The peer's port.
    pub remote_port: u32,
    /// What was reserved.
    pub claim: Claim,
    /// The peer's and the local port of the SYN that admission wants dropped, the latter in the low half;
    /// 0: none.
    pub doomed_ports: u32,
    /// The peer whose SYN it is.
    pub doomed: Addr,
}

/// What the limiter has noted on a connection, under its socket's cookie, from establishment until the mail
/// daemon lets go of it. Together with the peer's address, which the socket knows, it says what the connection
/// is counted in.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Note {
    /// One of [`note`].
    pub state: u8,
    /// The service, a [`ServiceId`].
    service: u8,
    /// Prefix length of the source, as in [`Key`]; or [`Note::SHARED`] and a [`Level`]'s number.
    narrow: u8,
    /// Prefix length of its network; 0 where that is not counted.
    wide: u8,
}

/// States of a [`Note`].
pub mod note {
    /// The socket is counted in its claim.
    pub const COUNTED: u8 = 1;
    /// The socket is counted in its claim, and was found by the census on a kernel that will not report
    /// how its state changes.
    pub const ADOPTED: u8 = 2;
    /// The socket is counted in its claim, and beyond a limit: its service only observed, and the verdict on it was a
    /// refusal.
    pub const OBSERVED: u8 = 3;
    /// The socket has given its place back, and the note is about to go.
    pub const RELEASED: u8 = 4;
}

impl Note {
    /// All of it in a word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u32 {
        u32::from_le_bytes([self.state, self.service, self.narrow, self.wide])
    }

    /// What such a word says.
    #[inline(always)]
    #[must_use]
    pub const fn of_word(word: u32) -> Self {
        let [state, service, narrow, wide] = word.to_le_bytes();
        Self { state, service, narrow, wide }
    }

    /// The longest prefix; with the number of a [`Level`] added, that.
    const SHARED: u8 = 128;

    /// The note in this state on a connection that is counted in `claim`, or would be.
    #[inline(always)]
    #[must_use]
    pub const fn new(state: u8, claim: &Claim) -> Self {
        let key = &claim.narrow;
        // Calculated: for the verifier every branch is another way through what follows.
        let shared = 0_u8.wrapping_sub((key.level + 3) >> 2);
        let narrow = key.prefix & !shared | (Self::SHARED + key.level) & shared;
        Self { state, service: key.service, narrow, wide: claim.wide.prefix }
    }

    /// The service.
    #[inline(always)]
    #[must_use]
    pub const fn service(&self) -> ServiceId {
        ServiceId(self.service)
    }

    /// Whether the connection holds its claim.
    #[inline(always)]
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        matches!(self.state, note::COUNTED | note::ADOPTED | note::OBSERVED)
    }

    /// Whether it was let through beyond a limit, because its service only observed.
    #[inline(always)]
    #[must_use]
    pub const fn is_beyond(&self) -> bool {
        self.state == note::OBSERVED
    }

    /// Whether it is counted in an entry that its source shares with others.
    #[inline(always)]
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.narrow > Self::SHARED
    }

    /// What the connection from `remote` is counted in.
    #[inline(always)]
    #[must_use]
    pub const fn claim(&self, remote: &Addr) -> Claim {
        let (service, remote) = (ServiceId(self.service), &remote.host());
        if self.is_shared() {
            let level = Level::of(self.narrow - Self::SHARED);
            let narrow =
                Key { level: level.number, ..Key::at(service, Tier::Narrow, level.prefix(remote), remote) };
            return Claim { narrow, wide: Key::NONE };
        }
        let narrow = Key::at(service, Tier::Narrow, self.narrow, remote);
        let wide = if self.wide == 0 { Key::NONE } else { Key::at(service, Tier::Wide, self.wide, remote) };
        Claim { narrow, wide }
    }
}

/// What is kept for a socket that will report no change of state: its connection is dead, or older than the
/// limiter on a kernel that does not report such. There may be no socket left to ask for the address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Kept {
    /// The peer.
    pub remote: Addr,
    /// What was noted.
    pub note: Note,
    /// Always 0.
    pub zero: u32,
}

impl Kept {
    /// What is noted on a connection from `remote`.
    #[inline(always)]
    #[must_use]
    pub const fn new(note: Note, remote: Addr) -> Self {
        Self { remote, note, zero: 0 }
    }

    /// What the connection is counted in.
    #[inline(always)]
    #[must_use]
    pub const fn claim(&self) -> Claim {
        self.note.claim(&self.remote)
    }
}

const _: () = assert!(size_of::<Key>() == 24 && size_of::<Entry>() == 56 && size_of::<Total>() == 64);
const _: () = assert!(size_of::<Note>() == 4 && size_of::<Kept>() == 24);

#[cfg(feature = "user")]
mod user {
    use super::{Entry, Kept, Key, Note, Pending, Total};

    // SAFETY: the types are `bytemuck::Pod`: any bytes are a value, and there is no padding.
    unsafe impl aya::Pod for Key {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Entry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Note {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Kept {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Pending {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Total {}
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::{Rule, rule::SourcePrefix, service::Prefixes};

    fn key(ip: IpAddr) -> Key {
        let policy = ServicePolicy { narrow: Prefixes { ipv4: 32, ipv6: 64 }, ..Default::default() };
        Key::narrow(ServiceId(1), &policy, 0, &Addr::from(ip))
    }

    /// What rules may say of what makes a source, of each family.
    fn any_own() -> impl Strategy<Value = Option<(u8, u8)>> {
        prop::option::of((1u8..=32, 1u8..=128))
    }

    fn scope(source_prefix: u8) -> Scope {
        Scope { source_prefix, has_network: false }
    }

    /// The prefix of an address whose rule says so.
    fn prefix_of(own: Option<(u8, u8)>, remote: &Addr) -> u8 {
        let bits = own.map_or(0, |(v4, v6)| if remote.is_v4() { 96 + v4 } else { v6 });
        Rule { source_prefix: SourcePrefix::own(bits), ..Rule::default() }.source_prefix(remote)
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
        fn a_source_lies_within_its_network_and_is_counted_apart_from_it(
            ip: IpAddr, ipv4 in 1u8..=32, ipv6 in 1u8..=128,
        ) {
            let policy = ServicePolicy {
                narrow: Prefixes { ipv4: 32, ipv6: 128 },
                wide: Prefixes { ipv4, ipv6 },
                network_max_connections: 1,
                ..Default::default()
            };
            let claim = Claim::new(ServiceId(3), &policy, Scope::SERVICES, &Addr::from(ip));
            prop_assert!(claim.has_wide() && claim.wide.is_wide() && !claim.narrow.is_wide());
            prop_assert_ne!(claim.wide, claim.narrow);
            prop_assert_eq!(claim.narrow.source.cut(claim.wide.prefix), claim.wide.source);
            let alone = ServicePolicy { network_max_connections: 0, ..policy };
            prop_assert!(!Claim::new(ServiceId(3), &alone, Scope::SERVICES, &Addr::from(ip)).has_wide());
            // A rule may have a limit for networks where the service has none: the same network is counted.
            let by_rule = Scope { has_network: true, ..Scope::SERVICES };
            prop_assert_eq!(Claim::new(ServiceId(3), &alone, by_rule, &Addr::from(ip)), claim);
        }

        #[test]
        fn a_note_and_the_peers_address_say_what_was_claimed(
            ip: IpAddr, v4: u32, service in 1u8..64, narrow in (1u8..=32, 1u8..=128), wide in (1u8..=32, 1u8..=128),
            network_max_connections in 0u32..2, has_network: bool, own in any_own(),
        ) {
            let prefixes = |(ipv4, ipv6)| Prefixes { ipv4, ipv6 };
            let policy = ServicePolicy {
                narrow: prefixes(narrow), wide: prefixes(wide), network_max_connections, ..Default::default()
            };
            let claim_of =
                |remote: &Addr| Claim::new(ServiceId(service), &policy, Scope { source_prefix: prefix_of(own, remote), has_network }, remote);
            let translated = 0x0064_ff9b_u128 << 96 | u128::from(v4);
            let translated = Addr::from(IpAddr::V6(translated.into()));
            prop_assert_eq!(Note::new(note::COUNTED, &claim_of(&translated)).claim(&translated), claim_of(&translated));
            let remote = Addr::from(ip);
            let claim = claim_of(&remote);
            let noted = Note::new(note::COUNTED, &claim);
            prop_assert_eq!(noted.claim(&remote), claim);
            prop_assert_eq!(Note::of_word(noted.word()), noted);
            for shared in Level::ALL.into_iter().filter_map(|level| claim.shared(level)) {
                prop_assert_eq!(Note::new(note::COUNTED, &shared).claim(&remote), shared);
            }
        }

        /// The rule's word on what makes a source counts for it, and for the network around it as far as it must.
        #[test]
        fn a_rule_makes_sources_of_its_own_that_lie_within_their_networks(
            ip: IpAddr, other: u128, own in any_own(),
            narrow in (1u8..=32, 1u8..=128), larger_by in (0u8..32, 0u8..128),
        ) {
            let wide = Prefixes {
                ipv4: narrow.0.saturating_sub(larger_by.0).max(1), ipv6: narrow.1.saturating_sub(larger_by.1).max(1),
            };
            let narrow = Prefixes { ipv4: narrow.0, ipv6: narrow.1 };
            let policy = ServicePolicy { narrow, wide, network_max_connections: 1, ..Default::default() };
            let remote = Addr::from(ip);
            let own = prefix_of(own, &remote);
            let claim = Claim::new(ServiceId(3), &policy, scope(own), &remote);
            let services = Claim::new(ServiceId(3), &policy, Scope::SERVICES, &remote);
            prop_assert_eq!(services.narrow.prefix, narrow.of(&remote.host()));
            prop_assert_eq!(claim.narrow.prefix, if own == 0 { services.narrow.prefix } else { own });
            prop_assert_eq!(claim.narrow.source, remote.host().cut(claim.narrow.prefix));
            prop_assert_eq!(claim.narrow.source.cut(claim.wide.prefix), claim.wide.source);
            prop_assert!(claim.wide.prefix != 0 && claim.wide.prefix <= claim.narrow.prefix);
            if own != 0 && own < services.narrow.prefix {
                prop_assert_eq!(claim.wide.prefix, services.wide.prefix.min(own));
            } else {
                let distance = |claim: &Claim| claim.narrow.prefix - claim.wide.prefix;
                prop_assert_eq!(distance(&claim), distance(&services));
            }
            // Whoever differs within the prefix alone is the same source, and nobody else is.
            let behind = if claim.narrow.prefix == 128 { 0 } else { u128::MAX >> claim.narrow.prefix };
            let bits = u128::from_be_bytes(bytemuck::cast(remote.host().0));
            let same = Addr(bytemuck::cast((bits & !behind | other & behind).to_be_bytes()));
            prop_assert_eq!(Key::at(ServiceId(3), Tier::Narrow, claim.narrow.prefix, &same), claim.narrow);
            let another = Addr(bytemuck::cast((bits ^ (behind + 1)).to_be_bytes()));
            prop_assert_ne!(Key::at(ServiceId(3), Tier::Narrow, claim.narrow.prefix, &another), claim.narrow);
        }

        #[test]
        fn what_a_translator_has_written_is_its_ipv4_host_whatever_a_rule_says(v4: u32, bits in 1u8..=128, site: u128) {
            let host = Addr::from(IpAddr::V4(v4.into()));
            prop_assume!(!host.is_loopback());
            let rule = Rule { source_prefix: SourcePrefix::own(bits), ..Rule::default() };
            let site = site & (u128::MAX >> 48);
            for written in [0x0064_ff9b_u128 << 96 | u128::from(v4), 0x2002_u128 << 112 | u128::from(v4) << 80 | site] {
                prop_assert_eq!(rule.source_prefix(&Addr::from(IpAddr::V6(written.into()))), 0);
            }
            prop_assert_eq!(rule.source_prefix(&host), bits);
        }

        #[test]
        fn a_shared_entry_has_the_whole_source_in_it_and_is_nobodys_own(
            ip: IpAddr, ipv4 in 1u8..=32, ipv6 in 1u8..=128, own in any_own(),
        ) {
            let policy = ServicePolicy { narrow: Prefixes { ipv4, ipv6 }, ..Default::default() };
            let remote = Addr::from(ip);
            let own = prefix_of(own, &remote);
            let claim = Claim::new(ServiceId(1), &policy, scope(own), &remote);
            let shared: std::vec::Vec<_> = Level::ALL.into_iter().filter_map(|level| claim.shared(level)).collect();
            prop_assert_eq!(shared.last().map(|claim| claim.narrow.prefix_len()), Some(0));
            for (shared, level) in shared.iter().zip(Level::ALL.iter().skip(3 - shared.len())) {
                prop_assert!(shared.narrow.is_shared() && !shared.has_wide() && shared.service() == claim.service());
                prop_assert!(shared.narrow.prefix <= claim.narrow.prefix);
                prop_assert_eq!(claim.narrow.source.cut(shared.narrow.prefix), shared.narrow.source);
                prop_assert_eq!(shared.narrow.level, level.number);
                prop_assert_ne!(shared.narrow, claim.narrow);
            }
        }

        #[test]
        fn ipv4_hosts_are_sources_of_their_own(a: u32, b: u32) {
            prop_assert_eq!(key(IpAddr::V4(a.into())) == key(IpAddr::V4(b.into())), a == b);
            prop_assert_eq!(key(IpAddr::V4(a.into())).prefix_len(), 32);
        }
    }
}
