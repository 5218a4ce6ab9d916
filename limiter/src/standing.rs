// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where an address stands: what it is counted as, which limits it has, what its next connection would get, and what would
//! let it in. [`address`] reads it from the maps; what follows from that is pure ([`Standing::of`]). It is data, which
//! others put into words.

mod remedy;

use anyhow::Result;
use limiter_common::{
    Action, Addr, CountKeys, Entry, Ladder, Limits, Penalty, Reason, Response, RuleMatch, ServicePolicy,
    Usage,
    rule::Network,
    verdict::{self, Beyond},
};

pub use self::remedy::{Refused, Remedy};
use crate::{
    kernel::{Tables, sets::RuleEntry},
    ledger::{self, Refusals, Waiting},
    policy,
};

/// Where an address stands.
pub struct Standing {
    /// The address.
    pub address: Addr,
    /// The rule that counts for it, if there is one.
    pub rule: Option<RuleEntry>,
    /// Where it stands at each service, by the services' names.
    pub services: Vec<AtService>,
}

/// What the kernel knows of an address at a service.
pub struct Facts {
    /// What the service says.
    pub policy: ServicePolicy,
    /// The counts that its connections are in.
    pub count_keys: CountKeys,
    /// What the rules say of it.
    pub rule_match: RuleMatch,
    /// What they would say without the one for exactly this address; none if there is no such rule.
    pub otherwise: Option<RuleMatch>,
    /// What it holds.
    pub usage: Usage,
    /// Of that, what got in because refusals are only counted.
    pub beyond: Beyond,
    /// Its entry in the ledger.
    pub entry: Entry,
    /// Its penalty.
    pub penalty: Penalty,
    /// Who waits of its source.
    pub waiting: Waiting,
}

/// Where an address stands at one service.
pub struct AtService {
    /// What the kernel knows.
    pub facts: Facts,
    /// Its limits, as they apply to what it is counted as.
    pub limits: Limits,
    /// What its network may hold for it to get in; `u32::MAX`: any number.
    pub network_limit: u32,
    /// How it was refused, as far as that is remembered.
    pub refusals: Refusals,
    /// Seconds that the first of those that wait has waited; 0 where none does.
    pub waiting_seconds: f64,
    /// Why its next connection would be refused, if it would. A service that observes admits it all the same.
    pub reason: Option<Reason>,
    /// How that refusal would be answered; none if there is none.
    pub response: Option<Response>,
    /// Replies that it gets before it gets resets; none where nobody gets any, or replies have no budget.
    pub replies_left: Option<u64>,
    /// Nanoseconds until its ban ends, if that is the reason; else 0.
    pub banned_ns: u64,
    /// Nanoseconds until the rate allows its next connection; 0 if it does now.
    pub wait_ns: u64,
    /// What would let it in, if it would be refused and anything can.
    pub remedy: Option<Remedy>,
}

/// When it is, in the clocks that things are noted in.
#[derive(Clone, Copy)]
pub struct Now {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
}

/// Where an address stands now; `is_served` where a daemon runs, which is what replies.
pub fn address(tables: &Tables, address: Addr, is_served: bool) -> Result<Standing> {
    let rules = tables.policy.rules()?;
    let without: Vec<_> =
        rules.iter().filter(|rule| rule.built_in || rule.network != Network::of(address)).cloned().collect();
    let has_rule = without.len() < rules.len();
    // The rule for exactly this address may have taken the place of one that is built in.
    let services = tables.policy.services()?;
    let without = policy::in_force(policy::admins_rules(without), policy::built_in(&rules), &services);
    let now = Now { boot_ns: ledger::now_ns()?, monotonic_ns: ledger::monotonic_ns()? };
    let waiting = ledger::waiting(tables)?;
    let mut facts = Vec::new();
    for (id, policy) in services {
        let rule_match = tables.policy.rule_match(&address, id)?;
        let source = CountKeys::new(id, &policy, rule_match.scope(&policy), &address);
        let count_keys = ledger::present(tables, source)?;
        let otherwise = policy::covering(&without, &address);
        facts.push(Facts {
            policy,
            rule_match,
            otherwise: has_rule
                .then(|| otherwise.map_or(RuleMatch::NONE, |rule| policy::rule_match(rule, id))),
            usage: ledger::usage(tables, &source.source, &count_keys)?,
            beyond: ledger::beyond(tables, &count_keys)?,
            entry: tables.source(&count_keys.source)?.unwrap_or_default(),
            penalty: tables.penalty(&source.source)?.unwrap_or_default(),
            count_keys,
            waiting: waiting.get(&count_keys.source).copied().unwrap_or_default(),
        });
    }
    let rule = policy::covering(&rules, &address);
    Ok(Standing::of(address, rule, &tables.policy.ladder()?, facts, now, is_served))
}

impl Standing {
    /// Where an address stands of which this is known; `is_served` where a daemon runs.
    pub fn of(
        address: Addr,
        rule: Option<&RuleEntry>,
        ladder: &Ladder,
        facts: Vec<Facts>,
        now: Now,
        is_served: bool,
    ) -> Self {
        let at_service = |facts| AtService::of(facts, ladder, now, is_served);
        let mut services: Vec<AtService> = facts.into_iter().map(at_service).collect();
        services.sort_by(|a, b| a.name().cmp(b.name()));
        Self { address, rule: rule.cloned(), services }
    }

    /// Whether it is the host itself, which is never refused.
    pub fn is_local(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.built_in && rule.action == Action::Allow)
    }
}

impl AtService {
    fn of(facts: Facts, ladder: &Ladder, now: Now, is_served: bool) -> Self {
        let Facts { policy, count_keys, rule_match, otherwise, usage, beyond, penalty, waiting, .. } = &facts;
        let of_rule = Limits::of(policy, rule_match);
        let limits = of_rule.within(count_keys);
        // As the kernel does it: those that got in by that take nobody's place.
        let over = if policy.observes() { limits.above(beyond) } else { limits };
        let reason = usage.over(&over, now.boot_ns).map(|reason| reason.within(count_keys));
        // Where it has no entry of its own, its count is not its own to raise.
        let is_its_own = |reason: &Reason| *reason != Reason::Network || !count_keys.source.is_shared();
        let remedy = reason.filter(is_its_own).and_then(|reason| {
            Remedy::of(&Refused { policy, rule_match: *rule_match, otherwise: *otherwise, usage, reason })
        });
        let replies = &ladder.replies;
        let response = reason.map(|reason| {
            let response = verdict::response(policy, reason, usage.replies_due_ns, replies, now.boot_ns);
            // Replies are the daemon's; without it the kernel resets.
            if response == Response::Reply && !is_served { Response::Reset } else { response }
        });
        let is_told = is_served && policy.response == Response::Reply as u8 && replies.is_limited();
        let is_banned = reason == Some(Reason::Banned);
        Self {
            limits,
            network_limit: of_rule.network,
            refusals: Refusals::of(penalty, now.boot_ns),
            waiting_seconds: waiting.seconds(now.monotonic_ns),
            reason,
            response,
            replies_left: is_told.then(|| replies.left(usage.replies_due_ns, now.boot_ns)),
            banned_ns: if is_banned { usage.banned_until_ns.saturating_sub(now.boot_ns) } else { 0 },
            wait_ns: limits.rate.wait_ns(usage.due_ns, now.boot_ns),
            remedy,
            facts,
        }
    }

    /// The name of the service.
    pub fn name(&self) -> &str {
        self.facts.policy.name()
    }

    /// Whether it has no entry of its own in the ledger, and shares one with others.
    pub fn is_shared(&self) -> bool {
        self.facts.count_keys.source.is_shared()
    }

    /// How often it was refused at least: since it is known, or as far back as that is remembered.
    pub fn refused(&self) -> u64 {
        self.refusals.at_least(&self.facts.entry)
    }

    /// Whether its next connection is refused: a service that observes refuses nobody.
    pub fn is_refused(&self) -> bool {
        self.reason.is_some() && !self.facts.policy.observes()
    }
}

#[cfg(test)]
mod tests {
    use limiter_common::{Count, Rate, Scope, ServiceId};

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: Now = Now { boot_ns: 100 * SECOND, monotonic_ns: 100 * SECOND };

    fn policy(name: &str, response: Response) -> ServicePolicy {
        ServicePolicy {
            name: ServicePolicy::pack_name(name).unwrap(),
            max_connections: 4,
            response: response as u8,
            ..ServicePolicy::default()
        }
    }

    fn facts(policy: ServicePolicy, usage: Usage) -> Facts {
        Facts {
            count_keys: CountKeys::new(
                ServiceId(1),
                &policy,
                Scope::SERVICES,
                &"198.51.100.7".parse::<std::net::IpAddr>().unwrap().into(),
            ),
            policy,
            rule_match: RuleMatch::NONE,
            otherwise: None,
            usage,
            beyond: Beyond::default(),
            entry: Entry::default(),
            penalty: Penalty::default(),
            waiting: Waiting::default(),
        }
    }

    fn at(facts: Facts, is_served: bool) -> AtService {
        let ladder = Ladder { replies: Rate::new(20, 60, 20), ..Ladder::default() };
        AtService::of(facts, &ladder, NOW, is_served)
    }

    #[test]
    fn a_refusal_is_answered_as_the_kernel_and_the_daemon_do() {
        let full = Usage { source: Count(4), ..Usage::default() };
        let spent = Usage { replies_due_ns: NOW.boot_ns + 60 * SECOND, ..full };
        let banned = Usage { banned_until_ns: NOW.boot_ns + 7 * SECOND, ..Usage::default() };
        let answer = |usage: Usage, response, is_served| {
            at(facts(policy("smtp", response), usage), is_served).response
        };
        assert_eq!(answer(Usage::default(), Response::Reply, true), None, "it gets in");
        assert_eq!(answer(full, Response::Reply, true), Some(Response::Reply));
        assert_eq!(answer(full, Response::Reply, false), Some(Response::Reset), "nobody is there to reply");
        assert_eq!(answer(full, Response::Drop, true), Some(Response::Drop));
        assert_eq!(answer(spent, Response::Reply, true), Some(Response::Reset), "its replies are spent");
        assert_eq!(answer(banned, Response::Reply, true), Some(Response::Drop));
    }

    #[test]
    fn a_ban_is_told_of_where_it_is_the_reason() {
        let banned = Usage { banned_until_ns: NOW.boot_ns + 7 * SECOND, ..Usage::default() };
        let at_smtp = at(facts(policy("smtp", Response::Reply), banned), true);
        assert_eq!((at_smtp.reason, at_smtp.banned_ns), (Some(Reason::Banned), 7 * SECOND));
        assert_eq!(at_smtp.remedy, Some(Remedy::Unban));
        let allowed =
            Facts { rule_match: RuleMatch::ALLOW, ..facts(policy("smtp", Response::Reply), banned) };
        let at_smtp = at(allowed, true);
        assert_eq!((at_smtp.reason, at_smtp.banned_ns, at_smtp.remedy), (None, 0, None), "law 4");
    }

    #[test]
    fn services_are_in_the_order_of_their_names() {
        let both = ["smtp", "imap"].map(|name| facts(policy(name, Response::Reply), Usage::default()));
        let standing = Standing::of(Addr::default(), None, &Ladder::default(), both.into(), NOW, true);
        let names: Vec<&str> = standing.services.iter().map(AtService::name).collect();
        assert_eq!(names, ["imap", "smtp"]);
        assert!(!standing.is_local());
    }
}
