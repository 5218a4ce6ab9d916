// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! When the rate of a refused client allows its next connection.

use std::{fmt, net::IpAddr, time::Duration};

use limiter_common::{Addr, CountKeys, Limits};

use crate::{greeter::Dues, kernel::Tables, ledger};

/// From the pinned maps.
pub struct PinnedDues(pub Tables);

impl fmt::Debug for PinnedDues {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PinnedDues")
    }
}

impl Dues for PinnedDues {
    fn due(&self, local_port: u16, remote: IpAddr) -> Option<Duration> {
        let Self(tables) = self;
        let (service, policy) = tables.policy.service_of(tables.policy.active().ok()?, local_port).ok()??;
        let source = Addr::from(remote);
        let rule_match = tables.policy.rule_match(&source, service).ok()?;
        let count_keys = CountKeys::new(service, &policy, rule_match.scope(&policy), &source);
        let count_keys = ledger::present(tables, count_keys).ok()?;
        let rate = Limits::of(&policy, &rule_match).within(&count_keys).rate;
        let usage = ledger::counts(tables, &count_keys).ok()?;
        Some(Duration::from_nanos(rate.wait_ns(usage.due_ns, ledger::now_ns().ok()?)))
    }
}
