// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What would let one more connection in: the least that does, for this address and not for everybody, where that can be
//! said of an address.

use limiter_common::{Limits, Reason, RuleMatch, ServicePolicy, Usage};

use crate::config::{self, Setting};

/// A change for an address, or of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Take back the rule for exactly this address.
    Forget,
    /// End its ban.
    Unban,
    /// Let it have so many connections.
    Limit(u32),
    /// Let it come as fast as it can.
    NoRate,
    /// Let it in while its network holds less than this.
    Network(u32),
    /// Let the whole service have so many.
    MaxTotal(u32),
}

/// Where an address stands that is refused.
pub struct Refused<'a> {
    /// What the service says.
    pub policy: &'a ServicePolicy,
    /// What the rules say.
    pub rule_match: RuleMatch,
    /// What they would say without the rule for exactly this address; none if there is no such rule.
    pub otherwise: Option<RuleMatch>,
    /// What it has.
    pub usage: &'a Usage,
    /// Why it is refused.
    pub reason: Reason,
}

impl Remedy {
    /// What helps; none where nothing that can be said does: not beyond the largest limit there is.
    pub fn of(refused: &Refused<'_>) -> Option<Self> {
        let Refused { policy, rule_match, otherwise, usage, reason } = *refused;
        // Those that wait want a place, too.
        let one_more = |wanted: u64| {
            let limit = u32::try_from(wanted + 1).ok();
            limit.filter(|&limit| limit <= ServicePolicy::MAX_LIMIT)
        };
        match reason {
            Reason::Denied => {
                let is_denied = |rule_match: RuleMatch| Limits::of(policy, &rule_match).denied;
                match otherwise {
                    Some(otherwise) if !is_denied(otherwise) => Some(Self::Forget),
                    _ => Some(Self::Limit(policy.max_connections)),
                }
            }
            Reason::Banned => Some(Self::Unban),
            Reason::Rate => Some(Self::NoRate),
            Reason::Network => one_more(usage.network.wanted()).map(Self::Network),
            Reason::Concurrency => one_more(usage.source.wanted()).map(Self::Limit),
            Reason::Total => {
                let held = usage.total.wanted();
                // What an allowed source has on top stays what it is.
                let reserve = if Limits::of(policy, &rule_match).bannable { 0 } else { policy.reserve };
                let total = one_more(held.saturating_sub(u64::from(reserve)))?;
                let setting = Setting::MaxTotal(Some(total));
                config::apply(&[setting], policy).ok().map(|_| Self::MaxTotal(total))
            }
        }
    }

    /// The change as the words behind `limiter`, for these services or, without any, for all.
    pub fn command(&self, address: &str, services: &[&str]) -> String {
        let names = services.join(",");
        let only = if services.is_empty() { String::new() } else { format!(" --service {names}") };
        match self {
            Self::Forget => format!("forget {address}"),
            Self::Unban => format!("unban {address}{only}"),
            Self::Limit(limit) => format!("limit {address} {limit}{only}"),
            Self::NoRate => format!("limit {address} --rate none{only}"),
            Self::Network(limit) => format!("limit {address} --network-max-connections {limit}{only}"),
            Self::MaxTotal(total) => format!("set {names} max_total={total}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use limiter_common::{
        Action, Count, Rate,
        rule::{Limit, RuleLimits, RuleRate},
        service::Prefixes,
    };
    use proptest::prelude::*;

    use super::*;

    fn policy(max_connections: u32, network: u32, max_total: u32, reserve: u32, rate: bool) -> ServicePolicy {
        ServicePolicy {
            name: ServicePolicy::pack_name("smtp").unwrap(),
            max_connections,
            network_max_connections: network,
            source: Prefixes { ipv4: 32, ipv6: 64 },
            network: if network == 0 { Prefixes::default() } else { Prefixes { ipv4: 24, ipv6: 48 } },
            max_total,
            reserve,
            rate: if rate { Rate::new(1, 60, 1) } else { Rate::default() },
            ..ServicePolicy::default()
        }
    }

    fn count(connections: u32, waiting: u32) -> Count {
        Count(u64::from(waiting) << 48 | u64::from(connections))
    }

    #[test]
    fn what_helps_is_for_the_address_that_is_refused_and_no_one_else() {
        let usage = Usage { source: count(50, 2), network: count(60, 2), ..Usage::default() };
        let of = |rule_match: RuleMatch, otherwise, reason| {
            let policy = policy(50, 60, 0, 0, true);
            let refused = Refused { policy: &policy, rule_match, otherwise, usage: &usage, reason };
            Remedy::of(&refused).map(|remedy| remedy.command("192.0.2.7", &["imap", "smtp"]))
        };
        let deny = RuleMatch { action: Action::Deny, ..RuleMatch::NONE };
        let said = |reason| of(RuleMatch::NONE, None, reason).unwrap();
        assert_eq!(said(Reason::Concurrency), "limit 192.0.2.7 53 --service imap,smtp", "two wait as well");
        assert_eq!(said(Reason::Network), "limit 192.0.2.7 --network-max-connections 63 --service imap,smtp");
        assert_eq!(said(Reason::Banned), "unban 192.0.2.7 --service imap,smtp");
        assert_eq!(said(Reason::Rate), "limit 192.0.2.7 --rate none --service imap,smtp");
        assert_eq!(of(deny, None, Reason::Denied).unwrap(), "limit 192.0.2.7 50 --service imap,smtp");
        assert_eq!(of(deny, Some(RuleMatch::NONE), Reason::Denied).unwrap(), "forget 192.0.2.7");
        assert_eq!(of(deny, Some(deny), Reason::Denied).unwrap(), "limit 192.0.2.7 50 --service imap,smtp");
    }

    #[test]
    fn for_all_services_none_is_named() {
        assert_eq!(Remedy::Unban.command("192.0.2.7", &[]), "unban 192.0.2.7");
        assert_eq!(Remedy::Limit(4).command("192.0.2.7", &[]), "limit 192.0.2.7 4");
    }

    #[test]
    fn beyond_the_largest_limit_nothing_helps() {
        let largest = ServicePolicy::MAX_LIMIT;
        let policy = policy(largest, largest, largest, 0, false);
        let full = count(largest, 0);
        let usage = Usage { source: full, network: full, total: full, ..Usage::default() };
        for reason in [Reason::Total, Reason::Network, Reason::Concurrency] {
            let refused = Refused {
                policy: &policy,
                rule_match: RuleMatch::NONE,
                otherwise: None,
                usage: &usage,
                reason,
            };
            assert_eq!(Remedy::of(&refused), None);
        }
    }

    proptest! {
        /// One reason after the other, until nothing is in the way.
        #[test]
        fn what_is_said_lets_it_in(
            max_connections in 1u32..9, network in 0u32..9, max_total in 0u32..9, reserve in 0u32..3, rate: bool,
            held in (0u32..9, 0u32..9, 0u32..9), waiting in 0u32..3, banned: bool,
            action in 0u8..3, own_limit in 0u32..9, otherwise in prop::option::of(0u8..3),
        ) {
            let mut policy = policy(
                max_connections,
                if network == 0 { 0 } else { network.max(max_connections) },
                if max_total == 0 { 0 } else { max_total.max(max_connections) },
                if max_total == 0 { 0 } else { reserve },
                rate,
            );
            let connections = |limit| RuleLimits::connections(Limit::of_rule(limit));
            let mut rule_match =
                RuleMatch { action: Action::from_u8(action), limits: connections(own_limit), ..RuleMatch::NONE };
            let otherwise = otherwise.map(|action| RuleMatch { action: Action::from_u8(action), ..RuleMatch::NONE });
            let mut usage = Usage {
                source: count(held.0, waiting),
                network: count(held.1.max(held.0), waiting),
                total: count(held.2.max(held.1).max(held.0), waiting),
                due_ns: u64::from(rate) * 1_000_000_000_000,
                banned_until_ns: u64::from(banned),
                ..Usage::default()
            };
            for _ in 0..6 {
                let Some(reason) = usage.over(&Limits::of(&policy, &rule_match), 0) else { break };
                let refused = Refused { policy: &policy, rule_match, otherwise, usage: &usage, reason };
                match Remedy::of(&refused).unwrap() {
                    Remedy::Forget => rule_match = otherwise.unwrap(),
                    Remedy::Unban => usage.banned_until_ns = 0,
                    // A rule without limits is replaced, and one with limits keeps the others.
                    Remedy::Limit(limit) if rule_match.action != Action::Limit => {
                        rule_match = RuleMatch { limits: connections(limit), ..RuleMatch::NONE };
                    }
                    Remedy::Limit(limit) => rule_match.limits.max_connections = Limit::of_rule(limit),
                    Remedy::NoRate => rule_match.limits.rate = RuleRate::of_rule(Rate::default()),
                    Remedy::Network(limit) => rule_match.limits.network = Limit::of_rule(limit),
                    Remedy::MaxTotal(total) => {
                        policy = config::apply(&[Setting::MaxTotal(Some(total))], &policy).unwrap();
                    }
                }
                prop_assert_ne!(usage.over(&Limits::of(&policy, &rule_match), 0), Some(reason));
            }
            prop_assert_eq!(usage.over(&Limits::of(&policy, &rule_match), 0), None);
        }
    }
}
