// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The verdict: the one place where it is decided whether a source may have one more connection.

use crate::{
    Count, CountKeys, Rate, Response, ServicePolicy,
    key::Level,
    names::names,
    rule::{Action, Limit, RuleLimits, RuleMatch},
};

/// Why a connection is refused, in the order in which the reasons are looked at: what holds for more
/// sources goes first, because a client of a full service can do nothing about its own connections.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// A rule denies the source.
    Denied = 0,
    /// The source is banned, by the ladder or by the admin.
    Banned = 1,
    /// The service as a whole holds as many connections as it may.
    Total = 2,
    /// The source's network holds as many connections as it may.
    Network = 3,
    /// The source holds as many connections as it may.
    Concurrency = 4,
    /// The source completes handshakes faster than it may.
    Rate = 5,
}

names!(Reason {
    Denied => "denied",
    Banned => "banned",
    Total => "total",
    Network => "network",
    Concurrency => "concurrency",
    Rate => "rate",
});

impl Reason {
    /// From its number.
    #[inline(always)]
    #[must_use]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Denied,
            1 => Self::Banned,
            2 => Self::Total,
            3 => Self::Network,
            5 => Self::Rate,
            _ => Self::Concurrency,
        }
    }

    /// Of the two for which the shield drops, from its number.
    #[inline(always)]
    #[must_use]
    pub const fn of_shield(value: u8) -> Self {
        match value {
            0 => Self::Denied,
            _ => Self::Banned,
        }
    }

    /// Whether the source itself has reached a limit of its own: nobody else's connections, and no rule.
    #[inline(always)]
    #[must_use]
    pub const fn is_of_source(self) -> bool {
        matches!(self, Self::Concurrency | Self::Rate)
    }

    /// The same where a connection is counted in `count_keys`: who shares an entry with others is refused for what is
    /// held around it, which no ban of its own could better.
    #[inline(always)]
    #[must_use]
    pub const fn within(self, count_keys: &CountKeys) -> Self {
        if self.is_of_source() && count_keys.source.is_shared() { Self::Network } else { self }
    }
}

/// What becomes of a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// On to the mail daemon's listener.
    Admit,
    /// Away with it.
    Refuse(Reason, Response),
}

/// What a source may have of a service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Handshakes in a time.
    pub rate: Rate,
    /// Connections of the source; `u32::MAX`: no limit.
    pub source: u32,
    /// Connections of its network; `u32::MAX`: no limit.
    pub network: u32,
    /// Connections of the whole service; `u32::MAX`: no limit.
    pub total: u32,
    /// Whether it may have nothing at all.
    pub denied: bool,
    /// Whether a ban holds for it: not for an allowed source (law 4).
    pub bannable: bool,
    /// Always 0: no byte is left open, because older verifiers (6.1) refuse to hand such to a function.
    pub zero: [u8; 2],
}

impl Limits {
    /// There are none.
    pub const NONE: Self = Self {
        rate: Rate { interval_ns: 0, tolerance_ns: 0 },
        source: u32::MAX,
        network: u32::MAX,
        total: u32::MAX,
        denied: false,
        bannable: true,
        zero: [0; 2],
    };

    /// The limits that apply to who is at a service with this policy, and of whom the rules `say` this.
    #[inline(always)]
    #[must_use]
    pub const fn of(policy: &ServicePolicy, rule_match: &RuleMatch) -> Self {
        let mut limits = Self::of_service(policy);
        match rule_match.action {
            Action::Allow => limits.allow(policy),
            Action::Deny => limits.denied = true,
            Action::Limit => limits.rule(Limit::UNSET, Some(&rule_match.limits), None),
        }
        limits
    }

    /// Those of whom no rule says anything.
    #[inline(always)]
    #[must_use]
    pub const fn of_service(policy: &ServicePolicy) -> Self {
        Self {
            rate: policy.rate,
            source: policy.max_connections,
            network: if policy.has_network() { policy.network_max_connections } else { u32::MAX },
            total: if policy.max_total == 0 { u32::MAX } else { policy.max_total },
            denied: false,
            bannable: true,
            zero: [0; 2],
        }
    }

    /// Makes them, of [`Self::of_service`], those of an allowed source: it has none of its own (law 4) and may use the
    /// reserve; beyond that there is no process left in the mail daemon that could serve it.
    #[inline(always)]
    pub const fn allow(&mut self, policy: &ServicePolicy) {
        // Not the whole: for sixteen zeros the compiler calls a function, which costs a frame of the gate's stack on 6.1.
        self.rate.interval_ns = 0;
        (self.source, self.network) = (u32::MAX, u32::MAX);
        self.bannable = false;
        // Without a total it is as large as it can be.
        self.total = self.total.saturating_add(policy.reserve);
    }

    /// Makes them, of [`Self::of_service`], what a rule says: `one` for this service alone, and where that says nothing
    /// `all` for every service, of which `max_connections` may stand by itself. A source with a limit of its own is not
    /// held below it by its network's.
    #[inline(always)]
    pub const fn rule(&mut self, max_connections: Limit, one: Option<&RuleLimits>, all: Option<&RuleLimits>) {
        let mut of_source = max_connections.connections();
        if let Some(all) = all {
            self.take(&mut of_source, all);
        }
        if let Some(one) = one {
            self.take(&mut of_source, one);
        }
        if of_source != 0 {
            self.source = of_source;
            if self.network < of_source {
                self.network = of_source;
            }
        }
    }

    #[inline(always)]
    const fn take(&mut self, of_source: &mut u32, said: &RuleLimits) {
        if said.max_connections.is_set() {
            *of_source = said.max_connections.connections();
        }
        if said.network.is_set() {
            self.network = said.network.connections();
        }
        if let Some(rate) = said.rate.get() {
            self.rate = rate;
        }
    }

    /// The same for what is counted in `count_keys`: several sources in one entry have a multiple of what one has
    /// ([`crate::key::Level`]), and no more than their network has, if they are of one.
    #[inline(always)]
    #[must_use]
    pub const fn within(self, count_keys: &CountKeys) -> Self {
        let Together { shift, no_network, not_beside } = TOGETHER[(count_keys.source.level & 3) as usize];
        let (together, network) = ((self.source as u64) << (shift & 7), (self.network | no_network) as u64);
        let of_source = if together < network { together } else { network } as u32;
        Self {
            source: of_source,
            network: self.network | not_beside,
            rate: self.rate.within(count_keys),
            ..self
        }
    }
}

impl Rate {
    /// The same for what is counted in `count_keys`, as [`Limits::within`].
    #[inline(always)]
    #[must_use]
    pub const fn within(self, count_keys: &CountKeys) -> Self {
        let shift = TOGETHER[(count_keys.source.level & 3) as usize].shift;
        Self { interval_ns: self.interval_ns >> (shift & 7), ..self }
    }
}

/// Connections that were let through beyond limits, of a source, of its network and of the service, because refusals were
/// only counted ([`crate::Entry::beyond`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beyond {
    /// Of the source.
    pub source: u32,
    /// Of its network.
    pub network: u32,
    /// Of the service.
    pub total: u32,
}

impl Limits {
    /// The same where refusals are only counted: those that were let through `beyond` them take no place of the others, so
    /// that exactly what enforcing would refuse would be refused.
    #[inline(always)]
    #[must_use]
    pub const fn above(self, beyond: &Beyond) -> Self {
        Self {
            source: self.source.saturating_add(beyond.source),
            network: self.network.saturating_add(beyond.network),
            total: self.total.saturating_add(beyond.total),
            ..self
        }
    }
}

/// What becomes of limits for what is counted together, by level. A table and masks: for the verifier every branch is
/// another way through what follows.
struct Together {
    shift: u8,
    /// All bits: the network's limit is none for the entry.
    no_network: u32,
    /// All bits: the network is not counted beside it.
    not_beside: u32,
}

static TOGETHER: [Together; 4] = {
    let [first, second, last] = Level::ALL;
    [
        Together { shift: 0, no_network: u32::MAX, not_beside: 0 },
        Together { shift: first.shift, no_network: 0, not_beside: u32::MAX },
        Together { shift: second.shift, no_network: 0, not_beside: u32::MAX },
        Together { shift: last.shift, no_network: u32::MAX, not_beside: u32::MAX },
    ]
};

/// What a source has of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Connections of the source.
    pub source: Count,
    /// Connections of its network; zero where networks are not counted.
    pub network: Count,
    /// Connections of the whole service.
    pub total: Count,
    /// When the source is due, in nanoseconds of `CLOCK_BOOTTIME`.
    pub due_ns: u64,
    /// When its ban ends or ended, likewise; 0: there was none.
    pub banned_until_ns: u64,
    /// When it is due for its replies, likewise.
    pub replies_due_ns: u64,
}

impl Usage {
    /// Whether it was refused lately, or banned.
    #[inline(always)]
    #[must_use]
    pub const fn is_on_the_ladder(&self) -> bool {
        self.banned_until_ns != 0 || self.replies_due_ns != 0
    }

    /// Why one more connection at `now_ns` would be over a limit, if it would.
    ///
    /// Reservations count, and handshakes that wait for a place: both have proven who they are (law 1), and
    /// whoever comes after them has no place to hope for.
    #[inline(always)]
    #[must_use]
    pub const fn over(&self, limits: &Limits, now_ns: u64) -> Option<Reason> {
        if limits.denied {
            Some(Reason::Denied)
        } else if limits.bannable && now_ns < self.banned_until_ns {
            Some(Reason::Banned)
        } else if self.total.wanted() >= limits.total as u64 {
            Some(Reason::Total)
        } else if self.network.wanted() >= limits.network as u64 {
            Some(Reason::Network)
        } else if self.source.wanted() >= limits.source as u64 {
            Some(Reason::Concurrency)
        } else if !self.rate_allows(limits, now_ns) {
            Some(Reason::Rate)
        } else {
            None
        }
    }

    /// Whether the rate allows one more that is new, and leaves those that wait theirs.
    #[inline(always)]
    const fn rate_allows(&self, limits: &Limits, now_ns: u64) -> bool {
        limits.rate.allows_behind(self.due_ns, now_ns, self.source.waiting())
    }

    /// What a handshake that is complete waits for at `now_ns`: the limit of the fewest that stands in its way. Who
    /// waits for places of its own source could not use one of the service, and is not to keep it from others.
    #[inline(always)]
    #[must_use]
    pub const fn waits_for(&self, limits: &Limits, now_ns: u64) -> Option<Reason> {
        if limits.denied {
            Some(Reason::Denied)
        } else if limits.bannable && now_ns < self.banned_until_ns {
            Some(Reason::Banned)
        } else if self.source.wanted() >= limits.source as u64 {
            Some(Reason::Concurrency)
        } else if self.network.wanted() >= limits.network as u64 {
            Some(Reason::Network)
        } else if self.total.wanted() >= limits.total as u64 {
            Some(Reason::Total)
        } else if !self.rate_allows(limits, now_ns) {
            Some(Reason::Rate)
        } else {
            None
        }
    }
}

/// Judges a SYN at `now_ns` by what its source has already, and how many `replies` it may have.
///
/// Who is denied or banned is told nothing. Who has spent its replies gets resets.
#[inline(always)]
#[must_use]
pub const fn judge(
    policy: &ServicePolicy,
    limits: &Limits,
    usage: &Usage,
    replies: &Rate,
    now_ns: u64,
) -> Verdict {
    let Some(reason) = usage.over(limits, now_ns) else {
        return Verdict::Admit;
    };
    Verdict::Refuse(reason, response(policy, reason, usage.replies_due_ns, replies, now_ns))
}

/// How a refusal is answered, to a source that is due for its `replies` at `replies_due_ns`.
#[inline(always)]
#[must_use]
pub const fn response(
    policy: &ServicePolicy,
    reason: Reason,
    replies_due_ns: u64,
    replies: &Rate,
    now_ns: u64,
) -> Response {
    match (reason, Response::from_u8(policy.response)) {
        (Reason::Denied | Reason::Banned, _) => Response::Drop,
        (_, Response::Reply) if !replies.allows(replies_due_ns, now_ns) => Response::Reset,
        (_, response) => response,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Scope, rule::tests::any_limits};

    /// A count in which reservations are held, too, and for which some wait.
    fn count(connections: u32, reserved: u32, waiting: u32) -> Count {
        Count(u64::from(waiting) << 48 | u64::from(reserved) << 32 | u64::from(connections))
    }

    proptest! {
        /// The precedence: allow, deny, ban, total, network, concurrency, rate; and the response: nothing for
        /// who is denied or banned, a reset for who has spent its replies, else what the service says.
        #[test]
        fn refused_exactly_when_a_limit_is_reached_and_for_the_first_one(
            limits in (1u32..20, 0u32..20, 0u32..20, 0u32..5),
            held in (0u32..25, 0u32..25, 0u32..25), reserved in 0u32..3, waiting in 0u32..3,
            rate in prop::option::of((1u32..100, 1u32..5)), due_s in 0u64..40, now_s in 0u64..20,
            action in 0u8..3, one in any_limits(), all in any_limits(), response in 0u8..3,
            banned_until_s in 0u64..40, replies in prop::option::of(1u32..5), replies_due_s in 0u64..600,
        ) {
            let (max_connections, network_max_connections, max_total, reserve) = limits;
            let rate = rate.map_or_else(Rate::default, |(count, burst)| Rate::new(count, 60, burst));
            let policy = ServicePolicy {
                rate, max_connections, network_max_connections, max_total, reserve, response, ..Default::default()
            };
            let (of_source, of_network, total) = held;
            let usage = Usage {
                source: count(of_source, reserved, waiting),
                network: count(of_network, reserved, waiting),
                total: count(total, reserved, waiting),
                due_ns: due_s * 1_000_000_000,
                banned_until_ns: banned_until_s * 1_000_000_000,
                replies_due_ns: replies_due_s * 1_000_000_000,
            };
            let replies = replies.map_or_else(Rate::default, |count| Rate::new(count, 60, count));
            let now = now_s * 1_000_000_000;
            let said = one.or(&all);
            let rule_match = RuleMatch { action: Action::from_u8(action), limits: said, source_prefix: 0 };
            let allowed = rule_match.action == Action::Allow;
            let own_limit = said.max_connections.connections();
            let limit = if own_limit == 0 { max_connections } else { own_limit };
            // A rule's word on the network counts, whether the service has one or not; and never less than the rule's
            // word on the source.
            let network = match said.network.connections() {
                0 if network_max_connections == 0 => u32::MAX,
                0 => network_max_connections,
                network => network,
            }.max(own_limit);
            let rate = said.rate.get().unwrap_or(rate);
            let may_have = if allowed { max_total + reserve } else { max_total };
            let [of_source, of_network, total] = [of_source, of_network, total].map(|held| held + reserved + waiting);
            let expected = if rule_match.action == Action::Deny {
                Some(Reason::Denied)
            } else if !allowed && now_s < banned_until_s {
                Some(Reason::Banned)
            } else if max_total > 0 && total >= may_have {
                Some(Reason::Total)
            } else if allowed {
                None
            } else if of_network >= network {
                Some(Reason::Network)
            } else if of_source >= limit {
                Some(Reason::Concurrency)
            } else if rate.left(usage.due_ns, now) <= u64::from(waiting) {
                Some(Reason::Rate)
            } else {
                None
            };
            let answer = |reason| match response {
                _ if matches!(reason, Reason::Denied | Reason::Banned) => Response::Drop,
                0 if replies.wait_ns(usage.replies_due_ns, now) > 0 => Response::Reset,
                response => Response::from_u8(response),
            };
            let expected = expected.map_or(Verdict::Admit, |reason| Verdict::Refuse(reason, answer(reason)));
            prop_assert_eq!(judge(&policy, &Limits::of(&policy, &rule_match), &usage, &replies, now), expected);
            // The kernel programs find what a rule says in up to three places.
            if rule_match.action == Action::Limit {
                let mut limits = Limits::of_service(&policy);
                let beside = RuleLimits { max_connections: Limit::UNSET, ..all };
                limits.rule(all.max_connections, Some(&one), Some(&beside));
                prop_assert_eq!(limits, Limits::of(&policy, &rule_match));
            }
        }

        /// Together they may have more than one of them, and not without end; law 4 holds for who is allowed.
        #[test]
        fn who_shares_an_entry_has_room_for_neighbours_and_a_limit(
            ip: core::net::IpAddr, max_connections in 1u32..=ServicePolicy::MAX_LIMIT, network in 0u32..100, action in 0u8..3,
        ) {
            let network_max_connections = if network == 0 { 0 } else { max_connections.saturating_add(network) };
            let policy = ServicePolicy {
                max_connections, network_max_connections, rate: Rate::new(60, 60, 30),
                source: crate::service::Prefixes { ipv4: 32, ipv6: 64 }, ..Default::default()
            };
            let count_keys = CountKeys::new(crate::ServiceId(1), &policy, Scope::SERVICES, &ip.into());
            let limits = Limits::of(&policy, &RuleMatch { action: Action::from_u8(action), ..RuleMatch::NONE });
            prop_assert_eq!(limits.within(&count_keys), limits);
            for (level, times) in Level::ALL.into_iter().zip([4, 16, 64]) {
                let shared = limits.within(&count_keys.shared(level).unwrap());
                let of_source = if action == Action::Allow as u8 {
                    u32::MAX
                } else if network != 0 && times != 64 {
                    network_max_connections.min(times * max_connections)
                } else {
                    times * max_connections
                };
                prop_assert_eq!((shared.source, shared.network), (of_source, u32::MAX));
                prop_assert_eq!((shared.denied, shared.bannable, shared.total), (limits.denied, limits.bannable, limits.total));
                prop_assert_eq!(shared.rate.interval_ns, limits.rate.interval_ns / u64::from(times));
                let one = count_keys.shared(level).unwrap();
                prop_assert_eq!(Reason::Concurrency.within(&one), Reason::Network);
                prop_assert_eq!(Reason::Total.within(&one), Reason::Total);
                prop_assert_eq!(Reason::Rate.within(&count_keys), Reason::Rate);
            }
        }
    }

    #[test]
    fn a_reason_is_its_index() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
