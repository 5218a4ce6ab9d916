//! Why the greeter's connections were refused.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use limiter_common::{Addr, Claim, Limits, Protocol, Reason, ServiceId, ServicePolicy};

use crate::{
    greeter::{Reasons, Refusal},
    kernel::Tables,
    ledger,
};

/// Ports where TLS starts at once (RFC 8314, 3; RFC 9051, 11.1): no plain text can be said there.
const IMPLICIT_TLS: [u16; 3] = [465, 993, 995];

/// How long the policy of a port is remembered: it takes a third of the system calls of a reply, and a
/// client that was refused a moment ago was refused by the policy of that moment anyway.
const REMEMBERED: Duration = Duration::from_millis(100);

/// What a port is of, when it was looked up.
type Known = (Instant, ServiceId, ServicePolicy);

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

    fn service_of(&self, port: u16) -> Option<(ServiceId, ServicePolicy)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&(at, service, policy)) = known.get(&port)
            && at.elapsed() < REMEMBERED
        {
            return Some((service, policy));
        }
        known.remove(&port);
        let (service, policy) = self.tables.policy.service_of(port).ok()??;
        known.insert(port, (Instant::now(), service, policy));
        Some((service, policy))
    }
}

impl Reasons for PinnedReasons {
    fn reason(&self, local_port: u16, remote: IpAddr) -> Option<Refusal> {
        let (service, policy) = self.service_of(local_port)?;
        let claim = Claim::new(service, &policy, &Addr::from(remote));
        let standing = ledger::counts(&self.tables, &claim).ok()?;
        let say = self.tables.policy.say(&Addr::from(remote), service).ok()?;
        let limits = Limits::of(&policy, &say);
        // What the client is told is why it was refused, not what holds by now.
        let reason = standing.was_over(&limits, ledger::now_ns().ok()?);
        let connections = match reason {
            // These are told nothing.
            Reason::Denied | Reason::Banned => 0,
            Reason::Total => standing.total.connections().max(limits.total),
            Reason::Network => standing.wide.connections().max(limits.wide),
            Reason::Concurrency | Reason::Rate => standing.narrow.connections().max(limits.narrow),
        };
        Some(Refusal {
            protocol: Protocol::from_u8(policy.protocol)?,
            reason,
            connections,
            tls: IMPLICIT_TLS.contains(&local_port),
        })
    }
}
