// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Counters of one service, kept per CPU and summed by whoever reads them.

use bytemuck::{Pod, Zeroable};

/// Everything is "since the limiter was loaded", and wraps at 2⁶⁴.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Counters {
    /// Connections counted.
    pub accepted: u64,
    /// SYNs refused, by [`crate::Reason`].
    pub refused: [u64; 6],
    /// SYNs that would have been refused, by [`crate::Reason`], where verdicts are only counted.
    pub would_refuse: [u64; 6],
    /// Refused connections that completed their handshake with the greeter and were told why.
    pub replied: u64,
    /// Completing ACKs held back because no place was free.
    pub held: u64,
    /// Handshakes that waited for a place and got in.
    pub let_in: u64,
    /// Handshakes that waited, or had no room to, and were told why.
    pub told: u64,
    /// Clients that gave up while their handshake waited.
    pub gone: u64,
    /// Times that a client did not answer in its turn, and lost it.
    pub lost_turn: u64,
    /// Handshakes held back that could not be recorded: they wait for the kernel to repeat its SYN-ACK.
    pub unrecorded: u64,
    /// Completing ACKs dropped because other CPUs were faster too often, or the entry was being
    /// deleted; the peer sends them again.
    pub contended: u64,
    /// Connections counted without a reservation: SYN cookies in force, or TCP Fast Open.
    pub unreserved: u64,
    /// Connections let through uncounted because something was missing (a full ledger, no memory
    /// for the record on the socket): the limiter failed open.
    pub uncounted: u64,
    /// Connections counted in an entry that their source shares with others, because there was no room for one of its
    /// own.
    pub shared: u64,
    /// Bans that the ladder made.
    pub banned: u64,
    /// Refused handshakes that were not held against their source, because there was no room to remember it.
    pub unjudged: u64,
    /// Packets that the shield dropped, SYNs and others.
    pub dropped: u64,
    /// Connections older than the limiter that the census found and counted.
    pub adopted: u64,
    /// Connections by which a count was wrong, found when one was let go or by the reconciliation.
    /// Drift is a bug.
    pub drift: u64,
}

impl Counters {
    /// The sum over CPUs.
    #[must_use]
    pub fn sum<'a>(cpus: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = [0_u64; size_of::<Self>() / 8];
        for cpu in cpus {
            let words: &[u64] = bytemuck::cast_slice(core::slice::from_ref(cpu));
            for (total, word) in sum.iter_mut().zip(words) {
                *total = total.wrapping_add(*word);
            }
        }
        bytemuck::cast(sum)
    }
}

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for Counters {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_summed_over_cpus() {
        let cpu = |base: u64| -> Counters {
            bytemuck::cast(core::array::from_fn::<u64, 29, _>(|i| base + i as u64))
        };
        assert_eq!(
            Counters::sum([&cpu(10), &cpu(100)]),
            bytemuck::cast(core::array::from_fn::<u64, 29, _>(|i| 110 + 2 * i as u64))
        );
    }
}
