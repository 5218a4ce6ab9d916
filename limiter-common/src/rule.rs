//! Rules: what the admin says of a network. The longest prefix wins.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, ServiceId};

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

    /// Whether it holds all of `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && other.addr.cut(self.prefix as u8) == self.addr
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
    /// Services with a limit of their own, a bit each: the limit is found by `id`.
    pub limited: u64,
    /// Number of the rule's limits.
    pub id: u32,
    /// Connections a source may hold to each of the other services, as a [`Limit`]; 0: what they say.
    pub max_connections: Limit,
    /// An [`Action`].
    pub action: u8,
    /// [`Self::BUILT_IN`] and [`Self::OWN`], or 0: a rule of the admin's for others.
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

    /// The rule's own limit, 1 to [`crate::ServicePolicy::MAX_LIMIT`].
    #[must_use]
    pub const fn own(connections: u32) -> Self {
        Self(connections)
    }

    /// The same limit, as one that a longer rule inherits.
    #[must_use]
    pub const fn inherited(self) -> Self {
        Self(self.0 | Self::INHERITED)
    }

    /// Connections; 0: there is no limit.
    #[inline(always)]
    #[must_use]
    pub const fn connections(self) -> u32 {
        self.0 & !Self::INHERITED
    }

    /// Whether it is what a shorter rule says.
    #[must_use]
    pub const fn is_inherited(self) -> bool {
        self.0 & Self::INHERITED != 0
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
    pub const fn own(bits: u8) -> Self {
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
    /// Of [`Self::origin`]: its network is one of the host's own addresses, whoever has made the rule.
    pub const OWN: u8 = 2;

    /// Whether it is for one of the host's own addresses.
    #[inline(always)]
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.origin & Self::OWN != 0
    }

    /// Whether an address, whose rule this is, is allowed as the host that talks to itself, if it `is_own`
    /// ([`Addr::is_own`]), whatever rules for larger networks say: only the admin's word on exactly this address counts
    /// for more. An own address for one link only may be a neighbour's on another, so its rule allows nothing; but who
    /// connects *to* its own address is the host.
    #[inline(always)]
    #[must_use]
    pub const fn allows_itself(&self, is_own: bool) -> bool {
        self.origin == Self::BUILT_IN | Self::OWN && is_own
    }

    /// What makes a source of `remote`, whose rule this is: prefix length as of an IPv6 address; 0: what the service
    /// says. What a translator or a 6to4 router has written is its IPv4 host, whatever rules say of IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn source_prefix(&self, remote: &Addr) -> u8 {
        if remote.is_translated() { 0 } else { self.source_prefix.bits() }
    }

    /// Whether the rule has a limit for `service`.
    #[inline(always)]
    #[must_use]
    pub const fn limits(&self, service: ServiceId) -> bool {
        self.limited >> (service.0 & 63) & 1 != 0
    }
}

/// Whose limit: a rule's, for one service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Pod, Zeroable)]
pub struct RuleLimit {
    /// [`Rule::id`].
    pub rule: u32,
    /// A [`ServiceId`].
    pub service: u32,
}

/// What the rules say of one source at one service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Say {
    /// What becomes of it.
    pub action: Action,
    /// Connections it may hold; 0: what the service says.
    pub max_connections: u32,
    /// Prefix length that makes a source of it, as of an IPv6 address; 0: what the service says. The same for one
    /// address at all services, whatever it connects to.
    pub source_prefix: u8,
}

impl Say {
    /// No rule says anything.
    pub const NOTHING: Self = Self { action: Action::Limit, max_connections: 0, source_prefix: 0 };
    /// It is allowed.
    pub const ALLOW: Self = Self { action: Action::Allow, max_connections: 0, source_prefix: 0 };

    /// All of it in one word, as a function of the kernel's can return it.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.max_connections as u64 | Self::packed(self.action as u8, self.source_prefix)
    }

    /// Such a word without the connections, which are its low half: of the number of an [`Action`] and a prefix length.
    #[inline(always)]
    #[must_use]
    pub const fn packed(action: u8, source_prefix: u8) -> u64 {
        (action as u64 | (source_prefix as u64) << 8) << 32
    }

    /// What such a word says.
    #[inline(always)]
    #[must_use]
    pub const fn of_word(word: u64) -> Self {
        Self {
            max_connections: word as u32,
            action: Action::from_u8((word >> 32) as u8),
            source_prefix: (word >> 40) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_rules_say_goes_into_a_word_and_comes_out_of_it(action in 0u8..3, max_connections: u32, source_prefix: u8) {
            let say = Say { action: Action::from_u8(action), max_connections, source_prefix };
            prop_assert_eq!(Say::of_word(say.word()), say);
            prop_assert_eq!(Say::of_word(0), Say::NOTHING);
        }
    }
}

#[cfg(feature = "user")]
mod user {
    use super::{Limit, Network, Rule, RuleLimit};

    // SAFETY: the types are `bytemuck::Pod`: any bytes are a value, and there is no padding.
    unsafe impl aya::Pod for Network {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Rule {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RuleLimit {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Limit {}
}
