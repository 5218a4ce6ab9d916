// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rules: what the admin says of a network. The longest prefix wins.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Rate, ServiceId, ServicePolicy, names::names};

/// A network as the kernel looks it up (`struct bpf_lpm_trie_key_u8`, include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord, Pod, Zeroable)]
pub struct Network {
    /// Prefix length as of an IPv6 address, 0 to 128: 96 + n for IPv4.
    pub prefix: u32,
    /// The address, with the bits behind the prefix cleared.
    pub addr: Addr,
}

impl Network {
    /// The network of one address.
    #[inline(always)]
    #[must_use]
    pub const fn of(addr: Addr) -> Self {
        Self { prefix: 128, addr }
    }

    /// Prefix length as people write it: 0 to 32 for IPv4, 0 to 128 for IPv6.
    #[must_use]
    pub const fn prefix_len(&self) -> u32 {
        if self.addr.is_v4() && self.prefix >= 96 { self.prefix - 96 } else { self.prefix }
    }

    /// Whether it holds all of `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && other.addr.cut(self.prefix as u8) == self.addr
    }
}

/// As people write it: `192.0.2.0/24`, `2001:db8::/32`.
#[cfg(feature = "user")]
impl core::fmt::Display for Network {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // With the width that is asked for.
        out.pad(&std::format!("{}/{}", self.addr, self.prefix_len()))
    }
}

/// What becomes of a source, whatever it holds.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It has limits, its own or the service's.
    Limit = 0,
    /// It has none (law 4).
    Allow = 1,
    /// It gets nothing.
    Deny = 2,
}

names!(Action { Limit => "limit", Allow => "allow", Deny => "deny" });

impl Action {
    /// From its number in [`Rule::action`].
    #[inline(always)]
    #[must_use]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Allow,
            2 => Self::Deny,
            _ => Self::Limit,
        }
    }
}

/// What a rule says: an entry of the rules' trie, found by the longest prefix. What a shorter rule says
/// and this one does not is in it already.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Rule {
    /// Services with limits of their own, a bit each: the [`RuleLimits`] are found by `id`. Bit 0: there are some for
    /// all other services, beside `max_connections`.
    pub limited: u64,
    /// Number of the rule's limits.
    pub id: u32,
    /// Connections a source may hold to each of the other services; what they say where it is not said.
    pub max_connections: Limit,
    /// An [`Action`].
    pub action: u8,
    /// [`Self::BUILT_IN`] and [`Self::LOCAL`], or 0: a rule of the admin's for others.
    pub origin: u8,
    /// What makes a source in its network; none: what the services say.
    pub source_prefix: SourcePrefix,
    /// Always 0.
    pub zero: [u8; 4],
}

/// A limit of a rule, and whether it is the rule's own or what a shorter rule says.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Limit(u32);

impl Limit {
    const INHERITED: u32 = 1 << 31;

    /// The rule says nothing.
    pub const UNSET: Self = Self(0);
    /// The rule says that there is no limit.
    pub const NONE: Self = Self(!Self::INHERITED);

    /// The rule's own limit, 1 to [`crate::ServicePolicy::MAX_LIMIT`]; 0: [`Self::UNSET`].
    #[must_use]
    pub const fn of_rule(connections: u32) -> Self {
        Self(connections)
    }

    /// The same limit, as one that a longer rule inherits.
    #[must_use]
    pub const fn inherited(self) -> Self {
        if self.is_set() { Self(self.0 | Self::INHERITED) } else { self }
    }

    /// Whether the rule, or a shorter one, says anything.
    #[inline(always)]
    #[must_use]
    pub const fn is_set(self) -> bool {
        self.0 != 0
    }

    /// Connections, `u32::MAX` where there is no limit; 0: it is not said.
    #[inline(always)]
    #[must_use]
    pub const fn connections(self) -> u32 {
        let connections = self.0 & !Self::INHERITED;
        if connections == Self::NONE.0 { u32::MAX } else { connections }
    }

    /// Whether it is a number of connections.
    #[inline(always)]
    #[must_use]
    pub const fn is_number(self) -> bool {
        let connections = self.connections();
        connections != 0 && connections != u32::MAX
    }

    /// Whether it is what a shorter rule says.
    #[must_use]
    pub const fn is_inherited(self) -> bool {
        self.0 & Self::INHERITED != 0
    }
}

/// Who has said something: nobody, the rule itself, or a shorter one.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Origin(u8);

impl Origin {
    /// Nobody.
    pub const UNSET: Self = Self(0);
    /// The rule.
    pub const ITSELF: Self = Self(1);
    /// A shorter rule.
    pub const INHERITED: Self = Self(2);
}

/// A rate of a rule, and who says so.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct RuleRate {
    rate: Rate,
    origin: Origin,
    zero: [u8; 7],
}

impl RuleRate {
    /// The rule says nothing.
    pub const UNSET: Self = Self::from(Rate { interval_ns: 0, tolerance_ns: 0 }, Origin::UNSET);

    /// The rule's own; without a limit if `rate` has none.
    #[must_use]
    pub const fn of_rule(rate: Rate) -> Self {
        Self::from(rate, Origin::ITSELF)
    }

    /// The same, as what a longer rule inherits.
    #[must_use]
    pub const fn inherited(self) -> Self {
        if self.is_set() { Self::from(self.rate, Origin::INHERITED) } else { self }
    }

    /// Whether the rule, or a shorter one, says anything.
    #[inline(always)]
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.origin.0 != Origin::UNSET.0
    }

    /// Whether it is what a shorter rule says.
    #[must_use]
    pub const fn is_inherited(&self) -> bool {
        self.origin.0 == Origin::INHERITED.0
    }

    /// The rate; `None`: it is not said.
    #[must_use]
    pub const fn get(&self) -> Option<Rate> {
        if self.is_set() { Some(self.rate) } else { None }
    }

    const fn from(rate: Rate, origin: Origin) -> Self {
        Self { rate, origin, zero: [0; 7] }
    }
}

/// What a rule says of limits, at one service or at all others. What is not said, the service says.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct RuleLimits {
    /// How fast one source may connect.
    pub rate: RuleRate,
    /// Connections one source may hold.
    pub max_connections: Limit,
    /// Connections the network around a source may hold, for that source to get in.
    pub network: Limit,
}

const _: () = assert!(size_of::<RuleLimits>() == 32);

impl RuleLimits {
    /// Nothing.
    pub const UNSET: Self =
        Self { rate: RuleRate::UNSET, max_connections: Limit::UNSET, network: Limit::UNSET };

    /// Nothing but how many connections a source may hold.
    #[must_use]
    pub const fn connections(max_connections: Limit) -> Self {
        Self { max_connections, ..Self::UNSET }
    }

    /// Whether anything is said.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self != Self::UNSET
    }

    /// These, and what `others` say where these say nothing.
    #[must_use]
    pub const fn or(self, others: &Self) -> Self {
        Self {
            rate: if self.rate.is_set() { self.rate } else { others.rate },
            max_connections: if self.max_connections.is_set() {
                self.max_connections
            } else {
                others.max_connections
            },
            network: if self.network.is_set() { self.network } else { others.network },
        }
    }

    /// Of these what `others` leave unsaid.
    #[must_use]
    pub const fn unset_by(self, others: &Self) -> Self {
        self.keep(!others.rate.is_set(), !others.max_connections.is_set(), !others.network.is_set())
    }

    /// Of these the ones that are to be kept.
    const fn keep(self, rate: bool, max_connections: bool, network: bool) -> Self {
        Self {
            rate: if rate { self.rate } else { RuleRate::UNSET },
            max_connections: if max_connections { self.max_connections } else { Limit::UNSET },
            network: if network { self.network } else { Limit::UNSET },
        }
    }

    /// The same, as what a longer rule inherits.
    #[must_use]
    pub const fn inherited(self) -> Self {
        Self {
            rate: self.rate.inherited(),
            max_connections: self.max_connections.inherited(),
            network: self.network.inherited(),
        }
    }

    /// Without what a shorter rule says.
    #[must_use]
    pub const fn without_inherited(self) -> Self {
        self.keep(
            !self.rate.is_inherited(),
            !self.max_connections.is_inherited(),
            !self.network.is_inherited(),
        )
    }
}

/// What makes a source in the network of a rule, and whether it is the rule's own word or what a shorter rule says.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct SourcePrefix {
    bits: u8,
    is_inherited: u8,
}

impl SourcePrefix {
    /// What the services say.
    pub const NONE: Self = Self { bits: 0, is_inherited: 0 };

    /// The rule's own: prefix length as of an IPv6 address, 1 to 128, 96 + n for IPv4.
    #[must_use]
    pub const fn of_rule(bits: u8) -> Self {
        Self { bits, is_inherited: 0 }
    }

    /// The same, as what a longer rule inherits.
    #[must_use]
    pub const fn inherited(self) -> Self {
        Self { bits: self.bits, is_inherited: (self.bits != 0) as u8 }
    }

    /// Prefix length as of an IPv6 address; 0: there is none.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Whether it is what a shorter rule says.
    #[must_use]
    pub const fn is_inherited(self) -> bool {
        self.is_inherited != 0
    }
}

impl Rule {
    /// Of [`Self::origin`]: it is not the admin's.
    pub const BUILT_IN: u8 = 1;
    /// Of [`Self::origin`]: its network is one of the host's local addresses, whoever has made the rule.
    pub const LOCAL: u8 = 2;

    /// Whether it is for one of the host's local addresses.
    #[inline(always)]
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.origin & Self::LOCAL != 0
    }

    /// Whether an address, whose rule this is, is allowed as the host that talks to itself, if it `is_local`
    /// ([`Addr::is_local`]), whatever rules for larger networks say: only the admin's word on exactly this address counts
    /// for more. A local address for one link only may be a neighbour's on another, so its rule allows nothing; but who
    /// connects *to* its local address is the host.
    #[inline(always)]
    #[must_use]
    pub const fn allows_itself(&self, is_local: bool) -> bool {
        self.origin == Self::BUILT_IN | Self::LOCAL && is_local
    }

    /// What makes a source of `remote`, whose rule this is: prefix length as of an IPv6 address; 0: what the service
    /// says. What a translator or a 6to4 router has written is its IPv4 host, whatever rules say of IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn source_prefix(&self, remote: &Addr) -> u8 {
        if remote.is_translated() { 0 } else { self.source_prefix.bits() }
    }

    /// Whether the rule has limits for `service`; for service 0: for all others, beside `max_connections`.
    #[inline(always)]
    #[must_use]
    pub const fn limits(&self, service: ServiceId) -> bool {
        self.limited >> (service.0 & 63) & 1 != 0
    }
}

/// Whose limits: a rule's, for one service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Pod, Zeroable)]
pub struct RuleService {
    /// [`Rule::id`].
    pub rule: u32,
    /// A [`ServiceId`]; 0: every service that the rule has no other limits for.
    pub service: u32,
}

/// What the rules say of where a source is counted at one service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Scope {
    /// Prefix length that makes a source of it, as of an IPv6 address; 0: what the service says. The same for one
    /// address at all services, whatever it connects to.
    pub source_prefix: u8,
    /// Whether its network is counted at a service that does not count it, or is not at one that does.
    pub network_differs: bool,
}

impl Scope {
    /// No rule says anything.
    pub const SERVICES: Self = Self { source_prefix: 0, network_differs: false };

    /// It and what becomes of the source in one word, as a function of the kernel's can return it.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, action: Action) -> u64 {
        self.source_prefix as u64 | (self.network_differs as u64) << 8 | (action as u64) << 16
    }

    /// What such a word says.
    #[inline(always)]
    #[must_use]
    pub const fn of_word(word: u64) -> (Self, Action) {
        let scope = Self { source_prefix: word as u8, network_differs: word >> 8 & 1 != 0 };
        (scope, Action::from_u8((word >> 16) as u8))
    }
}

/// Whether the network of a source is counted, whatever the service says, where a rule says `one` for this service alone,
/// and where that says nothing `all` for every service.
#[inline(always)]
#[must_use]
pub const fn has_network(one: Option<&RuleLimits>, all: Option<&RuleLimits>) -> bool {
    match (one, all) {
        (Some(one), _) if one.network.is_set() => one.network.is_number(),
        (_, Some(all)) => all.network.is_number(),
        _ => false,
    }
}

/// What the rules say of one source at one service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleMatch {
    /// What becomes of it.
    pub action: Action,
    /// What makes a source of it: [`Scope::source_prefix`].
    pub source_prefix: u8,
    /// Its limits.
    pub limits: RuleLimits,
}

impl RuleMatch {
    /// No rule says anything.
    pub const NONE: Self = Self { action: Action::Limit, source_prefix: 0, limits: RuleLimits::UNSET };
    /// It is allowed, as the host that talks to itself is.
    pub const ALLOW: Self = Self { action: Action::Allow, source_prefix: 128, ..Self::NONE };

    /// Where the source is counted at a service with this policy. One that is allowed is not counted in its network: it is
    /// held to no limit, and takes no place from its neighbours.
    #[must_use]
    pub const fn scope(&self, policy: &ServicePolicy) -> Scope {
        let has_network = match self.action {
            Action::Limit => policy.has_network() || has_network(Some(&self.limits), None),
            Action::Allow => false,
            Action::Deny => policy.has_network(),
        };
        Scope { source_prefix: self.source_prefix, network_differs: has_network != policy.has_network() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use core::net::IpAddr;
    #[cfg(feature = "user")]
    use std::{format, string::ToString as _};

    use proptest::prelude::*;

    use super::*;

    fn limit(number: Option<u32>) -> Limit {
        match number {
            None => Limit::UNSET,
            Some(0) => Limit::NONE,
            Some(number) => Limit::of_rule(number),
        }
    }

    pub fn any_limits() -> impl Strategy<Value = RuleLimits> {
        let number = || prop::option::of(0u32..30);
        (number(), number(), prop::option::of((0u32..100, 1u32..5))).prop_map(
            |(connections, network, rate)| {
                let of =
                    |(count, burst)| if count == 0 { Rate::default() } else { Rate::new(count, 60, burst) };
                let rate = rate.map_or(RuleRate::UNSET, |said| RuleRate::of_rule(of(said)));
                let max_connections = Limit::of_rule(connections.unwrap_or(0));
                RuleLimits { rate, max_connections, network: limit(network) }
            },
        )
    }

    #[test]
    fn a_network_has_the_prefix_length_that_people_write() {
        let network = |text: &str, prefix| Network { prefix, addr: text.parse::<IpAddr>().unwrap().into() };
        for (network, length) in [
            (network("192.0.2.0", 120), 24),
            (network("0.0.0.0", 96), 0),
            (network("2001:db8::", 32), 32),
            (network("::", 0), 0),
        ] {
            assert_eq!(network.prefix_len(), length, "{network:?}");
        }
    }

    #[cfg(feature = "user")]
    proptest! {
        #[test]
        fn networks_and_addresses_are_printed_as_people_write_them(ip: IpAddr, prefix in 0u32..=128, width in 0usize..60) {
            let addr = Addr::from(ip);
            let usual = ip.to_canonical().to_string();
            prop_assert_eq!(addr.to_string(), usual.clone());
            prop_assert_eq!(format!("{addr:>width$}|"), format!("{usual:>width$}|"));
            let bits = if addr.is_v4() { 96 + prefix % 33 } else { prefix };
            let usual = format!("{usual}/{}", if addr.is_v4() { prefix % 33 } else { prefix });
            prop_assert_eq!(Network { prefix: bits, addr }.to_string(), usual.clone());
            prop_assert_eq!(format!("{:<width$}|", Network { prefix: bits, addr }), format!("{usual:<width$}|"));
        }
    }

    proptest! {
        #[test]
        fn where_a_source_is_counted_goes_into_a_word_and_comes_out_of_it(
            action in 0u8..3, source_prefix: u8, network_differs: bool,
        ) {
            let (scope, action) = (Scope { source_prefix, network_differs }, Action::from_u8(action));
            prop_assert_eq!(Scope::of_word(scope.word(action)), (scope, action));
            prop_assert_eq!(Scope::of_word(0), (Scope::SERVICES, Action::Limit));
        }

        /// What is said stays, what is not is taken from others; and what is inherited can be told from it, and means
        /// the same.
        #[test]
        fn what_a_rule_leaves_unsaid_is_what_others_say(own in any_limits(), others in any_limits()) {
            let (one, all) = (own, others);
            let both = own.or(&others.inherited());
            prop_assert_eq!(both.without_inherited(), own);
            prop_assert_eq!(others.inherited().without_inherited(), RuleLimits::UNSET);
            let meant = |limits: &RuleLimits| {
                (limits.rate.get(), limits.max_connections.connections(), limits.network.connections())
            };
            prop_assert_eq!(meant(&both), meant(&own.or(&others)));
            let (own, others, both) = (meant(&own), meant(&others), meant(&both));
            prop_assert_eq!(both.0, own.0.or(others.0));
            prop_assert_eq!(both.1, if own.1 == 0 { others.1 } else { own.1 });
            prop_assert_eq!(both.2, if own.2 == 0 { others.2 } else { own.2 });
            let said = |one: Option<RuleLimits>, all: Option<RuleLimits>| {
                let limits = one.unwrap_or(RuleLimits::UNSET).or(&all.unwrap_or(RuleLimits::UNSET));
                let rule_match = RuleMatch { limits, ..RuleMatch::NONE };
                (has_network(one.as_ref(), all.as_ref()), rule_match.scope(&ServicePolicy::default()).network_differs)
            };
            for (one, all) in [(None, None), (Some(one), None), (None, Some(all)), (Some(one), Some(all))] {
                let (found, expected) = said(one, all);
                prop_assert_eq!(found, expected);
            }
        }
    }
}

#[cfg(feature = "user")]
mod user {
    use super::{Network, Rule, RuleLimits, RuleService};

    // SAFETY: the types are `bytemuck::Pod`: any bytes are a value, and there is no padding.
    unsafe impl aya::Pod for Network {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Rule {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RuleLimits {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RuleService {}
}
