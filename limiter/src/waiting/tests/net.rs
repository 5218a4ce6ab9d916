// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Two hosts with link-local addresses, too.

use std::sync::atomic::{AtomicU32, Ordering};

use limiter_lab::{Namespace, lab::WIRE, skip, sweep};

/// A client host and a mail host, connected.
pub struct Lab {
    pub client: Namespace,
    pub host: Namespace,
}

impl Lab {
    /// `None`, with a word to whoever ran the tests, without root.
    pub fn new() -> Option<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            skip("it needs root, for network namespaces and TCP_REPAIR");
            return None;
        }
        let name = format!("{}-w{}", sweep::TESTS.ours(), LABS.fetch_add(1, Ordering::Relaxed));
        let [client, host] = ["c", "h"].map(|side| Namespace::new(format!("{name}-{side}")).unwrap());
        let lab = Self { client, host };
        lab.client.veth_to(&lab.host, WIRE).unwrap();
        // Without addresses of its own and DAD nothing has to be waited for.
        for (namespace, number) in [(&lab.client, 7), (&lab.host, 1)] {
            let lines = format!(
                "link set wire addrgenmode none\n\
                 link set wire up\n\
                 addr add 192.0.2.{number}/24 dev wire\n\
                 addr add 2001:db8::{number}/64 dev wire nodad\n\
                 addr add fe80::{number}/64 dev wire nodad\n"
            );
            namespace.ip_batch(&lines).unwrap();
        }
        Some(lab)
    }
}
