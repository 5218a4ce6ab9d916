// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Destroy: the kernel destroys a socket, and nobody is left to let go of what is kept for it.
//!
//! A dead connection in the queue of a listener that is closed ends without any other event: it was never accepted, so
//! no owner closes it, and its state does not change any more. The tracepoint `tcp_destroy_sock` is called once for each
//! socket of TCP (`tcp_v4_destroy_sock`, `net/ipv4/tcp_ipv4.c`, of both families), always with bottom halves off, so it
//! cannot interrupt itself on a CPU.

use aya_ebpf::{EbpfContext as _, programs::BtfTracePointContext};

use crate::{clock, kernel::Socket, ledger, records};

/// Called for every TCP socket of the host: leaves at once for those for which nothing is kept.
#[inline(always)]
pub fn run(ctx: &BtfTracePointContext) {
    // SAFETY: the tracepoint has one argument, a socket of which the verifier knows the type.
    let sk = unsafe { ctx.as_ptr().cast::<*const u8>().read_volatile() };
    let cookie = Socket(sk).cookie();
    // Without a cookie it has never had a record.
    if cookie != 0
        && let Some(kept) = records::take_kept(cookie)
    {
        ledger::give_back(ctx, &kept, clock::now_s());
    }
}
