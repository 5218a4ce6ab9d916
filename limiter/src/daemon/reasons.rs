//! Why the greeter's connections were refused.

use std::net::IpAddr;

use limiter_common::{Addr, Claim, Limits, Protocol, Reason};

use crate::{
    greeter::{Reasons, Refusal},
    kernel::Tables,
    ledger,
};

/// Ports where TLS starts at once (RFC 8314, 3; RFC 9051, 11.1): no plain text can be said there.
const IMPLICIT_TLS: [u16; 3] = [465, 993, 995];

/// Why the greeter's connections were refused, from the pinned maps.
pub struct PinnedReasons(pub Tables);

impl Reasons for PinnedReasons {
    fn reason(&self, local_port: u16, remote: IpAddr) -> Option<Refusal> {
        let (service, policy) = self.0.policy.service_of(local_port).ok()??;
        let claim = Claim::new(service, &policy, &Addr::from(remote));
        let standing = ledger::standing(&self.0, &claim).ok()?;
        let say = self.0.policy.say(&Addr::from(remote), service).ok()?;
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
