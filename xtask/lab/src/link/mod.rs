// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A link with a length: what is sent arrives in order, half a round trip later, or is lost.
//!
//! Not netem: few kernels of test machines have it, it cannot tell which segments it lost, and it loses others
//! each time. This works on every kernel with TUN (tuntap.rst in the kernel's documentation): a device in each
//! host, and a thread between them. The thread knows TCP well enough to make single clients vanish.

mod faults;
mod relay;
mod segment;
mod tun;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
pub use faults::Loss;
use faults::Shared;
use relay::Relay;
pub use segment::{Direction, Segment};

use crate::{Lab, Namespace};

/// The link of a lab, until it is dropped.
pub struct Link {
    shared: Arc<Shared>,
    relay: Option<JoinHandle<()>>,
    rtt: Duration,
}

impl Link {
    /// From now on the two hosts of `lab` reach each other over this link only, `rtt` there and back.
    ///
    /// # Errors
    ///
    /// When a device cannot be made, or no route led over it.
    pub fn lay(lab: &Lab, rtt: Duration, loss: Loss) -> Result<Self> {
        const DEVICE: &str = "far";
        let link = Self::between(&lab.client, &lab.host, DEVICE, rtt, loss)?;
        tun::lead(lab, DEVICE)?;
        Ok(link)
    }

    /// Joins a client host and a mail host by a link that is `device` in both, `rtt` there and back. Addresses and
    /// routes are the caller's matter.
    ///
    /// # Errors
    ///
    /// When a device cannot be made.
    pub fn between(
        client: &Namespace,
        host: &Namespace,
        device: &str,
        rtt: Duration,
        loss: Loss,
    ) -> Result<Self> {
        let ends = tun::between(client, host, device)?;
        let shared = Arc::new(Shared::default());
        let relay = Relay::new(ends, rtt / 2, loss, Arc::clone(&shared));
        Ok(Self { shared, relay: Some(std::thread::spawn(move || relay.run())), rtt })
    }

    /// There and back, without the hosts.
    pub fn rtt(&self) -> Duration {
        self.rtt
    }

    /// The client at this address is gone: from now on nothing passes from it or to it.
    pub fn silence(&self, client: SocketAddr) {
        self.shared.faults().silenced.insert(client);
    }

    /// The client at this address completes its handshake, and never sends anything again: its SYNs pass, and
    /// the first segment after them.
    pub fn mute(&self, client: SocketAddr) {
        self.shared.faults().muted.insert(client, 0);
    }

    /// What was lost by chance.
    pub fn lost(&self) -> Vec<Segment> {
        self.shared.faults().lost.clone()
    }

    /// How long after it was due a segment arrived at most: the noise of this machine.
    pub fn late(&self) -> Duration {
        self.shared.faults().late
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        if let Some(relay) = self.relay.take() {
            let _ = relay.join();
        }
    }
}
