// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Why a client is refused, as the greeter is told.

use std::net::IpAddr;

use limiter_common::{Protocol, Reason, ServicePolicy};

/// What a refused client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client speaks.
    pub protocol: Protocol,
    /// Why it was refused.
    pub reason: Reason,
    /// The connections there are of what is over its limit: of the source, its network, or the whole
    /// service.
    pub connections: u32,
    /// Whether the port starts with TLS: then nothing can be said in plain text.
    pub tls: bool,
}

/// Ports where TLS starts at once (RFC 8314, 3; RFC 9051, 11.1): no plain text can be said there.
const IMPLICIT_TLS: [u16; 3] = [465, 993, 995];

impl Refusal {
    /// Of a client of `local_port`, whose service has this policy; `None` for one that speaks nothing.
    #[must_use]
    pub fn at(policy: &ServicePolicy, local_port: u16, reason: Reason, connections: u32) -> Option<Self> {
        let protocol = Protocol::from_u8(policy.protocol)?;
        Some(Self { protocol, reason, connections, tls: IMPLICIT_TLS.contains(&local_port) })
    }
}

/// Knows why a connection was refused.
pub trait Reasons: Send + Sync + 'static {
    /// Why `remote` was refused at `local_port`; `None` if it was not, or is not known.
    ///
    /// Called once a connection, on the greeter's thread: meanwhile nobody else is told anything.
    /// `remote` is IPv4 where the client is, never the mapped form.
    fn reason(&self, local_port: u16, remote: IpAddr) -> Option<Refusal>;
}
