// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Why the greeter's connections were refused.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use limiter_common::{Addr, CountKeys, Limits, Reason, ServiceId, ServicePolicy};

use crate::{
    greeter::{Reasons, Refusal},
    kernel::Tables,
    ledger,
};

/// How long the policy of a port is remembered: half of the system calls of a reply, when there are many
/// replies, would be for that. A client that was refused a moment ago was refused by the policy of that
/// moment anyway; but the set it is in must not be written again meanwhile, and reading the policy in
/// force, with which each change begins, alone takes longer than this.
const REMEMBERED: Duration = Duration::from_millis(2);

/// What a port is of.
#[derive(Clone, Copy)]
struct Known {
    /// When it was looked up.
    at: Instant,
    /// The set in force then.
    set: u32,
    service: ServiceId,
    policy: ServicePolicy,
}

/// Why the greeter's connections were refused, from the pinned maps.
pub struct PinnedReasons {
    tables: Tables,
    /// By port; no more than the services have, because admission brings nobody else.
    known: Mutex<HashMap<u16, Known>>,
}

impl PinnedReasons {
    /// Of the instance whose maps these are.
    pub fn new(tables: Tables) -> Self {
        Self { tables, known: Mutex::default() }
    }

    fn port(&self, port: u16) -> Option<Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(known) = known.get(&port)
            && now.duration_since(known.at) < REMEMBERED
        {
            return Some(*known);
        }
        known.remove(&port);
        let set = self.tables.policy.active().ok()?;
        let (service, policy) = self.tables.policy.service_of(set, port).ok()??;
        let port_is = Known { at: now, set, service, policy };
        known.insert(port, port_is);
        Some(port_is)
    }
}

impl Reasons for PinnedReasons {
    fn reason(&self, local_port: u16, remote: IpAddr) -> Option<Refusal> {
        let Known { set, service, policy, .. } = self.port(local_port)?;
        let source = Addr::from(remote);
        let rule_match = self.tables.policy.rule_match_in(set, &source, service).ok()?;
        let count_keys = CountKeys::new(service, &policy, rule_match.scope(), &source);
        let count_keys = ledger::present(&self.tables, count_keys).ok()?;
        let limits = Limits::of(&policy, &rule_match).within(&count_keys);
        let mut usage = ledger::counts(&self.tables, &count_keys).ok()?;
        if limits.total != u32::MAX {
            usage.total = self.tables.total(service).ok()?;
        }
        // What the client is told is why it was refused, not what holds by now.
        let reason = usage.was_over(&limits, ledger::now_ns().ok()?).within(&count_keys);
        let connections = match reason {
            // These are told nothing.
            Reason::Denied | Reason::Banned => 0,
            Reason::Total => usage.total.connections().max(limits.total),
            Reason::Network if count_keys.has_network() => usage.network.connections().max(limits.network),
            _ => usage.source.connections().max(limits.source),
        };
        Refusal::at(&policy, local_port, reason, connections)
    }
}
